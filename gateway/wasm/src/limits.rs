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
use wasmtime::Engine;
use wasmtime::ResourceLimiter;
use wasmtime::UpdateDeadline;

use crate::engine::memory::MemoryBudget;
use crate::engine::thread_time::thread_time;
use crate::engine::ticker;
use crate::engine::ticker::TICK;
use crate::engine::turns;
use crate::error::Breach;
use crate::instance::Wall;
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
/// What is left of a call's time when its callouts end, but no more than a quarter of all of it.
const CALLOUT_MARGIN: Duration = Duration::from_millis(10);
/// Starting an instance (`start` functions, the language's runtime, `configure`) may take this
/// many times what a call may: an interpreter has to come up, and once an instance only.
const START_FACTOR: u32 = 10;
/// How much longer than its processor time a call may want it, while others take turns.
const TURN_PATIENCE: Duration = Duration::from_millis(10);
/// Turns that a call gets at least: it is not ended because the gateway itself was held up.
const FAIR_SLICES: u32 = 12;
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
    time: CallTime,
    host_bytes_left: u64,
    callouts_left: u32,
    /// How long the call may take by the wall clock, and when that is over, once a clock was read.
    time_limit: Duration,
    deadline: Option<Instant>,
    memory: u64,
    /// Of all instances.
    budget: Arc<MemoryBudget>,
    elements: u64,
    /// Processor time since this was last taken.
    burned: Duration,
    /// The guest was told "no more memory". If it then traps, that is why.
    pub(crate) is_starved: bool,
    /// It was told so within its own limit: all plugins together have as much as they may.
    pub(crate) is_crowded_out: bool,
}

impl Meter {
    pub(crate) fn new(limits: PluginLimits, budget: Arc<MemoryBudget>) -> Self {
        Self {
            limits,
            time: CallTime::new(limits.cpu * START_FACTOR),
            host_bytes_left: limits.host_bytes,
            callouts_left: limits.callouts,
            time_limit: limits.time,
            deadline: None,
            memory: 0,
            budget,
            elements: 0,
            burned: Duration::ZERO,
            is_starved: false,
            is_crowded_out: false,
        }
    }

    pub(crate) fn limits(&self) -> &PluginLimits {
        &self.limits
    }

    /// A new call: what is counted by the call begins again.
    pub(crate) fn begin_call(&mut self, wall: &Wall) {
        self.time = CallTime::new(self.limits.cpu);
        self.time_limit = wall.limit();
        self.deadline = wall.deadline();
        self.host_bytes_left = self.limits.host_bytes;
        self.callouts_left = self.limits.callouts;
    }

    /// When a callout has to have ended for its guest to have time to make something of that.
    pub(crate) fn callout_deadline(&mut self) -> Instant {
        self.note_deadline() - CALLOUT_MARGIN.min(self.time_limit / 4)
    }

