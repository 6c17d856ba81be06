//! What a call costs: `cargo bench -p postern-wasm`.
//!
//! With `HEADERS_COMPONENT=FILE` the bundled header plugin is measured too.

#![allow(clippy::print_stdout, reason = "a benchmark reports there")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_wasm::Component;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;
use postern_wasm::exchange::ResponseHead;
use postern_wasm::test_util;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

const EMPTY: &str = r#"
  (func (export "postern:plugin/request-phase@0.1.0#on-request") (param i32 i32) (result i32)
    (i32.const 512))
"#;

const RULES: &str = r#"{
  "request": [
    { "when": { "path-prefix": "/admin", "header": "x-api-key", "absent": true },
      "deny": { "status": 401 } },
    { "when": { "path-prefix": "/api" }, "rewrite": { "prefix": "/api", "with": "" },
      "set": { "x-postern": "1" }, "remove": ["x-internal"] }
  ],
  "response": [ { "remove": ["server"], "set": { "x-frame-options": "DENY" } } ]
}"#;

/// Instances whose memory is looked at.
const INSTANCES: usize = 200;

/// What a browser sends, about.
const REQUEST_FIELDS: [(&str, &str); 12] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes",
    ),
    ("referer", "https://app1.example.edu/api/v1/items?page=3"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("x-internal", "1"),
    ("x-request-id", "7f3c2a"),
    ("priority", "u=0, i"),
];

fn request() -> Exchange {
    let mut exchange = Exchange::default();
    for (name, value) in REQUEST_FIELDS {
        let headers = &mut exchange.request.headers;
        headers.insert(name, HeaderValue::from_static(value));
    }
    exchange.request.path = path("/api/v1/items?page=4");
    exchange
}

fn path(text: &str) -> RequestPath {
    RequestPath::from_text(text, EncodedSlash::Reject).expect("the path is valid")
}

fn plugin(runtime: &Runtime, engine: &Arc<PluginEngine>, code: &[u8], config: &str) -> Arc<Plugin> {
    let component = Component::load(engine, code).expect("the component loads");
    let name = PolicyName::parse("bench").expect("a name");
    let limits = PluginLimits {
        // Criterion has its own idea of how long a batch takes.
        time: Duration::from_secs(10),
        ..PluginLimits::default()
    };
    runtime
        .block_on(Plugin::configure(component, name, config.into(), limits))
        .expect("the configuration is accepted")
}

fn calls(c: &mut Criterion) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let engine = PluginEngine::new(None).expect("an engine");
    let empty = test_util::component(&test_util::guest("", EMPTY));
    let empty = plugin(&runtime, &engine, &empty, "{}");

    let worker = empty.worker();
    let mut exchange = request();
    c.bench_function("empty request phase", |b| {
        b.iter(|| {
            runtime
                .block_on(worker.on_request(black_box(&mut exchange)))
                .is_ok()
        });
    });
    c.bench_function("no plugin, runtime alone", |b| {
        b.iter(|| runtime.block_on(async { black_box(&mut exchange).id }));
    });
    c.bench_function("fresh instance, empty request phase", |b| {
        b.iter(|| {
            let worker = empty.worker();
            runtime
                .block_on(worker.on_request(black_box(&mut exchange)))
                .is_ok()
        });
    });

    let Some(file) = std::env::var_os("HEADERS_COMPONENT") else {
        return;
    };
    let code = std::fs::read(file).expect("the component is readable");
    let headers = plugin(&runtime, &engine, &code, RULES);
    let worker = headers.worker();
    let original = path("/api/v1/items?page=4");
    let internal = HeaderValue::from_static("1");
    let mut exchange = request();
    c.bench_function("header policy, request", |b| {
        b.iter(|| {
            // What the call takes away is put back; about 50 ns.
            exchange.request.path = original.clone();
            exchange
                .request
                .headers
                .insert("x-internal", internal.clone());
            runtime
                .block_on(worker.on_request(black_box(&mut exchange)))
                .is_ok()
        });
    });
    let mut response = HeaderMap::new();
    response.insert("content-type", HeaderValue::from_static("text/html"));
    exchange.response = Some(ResponseHead {
        status: StatusCode::OK,
        headers: response,
    });
    let server = HeaderValue::from_static("unit");
    c.bench_function("header policy, response", |b| {
        b.iter(|| {
            if let Some(response) = &mut exchange.response {
                response.headers.insert("server", server.clone());
            }
            runtime
                .block_on(worker.on_response(black_box(&mut exchange)))
                .is_ok()
        });
    });
    c.bench_function("header policy, request and response", |b| {
        b.iter(|| {
            exchange.request.path = original.clone();
            runtime.block_on(async {
                let request = worker.on_request(black_box(&mut exchange)).await.is_ok();
                request && worker.on_response(black_box(&mut exchange)).await.is_ok()
            })
        });
    });
    c.bench_function("fresh instance, header policy, request", |b| {
        b.iter(|| {
            let worker = headers.worker();
            runtime
                .block_on(worker.on_request(black_box(&mut exchange)))
                .is_ok()
        });
    });
}

/// What an instance takes, and how long a component takes that was compiled before.
fn lifetimes(c: &mut Criterion) {
    let code = match std::env::var_os("HEADERS_COMPONENT") {
        Some(file) => std::fs::read(file).expect("the component is readable"),
        None => test_util::component(&test_util::guest("", EMPTY)),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = std::env::temp_dir().join(format!("postern-bench-{}", std::process::id()));
    let engine = PluginEngine::new(Some(dir.clone())).expect("an engine");
    Component::load(&engine, &code).expect("the component compiles");
    c.bench_function("cached component loaded", |b| {
        b.iter(|| Component::load(&engine, black_box(&code)).is_ok());
    });

    let plugin = plugin(&runtime, &engine, &code, "{}");
    let before = resident_kib();
    let workers: Vec<_> = (0..INSTANCES)
        .map(|_| {
            let worker = plugin.worker();
            let called = runtime.block_on(worker.on_request(&mut request()));
            assert!(called.is_ok());
            worker
        })
        .collect();
    let after = resident_kib();
    let each = after.saturating_sub(before) / INSTANCES;
    println!("{} instances: {each} KiB each", workers.len());
    drop(workers);
    // Whatever is left there is found by the next run under another name.
    let _ = std::fs::remove_dir_all(dir);
}

/// Memory of this process, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = calls, lifetimes
}
criterion_main!(benches);
