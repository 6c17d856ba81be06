//! What a plugin did, for the metrics.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::component::Phase;
use crate::error::PluginError;
use crate::error::TrapKind;

/// Upper bounds of the histograms of calls, in microseconds.
pub const CALL_BUCKETS: [u64; 12] = [
    1, 2, 5, 10, 20, 50, 100, 500, 1_000, 10_000, 100_000, 1_000_000,
];
/// One call of so many is timed: reading the clock twice would be a tenth of a small call.
pub const TIMED_ONE_OF: u64 = 16;

/// Counters of one [`PluginWorker`](crate::PluginWorker). That worker alone writes them; anyone
/// may read them, so that the metrics of all workers can be summed.
#[derive(Debug, Default)]
pub struct PluginStats {
    pub(crate) calls: [AtomicU64; Phase::ALL.len()],
    timed: [Timed; Phase::ALL.len()],
    pub(crate) created: AtomicU64,
    pub(crate) live: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) log_dropped: AtomicU64,
    log_calls_dropped: AtomicU64,
    memory_high: AtomicU64,
    cpu_micros: AtomicU64,
    faults: [AtomicU64; FAULTS.len()],
    traps: [AtomicU64; TrapKind::ALL.len()],
}

/// How long the timed calls of a phase took.
#[derive(Debug, Default)]
struct Timed {
    buckets: [AtomicU64; CALL_BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// The labels of [`PluginError::reason`] that a call can end with.
const FAULTS: [&str; 8] = [
    "plugin-trap",
    "plugin-cpu",
    "plugin-deadline",
    "plugin-memory",
    "plugin-contract",
    "plugin-overloaded",
    // An instance that could not be made: `configure` refused, or answered differently.
    "plugin-config",
    // Not called at all.
    "plugin-breaker",
];

/// The calls of one phase.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PhaseTotals {
    pub phase: Phase,
    pub calls: u64,
    /// Timed calls by bucket, not cumulated; the last has no bound.
    pub buckets: [u64; CALL_BUCKETS.len() + 1],
    pub timed: Duration,
}

impl PluginStats {
    /// Calls that were begun.
    pub fn calls(&self) -> u64 {
        self.calls.iter().map(value).sum()
    }

    /// Instances that were made.
    pub fn created(&self) -> u64 {
        value(&self.created)
    }

    /// Instances that exist now.
    pub fn live(&self) -> u64 {
        value(&self.live)
    }

    /// Calls that had to wait for an instance.
    pub fn waited(&self) -> u64 {
        value(&self.waited)
    }

    /// Calls that were dropped before their end, with their instance.
    pub fn cancelled(&self) -> u64 {
        value(&self.cancelled)
    }

    /// Log lines beyond the limit.
    pub fn log_dropped(&self) -> u64 {
        value(&self.log_dropped)
    }

    /// Calls of `log-phase` that could not be kept up with.
    pub fn log_calls_dropped(&self) -> u64 {
        value(&self.log_calls_dropped)
    }

    /// Bytes of linear memory of the largest instance so far.
    pub fn memory_high(&self) -> u64 {
        value(&self.memory_high)
    }

    /// Processor time of calls that came to an end, by sampling: exact to a few per cent once it is
    /// a second.
    pub fn cpu(&self) -> Duration {
        Duration::from_micros(value(&self.cpu_micros))
    }

    /// Calls that failed, by [`PluginError::reason`].
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAULTS.into_iter().zip(self.faults.iter().map(value))
    }

