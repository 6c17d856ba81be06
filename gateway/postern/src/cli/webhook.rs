//! `postern webhook`: what Postern cannot serve is refused when it is applied.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use postern_core::config::KubernetesSpec;
use postern_kube::Settings;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::check;
use crate::webhook;
use crate::webhook::Files;

/// Let the API server ask what is wrong with an object before it takes it
///
/// Serves a validating admission webhook for Ingresses, Plugins, Policies and ClassDefaults: what
/// postern check says of the one object that is applied. An error refuses it, with the message; a
/// warning is shown by kubectl. It needs no rights in the cluster and asks it for nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    bind: SocketAddr,
    /// The certificate with its chain, in PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Take the section [kubernetes] of this configuration into account
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A class whose Ingresses are looked at; repeat it for more. Default: those of the
    /// configuration, or postern
    #[arg(long = "ingress-class", value_name = "NAME")]
    classes: Vec<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut spec = KubernetesSpec::default();
    if let Some(config) = &args.config {
        let checked = check::load(config);
        let Some(loaded) = checked.loaded else {
            super::complain_of(&checked.problems);
            return Ok(ExitCode::FAILURE);
        };
        spec = loaded.config.kubernetes.unwrap_or_default();
    }
    if !args.classes.is_empty() {
        spec.classes = args.classes;
    }
    let settings = Settings {
        spec,
        ..Settings::default()
    };
    let files = Files::new(args.cert, args.key)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.bind)
            .await
            .with_context(|| format!("cannot listen on {}", args.bind))?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let addr = listener.local_addr().context("cannot listen")?;
        super::print(format_args!("listening on {addr}"));
        tokio::select! {
            () = webhook::serve(listener, files, settings) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}
