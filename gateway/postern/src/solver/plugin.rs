//! A plugin that writes DNS records.
//!
//! Instances belong to a thread, so all calls are made in one of their own. Each call takes the
//! plugin as it is served at that moment: one that was replaced or repaired is used at once.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::thread;

use futures_util::future::BoxFuture;
use postern_acme::dns::Access;
use postern_acme::dns::DnsWriter;
use postern_acme::dns::Place;
use postern_acme::dns::Progress;
use postern_acme::dns::SolverError;
use postern_core::name::PolicyName;
use postern_proxy::Gateway;
use postern_wasm::solver;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Calls on their way at once, in all plugins together.
const MAX_CALLS: usize = 8;

/// Where plugins are called, once there is a gateway that has them.
#[derive(Debug, Default)]
pub struct PluginDesk {
    calls: OnceLock<mpsc::Sender<Call>>,
}

#[derive(Debug)]
struct Call {
    plugin: PolicyName,
    ask: Ask,
    record: solver::TxtRecord,
    answer: oneshot::Sender<Result<Answer, SolverError>>,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Supports,
    Present,
    Poll,
    Cleanup,
}

#[derive(Debug)]
enum Answer {
    Supported(bool),
    Progress(solver::Progress),
    Clean,
}

impl PluginDesk {
    /// Starts the thread, which ends when the last of who may ask it is gone.
    pub fn open(&self, gateway: &Arc<Gateway>) -> io::Result<()> {
        let (calls, incoming) = mpsc::channel(MAX_CALLS);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        if self.calls.set(calls).is_err() {
            return Ok(());
        }
        let gateway = Arc::downgrade(gateway);
        thread::Builder::new()
            .name("dns-solver".to_owned())
            .spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, serve(gateway, incoming));
            })?;
        Ok(())
    }

    pub(super) fn writer(self: &Arc<Self>, plugin: PolicyName) -> Arc<dyn DnsWriter> {
        Arc::new(PluginWriter {
            plugin,
            desk: Arc::clone(self),
        })
    }
}

async fn serve(gateway: Weak<Gateway>, mut incoming: mpsc::Receiver<Call>) {
    let permits = Arc::new(Semaphore::new(MAX_CALLS));
    while let Some(call) = incoming.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        // It ends without waiting for what a plugin does.
        let Some(gateway) = gateway.upgrade() else {
            return;
        };
        // Bounded by the permit and by the time of a call.
        tokio::task::spawn_local(async move {
            let answer = answer(&gateway, &call).await;
            // Whoever asked may have gone.
            let _ = call.answer.send(answer);
            drop(permit);
        });
    }
}

async fn answer(gateway: &Gateway, call: &Call) -> Result<Answer, SolverError> {
    let plugin = &call.plugin;
    let Some(solver) = gateway.dns_solver(plugin) else {
        return Err(SolverError::failed(format!(
            "the plugin {plugin} is not there, or writes no DNS records"
        )));
    };
    let fault = |error: postern_wasm::PluginError| {
        SolverError::failed(format!("the plugin {plugin} failed: {error}"))
    };
    let refused = |error: String| SolverError::failed(format!("the plugin {plugin}: {error}"));
    let record = &call.record;
    Ok(match call.ask {
        Ask::Supports => Answer::Supported(solver.supports(&record.zone).await.map_err(fault)?),
        Ask::Present => {
            let progress = solver.present(record).await.map_err(fault)?;
            Answer::Progress(progress.map_err(refused)?)
        }
        Ask::Poll => {
            let progress = solver.poll(record).await.map_err(fault)?;
            Answer::Progress(progress.map_err(refused)?)
        }
        Ask::Cleanup => {
            solver
                .cleanup(record)
                .await
                .map_err(fault)?
                .map_err(refused)?;
            Answer::Clean
        }
    })
}

struct PluginWriter {
    plugin: PolicyName,
    desk: Arc<PluginDesk>,
}

impl fmt::Debug for PluginWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PluginWriter").field(&self.plugin).finish()
    }
}

impl PluginWriter {
    async fn ask(&self, ask: Ask, place: &Place, value: &str) -> Result<Answer, SolverError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            plugin: self.plugin.clone(),
            ask,
            record: solver::TxtRecord {
                name: place.name(),
                zone: place.zone(),
                value: value.to_owned(),
                identifier: place.host(),
            },
            answer,
        };
        let gone =
            || SolverError::failed(format!("the plugin {} cannot be called now", self.plugin));
        let calls = self.desk.calls.get().ok_or_else(gone)?;
        calls.send(call).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn progress(
        &self,
        ask: Ask,
        place: &Place,
        value: &str,
    ) -> Result<Progress, SolverError> {
        Ok(match self.ask(ask, place, value).await? {
            Answer::Progress(solver::Progress::Pending(after)) => Progress::Pending {
                ticket: String::new(),
                after,
            },
            _ => Progress::Done,
        })
    }
}

impl DnsWriter for PluginWriter {
    fn accepts<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Access, SolverError>> {
        Box::pin(async move {
            Ok(match self.ask(Ask::Supports, place, "").await? {
                Answer::Supported(true) => Access::Granted,
                _ => Access::Denied(format!(
                    "the plugin {} does not write to the zone {}",
                    self.plugin,
                    place.zone()
                )),
            })
        })
    }

    fn add<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(self.progress(Ask::Present, place, value))
    }

    fn poll<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
        _ticket: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(self.progress(Ask::Poll, place, value))
    }

    fn remove<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move { self.ask(Ask::Cleanup, place, value).await.map(drop) })
    }
}
