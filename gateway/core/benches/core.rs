//! What the pure half of a request costs: making the canonical request, finding its rule; and what
//! a change of configuration costs: parsing and comparing it, building the route table.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::Version;
use postern_core::config::parse::Loaded;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_core::request::RequestHead;
use postern_core::request::RequestRules;
use postern_core::request::Scheme;
use postern_core::route::RouteTable;

/// `hosts` routes of three rules each.
fn config(hosts: usize) -> ConfigText {
    let mut text = String::from("[upstreams.app]\nendpoints = ['127.0.0.1:9001']\n");
    for host in 0..hosts {
        let _ = write!(
            text,
            "[[routes]]
hosts = ['app-{host}.example.test']
rules = [
  {{ path.exact = '/health', upstream = 'app' }},
  {{ path.prefix = '/api/v1', upstream = 'app', methods = ['GET', 'POST'] }},
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

/// One host with as many paths, which is how a monolith is cut up.
fn one_host(paths: usize) -> ConfigText {
    let mut text = String::from(
        "[upstreams.app]\nendpoints = ['127.0.0.1:9001']\n[[routes]]\nhosts = ['app-7.example.test']\nrules = [\n",
    );
    for path in 0..paths {
        let _ = writeln!(
            text,
            "{{ path.prefix = '/api/v{path}', upstream = 'app' }},"
        );
    }
    text.push_str("{ upstream = 'app' }]\n");
    ConfigText {
        path: "bench.toml".into(),
        text,
    }
}

fn load(text: ConfigText) -> Loaded {
    parse(&[text]).expect("the configuration is valid")
}

/// What a browser sends.
fn browser_fields() -> HeaderMap {
    let fields = [
        ("host", "app-7.example.test"),
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
        ("connection", "keep-alive"),
        (
            "cookie",
            "session=0123456789abcdef0123456789abcdef; theme=dark",
        ),
        ("upgrade-insecure-requests", "1"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "none"),
        ("sec-fetch-user", "?1"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

fn canonical(target: &'static str, headers: HeaderMap) -> RequestHead {
    RequestHead::parse(
        Method::GET,
        &Uri::from_static(target),
        Version::HTTP_11,
        headers,
        Scheme::Https,
        RequestRules::default(),
    )
    .expect("the request is valid")
}

fn lookup(criterion: &mut Criterion) {
    let request = canonical("/api/v1/items/42?page=2", browser_fields());
    let mut group = criterion.benchmark_group("route lookup");
    for rules in [1, 1_000, 30_000] {
        let loaded = load(config(rules / 3 + 8));
        let table = RouteTable::new(&loaded.config.routes);
        group.bench_function(format!("{rules} rules, 3 a host"), |b| {
            b.iter(|| table.find(black_box(&request)));
        });
        let loaded = load(one_host(rules));
        let table = RouteTable::new(&loaded.config.routes);
        group.bench_function(format!("{rules} rules, one host"), |b| {
            b.iter(|| table.find(black_box(&request)));
        });
    }
}

fn normalisation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical request");
    let headers = browser_fields();
    for (name, target) in [
        ("plain path", "/api/v1/items/42?page=2"),
        (
            "path with escapes and dots",
            "/api/%76%31/./items/../items/42?page=2",
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || headers.clone(),
                |headers| canonical(target, headers),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(10);
    for hosts in [100, 10_000] {
        let text = config(hosts);
        group.bench_function(format!("parse {hosts} routes"), |b| {
            b.iter(|| load(black_box(text.clone())));
        });
        let (one, two) = (load(text.clone()), load(text));
        group.bench_function(format!("compare {hosts} equal routes"), |b| {
            b.iter(|| black_box(&one.config) == black_box(&two.config));
        });
        group.bench_function(format!("build the table of {hosts} routes"), |b| {
            b.iter(|| RouteTable::new(black_box(&one.config.routes)));
        });
    }
}

criterion_group!(benches, lookup, normalisation, change);
criterion_main!(benches);
