//! `postern run`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use postern_core::config::parse::units;

use super::complain_of;
use crate::cluster::Place;
use crate::run;
use crate::run::End;
use crate::run::Failure;
use crate::run::Options;
use crate::telemetry;
use crate::telemetry::LogFormat;

/// Read where the command line says nothing about the level of the log.
const LEVEL_VARIABLE: &str = "POSTERN_LOG";

/// Where a pod learns what its manifest cannot know: see config/kubernetes.
const NODE_VARIABLE: &str = "POSTERN_NODE";
const ZONE_VARIABLE: &str = "POSTERN_ZONE";
const POD_VARIABLE: &str = "POSTERN_POD";
const NAMESPACE_VARIABLE: &str = "POSTERN_NAMESPACE";

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
/// With --kubernetes, the Ingress objects of a cluster are served beside what the files declare. The
/// variables POSTERN_NODE, POSTERN_ZONE, POSTERN_POD and POSTERN_NAMESPACE say where the gateway runs.
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
    /// Serve the Ingress objects of a cluster as well; [kubernetes] in the configuration says which,
    /// and how
    #[arg(long)]
    kubernetes: bool,
    /// How to reach the cluster [default: as a pod does, or else as kubectl does]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Serve the Ingresses of this class, and of no other that is not named so too
    #[arg(long = "ingress-class", value_name = "NAME", requires = "kubernetes")]
    ingress_classes: Vec<String>,
    /// Keep a file there for as long as the gateway is ready; see postern probe
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
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
        ready_file: args.ready_file,
        cluster: args.kubernetes.then(|| {
            let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            Place {
                kubeconfig: args.kubeconfig,
                classes: args.ingress_classes,
                node: variable(NODE_VARIABLE),
                zone: variable(ZONE_VARIABLE),
                pod: variable(POD_VARIABLE),
                namespace: variable(NAMESPACE_VARIABLE),
            }
        }),
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
