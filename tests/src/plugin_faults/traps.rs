//! One request of a hundred makes the plugin trap, as fast as the gateway answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use tokio::time::timeout;

use super::Plan;
use super::WORKERS;
use super::faulty;
use crate::client::Client;
use crate::client::Reply;
use crate::scratch::Scratch;
use crate::served::Served;
use crate::upstream::Upstream;

/// Clients that ask without a pause, each over one connection, so that calls are under way in the
/// worker whose guest traps.
const CLIENTS: u64 = 8;
/// One request of so many traps.
const ONE_OF: u64 = 100;
/// Methods on which the guest traps, each in its own way.
const METHODS: [&str; 3] = ["POST", "PATCH", "DELETE"];
/// Requests before memory is looked at for the first time: what a first trap takes is no growth.
const WARM_UP: u64 = 20 * ONE_OF;
/// What resident memory may grow by meanwhile.
const MAX_GROWTH_MIB: u64 = 16;
/// When a request is taken for lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wrong answers of which the first are told.
const SHOWN: usize = 5;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Traps {
    wanted: u64,
    requests: u64,
    /// Requests whose trap was answered as the policy says.
    answered: u64,
    /// Requests that trapped and were answered otherwise.
    wrong: u64,
    /// Requests without a fault that were not answered whole.
    affected: u64,
    /// Traps that the gateway counted.
    counted: u64,
    /// Calls that were not made, because the breaker was open.
    refused: u64,
    resident_mib_before: u64,
    resident_mib_after: u64,
    took: Duration,
    first_failures: Vec<String>,
}

impl Traps {
    pub(super) fn is_good(&self) -> bool {
        self.answered == self.wanted
            && self.wrong == 0
            && self.affected == 0
            && self.requests >= self.wanted * ONE_OF
            && self.counted == self.wanted
            && self.refused == 0
            && self.resident_mib_before > 0
            && self.resident_mib_after <= self.resident_mib_before + MAX_GROWTH_MIB
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let rate = self.requests as f64 / self.took.as_secs_f64().max(0.001);
        let mut rows = vec![
            ("requests", format!("{}, {rate:.0} a second", self.requests)),
            (
                "  that trap",
                format!("{} of {}", self.answered, self.wanted),
            ),
            ("  answered otherwise", self.wrong.to_string()),
            ("  counted by the gateway", self.counted.to_string()),
            ("  left alone by the breaker", self.refused.to_string()),
            ("  others affected", self.affected.to_string()),
            (
                "  resident memory",
                format!(
                    "{} MiB, then {} MiB (at most {MAX_GROWTH_MIB} more)",
                    self.resident_mib_before, self.resident_mib_after
                ),
            ),
        ];
        let failures = self.first_failures.iter();
        rows.extend(failures.map(|failure| ("  failure", failure.clone())));
        rows
    }
}

fn config(app: &Upstream) -> String {
    format!(
        "upstreams.app.endpoints = [\"{}\"]\nplugins.faulty.source = \"faulty.wasm\"\n\
         [[routes]]\nrules = [{{ upstream = \"app\", policies = [\"faulty\"] }}]\n",
        app.addr
    )
}

pub(super) async fn run(plan: &Plan) -> Traps {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    dir.write("faulty.wasm", faulty());
    let gateway = Served::start_program(&plan.gateway, WORKERS, dir.path(), &config(&app)).await;
    let mut seen = Traps {
        wanted: plan.traps,
        ..Traps::default()
    };

    let warm = load(gateway.http, WARM_UP, Instant::now() + plan.traps_within).await;
    let before = Counted::of(&gateway).await;
    seen.resident_mib_before = gateway.program.resident_mib().unwrap_or_default();

    let started = Instant::now();
    let end = started + plan.traps_within;
    let loaded = load(gateway.http, plan.traps * ONE_OF, end).await;
    seen.took = started.elapsed();
    seen.resident_mib_after = gateway.program.resident_mib().unwrap_or_default();
    let after = Counted::of(&gateway).await;
    gateway.end().await;

    seen.counted = after.traps - before.traps;
    seen.refused = after.refused;
    seen.requests = loaded.answered + loaded.affected + loaded.trapped + loaded.wrong;
    seen.answered = loaded.trapped;
    seen.wrong = warm.wrong + loaded.wrong;
    seen.affected = warm.affected + loaded.affected;
    seen.first_failures = warm.failures;
    seen.first_failures.extend(loaded.failures);
    seen.first_failures.truncate(SHOWN);
    seen
}

