//! `log-phase`: calls about exchanges that have ended. Nobody waits for them.
//!
//! An access record that is dropped hands its exchange in here, and a task of the worker calls the
//! plugins. What cannot be kept up with is dropped and counted: a slow plugin must neither hold
//! requests back nor fill the memory.

use std::cell::Cell;
use std::rc::Rc;

use postern_wasm::Exchange;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::Summary;
use tokio::sync::mpsc;

/// Exchanges that may wait, one worker. Each holds the fields of its request.
const WAITING: usize = 256;
/// Exchanges whose plugins are called at the same time, one worker.
const AT_ONCE: usize = 16;

/// What is to be called when an exchange has ended.
pub(crate) struct LogCall {
    pub(crate) exchange: Exchange,
    /// In the order of the rule.
    pub(crate) plugins: Vec<Rc<PluginWorker>>,
}

/// Where one worker's calls are handed in.
pub(crate) struct LogCalls {
    calls: mpsc::Sender<Job>,
    open: Rc<Cell<usize>>,
}

/// The other end of [`LogCalls`].
pub(crate) struct Jobs(mpsc::Receiver<Job>);

struct Job {
    call: LogCall,
    summary: Summary,
    _open: Open,
}

/// Counts a call until it is over.
struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(crate) fn log_calls() -> (LogCalls, Jobs) {
    let (calls, jobs) = mpsc::channel(WAITING);
    let open = Rc::default();
    (LogCalls { calls, open }, Jobs(jobs))
}

impl LogCalls {
    /// Never waits: called from a destructor.
    pub(crate) fn hand_in(&self, call: LogCall, summary: Summary) {
        self.open.set(self.open.get() + 1);
        let job = Job {
            call,
            summary,
            _open: Open(Rc::clone(&self.open)),
        };
        if let Err(refused) = self.calls.try_send(job) {
            for plugin in &refused.into_inner().call.plugins {
                plugin.stats().count_log_call_dropped();
            }
        }
    }

    /// Calls that have not been made yet.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }
}

impl Jobs {
    /// Makes the calls until the worker ends.
    pub(crate) async fn serve(mut self) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        while let Some(mut job) = self.0.recv().await {
            // Never closed.
            let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else {
                return;
            };
            // Each call has its plugin's deadline.
            tokio::task::spawn_local(async move {
                for plugin in &job.call.plugins {
                    let called = plugin.on_log(&mut job.call.exchange, &job.summary).await;
                    if let Err(error) = called {
                        let error = &error as &dyn std::error::Error;
                        let plugin = plugin.plugin().name().as_str();
                        tracing::debug!(plugin, error, "plugin failed after an exchange");
                    }
                }
                drop(place);
            });
        }
    }
}
