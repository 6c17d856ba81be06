//! `log`: lines of a plugin in the gateway's log, bounded and harmless.

use crate::bindings::postern::plugin::log::Host;
use crate::bindings::postern::plugin::log::Level;
use crate::host::HostState;
use crate::limits::MAX_LOG_LINE;
use crate::limits::push_escaped;

/// The name under which the log of plugins is filtered.
macro_rules! target {
    () => {
        "postern::plugin"
    };
}

impl Host for HostState {
    fn enabled(&mut self, level: Level) -> wasmtime::Result<bool> {
        Ok(is_enabled(level))
    }

    fn write(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let field_bytes: usize = fields.iter().map(|(n, v)| n.len() + v.len()).sum();
        self.meter.take_bytes(message.len() + field_bytes)?;
        if !is_enabled(level) || !self.log.take() {
            return Ok(());
        }
        let mut line = String::new();
        let mut left = MAX_LOG_LINE;
        let mut push = |line: &mut String, text: &str| {
            push_escaped(line, text, left);
            left = left.saturating_sub(text.len());
            left > 0
        };
        let mut has_room = push(&mut line, &message);
        for (name, value) in &fields {
            if !has_room {
                break;
            }
            // With what stands around them, or any number of empty ones would have room.
            has_room = push(&mut line, " ") && push(&mut line, name);
            has_room = has_room && push(&mut line, "=") && push(&mut line, value);
        }
        let plugin = self.plugin().as_str();
        // The level is part of a call site, so each has its own.
        match level {
            Level::Trace => tracing::trace!(target: target!(), plugin, text = line, "plugin log"),
            Level::Debug => tracing::debug!(target: target!(), plugin, text = line, "plugin log"),
            Level::Info => tracing::info!(target: target!(), plugin, text = line, "plugin log"),
            Level::Warn => tracing::warn!(target: target!(), plugin, text = line, "plugin log"),
            Level::Error => tracing::error!(target: target!(), plugin, text = line, "plugin log"),
        }
        Ok(())
    }
}

fn is_enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: target!(), tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: target!(), tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: target!(), tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: target!(), tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: target!(), tracing::Level::ERROR),
    }
}
