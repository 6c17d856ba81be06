//! Replaces a plugin of the built gateway under load, then changes everything but its plugins, and
//! counts what went wrong.
//!
//! First: clients ask without a pause for a route whose plugin is replaced by another component, by
//! renaming, again and again; every request has to be answered by one of them. Then: twenty plugins
//! stay as they are while the configuration changes; nothing may be compiled, and memory stays.
//!
//! Prints a table; exits 1 if a request failed, something was compiled, or memory grew.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;

use postern_tests::plugin_load;

const USAGE: &str = "usage: plugins-under-load [--replacements N] [--reloads N] [--plugins N]";

fn main() -> ExitCode {
    let Some(size) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("plugins-under-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(plugin_load::run(size));
    println!("{report}");
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn arguments() -> Option<plugin_load::Size> {
    let mut size = plugin_load::Size {
        replacements: 100,
        reloads: 1000,
        plugins: 20,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--replacements" => size.replacements = value,
            "--reloads" => size.reloads = value,
            "--plugins" => size.plugins = value,
            _ => return None,
        }
    }
    Some(size)
}
