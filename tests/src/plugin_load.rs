//! The built gateway under load while its plugins change, and while all else does: what
//! `plugins-under-load` runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::client::Client;
use crate::scratch::Scratch;
use crate::served::Served;
use crate::upstream::Upstream;

/// Clients that ask without a pause, each over one connection.
const CLIENTS: usize = 4;
/// Resident memory may differ by this much, in percent, from a first tenth of the reloads to the
/// last.
const MAX_GROWTH_PERCENT: u64 = 5;
/// Where a client goes on after a failure.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub replacements: u32,
    pub reloads: u32,
    pub plugins: u32,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub replacements: u32,
    pub requests: u64,
    pub failed: u64,
    /// Longest time from a new file to its first answer.
    pub slowest: Duration,
    pub compiled_by_replacing: u64,
    pub reloads: u32,
    pub plugins: u32,
    pub compiled_by_reloading: u64,
    pub resident_mib_before: u64,
    pub resident_mib_after: u64,
}

impl Report {
    pub fn is_good(&self) -> bool {
        let most = self.resident_mib_before * (100 + MAX_GROWTH_PERCENT) / 100;
        self.failed == 0
            && self.requests > 0
            && self.compiled_by_replacing == u64::from(self.replacements)
            && self.compiled_by_reloading == 0
            && self.resident_mib_after <= most.max(self.resident_mib_before + 1)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("plugin replaced", format!("{} times", self.replacements)),
            ("  requests meanwhile", self.requests.to_string()),
            ("  failed", self.failed.to_string()),
            ("  slowest to serve", format!("{:.0?}", self.slowest)),
            ("  compiled", self.compiled_by_replacing.to_string()),
            (
                "unrelated reloads",
                format!("{} with {} plugins", self.reloads, self.plugins),
            ),
            ("  compiled", self.compiled_by_reloading.to_string()),
            (
                "  resident memory",
                format!(
                    "{} MiB, then {} MiB",
                    self.resident_mib_before, self.resident_mib_after
                ),
            ),
        ];
        for (what, value) in rows {
            writeln!(f, "{what:<24}{value}")?;
        }
        let verdict = if self.is_good() { "good" } else { "NOT GOOD" };
        write!(f, "{verdict}")
    }
}

/// A component that says which one it is in `x-plugin`, in four digits.
fn plugin(number: u32) -> Vec<u8> {
    let imports = r#"(import "postern:plugin/request@0.1.0" "set"
        (func $set (param i32 i32 i32 i32 i32)))"#;
    component(&guest(
        imports,
        &format!(
            r#"(data (i32.const 0) "x-plugin{number:04}")
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))
              (i32.const 512))"#
        ),
    ))
}

fn config(app: &Upstream, plugins: u32, mark: u32) -> String {
    let mut text = format!("upstreams.app.endpoints = [\"{}\"]\n", app.addr);
    for number in 0..plugins {
        text.push_str(&format!("plugins.p{number}.source = \"p{number}.wasm\"\n"));
    }
    text.push_str("[[routes]]\nrules = [\n");
    for number in 0..plugins {
        text.push_str(&format!(
            "{{ path = {{ prefix = \"/p{number}\" }}, upstream = \"app\", policies = [\"p{number}\"] }},\n"
        ));
    }
    text.push_str(&format!(
        "{{ upstream = \"app\", response-headers = {{ set = {{ x-mark = \"m{mark}\" }} }} }},\n]\n"
    ));
    text
}

/// Both parts, one after the other.
pub async fn run(size: Size) -> Report {
    let app = Upstream::echo("app").await;
    let mut report = Report {
        replacements: size.replacements,
        reloads: size.reloads,
        plugins: size.plugins,
        ..Report::default()
    };
    replace(&app, size, &mut report).await;
    reload(&app, size, &mut report).await;
    report
}

const COMPILED: &str = "postern_plugin_builds_total{result=\"compiled\"}";

async fn replace(app: &Upstream, size: Size, report: &mut Report) {
    let dir = Scratch::new();
    dir.write("p0.wasm", plugin(0));
    let gateway = Served::start(dir.path(), &config(app, 1, 0)).await;
    let compiled = gateway.metric(COMPILED).await;
    let load = Load::start(gateway.http);
    for number in 1..=size.replacements {
        let next = dir.write("p0.wasm.next", plugin(number));
        let started = Instant::now();
        std::fs::rename(next, dir.path().join("p0.wasm")).unwrap();
        let want = [format!("{number:04}")];
        gateway
            .answers("/p0", "replaced", |reply| reply.echoed("x-plugin") == want)
            .await;
        report.slowest = report.slowest.max(started.elapsed());
    }
    (report.requests, report.failed) = load.end().await;
    report.compiled_by_replacing = gateway.metric(COMPILED).await - compiled;
    gateway.end().await;
}

async fn reload(app: &Upstream, size: Size, report: &mut Report) {
    let dir = Scratch::new();
    for number in 0..size.plugins {
        dir.write(&format!("p{number}.wasm"), plugin(number));
    }
    let gateway = Served::start(dir.path(), &config(app, size.plugins, 0)).await;
    for number in 0..size.plugins {
        let reply = gateway.get(&format!("/p{number}")).await;
        assert_eq!(reply.echoed("x-plugin"), [format!("{number:04}")]);
    }
    let compiled = gateway.metric(COMPILED).await;
    for mark in 1..=size.reloads {
        gateway.configure(&config(app, size.plugins, mark));
        let want = format!("m{mark}");
        gateway
            .answers("/", "reloaded", |reply| reply.header("x-mark") == want)
            .await;
        // Once everything has been touched: what a first reload takes is not growth.
        if mark == (size.reloads / 10).max(1) {
            report.resident_mib_before = gateway.program.resident_mib().unwrap_or_default();
        }
    }
    report.resident_mib_after = gateway.program.resident_mib().unwrap_or_default();
    report.compiled_by_reloading = gateway.metric(COMPILED).await - compiled;
    gateway.end().await;
}

/// Clients that ask for the plugin's route until they are told to end.
struct Load {
    has_ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    requests: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (requests, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let has_ended = Arc::clone(&has_ended);
            let (requests, failed) = (Arc::clone(&requests), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut client = Client::http1(addr).await;
                while !has_ended.load(Ordering::Relaxed) {
                    let request = client.request("GET", "load.test", "/p0");
                    requests.fetch_add(1, Ordering::Relaxed);
                    match client.send(request).await {
                        // Answered, and not past the plugin.
                        Ok(reply) if reply.status == 200 && reply.echoed("x-plugin").len() == 1 => {
                        }
                        _ => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            sleep(PAUSE).await;
                            client = Client::http1(addr).await;
                        }
                    }
                }
            })
        };
        Self {
            clients: (0..CLIENTS).map(client).collect(),
            has_ended,
            requests,
            failed,
        }
    }

    /// How many requests there were, and how many failed. A client that died is a failure.
    async fn end(self) -> (u64, u64) {
        self.has_ended.store(true, Ordering::Relaxed);
        for client in self.clients {
            if client.await.is_err() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let requests = self.requests.load(Ordering::Relaxed);
        (requests, self.failed.load(Ordering::Relaxed))
    }
}
