//! Plugins that never end, eight at once, and how long the requests of others take meanwhile.
//!
//! Each loop has a plugin of its own, and a good call follows each, so that no breaker opens: the
//! workers are as busy with loops as they can be made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::timeout;

use super::Plan;
use super::WORKERS;
use super::faulty;
use crate::client::Client;
use crate::scratch::Scratch;
use crate::served::Served;
use crate::upstream::Upstream;

/// Loops at once.
const LOOPS: usize = 8;
/// Loops one at a time.
const ALONE: usize = 20;
/// Processor time that a loop may take. Eight of these on two processors last four times as long
/// whatever a gateway does, so that then the wall time ends them.
const CPU: Duration = Duration::from_millis(50);
/// Wall time that a loop may take.
const TIME: Duration = Duration::from_millis(100);
/// How late the answer to a loop may be.
const LATE: Duration = Duration::from_millis(20);
/// Loops and quiet come by turns, so many times: what else the machine does falls on both.
const ROUNDS: u32 = 5;
/// Requests of others: one each so often.
const PACE: Duration = Duration::from_millis(5);
/// How many times as long the slowest hundredth of them may take.
const MAX_RATIO: f64 = 2.0;
/// When a request is taken for lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Loops {
    quiet: Times,
    during: Times,
    alone: Ends,
    at_once: Ends,
}

/// Connections between two requests.
type Idle = Arc<Mutex<Vec<Client>>>;

/// How loops ended.
#[derive(Debug, Default)]
struct Ends {
    loops: usize,
    /// Answered otherwise than with the policy's answer, or the good call after it was not good.
    wrong: usize,
    longest: Duration,
}

/// How long others took; ascending once added.
#[derive(Debug, Default)]
struct Times {
    took: Vec<Duration>,
    failed: usize,
}

impl Times {
    fn percentile(&self, percent: usize) -> Duration {
        let index = (self.took.len() * percent).div_ceil(100);
        let time = self.took.get(index.saturating_sub(1));
        time.copied().unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.took.sort_unstable();
        self.failed += other.failed;
    }

    fn text(&self) -> String {
        format!(
            "{} requests, {} failed, p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
            self.took.len() + self.failed,
            self.failed,
            self.percentile(50),
            self.percentile(99),
            self.percentile(100)
        )
    }
}

impl Ends {
    fn is_good(&self, deadline: Duration) -> bool {
        self.loops > 0 && self.wrong == 0 && self.longest <= deadline + LATE
    }

    fn text(&self, deadline: Duration, name: &str) -> String {
        let late = self.longest.as_secs_f64() - deadline.as_secs_f64();
        format!(
            "{}, {} answered otherwise, the last {:.1} ms after its {name} of {deadline:?} \
             (at most {LATE:?})",
            self.loops,
            self.wrong,
            late * 1e3
        )
    }
}

impl Loops {
    fn ratio(&self) -> f64 {
        let quiet = self.quiet.percentile(99).as_secs_f64();
        self.during.percentile(99).as_secs_f64() / quiet.max(1e-6)
    }

    pub(super) fn is_good(&self) -> bool {
        let times = [&self.quiet, &self.during];
        times.iter().all(|t| t.failed == 0 && !t.took.is_empty())
            && self.ratio() <= MAX_RATIO
            && self.alone.is_good(CPU)
            && self.at_once.is_good(TIME)
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "loops one at a time",
                self.alone.text(CPU, "processor time"),
            ),
            ("loops, eight at once", self.at_once.text(TIME, "time")),
            ("  other routes, in between", self.quiet.text()),
            ("  other routes meanwhile", self.during.text()),
            (
                "  p99, ratio",
                format!("{:.2} (at most {MAX_RATIO})", self.ratio()),
            ),
        ]
    }
}

