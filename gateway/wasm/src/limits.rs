//! How much a guest may take: the numbers, and the meter that each instance carries.
//!
//! What an operator may set is in [`PluginLimits`]. The constants here bound what one exchange can
//! be made to carry, and have no setting.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_core::config::plugin::PluginLimits;
use tokio::time::Instant;
use wasmtime::ResourceLimiter;
use wasmtime::UpdateDeadline;

use crate::engine::ticker::TICK;
use crate::error::Breach;
use crate::stats::PluginStats;
use crate::stats::add;

/// Fields that a message may have after an edit, and bytes of names and values together. What a
/// listener takes from a client is bounded by the same numbers.
pub const MAX_FIELDS: usize = 100;
pub const MAX_FIELD_BYTES: usize = 64 << 10;
/// Path and query that a plugin may set.
pub const MAX_PATH_LEN: usize = 8 << 10;
/// Method that a plugin may set.
pub const MAX_METHOD_LEN: usize = 32;
/// What `exchange.set-state` keeps.
pub const MAX_STATE_BYTES: usize = 4 << 10;
/// What `exchange.set-var` keeps.
pub const MAX_VARS: usize = 32;
pub const MAX_VAR_NAME_LEN: usize = 64;
pub const MAX_VAR_BYTES: usize = 4 << 10;
/// A log line, message and fields together, before escaping.
pub const MAX_LOG_LINE: usize = 4 << 10;
/// One answer of `random.bytes`.
pub const MAX_RANDOM_BYTES: u32 = 64 << 10;
/// One `clock.sleep-ms`; the call's wall time ends most of them sooner.
pub const MAX_SLEEP_MS: u32 = 10_000;
/// A key of `shared`.
pub const MAX_SHARED_KEY: usize = 256;
/// The body of what a callout brings back.
pub const MAX_CALLOUT_RESPONSE: usize = 1 << 20;
/// What a plugin may put in the place of one piece of a body.
pub const MAX_CHUNK_REPLACEMENT: usize = 1 << 20;
/// A piece of a body, as a plugin gets it.
pub const MAX_CHUNK: usize = 64 << 10;
/// An answer to an ACME challenge.
pub const MAX_KEY_AUTHORIZATION: usize = 1 << 10;
/// Names in a view.
pub const MAX_VIEW: usize = 64;
/// A guest's reason for refusing its configuration.
pub const MAX_REFUSAL: usize = 1 << 10;
/// Starting an instance (`start` functions, the language's runtime, `configure`) may take this
/// many times what a call may: an interpreter has to come up, and once an instance only.
const START_FACTOR: u32 = 10;
/// Core instances, memories and tables of a component: a dozen is what the largest toolchain makes.
const MAX_PARTS: usize = 64;

/// A fault that the host itself raises in a guest. It travels through the Wasm engine as an error
/// and is recognised by its type on the other side.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum HostFault {
    #[error("processor time is used up")]
    Cpu,
    #[error("{0}")]
    Breach(Breach),
}

/// What one instance has used.
pub(crate) struct Meter {
    limits: PluginLimits,
    ticks_left: u64,
    host_bytes_left: u64,
    callouts_left: u32,
    memory: u64,
    elements: u64,
    /// Epochs that ended while the guest ran, since this was last taken.
    ticks: u64,
    /// The guest was told "no more memory". If it then traps, that is why.
    pub(crate) is_starved: bool,
}

impl Meter {
    pub(crate) fn new(limits: PluginLimits) -> Self {
        Self {
            limits,
            ticks_left: ticks(limits.cpu * START_FACTOR),
            host_bytes_left: limits.host_bytes,
            callouts_left: limits.callouts,
            memory: 0,
            elements: 0,
            ticks: 0,
            is_starved: false,
        }
    }

    pub(crate) fn limits(&self) -> &PluginLimits {
        &self.limits
    }

    /// A new call: what is counted by the call begins again.
    pub(crate) fn begin_call(&mut self) {
        self.ticks_left = ticks(self.limits.cpu);
        self.host_bytes_left = self.limits.host_bytes;
        self.callouts_left = self.limits.callouts;
    }

    /// Whether the call may make one more callout.
    pub(crate) fn take_callout(&mut self) -> bool {
        let is_left = self.callouts_left > 0;
        self.callouts_left = self.callouts_left.saturating_sub(1);
        is_left
    }

    /// Bytes of linear memory, all memories of the instance together. They never shrink.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Epochs that ended while the guest ran, since the last time this was asked. A call much
    /// shorter than an epoch has one now and then, so that over many calls they sum up to the
    /// processor time.
    pub(crate) fn take_ticks(&mut self) -> u64 {
        std::mem::take(&mut self.ticks)
    }

