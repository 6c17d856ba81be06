//! Lets one gateway process follow another under mixed load, and counts what went wrong.
//!
//! Clients send over HTTP/1 and HTTP/2, upload, read streams, and talk over WebSockets and gRPC,
//! while the configuration changes and new processes take over from old ones at random moments.
//! Prints a table; exits 1 unless every request was answered once and whole, and every process
//! ended without cutting anything.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use postern_tests::takeover;
use postern_tests::takeover::Plan;

const USAGE: &str =
    "usage: takeover-under-load [--seconds N] [--reloads N] [--takeovers N] [--seed N]";

fn main() -> ExitCode {
    let Some(plan) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("takeover-under-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(takeover::run(plan)) {
        Ok(report) => {
            println!("{report}");
            if report.holds() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("takeover-under-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<Plan> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut plan = Plan {
        length: Duration::from_secs(90),
        reloads: 200,
        takeovers: 20,
        seed: now.map_or(0, |now| now.as_secs()),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => plan.length = Duration::from_secs(value.parse().ok()?),
            "--reloads" => plan.reloads = value.parse().ok()?,
            "--takeovers" => plan.takeovers = value.parse().ok()?,
            "--seed" => plan.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(plan)
}
