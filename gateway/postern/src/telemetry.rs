//! The program's own log: to standard error, for people or for machines.
//!
//! The access log is not here; it belongs to the data plane.

mod writer;

use std::io;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::writer::LogWriter;

/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log of the program.
#[derive(Debug)]
pub struct Log(LogWriter);

impl Log {
    /// Writes what is left, if anybody reads it.
    pub fn finish(self) {
        self.0.sync(LAST_LINES);
    }
}

/// Starts the log. `level` is a level or a list of `target=level`.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<Log> {
    let writer = LogWriter::start(io::stderr())?;
    let made = writer.clone();
    // What the client of the cluster warns of is told by us, once and in our words.
    let filter = match level {
        "error" | "warn" | "info" => format!("{level},kube_client=off,kube_runtime=off"),
        level => level.to_owned(),
    };
    let filter = EnvFilter::try_new(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(made).with_target(false);
    match format {
        // Colors only where somebody can see them: in a file they are noise.
        LogFormat::Text => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            registry.with(layer.with_ansi(is_terminal)).try_init()?;
        }
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(false);
            registry.with(layer.with_span_list(false)).try_init()?;
        }
    }
    // The default writes to standard error itself, and waits for its reader.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(panic = message, location, "the program has a fault");
    }));
    Ok(Log(writer))
}