/// What the gateway says of the plugin.
struct Counted {
    traps: u64,
    refused: u64,
}

impl Counted {
    async fn of(gateway: &Served) -> Self {
        let fault = |reason| {
            format!("postern_plugin_faults_total{{plugin=\"faulty\",reason=\"{reason}\"}}")
        };
        let page = gateway.metrics().await;
        let value = |name: &str| Served::find(&page, name).unwrap_or_default();
        Self {
            traps: value(&fault("plugin-trap")),
            refused: value(&fault("plugin-breaker")),
        }
    }
}

/// What came of some requests.
#[derive(Debug, Default)]
struct Outcome {
    answered: u64,
    affected: u64,
    trapped: u64,
    wrong: u64,
    failures: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.affected += other.affected;
        self.trapped += other.trapped;
        self.wrong += other.wrong;
        self.failures.extend(other.failures);
        self.failures.truncate(SHOWN);
    }

    fn failed(&mut self, is_trap: bool, what: String) {
        *if is_trap {
            &mut self.wrong
        } else {
            &mut self.affected
        } += 1;
        if self.failures.len() < SHOWN {
            self.failures.push(what);
        }
    }
}

/// So many requests, every hundredth of which traps; fewer if that takes too long.
async fn load(addr: SocketAddr, requests: u64, end: Instant) -> Outcome {
    let next = Arc::new(AtomicU64::new(1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(addr, Arc::clone(&next), requests, end)))
        .collect();
    let mut outcome = Outcome::default();
    for client in clients {
        match client.await {
            Ok(of_client) => outcome.add(of_client),
            Err(error) => outcome.failed(false, format!("a client ended: {error}")),
        }
    }
    outcome
}

async fn client(addr: SocketAddr, next: Arc<AtomicU64>, requests: u64, end: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut client = Client::http1(addr).await;
    while Instant::now() < end {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > requests {
            break;
        }
        let trap = number.is_multiple_of(ONE_OF).then(|| {
            let kind = (number / ONE_OF) as usize % METHODS.len();
            METHODS[kind]
        });
        let mut request = client.request(trap.unwrap_or("GET"), "faults.test", "/");
        let mark = HeaderValue::from(number);
        request.headers_mut().insert("x-number", mark);
        let answer = timeout(PATIENCE, client.send(request)).await;
        let is_last = match &answer {
            // A connection carries so many requests and no more.
            Ok(Ok(reply)) => reply.header("connection") == "close",
            _ => true,
        };
        if is_last {
            client = Client::http1(addr).await;
        }
        let problem = match (&answer, trap) {
            (Ok(Ok(reply)), Some(_)) if reply.status == 503 => {
                outcome.trapped += 1;
                continue;
            }
            (Ok(Ok(reply)), None) if is_whole(reply, number) => {
                outcome.answered += 1;
                continue;
            }
            (Ok(Ok(reply)), _) => format!("{}: {}", reply.status, reply.text()),
            (Ok(Err(error)), _) => error.to_string(),
            (Err(_), _) => format!("nothing in {PATIENCE:?}"),
        };
        let method = trap.unwrap_or("GET");
        outcome.failed(
            trap.is_some(),
            format!("{method} number {number}: {problem}"),
        );
    }
    outcome
}

/// Answered by the upstream, for this request, and past the plugin once.
fn is_whole(reply: &Reply, number: u64) -> bool {
    reply.status == 200
        && reply.echoed("x-number") == [number.to_string()]
        && reply.echoed("x-plugin") == ["seen"]
}
