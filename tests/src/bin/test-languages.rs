//! Policies in every language, from an empty folder to traffic: makes, builds and tests them with
//! the built program, then runs them all in the built gateway and asks it what their READMEs
//! promise. Prints a table of what each costs.
//!
//! `make setup-guests` installs the compilers. Exits 1 if anything is not as it should be.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;

use postern_tests::languages;
use postern_tests::languages::HEADING;
use postern_tests::languages::LANGUAGES;
use postern_tests::languages::Places;
use postern_tests::languages::traffic;
use postern_tests::scratch::Scratch;

const USAGE: &str = "usage: test-languages [LANGUAGE]...    rust, go, js, ts, python or c";

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted
        .iter()
        .any(|name| !LANGUAGES.contains(&name.as_str()))
    {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-languages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> Result<(), String> {
    let places = Places::find()?;
    let scratch = Scratch::new();
    let mut built = Vec::new();
    if cfg!(debug_assertions) {
        println!("the host is a debug build: its part of a call takes many times what it should");
    }
    println!("{HEADING}");
    for language in LANGUAGES {
        if wanted.is_empty() || wanted.iter().any(|name| name == language) {
            for policy in languages::build(&places, language, &scratch)? {
                println!("{policy}");
                built.push(policy);
            }
        }
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(traffic::check(&built, &scratch))?;
    println!("all of them did in the gateway what their READMEs say");
    Ok(())
}
