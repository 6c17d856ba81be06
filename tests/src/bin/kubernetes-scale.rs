//! One gateway in a cluster of ten thousand applications, against a real API server: how long until
//! it is ready, what it holds, and how soon a change is served. Prints a table; exits 1 unless it
//! holds what was promised.
//!
//! `tests/kubernetes/setup.sh` builds the servers. `--gateway` names another program than the one
//! that was built beside this: the figures are those of a release build.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use postern_tests::kubernetes::namespace;
use postern_tests::kubernetes::scale;
use postern_tests::kubernetes::scale::Size;

const USAGE: &str = "usage: kubernetes-scale [--ingresses N] [--slices N] [--changes N] \
                     [--gateway PATH]";

fn main() -> ExitCode {
    // Before there are threads.
    let arguments = match namespace::enter() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("kubernetes-scale: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Some((size, gateway)) = plan(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kubernetes-scale: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(scale::run(size, gateway)) {
        Ok(report) => {
            print!("{report}");
            if report.holds() {
                ExitCode::SUCCESS
            } else {
                println!("NOT as promised");
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("kubernetes-scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: they make no sense.
fn plan(arguments: &[String]) -> Option<(Size, Option<PathBuf>)> {
    let mut gateway = None;
    let mut size = Size {
        ingresses: 10_000,
        slices: 2,
        namespaces: 100,
        changes: 200,
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        if name == "--gateway" {
            gateway = Some(PathBuf::from(value));
            continue;
        }
        let value: u32 = value.parse().ok().filter(|value| *value > 0)?;
        match name.as_str() {
            "--ingresses" => size.ingresses = value,
            "--slices" => size.slices = value.min(4),
            "--changes" => size.changes = value,
            _ => return None,
        }
    }
    Some((size, gateway))
}
