//! `postern run`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use postern_core::config::parse::units;

use super::complain_of;
use crate::run;
use crate::run::End;
use crate::run::Failure;
use crate::run::Options;
use crate::telemetry;
use crate::telemetry::LogFormat;

/// Read where the command line says nothing about the level of the log.
const LEVEL_VARIABLE: &str = "POSTERN_LOG";

/// Run the gateway
///
/// Reads the configuration FILE and the files in the folder routes.d beside it, and serves until it
/// is told to end. Changes of any of these files, and of certificates, keys and plugins that they
/// refer to, take effect by themselves, without dropping a connection. A change that cannot be run
/// is logged and leaves what runs in place.
///
/// A new process takes over from a running one without a refused or a lost connection: start it with
/// --takeover, and end the old one when the new one is ready.
///
/// Signals: SIGTERM or SIGINT ends in order, a second one at once; SIGHUP reads all files again and
/// reopens the access log.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    config: PathBuf,
    /// How long new connections are still accepted after the signal to end, while balancers notice
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    accept_for: Duration,
    /// When what is still open is cut, counted from the signal to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// Listen where another gateway already does, to take over from it
    #[arg(long)]
    takeover: bool,
    /// How the program logs to standard error
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// How much is logged: error, warn, info, debug or trace [default: info, or what the
    /// environment variable POSTERN_LOG says]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let level = args
        .log_level
        .or_else(|| std::env::var(LEVEL_VARIABLE).ok());
    let log = telemetry::start(args.log_format, level.as_deref().unwrap_or("info"))?;
    let options = Options {
        config: args.config,
        takeover: args.takeover,
        accept_for: args.accept_for,
        drain: args.drain,
    };
    let ended = run::run(options);
    log.finish();
    match ended {
        Ok(End::Clean) => Ok(ExitCode::SUCCESS),
        Ok(End::Cut) => Ok(ExitCode::FAILURE),
        Err(Failure::Problems(problems)) => {
            complain_of(&problems);
            Ok(ExitCode::FAILURE)
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|error| error.to_string())
}
