//! Takes file descriptors, memory, disk and readers from the built gateway, and looks at what its
//! clients notice. Wants root, and says so. Takes about a minute.
//!
//! Prints a table; exits 1 if something does not hold.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;

use postern_tests::exhaustion;
use postern_tests::exhaustion::Report;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("exhaustion: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    let ran = runtime.block_on(exhaustion::run(&mut report));
    print!("{report}");
    if let Err(error) = &ran {
        eprintln!("exhaustion: {error}");
    }
    if ran.is_ok() && report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
