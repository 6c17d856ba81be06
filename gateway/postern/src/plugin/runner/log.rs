//! What plugins log, kept instead of written.

use std::sync::Arc;
use std::sync::Mutex;

use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Layer;

use super::lock;

/// Where the host writes what plugins log.
const LOG_TARGET: &str = "postern::plugin";

/// Keeps what plugins log.
pub(super) struct LogLines(Arc<Mutex<Vec<String>>>);

impl LogLines {
    pub(super) fn new(lines: Arc<Mutex<Vec<String>>>) -> Self {
        Self(lines)
    }
}

impl<S: tracing::Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == LOG_TARGET {
            let level = event.metadata().level().as_str().to_ascii_lowercase();
            let mut line = LogText(level);
            event.record(&mut line);
            lock(&self.0).push(line.0);
        }
    }
}

struct LogText(String);

impl Visit for LogText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "text" {
            self.0.push(' ');
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
