//! What the process knows of a plugin beyond one configuration of it.
//!
//! Handed from one configuration of a plugin to the next, so that a change neither empties shared
//! state nor sets counters to zero. It goes when the last plugin that has it does.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::metrics::PluginMetrics;
use crate::shared::SharedState;
use crate::stats::StatsBook;

/// One plugin.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) stats: StatsBook,
    latest: Mutex<Latest>,
}

/// As the newest configuration that was accepted left it.
#[derive(Clone, Default)]
struct Latest {
    shared: Option<Arc<SharedState>>,
    metrics: Option<Arc<PluginMetrics>>,
}

impl Record {
    /// The shared state of this size: the one there is, or a new one.
    pub(crate) fn shared(&self, limit: Option<u64>) -> Option<Arc<SharedState>> {
        let limit = limit?;
        let latest = self.latest().shared.filter(|s| s.limit() == limit);
        Some(latest.unwrap_or_else(|| Arc::new(SharedState::new(limit))))
    }

    /// An empty set of metrics that takes over what is defined again.
    pub(crate) fn metrics(&self) -> Arc<PluginMetrics> {
        Arc::new(PluginMetrics::after(self.latest().metrics.as_deref()))
    }

    /// Called when a configuration was accepted.
    pub(crate) fn keep(&self, shared: Option<Arc<SharedState>>, metrics: Arc<PluginMetrics>) {
        metrics.settle();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = Latest {
            shared,
            metrics: Some(metrics),
        };
    }

    fn latest(&self) -> Latest {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.clone()
    }
}
