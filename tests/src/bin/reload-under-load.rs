//! Reloads the built gateway while it is under load, and counts what went wrong.
//!
//! `wrk` loads a route whose rule changes all the time; a WebSocket and a gRPC stream stay open on
//! routes that do not change. A third of the changes replaces the file by renaming, a third writes
//! into it, a third swaps a `..data` link as Kubernetes does for a ConfigMap. Then come the changes
//! that must be refused: a broken file, a truncated one, a deleted one, a link to a broken one.
//!
//! Prints a table; exits 1 if a request failed, a change took a second, a stream ended, or a
//! problem was not printed with its place.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;
use std::time::Duration;

use postern_tests::soak;

const USAGE: &str = "usage: reload-under-load [--seconds N] [--reloads N]";

fn main() -> ExitCode {
    let Some((seconds, reloads)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("reload-under-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(soak::run(Duration::from_secs(seconds), reloads)) {
        Ok(report) => {
            println!("{report}");
            if report.failures().is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("reload-under-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<(u64, u32)> {
    let (mut seconds, mut reloads) = (60, 100);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => seconds = value.parse().ok()?,
            "--reloads" => reloads = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((seconds, reloads))
}
