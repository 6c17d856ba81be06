//! The built gateway under load while its configuration changes: what `reload-under-load` runs.

pub mod files;
pub mod report;
pub mod streams;
pub mod wrk;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;

use self::files::Change;
use self::files::Live;
use self::files::Refused;
use self::report::Reload;
use self::report::Report;
use self::streams::Stream;
use crate::client::Client;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use crate::upstream::Upstream;

/// Longest time from a change of the file to the first answer by the new route.
pub const MAX_DELAY: Duration = Duration::from_secs(1);
/// When a change is given up.
const GIVE_UP: Duration = Duration::from_secs(5);
/// How often the route is asked while a change is awaited.
const PROBE: Duration = Duration::from_millis(2);
/// How long a problem may take to be printed.
const PRINTED: Duration = Duration::from_secs(5);
/// How long the program may take to start; it is a debug build on a busy machine.
const START: Duration = Duration::from_secs(60);
/// Load goes on for this long after the last reload, so that its end is seen too.
const TAIL: Duration = Duration::from_secs(1);

/// The servers and addresses of one run.
struct Set {
    gateway: SocketAddr,
    admin: SocketAddr,
    blue: Upstream,
    green: Upstream,
    websocket: Upstream,
    grpc: Upstream,
}

impl Set {
    /// The configuration whose changing rule carries this mark.
    fn config(&self, mark: u32) -> String {
        let upstream = if mark.is_multiple_of(2) {
            "blue"
        } else {
            "green"
        };
        format!(
            r#"[admin]
bind = "{admin}"

[access-log]
format = "off"

[listeners.http]
bind = "{gateway}"

[upstreams]
blue = {{ endpoints = ["{blue}"] }}
green = {{ endpoints = ["{green}"] }}
websocket = {{ endpoints = ["{websocket}"] }}
grpc = {{ endpoints = ["{grpc}"], protocol = "http2" }}

[[routes]]
rules = [
  {{ upstream = "{upstream}", response-headers = {{ set = {{ x-mark = "{mark}" }} }} }},
  {{ path = {{ prefix = "/ws" }}, upstream = "websocket" }},
  {{ path = {{ prefix = "/echo.Echo" }}, upstream = "grpc" }},
]
"#,
            admin = self.admin,
            gateway = self.gateway,
            blue = self.blue.addr,
            green = self.green.addr,
            websocket = self.websocket.addr,
            grpc = self.grpc.addr,
        )
    }
}

/// One run: `reloads` changes spread over `length`, then the changes that must be refused.
pub async fn run(length: Duration, reloads: u32) -> Result<Report, String> {
    let set = Set {
        gateway: process::free_addr(),
        admin: process::free_addr(),
        blue: Upstream::echo("blue").await,
        green: Upstream::echo("green").await,
        websocket: Upstream::websocket().await,
        grpc: Upstream::grpc_echo().await,
    };
    let scratch = Scratch::new();
    let mut live = Live::new(scratch.path());
    live.replace(&set.config(0));
    let path = live.path().display().to_string();
    let arguments = ["run", "--config", &path, "--accept-for", "0s"];
    let mut program = Program::start(&process::postern()?, &arguments, false)
        .map_err(|error| format!("postern cannot be started: {error}"))?;
    program.ready(set.admin, START).await?;

    // Long enough to cover the refused changes, each of which waits for what is printed.
    let load = wrk::start(set.gateway, length + TAIL)?;
    let websocket = Stream::websocket(set.gateway).await?;
    let grpc = Stream::grpc(set.gateway).await?;
    let mut probe = Probe::connect(set.gateway).await;

    let mut report = Report::default();
    let mut pace = interval(length / (reloads + Refused::ALL.len() as u32 + 1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace.tick().await;
    for mark in 1..=reloads {
        pace.tick().await;
        let change = Change::nth(mark, reloads);
        live.apply(change, &set.config(mark));
        let delay = probe.until(mark).await;
        report.reloads.push(Reload { change, delay });
    }
    for refused in Refused::ALL {
        pace.tick().await;
        let printed_before = program.output().len();
        live.refuse(refused, &set.config(reloads));
        let printed = program
            .prints(PRINTED, |text| refused.is_reported(&text[printed_before..]))
            .await;
        let is_unchanged = probe.mark().await == Some(reloads);
        let text = program.output()[printed_before..].to_owned();
        report.refused.push((refused, printed, is_unchanged, text));
        // The next one starts from a file that is good, and is seen to be taken up.
        live.recover(&set.config(reloads));
        pace.tick().await;
    }
    live.replace(&set.config(reloads + 1));
    let delay = probe.until(reloads + 1).await;
    report.reloads.push(Reload {
        change: Change::Rename,
        delay,
    });

    report.failed_probes = probe.failed;
    report.streams = vec![websocket.end().await, grpc.end().await];
    report.load = load.end().await?;
    report.resident_mib = program.resident_mib();
    report.ended_well = program
        .terminate()
        .await
        .is_ok_and(|status| status.success());
    Ok(report)
}

/// A client that asks which configuration answers.
struct Probe {
    addr: SocketAddr,
    client: Client,
    /// Answers that were none, or not 200.
    failed: u32,
}

impl Probe {
    async fn connect(addr: SocketAddr) -> Self {
        Self {
            addr,
            client: Client::http1(addr).await,
            failed: 0,
        }
    }

    async fn mark(&mut self) -> Option<u32> {
        let request = self.client.request("GET", "load.test", "/probe");
        match self.client.send(request).await {
            Ok(reply) if reply.status == 200 => reply.header("x-mark").parse().ok(),
            _ => {
                self.failed += 1;
                self.client = Client::http1(self.addr).await;
                None
            }
        }
    }

    /// How long it takes from now until the route answers with this mark.
    async fn until(&mut self, mark: u32) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < GIVE_UP {
            if self.mark().await == Some(mark) {
                return Some(start.elapsed());
            }
            sleep(PROBE).await;
        }
        None
    }
}
