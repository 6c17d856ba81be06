//! The plugins that ship, from their components to traffic: runs their cases with the built program,
//! then all of them in the built gateway, each with the configuration of its README. Prints what
//! each costs, as the table in plugins/README.md.
//!
//! `make guests` builds the components. Exits 1 if anything is not as it should be.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;

use postern_tests::bundled;
use postern_tests::scratch::Scratch;

const USAGE: &str = "usage: test-bundled [--calls N]    calls of each case, 200 unless given";
const DEFAULT_CALLS: u32 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let calls = match arguments.as_slice() {
        [] => Some(DEFAULT_CALLS),
        [flag, calls] if flag == "--calls" => calls.parse().ok(),
        _ => None,
    };
    let Some(calls) = calls else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(calls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-bundled: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(calls: u32) -> Result<(), String> {
    let scratch = Scratch::new();
    if cfg!(debug_assertions) {
        println!("the host is a debug build: its part of a call takes many times what it should\n");
    }
    let plugins = bundled::find(&scratch, calls)?;
    println!("{}", bundled::HEADING);
    for plugin in &plugins {
        println!("{plugin}");
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(bundled::traffic::check(&plugins, &scratch))?;
    println!("\nall of them did in the gateway what their READMEs say");
    Ok(())
}
