//! `postern probe`: whether one gateway is ready, or alive.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::admin::client;

/// Tell whether a gateway is ready
///
/// Looks for the FILE that `postern run --ready-file FILE` keeps while it serves. Unlike the admin
/// listener, which a gateway shares with the one that it takes over from, the file is of one process.
/// With --admin instead, asks the admin listener there whether it answers at all.
///
/// The exit code is 0 if it is so, and 1 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "FILE", required_unless_present = "admin")]
    file: Option<PathBuf>,
    /// Ask this admin listener whether its gateway is alive
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file")]
    admin: Option<SocketAddr>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.file {
        if file.is_file() {
            return Ok(ExitCode::SUCCESS);
        }
        super::complain(format_args!("not ready: there is no {}", file.display()));
        return Ok(ExitCode::FAILURE);
    }
    let Some(admin) = args.admin else {
        return Ok(ExitCode::FAILURE);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let (status, text) = runtime
        .block_on(client::get(admin, "/live"))
        .with_context(|| format!("cannot ask the admin listener at {admin}"))?;
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    super::complain(format_args!("not alive: {status} {}", text.trim_end()));
    Ok(ExitCode::FAILURE)
}