    /// Takes note of bytes that the guest handed over.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.host_bytes_left.checked_sub(bytes as u64) {
            Some(left) => {
                self.host_bytes_left = left;
                Ok(())
            }
            None => Err(breach(Breach::HostBytes)),
        }
    }

    /// The guest has run into the next epoch: it is suspended once, or ended.
    ///
    /// Epochs in which it did not run are not counted: this is called once when it runs again,
    /// however many have passed.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.ticks += 1;
        match self.ticks_left.checked_sub(1) {
            Some(left) => {
                self.ticks_left = left;
                // Through tokio and not by waking ourselves: tokio then polls its sockets before
                // it comes back here.
                let pause = Box::pin(tokio::task::yield_now());
                Ok(UpdateDeadline::YieldCustom(1, pause))
            }
            None => Err(wasmtime::Error::new(HostFault::Cpu)),
        }
    }
}

/// One more than the time holds, because the first epoch is partly over when the call begins.
fn ticks(time: Duration) -> u64 {
    time.as_micros().div_ceil(TICK.as_micros()) as u64 + 1
}

pub(crate) fn breach(breach: Breach) -> wasmtime::Error {
    wasmtime::Error::new(HostFault::Breach(breach))
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // All memories of the instance together: a component may have many.
        let memory = self.memory + (desired.saturating_sub(current)) as u64;
        let is_allowed = memory <= self.limits.memory;
        if is_allowed {
            self.memory = memory;
        }
        self.is_starved |= !is_allowed;
        Ok(is_allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.elements + (desired.saturating_sub(current)) as u64;
        let is_allowed = elements <= u64::from(self.limits.table_elements);
        if is_allowed {
            self.elements = elements;
        }
        self.is_starved |= !is_allowed;
        Ok(is_allowed)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

/// How many log lines a plugin may still write in this second. Shared by its instances in one
/// worker, and used by that worker alone.
pub(crate) struct LogBudget {
    lines: u64,
    started: Instant,
    second: AtomicU64,
    written: AtomicU64,
    stats: Arc<PluginStats>,
}

impl LogBudget {
    pub(crate) fn new(lines: u32, stats: Arc<PluginStats>) -> Self {
        Self {
            lines: lines.into(),
            started: Instant::now(),
            second: AtomicU64::new(0),
            written: AtomicU64::new(0),
            stats,
        }
    }

    /// Whether one more line may be written.
    pub(crate) fn take(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        if self.written.load(Ordering::Relaxed) >= self.lines {
            add(&self.stats.log_dropped, 1);
            return false;
        }
        add(&self.written, 1);
        true
    }
}

/// Appends text of a guest with its control characters escaped, so that it cannot start a line of
/// its own or speak to a terminal, and no longer than `limit` bytes of it.
pub(crate) fn push_escaped(out: &mut String, text: &str, limit: usize) {
    let end = text.floor_char_boundary(limit.min(text.len()));
    for c in text[..end].chars() {
        if c.is_control() || is_direction_mark(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    if end < text.len() {
        out.push('…');
    }
}

/// Line separators, and characters that turn the reading direction, so that a line reads otherwise
/// than it is.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_guest_stays_one_plain_line() {
        let cases = [
            ("plain ä", "plain ä"),
            ("a\r\nb\0\u{1b}[2J", r"a\r\nb\u{0}\u{1b}[2J"),
            ("a\u{85}b\u{2028}\u{202e}c", r"a\u{85}b\u{2028}\u{202e}c"),
        ];
        for (text, want) in cases {
            let mut got = String::new();
            push_escaped(&mut got, text, 100);
            assert_eq!(got, want);
        }
        let mut got = String::new();
        push_escaped(&mut got, "ääää", 5);
        assert_eq!(got, "ää…");
    }

    #[tokio::test(start_paused = true)]
    async fn log_lines_are_limited_by_the_second() {
        let stats = Arc::new(PluginStats::default());
        let budget = LogBudget::new(2, Arc::clone(&stats));
        assert_eq!([(); 4].map(|()| budget.take()), [true, true, false, false]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(budget.take());
        assert_eq!(stats.log_dropped(), 2);
    }

    #[test]
    fn memory_and_tables_are_summed_over_the_instance() {
        let limits = PluginLimits {
            memory: 3 << 16,
            table_elements: 10,
            ..PluginLimits::default()
        };
        let mut meter = Meter::new(limits);
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(meter.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert!(!meter.is_starved);
        assert!(!meter.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert!(meter.is_starved);
        assert!(meter.table_growing(0, 10, None).unwrap());
        assert!(!meter.table_growing(0, 1, None).unwrap());
    }
}
