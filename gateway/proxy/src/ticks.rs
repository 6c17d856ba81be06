//! `background`: ticks of plugins, from one worker of the process.
//!
//! A plugin that ticks has an instance of its own for it, which no request uses.

use std::time::Duration;

use postern_wasm::PluginWorker;
use tokio::task::JoinHandle;

/// A task that calls a plugin now and then, for as long as this is held.
pub(crate) struct Ticking(JoinHandle<()>);

impl Ticking {
    pub(crate) fn start(worker: PluginWorker, period: Duration) -> Self {
        // Aborted when the plugin is no longer configured, by `drop`.
        Self(tokio::task::spawn_local(tick(worker, period)))
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tick(worker: PluginWorker, period: Duration) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    // A tick that took longer than its period is followed by a pause, not by a burst.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        let ticked = worker.on_tick().await;
        if let Err(error) = &ticked
            && !has_failed
        {
            let error = error as &dyn std::error::Error;
            let plugin = worker.plugin().name().as_str();
            tracing::warn!(plugin, error, "the tick of a plugin fails");
        }
        has_failed = ticked.is_err();
    }
}
