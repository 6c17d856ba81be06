//! The gateway's own certificates, from real certificate authorities and with real DNS servers.
//!
//! `tests/certificates/setup.sh` installs them. Prints what it sees; exits 1 if anything is not as
//! it should be. With arguments, runs only scenarios whose names hold one of them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use postern_tests::certificates::Outcome;
use postern_tests::certificates::dns;
use postern_tests::certificates::issue;
use postern_tests::certificates::plugin;
use postern_tests::certificates::prove;
use postern_tests::certificates::replicas;
use postern_tests::certificates::second;
use postern_tests::kubernetes::namespace;
use tokio::time::Instant;
use tokio::time::timeout;

/// A scenario, not yet running.
type Scenario = fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How long one scenario may take; it is a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
/// The same for several gateways, with an API server between them.
const LONG_PATIENCE: Duration = Duration::from_secs(420);
/// What the names of those begin with.
const LONG: &str = "three replicas";

/// In the order in which they run, one after the other.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("http-01", || Box::pin(issue::http_01())),
    ("tls-alpn-01", || Box::pin(issue::tls_alpn_01())),
    ("external account binding", || Box::pin(issue::bound())),
    ("another authority", || Box::pin(second::acme2certifier())),
    ("taken over", || Box::pin(issue::taken_over())),
    ("renewed under load", || Box::pin(issue::renewed())),
    ("dns: preflight", || Box::pin(dns::preflight())),
    ("dns: updates to BIND", || Box::pin(dns::update())),
    ("dns: Route 53", || Box::pin(dns::route53())),
    ("dns-01 by BIND", || Box::pin(prove::bind())),
    ("dns-01 by Route 53", || Box::pin(prove::route53())),
    ("dns-01 by a plugin", || Box::pin(plugin::solver())),
    ("dns-persist-01", || Box::pin(prove::persist())),
    ("a name that leads elsewhere", || {
        Box::pin(prove::elsewhere())
    }),
    ("three replicas", || Box::pin(replicas::issued())),
    ("three replicas, and others", || {
        Box::pin(replicas::others::foreign())
    }),
    (
        "three replicas, one killed",
        || Box::pin(replicas::killed()),
    ),
    ("three replicas, one killed anywhere", || {
        Box::pin(replicas::killed_anywhere())
    }),
];

fn main() -> ExitCode {
    // Before there are threads: pods have addresses of their own, and a gateway has port 80.
    let wanted = match namespace::enter() {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("test-certificates: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("test-certificates: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS {
        let is_wanted = wanted.is_empty() || wanted.iter().any(|text| name.contains(&**text));
        if !is_wanted {
            continue;
        }
        let start = Instant::now();
        let patience = match name.starts_with(LONG) {
            true => LONG_PATIENCE,
            false => PATIENCE,
        };
        let outcome = runtime.block_on(async { timeout(patience, scenario()).await });
        let outcome = outcome.unwrap_or_else(|_| Err(format!("not over within {patience:?}")));
        let took = start.elapsed().as_secs_f32();
        match outcome {
            Ok(seen) => println!("{name:<28}{took:>6.1} s  {seen}"),
            Err(error) => {
                println!("{name:<28}{took:>6.1} s  FAILED\n{error}");
                let first = error.lines().next().unwrap_or_default();
                failed.push(format!("{name}: {first}"));
            }
        }
    }
    if !failed.is_empty() {
        // Once more: what they saw above is long.
        eprintln!("test-certificates: {} failed", failed.len());
        eprintln!("{}", failed.join("\n"));
        return ExitCode::FAILURE;
    }
    println!("all of it is as it should be");
    ExitCode::SUCCESS
}
