//! What a plugin did in one worker, for the metrics.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::error::PluginError;

/// Counters of one [`PluginWorker`](crate::PluginWorker). That worker alone writes them; anyone
/// may read them, so that the metrics of all workers can be summed.
#[derive(Debug, Default)]
pub struct PluginStats {
    pub(crate) calls: AtomicU64,
    pub(crate) created: AtomicU64,
    pub(crate) live: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) log_dropped: AtomicU64,
    faults: [AtomicU64; FAULTS.len()],
}

/// The labels of [`PluginError::reason`] that a call can end with.
const FAULTS: [&str; 7] = [
    "plugin-trap",
    "plugin-cpu",
    "plugin-deadline",
    "plugin-memory",
    "plugin-contract",
    "plugin-overloaded",
    // An instance that could not be made: `configure` refused, or answered differently.
    "plugin-config",
];

impl PluginStats {
    /// Calls that were begun.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Instances that were made.
    pub fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    /// Instances that exist now.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Calls that had to wait for an instance.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Calls that were dropped before their end, with their instance.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Log lines beyond the limit.
    pub fn log_dropped(&self) -> u64 {
        self.log_dropped.load(Ordering::Relaxed)
    }

    /// Calls that failed, by [`PluginError::reason`].
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.faults.iter().map(|n| n.load(Ordering::Relaxed));
        FAULTS.into_iter().zip(counts)
    }

    pub(crate) fn count_fault(&self, error: &PluginError) {
        let reason = error.reason();
        if let Some(index) = FAULTS.iter().position(|label| *label == reason) {
            add(&self.faults[index], 1);
        }
    }
}

/// One writer, so a load and a store do what an atomic addition would do for ten times the cost.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}