fn config(app: &Upstream) -> String {
    let mut text = format!("upstreams.app.endpoints = [\"{}\"]\n", app.addr);
    let (cpu, time) = (CPU.as_millis(), TIME.as_millis());
    for number in 0..LOOPS {
        text.push_str(&format!(
            "plugins.loop{number} = {{ source = \"faulty.wasm\", \
             limits = {{ cpu = \"{cpu}ms\", time = \"{time}ms\" }} }}\n"
        ));
    }
    text.push_str("[[routes]]\nrules = [\n{ upstream = \"app\" },\n");
    for number in 0..LOOPS {
        text.push_str(&format!(
            "{{ path = {{ prefix = \"/{number}\" }}, upstream = \"app\", policies = [\"loop{number}\"] }},\n"
        ));
    }
    text.push_str("]\n");
    text
}

pub(super) async fn run(plan: &Plan) -> Loops {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    dir.write("faulty.wasm", faulty());
    let gateway = Served::start_program(&plan.gateway, WORKERS, dir.path(), &config(&app)).await;
    let addr = gateway.http;
    let mut seen = Loops::default();

    let mut client = Client::http1(addr).await;
    for _ in 0..ALONE {
        client = one_loop(client, 0, &mut seen.alone).await;
    }
    // Connections of everyone are there, and the processor is awake.
    let idle = Idle::default();
    ask_steadily(addr, &idle, Duration::from_millis(500)).await;
    let turn = plan.loops_for / ROUNDS;
    for _ in 0..ROUNDS {
        seen.quiet.add(ask_steadily(addr, &idle, turn).await);
        let end = Instant::now() + turn;
        let loops: JoinSet<_> = (0..LOOPS)
            .map(|number| loop_on(addr, number, end))
            .collect();
        seen.during.add(ask_steadily(addr, &idle, turn).await);
        for ends in loops.join_all().await {
            seen.at_once.loops += ends.loops;
            seen.at_once.wrong += ends.wrong;
            seen.at_once.longest = seen.at_once.longest.max(ends.longest);
        }
    }
    gateway.end().await;
    seen
}

/// Loops of one plugin, one after the other.
async fn loop_on(addr: SocketAddr, number: usize, end: Instant) -> Ends {
    let mut ends = Ends::default();
    let mut client = Client::http1(addr).await;
    while Instant::now() < end {
        client = one_loop(client, number, &mut ends).await;
    }
    ends
}

/// A call that loops, and one that does not.
async fn one_loop(mut client: Client, number: usize, ends: &mut Ends) -> Client {
    let path = format!("/{number}");
    let started = Instant::now();
    let looping = client.request("OPTIONS", "faults.test", &path);
    let answered = timeout(PATIENCE, client.send(looping)).await;
    ends.longest = ends.longest.max(started.elapsed());
    ends.loops += 1;
    let is_ended = matches!(answered, Ok(Ok(reply)) if reply.status == 503);
    let next = client.request("GET", "faults.test", &path);
    let answered = timeout(PATIENCE, client.send(next)).await;
    let is_served = matches!(answered, Ok(Ok(reply)) if reply.status == 200);
    if !is_ended || !is_served {
        ends.wrong += 1;
    }
    client
}

/// Asks for the route without plugin at a steady pace, whether the last answer is there or not.
async fn ask_steadily(addr: SocketAddr, idle: &Idle, length: Duration) -> Times {
    let mut asked = JoinSet::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + length;
    while pace.tick().await < end {
        asked.spawn(ask(addr, Arc::clone(idle)));
    }
    let mut times = Times::default();
    for took in asked.join_all().await {
        match took {
            Some(took) => times.took.push(took),
            None => times.failed += 1,
        }
    }
    times
}

/// One request over an idle connection, else over a new one.
async fn ask(addr: SocketAddr, idle: Idle) -> Option<Duration> {
    let client = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut client = match client {
        Some(client) => client,
        None => Client::http1(addr).await,
    };
    let request = client.request("GET", "faults.test", "/");
    let started = Instant::now();
    let reply = timeout(PATIENCE, client.send(request)).await.ok()?.ok()?;
    let took = started.elapsed();
    // A connection carries so many requests and no more.
    if reply.header("connection") != "close" {
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(client);
    }
    (reply.status == 200).then_some(took)
}
