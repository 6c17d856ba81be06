//! `postern plugin`: what a component is, and how one comes to be.

mod bench;
mod inspect;
mod project;
mod push;
mod test;

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use postern_wasm::component::MAX_COMPONENT_BYTES;
use postern_wasm::encode_component;

use super::Format;
use super::print;
use crate::plugin::build;
use crate::plugin::case;
use crate::plugin::case::CaseFile;
use crate::plugin::project::Language;
use crate::plugin::project::Project;
use crate::plugin::project::WORK_DIR;
use crate::plugin::runner::Runner;

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
    /// Begin a plugin: a folder with a policy that works, its test, and the SDK of its language
    New {
        /// The language to write it in
        #[arg(long, value_enum)]
        lang: Language,
        /// The plugin's name: lower-case letters, digits and `-`
        name: String,
        /// Where to make it [default: a folder with its name]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Put the SDK of this version into a project, over the one that is there
    Sdk {
        /// The project
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Build the component of a project: NAME.wasm
    ///
    /// Runs the compiler of the project's language, which has to be installed; what is missing is
    /// said. `plugin.toml` says the language and the phases.
    Build {
        /// The project
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Run the cases of a project (tests/*.toml) in the real host, without a gateway
    ///
    /// A case is a request, the upstream's response, and what should become of them. An edit that
    /// is not expected fails it. Shows what each call costs in time and memory.
    Test {
        #[command(flatten)]
        subject: Subject,
        /// Only cases with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Run the cases of a project often, and show what the calls cost
    Bench {
        #[command(flatten)]
        subject: Subject,
        /// Calls of each case
        #[arg(long, default_value_t = 10_000)]
        calls: usize,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
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
    /// Put a component into a registry
    ///
    /// Checks it as a gateway would, pushes it in the shape of wasm-pkg-tools (one layer of
    /// application/wasm), and prints the source by which a configuration names exactly this content.
    Push(push::Args),
}

/// What `test` and `bench` run.
#[derive(Debug, clap::Args)]
struct Subject {
    /// The project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The component [default: the one that the project builds]
    #[arg(long, value_name = "FILE.wasm")]
    component: Option<PathBuf>,
    /// Where compiled components are kept [default: .postern/compiled in the project]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl Subject {
    /// Where the component is.
    fn file(&self) -> anyhow::Result<PathBuf> {
        match &self.component {
            Some(file) => Ok(file.clone()),
            None => Ok(Project::open(&self.dir)?.component()),
        }
    }

    fn open(&self, file: &Path) -> anyhow::Result<Runner> {
        let bytes = read(file).context("`postern plugin build` makes it")?;
        let cache_dir = match &self.cache_dir {
            Some(dir) => dir.clone(),
            None => {
                let work = self.dir.join(WORK_DIR);
                fs::create_dir_all(&work)
                    .with_context(|| format!("cannot make {}", work.display()))?;
                work.join("compiled")
            }
        };
        Runner::open(file, &bytes, Some(cache_dir))
    }

    fn cases(&self) -> anyhow::Result<Vec<(PathBuf, CaseFile)>> {
        case::read(&self.dir.join("tests"))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::New { lang, name, dir } => project::new(*lang, name, dir.as_deref())?,
        Command::Sdk { dir } => project::sdk(dir)?,
        Command::Build { dir } => project::build(dir)?,
        Command::Test { subject, only } => return test::run(subject, only.as_deref()),
        Command::Bench {
            subject,
            calls,
            format,
        } => bench::run(subject, *calls, *format)?,
        Command::Inspect { file, format } => inspect::run(file, *format)?,
        Command::Componentize { file, output } => componentize(file, output)?,
        Command::Push(args) => push::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn componentize(file: &Path, output: &Path) -> anyhow::Result<()> {
    let component = encode_component(&read(file)?).with_context(|| file.display().to_string())?;
    build::write(output, &component)?;
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

/// A time in the unit that shows it best.
fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1000.0 {
        format!("{us:.1} us")
    } else {
        format!("{:.2} ms", us / 1000.0)
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}
