//! Lets plugins of the built gateway fail under load, and counts what others notice.
//!
//! First: clients ask without a pause, and one request of a hundred makes the plugin trap; that one
//! is answered as the policy says, every other one whole, and memory stays. Then: eight plugins
//! loop without end while clients ask for another route at a steady pace; each loop is answered
//! soon after its deadline, and the others hardly wait longer than in between.
//!
//! Prints a table; exits 1 if something did not hold. With `--traps 0` or `--loop-seconds 0` a part
//! is left out. `--gateway` names another program than the one that was built beside this; how long
//! requests wait says something of a release build on an idle machine alone.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;
use std::time::Duration;

use postern_tests::plugin_faults;
use postern_tests::plugin_faults::Plan;
use postern_tests::process;

const USAGE: &str = "usage: plugin-faults-under-load [--traps N] [--trap-seconds N] \
                     [--loop-seconds N] [--gateway PATH]";

fn main() -> ExitCode {
    let plan = match arguments() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("plugin-faults-under-load: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("plugin-faults-under-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(plugin_faults::run(&plan));
    println!("{report}");
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `None`: they make no sense.
fn arguments() -> Result<Option<Plan>, String> {
    let mut gateway = None;
    let (mut traps, mut trap_seconds, mut loop_seconds) = (10_000, 1800, 10);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else {
            return Ok(None);
        };
        let number = match name.as_str() {
            "--gateway" => {
                gateway = Some(value.into());
                continue;
            }
            "--traps" => &mut traps,
            "--trap-seconds" => &mut trap_seconds,
            "--loop-seconds" => &mut loop_seconds,
            _ => return Ok(None),
        };
        let Ok(value) = value.parse() else {
            return Ok(None);
        };
        *number = value;
    }
    Ok(Some(Plan {
        gateway: gateway.map_or_else(process::postern, Ok)?,
        traps,
        traps_within: Duration::from_secs(trap_seconds),
        loops_for: Duration::from_secs(loop_seconds),
    }))
}
