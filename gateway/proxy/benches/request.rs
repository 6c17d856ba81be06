//! One full request over streams in memory: everything the gateway does for it, and nothing of the
//! kernel. And a change of configuration, from parsed file to snapshot.

use std::fmt::Write as _;
use std::sync::Arc;

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use postern_core::config::parse::Loaded;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_proxy::Compiler;
use postern_proxy::Materials;
use postern_proxy::Snapshot;
use postern_proxy::test_util::MemoryWorker;
use postern_wasm::PluginEngine;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::runtime::LocalOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUEST: &[u8] = b"GET /api/v1/items/42?page=2 HTTP/1.1\r\n\
host: app-7.example.test\r\n\
user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
accept-language: en-US,en;q=0.5\r\n\
accept-encoding: gzip, deflate, br, zstd\r\n\
cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
content-type: text/plain\r\n\
content-length: 13\r\n\
\r\n\
hello, world\n";

fn config(routes: usize, access_log: &str) -> ConfigText {
    let mut text = format!(
        "access-log = {{ {access_log} }}
listeners.http = {{ bind = '127.0.0.1:0', limits = {{ requests = 1000000000 }} }}
upstreams.app.endpoints = ['127.0.0.1:9001']
"
    );
    for route in 0..routes {
        let _ = write!(
            text,
            "[[routes]]
hosts = ['app-{route}.example.test']
rules = [
  {{ path.exact = '/health', upstream = 'app' }},
  {{ path.prefix = '/api/v1', upstream = 'app' }},
  {{ path.prefix = '/', upstream = 'app' }},
]
"
        );
    }
    ConfigText {
        path: "bench.toml".into(),
        text,
    }
}

fn load(text: ConfigText) -> Loaded {
    parse(&[text]).expect("the configuration is valid")
}

async fn compile(
    compiler: &Compiler,
    loaded: &Loaded,
    previous: Option<&Arc<Snapshot>>,
) -> Snapshot {
    let materials = Materials::read(&loaded.config);
    let compiled = compiler.compile(loaded, &materials, previous).await;
    compiled.unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn compiler() -> Compiler {
    let engine = PluginEngine::new(None).expect("the plugin engine starts");
    Compiler::new(engine, 1, false)
}

/// An endpoint that answers every request alike. Requests have no body and come one by one.
async fn endpoint(mut stream: DuplexStream) {
    let mut buffer = vec![0; 8 << 10];
    let mut filled = 0;
    while let Ok(read) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        if read == 0 {
            return;
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(RESPONSE).await.is_err() {
                return;
            }
        }
    }
}

async fn exchange(client: &mut DuplexStream, buffer: &mut [u8]) {
    client.write_all(REQUEST).await.expect("the gateway reads");
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"hello, world\n") {
        let read = client.read(&mut buffer[filled..]).await;
        filled += read.expect("the gateway answers");
    }
}

fn request(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("the runtime starts");
    let mut group = criterion.benchmark_group("request in memory");
    for (name, access_log) in [
        ("with access log", "format = 'text', path = '/dev/null'"),
        ("without access log", "format = 'off'"),
    ] {
        let (worker, mut client) = runtime.block_on(async {
            let loaded = load(config(1_000, access_log));
            let snapshot = compile(&compiler(), &loaded, None).await;
            let worker = MemoryWorker::start(snapshot, |_, stream| {
                tokio::task::spawn_local(endpoint(stream));
            });
            let worker = worker.expect("the worker starts");
            let client = worker.connect(false).expect("the listener is there");
            (worker, client)
        });
        let mut buffer = vec![0; 8 << 10];
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(exchange(&mut client, &mut buffer)));
        });
        drop(worker);
    }
}

fn change(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    let compiler = compiler();
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    for routes in [100, 10_000] {
        let loaded = load(config(routes, "format = 'off'"));
        let first = Arc::new(runtime.block_on(compile(&compiler, &loaded, None)));
        group.bench_function(format!("compile {routes} routes on top of the same"), |b| {
            b.iter(|| runtime.block_on(compile(&compiler, &loaded, Some(&first))));
        });
    }
}

criterion_group!(benches, request, change);
criterion_main!(benches);
