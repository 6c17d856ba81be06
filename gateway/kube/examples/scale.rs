//! What a large cluster costs: reading it, translating it, and a change of one object.
//!
//! `cargo run --release -p postern-kube --features test-util --example scale [INGRESSES]`
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::Duration;

use postern_kube::Cluster;
use postern_kube::Kind;
use postern_kube::Settings;
use postern_kube::Translator;
use postern_kube::test_util::Size;
use postern_kube::test_util::ingress;
use postern_kube::test_util::objects;
use postern_kube::test_util::slice;
use tokio::time::Instant;

const ROUNDS: u64 = 20;

fn main() {
    let count = std::env::args().nth(1);
    let count = count.and_then(|count| count.parse().ok());
    let mut size = Size::default();
    if let Some(count) = count {
        size.ingresses = count;
        size.services = count;
        size.slices = 2 * count;
    }
    let objects: Vec<_> = objects(1, size).collect();
    let mut cluster = Cluster::default();
    let settings = Settings::default();
    let start = Instant::now();
    for (kind, object) in &objects {
        cluster.apply(*kind, object);
    }
    say("objects to records", start.elapsed());
    let mut translator = Translator::default();
    let start = Instant::now();
    let mut translation = translator.translate(&cluster, &settings);
    say("all of it translated", start.elapsed());
    let mut times = Vec::new();
    let mut compared = Vec::new();
    for round in 0..ROUNDS {
        let index = usize::try_from(round).unwrap_or(0) * 37 % size.ingresses;
        match round % 2 {
            0 => cluster.apply(Kind::Ingress, &ingress(round + 2, index, size)),
            _ => cluster.apply(Kind::EndpointSlice, &slice(round + 2, index, size)),
        };
        let start = Instant::now();
        let next = translator.translate(&cluster, &settings);
        times.push(start.elapsed());
        let start = Instant::now();
        let is_equal = next.config == translation.config;
        compared.push(start.elapsed());
        std::hint::black_box(is_equal);
        translation = next;
    }
    say("one change translated, median", median(times));
    say("compared with the last, median", median(compared));
    let start = Instant::now();
    let copy = translation.config.clone();
    say("the configuration copied", start.elapsed());
    let start = Instant::now();
    drop(copy);
    say("a copy dropped", start.elapsed());
    let start = Instant::now();
    let table = postern_core::route::RouteTable::new(&translation.config.routes);
    say("the route table built", start.elapsed());
    drop(table);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn say(what: &str, time: Duration) {
    println!("{what:<34} {:>8.1} ms", time.as_secs_f64() * 1e3);
}
