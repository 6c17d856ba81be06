//! Bytes and a configuration to a plugin that serves.
//!
//! Compiling is what costs, so it is done once: a plugin whose bytes and spec are equal is taken
//! over alive, one whose bytes alone are equal keeps its compiled code, and one that was refused is
//! not tried again at each change of something else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_core::config::PluginSpec;
use postern_core::name::PolicyName;
use postern_wasm::Component;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;
use tokio::time::Instant;

use super::compile::with_causes;
use crate::policy::LivePlugin;
use crate::policy::Policy;

/// How long a refusal is believed. Some have passing causes: a machine so busy that `configure` ran
/// out of time.
const BELIEVED: Duration = Duration::from_secs(60);

/// Where plugins are built; one for the life of the process.
pub(super) struct Workshop {
    engine: Arc<PluginEngine>,
    /// The last refusal of each plugin, until it is built.
    refused: Mutex<BTreeMap<PolicyName, Refused>>,
    compiled: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
}

/// How components were made ready since the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Builds {
    /// Compiled.
    pub compiled: u64,
    /// Loaded from the cache, compiled in an earlier life.
    pub cached: u64,
    /// Refused.
    pub failed: u64,
}

/// Why a plugin cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    /// The field of the plugin that is to blame, with its dot; empty for the whole.
    pub(super) field: &'static str,
    pub(super) message: String,
}

struct Refused {
    spec: PluginSpec,
    bytes: Arc<[u8]>,
    refusal: Refusal,
    at: Instant,
}

impl Workshop {
    pub(super) fn new(engine: Arc<PluginEngine>) -> Self {
        Self {
            engine,
            refused: Mutex::default(),
            compiled: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub(super) fn builds(&self) -> Builds {
        Builds {
            compiled: self.compiled.load(Ordering::Relaxed),
            cached: self.cached.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// The plugin that serves already, if it is the same; else a new one.
    pub(super) async fn plugin(
        &self,
        name: &PolicyName,
        spec: &PluginSpec,
        bytes: Arc<[u8]>,
        live: Option<&Arc<Policy>>,
    ) -> Result<Arc<Policy>, Refusal> {
        let served = live.and_then(|policy| match &**policy {
            Policy::Plugin(served) => Some((policy, served)),
            Policy::Headers(_) | Policy::Absent(_) => None,
        });
        if let Some((policy, served)) = served
            && served.is_from(spec, &bytes)
        {
            self.refused().remove(name);
            return Ok(Arc::clone(policy));
        }
        if let Some(refusal) = self.known_refusal(name, spec, &bytes) {
            return Err(refusal);
        }
        let code = served.filter(|(_, served)| *served.bytes == *bytes);
        let component = match code {
            Some((_, served)) => Ok(Arc::clone(served.plugin.component())),
            None => self.component(&bytes).await,
        };
        let built = match component {
            Ok(component) => configure(name, spec, &bytes, component).await,
            Err(refusal) => Err(refusal),
        };
        match &built {
            Ok(_) => {
                self.refused().remove(name);
            }
            Err(refusal) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let refused = Refused {
                    spec: spec.clone(),
                    bytes,
                    refusal: refusal.clone(),
                    at: Instant::now(),
                };
                self.refused().insert(name.clone(), refused);
            }
        }
        built
    }

    async fn component(&self, bytes: &Arc<[u8]>) -> Result<Arc<Component>, Refusal> {
        let refusal = |message| Refusal {
            field: ".source",
            message,
        };
        let (engine, code) = (Arc::clone(&self.engine), Arc::clone(bytes));
        // Compiling takes up to seconds of processor time.
        let loading = tokio::task::spawn_blocking(move || Component::load(&engine, &code));
        let component = match loading.await {
            Ok(Ok(component)) => component,
            Ok(Err(error)) => return Err(refusal(with_causes(&error))),
            Err(_) => return Err(refusal("the component's compilation failed".to_owned())),
        };
        let counter = match component.was_cached() {
            true => &self.cached,
            false => &self.compiled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(component)
    }

    fn known_refusal(&self, name: &PolicyName, spec: &PluginSpec, bytes: &[u8]) -> Option<Refusal> {
        let refused = self.refused();
        let known = refused.get(name)?;
        let is_same = known.spec == *spec && *known.bytes == *bytes;
        (is_same && known.at.elapsed() < BELIEVED).then(|| known.refusal.clone())
    }

    /// The lock is held for moments and nothing under it panics halfway.
    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<PolicyName, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn configure(
    name: &PolicyName,
    spec: &PluginSpec,
    bytes: &Arc<[u8]>,
    component: Arc<Component>,
) -> Result<Arc<Policy>, Refusal> {
    let config = spec.config.clone();
    match Plugin::configure(component, name.clone(), config, spec.limits).await {
        Ok(plugin) => Ok(Arc::new(Policy::Plugin(LivePlugin {
            name: name.clone(),
            spec: spec.clone(),
            bytes: Arc::clone(bytes),
            plugin,
        }))),
        Err(error) => Err(Refusal {
            field: "",
            message: with_causes(&error),
        }),
    }
}
