//! The commands. Each prints what it finds and says by its exit code how it went: 0 good, 1 not
//! good, 2 not understood.
//!
//! What the commands find out, they find out with the code of the server.

mod certs;
mod check;
mod explain;
mod plugin;
mod probe;
mod rbac;
mod run;
mod webhook;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use postern_core::config::Problem;

/// Where the configuration is unless the command line says otherwise.
const DEFAULT_CONFIG: &str = "/etc/postern/postern.toml";

/// Postern, an ingress gateway.
///
/// It stands in front of web applications, accepts connections from the outside, terminates TLS,
/// picks an application by host name and path, and forwards the request. What happens to a request
/// on the way is up to policies, which may be WebAssembly plugins of your own.
///
/// Start with: postern check FILE, then postern run --config FILE.
#[derive(Debug, Parser)]
#[command(name = "postern", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Explain(explain::Args),
    Certs(certs::Args),
    /// Print the JSON Schema of the configuration file
    ///
    /// Editors that know TOML use it to complete keys and to mark mistakes while you type. In a file
    /// for the Even Better TOML extension, the first line would be: #:schema ./postern.schema.json
    Schema,
    Plugin(plugin::Args),
    Probe(probe::Args),
    Rbac(rbac::Args),
    /// Print the CustomResourceDefinitions of Postern's own kinds
    ///
    /// Apply them before the first Plugin or Policy: postern crds | kubectl apply -f -
    Crds,
    Webhook(webhook::Args),
    /// Print the version
    Version,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed this way as well.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(args),
        Command::Certs(args) => certs::run(&args),
        Command::Schema => {
            let schema = postern_core::config::schema();
            print(format_args!("{schema:#}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Plugin(args) => plugin::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Rbac(args) => Ok(rbac::run(args)),
        Command::Crds => {
            print(format_args!("{}", postern_kube::crd::manifest().trim_end()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Webhook(args) => webhook::run(args),
        Command::Version => {
            print(format_args!("postern {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        complain(format_args!("postern: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A line on standard output. A reader that has gone away, as `head` does, is no failure.
fn print(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A line on standard error.
fn complain(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Problems as a person reads them, one paragraph each, and how many there are.
fn complain_of(problems: &[Problem]) {
    for problem in problems {
        complain(format_args!("{problem}\n"));
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match (errors, problems.len() - errors) {
        (0, 0) => {}
        (0, warnings) => complain(format_args!("{}", count(warnings, "warning"))),
        (errors, 0) => complain(format_args!("{}", count(errors, "error"))),
        (errors, warnings) => complain(format_args!(
            "{}, {}",
            count(errors, "error"),
            count(warnings, "warning")
        )),
    }
}
