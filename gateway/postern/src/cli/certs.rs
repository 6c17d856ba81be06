//! `postern certs`: how the certificates of a running gateway do.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use postern_core::config::DEFAULT_ADMIN_BIND;
use serde::Deserialize;

use super::Format;
use super::complain;
use super::print;
use crate::admin::client;
use crate::certificates::text;
use crate::certificates::view;
use crate::certificates::view::CertificateView;

/// Say how the certificates of a running gateway do
///
/// Which are served and from where, until when, what is done about each next, and, where one is
/// missing or not renewed, why: one reason of a closed list, with the words of the authority, and
/// what to do.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:
  postern certs
  postern certs explain shop.example.com"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All that is known of the certificates for one host; exits with 1 if none is served
    Explain {
        /// The host, as in shop.example.com
        host: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, clap::Args)]
struct Asking {
    /// The admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value_t = DEFAULT_ADMIN_BIND)]
    admin: SocketAddr,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What `/certs` answers.
#[derive(Deserialize)]
struct Answer {
    certificates: Vec<CertificateView>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => {
            let views = ask(args.asking.admin)?;
            match args.asking.format {
                Format::Text => print(format_args!("{}", text::table(&views).trim_end())),
                Format::Json => print_json(&views.iter().collect::<Vec<_>>())?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Explain { host, asking }) => {
            let views = ask(asking.admin)?;
            let host = host.to_ascii_lowercase();
            let host = host.trim_end_matches('.');
            let found = view::covering(&views, host);
            match asking.format {
                Format::Json => print_json(&found)?,
                Format::Text => {
                    let texts: Vec<String> = found.iter().map(|view| text::explain(view)).collect();
                    print(format_args!("{}", texts.join("\n").trim_end()));
                }
            }
            if found.is_empty() {
                let why = match view::too_high(&views, host) {
                    Some(wildcard) => format!(", since '{wildcard}' stands for one label"),
                    None => String::new(),
                };
                complain(format_args!(
                    "postern: no certificate is for {host}{why}: declare one as [certificates.NAME] with issuer and hosts"
                ));
            }
            let is_served = found.iter().any(|view| {
                view.served_from.is_some() && view.seconds_left.is_some_and(|left| left > 0)
            });
            Ok(match is_served {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
    }
}

fn print_json(views: &[&CertificateView]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(views)?;
    print(format_args!("{text}"));
    Ok(())
}

fn ask(admin: SocketAddr) -> anyhow::Result<Vec<CertificateView>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, body) = runtime
        .block_on(client::get(admin, "/certs"))
        .with_context(|| format!("cannot ask the gateway at {admin}"))?;
    anyhow::ensure!(status.is_success(), "the gateway says: {}", body.trim_end());
    let answer: Answer =
        serde_json::from_str(&body).context("the gateway is of another version")?;
    Ok(answer.certificates)
}
