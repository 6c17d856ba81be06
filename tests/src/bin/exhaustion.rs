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

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("exhaustion: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(exhaustion::run()) {
        Ok(report) => {
            print!("{report}");
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("exhaustion: {error}");
            ExitCode::FAILURE
        }
    }
}