    /// Traps, by [`TrapKind::as_str`].
    pub fn traps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = TrapKind::ALL.into_iter().map(TrapKind::as_str);
        labels.zip(self.traps.iter().map(value))
    }

    /// The phases that were called.
    pub fn phases(&self) -> impl Iterator<Item = PhaseTotals> {
        let phases = Phase::ALL.into_iter().map(|phase| {
            let timed = &self.timed[phase as usize];
            PhaseTotals {
                phase,
                calls: value(&self.calls[phase as usize]),
                buckets: std::array::from_fn(|bucket| value(&timed.buckets[bucket])),
                timed: Duration::from_nanos(value(&timed.nanos)),
            }
        });
        phases.filter(|phase| phase.calls > 0)
    }

    /// Counts a call that is to begin, and answers whether it is one to be timed.
    pub(crate) fn begin(&self, phase: Phase) -> bool {
        let calls = &self.calls[phase as usize];
        let count = value(calls);
        calls.store(count.wrapping_add(1), Ordering::Relaxed);
        count.is_multiple_of(TIMED_ONE_OF)
    }

    pub(crate) fn took(&self, phase: Phase, time: Duration) {
        let timed = &self.timed[phase as usize];
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = CALL_BUCKETS.partition_point(|bound| bound * 1000 < nanos);
        add(&timed.buckets[bucket], 1);
        add(&timed.nanos, nanos);
    }

    pub(crate) fn count_fault(&self, error: &PluginError) {
        let reason = error.reason();
        if let Some(index) = FAULTS.iter().position(|label| *label == reason) {
            add(&self.faults[index], 1);
        }
        if let PluginError::Trap(kind) = error {
            add(&self.traps[*kind as usize], 1);
        }
    }

    pub(crate) fn count_cpu(&self, time: Duration) {
        if !time.is_zero() {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            add(&self.cpu_micros, micros);
        }
    }

    pub(crate) fn note_memory(&self, bytes: u64) {
        if bytes > value(&self.memory_high) {
            self.memory_high.store(bytes, Ordering::Relaxed);
        }
    }

    /// Counts a call of `log-phase` that was not made. By the worker alone, as all else.
    pub fn count_log_call_dropped(&self) {
        add(&self.log_calls_dropped, 1);
    }

    fn absorb(&self, other: &Self) {
        let pairs = self.calls.iter().zip(&other.calls);
        let pairs = pairs.chain(self.faults.iter().zip(&other.faults));
        let pairs = pairs.chain(self.traps.iter().zip(&other.traps));
        let pairs = pairs.chain([
            (&self.created, &other.created),
            (&self.live, &other.live),
            (&self.waited, &other.waited),
            (&self.cancelled, &other.cancelled),
            (&self.log_dropped, &other.log_dropped),
            (&self.log_calls_dropped, &other.log_calls_dropped),
            (&self.cpu_micros, &other.cpu_micros),
        ]);
        for (into, from) in pairs {
            add(into, value(from));
        }
        for (into, from) in self.timed.iter().zip(&other.timed) {
            for (into, from) in into.buckets.iter().zip(&from.buckets) {
                add(into, value(from));
            }
            add(&into.nanos, value(&from.nanos));
        }
        self.note_memory(other.memory_high());
    }
}

/// The counters of all workers of a plugin, and of those that are no more.
#[derive(Debug, Default)]
pub(crate) struct StatsBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    live: Vec<Arc<PluginStats>>,
    retired: PluginStats,
}

impl StatsBook {
    pub(crate) fn open(&self) -> Arc<PluginStats> {
        let stats = Arc::new(PluginStats::default());
        self.lock().live.push(Arc::clone(&stats));
        stats
    }

    /// Keeps what a worker has counted, and lets go of the rest.
    pub(crate) fn close(&self, stats: &Arc<PluginStats>) {
        let mut book = self.lock();
        let before = book.live.len();
        book.live.retain(|other| !Arc::ptr_eq(other, stats));
        if book.live.len() < before {
            stats.live.store(0, Ordering::Relaxed);
            book.retired.absorb(stats);
        }
    }

    pub(crate) fn sum(&self) -> PluginStats {
        let book = self.lock();
        let sum = PluginStats::default();
        sum.absorb(&book.retired);
        for stats in &book.live {
            sum.absorb(stats);
        }
        sum
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// One writer, so a load and a store do what an atomic addition would do for ten times the cost.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(value(counter).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_counted_outlives_it() {
        let book = StatsBook::default();
        let (one, two) = (book.open(), book.open());
        for stats in [&one, &two] {
            assert!(stats.begin(Phase::Request));
            assert!(!stats.begin(Phase::Request));
            stats.took(Phase::Request, Duration::from_micros(2));
            stats.count_fault(&PluginError::Trap(TrapKind::Stack));
            stats.live.store(1, Ordering::Relaxed);
        }
        one.note_memory(7);
        book.close(&one);
        book.close(&one);
        let sum = book.sum();
        let phases: Vec<_> = sum.phases().collect();
        assert_eq!((phases.len(), phases[0].calls), (1, 4));
        assert_eq!((phases[0].buckets[1], phases[0].timed.as_micros()), (2, 4));
        assert_eq!(sum.faults().next(), Some(("plugin-trap", 2)));
        assert_eq!(sum.traps().nth(1), Some(("stack", 2)));
        assert_eq!((sum.live(), sum.memory_high()), (1, 7));
    }
}
