//! The built gateway under mixed load while processes follow one another: what
//! `takeover-under-load` runs.
//!
//! Clients of seven kinds send at a steady pace. A [`ledger`] counts at the upstream how often each
//! request arrived, so that one that was lost, cut or sent twice is told from one that a client may
//! send again because nobody has seen it.

pub mod clients;
mod ledger;
pub mod report;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;

use self::clients::Clients;
use self::ledger::Ledger;
use self::report::Report;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use crate::soak::files::Change;
use crate::soak::files::Live;
use crate::upstream::Upstream;

/// How long a process may take to be ready; it is a debug build on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long the leaving process accepts what its successor does not get.
const ACCEPT_FOR: Duration = Duration::from_secs(1);
/// Longer than any stream of the load, so that nothing has to be cut.
const DRAIN: Duration = Duration::from_secs(25);

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub length: Duration,
    pub reloads: u32,
    pub takeovers: u32,
    /// Decides when each of them happens.
    pub seed: u64,
}

/// Numbers that a seed decides (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Moments in `length`, one at random in each of as many equal parts.
    fn moments(&mut self, length: Duration, count: u32) -> Vec<Duration> {
        let part = length / count.max(1);
        (0..count)
            .map(|index| part * index + part.mul_f64(self.roll()))
            .collect()
    }
}

/// The addresses of one run.
struct Set {
    gateway: SocketAddr,
    admin: SocketAddr,
    app: Upstream,
    websocket: Upstream,
    grpc: Upstream,
}

impl Set {
    fn config(&self, mark: u32) -> String {
        format!(
            r#"[runtime]
workers = 2

[admin]
bind = "{admin}"

[access-log]
format = "off"

[listeners.http]
bind = "{gateway}"

[upstreams]
app = {{ endpoints = ["{app}"] }}
websocket = {{ endpoints = ["{websocket}"] }}
grpc = {{ endpoints = ["{grpc}"], protocol = "http2" }}

[[routes]]
rules = [
  {{ upstream = "app", response-headers = {{ set = {{ x-mark = "{mark}" }} }} }},
  {{ path = {{ prefix = "/ws" }}, upstream = "websocket" }},
  {{ path = {{ prefix = "/echo.Echo" }}, upstream = "grpc" }},
]
"#,
            admin = self.admin,
            gateway = self.gateway,
            app = self.app.addr,
            websocket = self.websocket.addr,
            grpc = self.grpc.addr,
        )
    }

    async fn start(&self, config: &Path, takeover: bool) -> Result<Program, String> {
        let config = config.display().to_string();
        let [accept_for, drain] = [ACCEPT_FOR, DRAIN].map(|time| format!("{}ms", time.as_millis()));
        let mut arguments = vec!["run", "--config", &config];
        arguments.extend(["--accept-for", &accept_for, "--drain", &drain]);
        if takeover {
            arguments.push("--takeover");
        }
        let program = Program::start(&process::postern()?, &arguments, false)
            .map_err(|error| format!("postern cannot be started: {error}"))?;
        // Not by the admin listener, which both processes answer.
        if program.prints(START, |text| text.contains(" ready")).await {
            Ok(program)
        } else {
            Err(format!(
                "it is not ready in {START:?}:\n{}",
                program.output()
            ))
        }
    }
}

/// Runs the plan. `Err` is a run that could not take place.
pub async fn run(plan: Plan) -> Result<Report, String> {
    let ledger = Arc::new(Ledger::default());
    let set = Set {
        gateway: process::free_addr(),
        admin: process::free_addr(),
        app: ledger::upstream(Arc::clone(&ledger)).await,
        websocket: Upstream::websocket().await,
        grpc: Upstream::grpc_echo().await,
    };
    let scratch = Scratch::new();
    let mut live = Live::new(scratch.path());
    live.replace(&set.config(0));
    let config = live.path();
    let mut current = set.start(&config, false).await?;

    let clients = Clients::start(set.gateway, &ledger);
    let mut dice = Dice(plan.seed);
    let mut moments: Vec<(Duration, bool)> = Vec::new();
    let reloads = dice.moments(plan.length, plan.reloads);
    moments.extend(reloads.into_iter().map(|moment| (moment, false)));
    let takeovers = dice.moments(plan.length, plan.takeovers);
    moments.extend(takeovers.into_iter().map(|moment| (moment, true)));
    moments.sort();

    let start = Instant::now();
    let mut ending = JoinSet::new();
    let mut reloads = 0;
    let mut resident_mib = Vec::new();
    let mut left = start;
    for (moment, is_takeover) in moments {
        sleep_until(start + moment).await;
        if is_takeover {
            let successor = set.start(&config, true).await?;
            resident_mib.extend(current.resident_mib());
            let predecessor = std::mem::replace(&mut current, successor);
            // Two at once may leave, but not within one another's time to accept.
            sleep_until(left + ACCEPT_FOR * 2).await;
            left = Instant::now();
            ending.spawn(end(predecessor));
        } else {
            reloads += 1;
            live.apply(Change::nth(reloads, plan.reloads), &set.config(reloads));
        }
    }
    sleep_until(start + plan.length).await;
    sleep(ACCEPT_FOR * 2).await;
    let clients = clients.end().await;
    ending.spawn(end(current));
    let mut report = Report {
        plan,
        reloads,
        clients,
        twice: ledger.twice(),
        resident_mib,
        ..Report::default()
    };
    while let Some(ended) = ending.join_next().await {
        let (status, output) = ended.map_err(|error| error.to_string())?;
        report.ended += 1;
        if !status.is_ok_and(|status| status.success()) {
            report.ended_badly.push(output);
        }
    }
    Ok(report)
}

async fn end(mut program: Program) -> (std::io::Result<ExitStatus>, String) {
    let status = program.terminate().await;
    (status, program.output())
}
