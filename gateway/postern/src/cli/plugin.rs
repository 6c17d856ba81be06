//! `postern plugin`: what a component is, and how a core module becomes one.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use postern_core::config::plugin::Grants;
use postern_wasm::Component;
use postern_wasm::PluginEngine;
use postern_wasm::component::MAX_COMPONENT_BYTES;
use postern_wasm::encode_component;
use serde_json::json;

use super::Format;
use super::print;

/// Look at plugins and make them
///
/// A plugin is a WebAssembly component that takes part in the handling of requests. It runs in a
/// sandbox: it sees nothing but what the gateway hands to it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what a plugin does and needs: phases, imports, grants, size, digest, time to compile
    ///
    /// Compiles the component as the gateway would, and runs nothing of it. "grants" are what its
    /// section of the configuration has to give. "stubbed" are interfaces of WASI: there is no file
    /// system, socket or environment behind them, and a call of one ends the instance.
    Inspect {
        /// The component
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make a component of a core module
    ///
    /// For compilers that write core modules only, as Rust does for wasm32-unknown-unknown. The
    /// module has to be built with wit-bindgen, which describes its interface inside the file.
    Componentize {
        /// The core module
        #[arg(value_name = "CORE.wasm")]
        file: PathBuf,
        /// Where to write the component
        #[arg(short, long, value_name = "OUT.wasm")]
        output: PathBuf,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Inspect { file, format } => inspect(file, *format)?,
        Command::Componentize { file, output } => componentize(file, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(file: &Path, format: Format) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let engine = PluginEngine::new(None)?;
    let component = Component::load(&engine, &bytes).with_context(|| file.display().to_string())?;
    let phases: Vec<&str> = component.phases().names().collect();
    let grants = component.missing_grants(&Grants::default());
    let grants: Vec<&str> = grants.iter().map(|missing| missing.grant).collect();
    let milliseconds = component.compile_time().as_millis();
    if format == Format::Json {
        let value = json!({
            "file": file.to_string_lossy(),
            "digest": format!("sha256:{}", component.digest()),
            "bytes": component.size(),
            "phases": phases,
            "imports": component.imports(),
            "grants": grants,
            "stubbed": component.stubbed(),
            "compile-milliseconds": u64::try_from(milliseconds).unwrap_or(u64::MAX),
        });
        print(format_args!("{value:#}"));
        return Ok(());
    }
    print(format_args!("file     {}", file.display()));
    print(format_args!("digest   sha256:{}", component.digest()));
    print(format_args!("size     {} bytes", component.size()));
    print(format_args!("phases   {}", phases.join(", ")));
    print_list("imports", component.imports());
    print_list("grants", &grants);
    // Linked to nothing: a call of one ends the instance.
    print_list("stubbed", component.stubbed());
    print(format_args!("compile  {milliseconds} ms"));
    Ok(())
}

fn print_list(label: &str, items: &[impl AsRef<str>]) {
    for (index, item) in items.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        print(format_args!("{label:<8} {}", item.as_ref()));
    }
}

fn componentize(file: &Path, output: &Path) -> anyhow::Result<()> {
    let component = encode_component(&read(file)?).with_context(|| file.display().to_string())?;
    // A gateway that watches this file must never see half of it.
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = output.with_file_name(name);
    let written = fs::write(&temporary, &component).and_then(|()| fs::rename(&temporary, output));
    written.with_context(|| format!("cannot write {}", output.display()))?;
    print(format_args!(
        "{}: {} bytes",
        output.display(),
        component.len()
    ));
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        use io::Read as _;
        let mut bytes = Vec::new();
        // One more than is taken, so that the excess is noticed by whoever takes it.
        let most = u64::try_from(MAX_COMPONENT_BYTES).unwrap_or(u64::MAX);
        fs::File::open(file)?
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().with_context(|| format!("cannot read {}", file.display()))
}