    /// As [`Wall`] does when a call is suspended for the first time, and here at the same moment.
    fn note_deadline(&mut self) -> Instant {
        let limit = self.time_limit;
        *self.deadline.get_or_insert_with(|| Instant::now() + limit)
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

    /// Processor time of the guest since the last time this was asked. A call much shorter than
    /// an epoch is charged a whole one now and then, so that over many calls they sum up to it.
    pub(crate) fn take_burned(&mut self) -> Duration {
        std::mem::take(&mut self.burned)
    }

    /// What the guest waits for now is not the processor: what the thread does meanwhile is none
    /// of its business.
    pub(crate) fn begin_wait(&mut self) {
        self.note_deadline();
        self.time.waits_since = self.time.began.map(|_| thread_time());
    }

    pub(crate) fn end_wait(&mut self) {
        if let (Some(since), Some(began)) = (self.time.waits_since.take(), &mut self.time.began) {
            *began += thread_time().saturating_sub(since);
            turns::resumed();
        }
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

    /// The guest has run into the next epoch: it is suspended, or ended.
    ///
    /// Epochs in which it did not run are not counted: this is called once when it runs again,
    /// however many have passed.
    pub(crate) fn tick(&mut self, engine: Engine) -> wasmtime::Result<UpdateDeadline> {
        let is_burning = self.time.began.is_some();
        let slice = match is_burning {
            true => turns::since_last().min(TICK),
            false => ticker::epoch(),
        };
        self.burned += slice;
        match self.time.end_slice(thread_time(), slice) {
            Verdict::GoOn => {
                self.note_deadline();
                let pause = turns::pause(engine, is_burning);
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(pause)))
            }
            Verdict::End => Err(wasmtime::Error::new(HostFault::Cpu)),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.budget.give_back(self.memory);
    }
}

/// How long a call may still want the processor, in processor time of its thread.
///
/// What ends a call is the processor time that it had; and, because a deadline is a promise to who
/// waits for the answer, how long it wanted more while other guests of its worker had turns.
struct CallTime {
    limit: Duration,
    used: Duration,
    /// The end of the first epoch in which it ran, moved on by the time for which it waited for
    /// something else.
    began: Option<Duration>,
    waits_since: Option<Duration>,
    slices: u32,
}

enum Verdict {
    GoOn,
    End,
}

impl CallTime {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            used: Duration::ZERO,
            began: None,
            waits_since: None,
            slices: 0,
        }
    }

    fn end_slice(&mut self, now: Duration, slice: Duration) -> Verdict {
        self.slices += 1;
        let Some(began) = self.began else {
            // Partly over when the call began.
            self.began = Some(now);
            return Verdict::GoOn;
        };
        self.used += slice;
        let wanted = now.saturating_sub(began);
        let is_late = wanted >= self.limit + TURN_PATIENCE && self.slices >= FAIR_SLICES;
        match self.used >= self.limit || is_late {
            true => Verdict::End,
            false => Verdict::GoOn,
        }
    }
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
        let more = (desired.saturating_sub(current)) as u64;
        let memory = self.memory + more;
        let is_within = memory <= self.limits.memory;
        let is_allowed = is_within && self.budget.take(more);
        if is_allowed {
            self.memory = memory;
        }
        self.is_starved |= !is_allowed;
        self.is_crowded_out |= is_within && !is_allowed;
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

    /// How many slices a call gets that never ends, when `others` have turns as well.
    fn slices_of_a_loop(limit: Duration, others: u32) -> (u32, Duration) {
        let (start, slice) = (Duration::from_secs(9), Duration::from_micros(250));
        let mut time = CallTime::new(limit);
        let mut now = start;
        loop {
            now += slice;
            if let Verdict::End = time.end_slice(now, slice) {
                return (time.slices, now - start);
            }
            now += slice * others;
        }
    }

    #[test]
    fn a_loop_ends_when_its_time_is_used_up_and_no_later_for_the_turns_of_others() {
        let limit = Duration::from_millis(50);
        let (slices, took) = slices_of_a_loop(limit, 0);
        assert_eq!(slices, 201, "{took:?}");
        for others in [1, 3, 7, 20] {
            let (slices, took) = slices_of_a_loop(limit, others);
            assert!(slices >= FAIR_SLICES, "{others}: {slices}");
            assert!(
                took <= limit + Duration::from_millis(17),
                "{others}: {took:?}"
            );
        }
        // Whom the gateway itself held up gets its turns.
        let (slices, _) = slices_of_a_loop(limit, 1000);
        assert_eq!(slices, FAIR_SLICES);
    }

    #[test]
    fn waiting_for_something_else_is_not_wanting_the_processor() {
        let budget = Arc::new(MemoryBudget::unlimited());
        let mut meter = Meter::new(PluginLimits::default(), budget);
        meter.time = CallTime::new(Duration::from_millis(1));
        let slice = Duration::from_micros(1);
        let mut spun = Duration::ZERO;
        for _ in 0..20 {
            meter.begin_wait();
            let start = thread_time();
            while thread_time() - start < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            meter.end_wait();
            spun += Duration::from_millis(2);
            let verdict = meter.time.end_slice(thread_time(), slice);
            assert!(matches!(verdict, Verdict::GoOn), "after {spun:?}");
        }
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
        let mut meter = Meter::new(limits, Arc::new(MemoryBudget::unlimited()));
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
