//! `postern plugin push`: a component into a registry, where gateways fetch it from.

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use postern_core::config::source::FetchSpec;
use postern_core::config::source::LoginSpec;
use postern_core::config::source::OciName;
use postern_wasm::Component;
use postern_wasm::PluginEngine;
use serde_json::json;

use super::read;
use crate::cli::Format;
use crate::cli::print;
use crate::fetch;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Where to: oci://registry/repository, and :tag if it is to have one
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Log in as this user
    #[arg(long, requires = "password_file", conflicts_with = "docker_config")]
    user: Option<String>,
    /// The file that holds the user's password or token
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Log in with what `docker login` wrote, usually ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
    /// PEM roots to trust, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Speak to the registry in clear text; to one on this machine, this is done anyway
    #[arg(long)]
    plain_http: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(reference) = args.reference.strip_prefix("oci://") else {
        bail!(
            "'{}' is no reference: it begins with oci://",
            args.reference
        );
    };
    let (name, tag) = OciName::parse(reference)
        .with_context(|| format!("'{}' is no reference", args.reference))?;
    let bytes = read(&args.file)?;
    // What no gateway would run should not get as far as a registry.
    let engine = PluginEngine::new(None)?;
    let component =
        Component::load(&engine, &bytes).with_context(|| args.file.display().to_string())?;
    let login = match (&args.user, &args.password_file, &args.docker_config) {
        (Some(user), Some(file), _) => Some(LoginSpec::Password {
            user: user.clone(),
            file: file.clone(),
        }),
        (_, _, Some(file)) => Some(LoginSpec::DockerConfig(file.clone())),
        _ => None,
    };
    let spec = FetchSpec {
        login,
        ca_file: args.ca_file.clone(),
        plain_http: args.plain_http || name.is_loopback() && args.ca_file.is_none(),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("cannot start")?;
    let size = bytes.len();
    let phases = component.phases();
    let exports: Vec<String> = phases
        .names()
        .map(|phase| format!("postern:plugin/{phase}"))
        .collect();
    let pushing = fetch::push(
        bytes.into(),
        (component.imports(), &exports),
        &name,
        tag,
        &spec,
    );
    let pushed = runtime.block_on(pushing).context("not pushed")?;
    match args.format {
        Format::Json => {
            let value = json!({
                "source": pushed.to_string(),
                "digest": pushed.digest.to_string(),
                "component-digest": format!("sha256:{}", component.digest()),
                "bytes": size,
            });
            print(format_args!("{value:#}"));
        }
        // As a configuration wants it, to be pasted.
        Format::Text => print(format_args!("source = \"{pushed}\"")),
    }
    Ok(())
}
