//! What the linear memory of all instances together may come to.
//!
//! Each instance has a limit of its own. But there may be as many instances as requests wait, and
//! what they have together must leave room for everything else that the process does.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Bytes, shared by all instances of an engine.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: AtomicU64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(crate) fn unlimited() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(0),
        }
    }

    /// From now on. What is beyond it already stays until it is given back.
    pub(crate) fn limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Whether there was so much left; then it is taken.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = MemoryBudget::unlimited();
        assert!(budget.take(1 << 40));
        budget.give_back(1 << 40);
        budget.limit(100);
        assert!(budget.take(60) && !budget.take(41) && budget.take(40) && !budget.take(1));
        budget.give_back(60);
        assert!(budget.take(60) && !budget.take(u64::MAX));
    }
}
