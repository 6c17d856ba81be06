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
use postern_wasm::PluginSetup;
use postern_wasm::plugin::Secrets;
use tokio::time::Instant;

use super::compile::with_causes;
use crate::policy::GrantedSecrets;
use crate::policy::LivePlugin;
use crate::policy::Policy;

/// How long a refusal is believed. Some have passing causes: a machine so busy that `configure` ran
/// out of time.
const BELIEVED: Duration = Duration::from_secs(60);

/// Where plugins are built; one for the life of the process.
pub(super) struct Workshop {
    engine: Arc<PluginEngine>,
    /// The last refusal of each plugin, until it is built or no longer configured.
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
    pub(super) help: Option<String>,
}

impl Refusal {
    fn of_source(message: String) -> Self {
        Self {
            field: ".source",
            message,
            help: None,
        }
    }

    pub(super) fn in_one_line(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message.clone(),
        }
    }
}

struct Refused {
    spec: PluginSpec,
    bytes: Arc<[u8]>,
    secrets: GrantedSecrets,
    refusals: Vec<Refusal>,
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

    /// The plugin that serves already, if it is the same; else a new one. Without its secrets there
    /// is none, and who knows why has said so; what else is wrong is found all the same.
    pub(super) async fn plugin(
        &self,
        name: &PolicyName,
        spec: &PluginSpec,
        bytes: Arc<[u8]>,
        secrets: Option<GrantedSecrets>,
        live: Option<&Arc<Policy>>,
    ) -> Result<Arc<Policy>, Vec<Refusal>> {
        let served = live.and_then(|policy| match &**policy {
            Policy::Plugin(served) => Some((policy, &**served)),
            Policy::Native(_) | Policy::Absent(_) => None,
        });
        if let Some((policy, served)) = served
            && let Some(secrets) = &secrets
            && served.is_from(spec, &bytes, secrets)
        {
            self.refused().remove(name);
            return Ok(Arc::clone(policy));
        }
        let known = secrets.as_ref();
        let known = known.and_then(|secrets| self.known_refusals(name, spec, &bytes, secrets));
        if let Some(refusals) = known {
            return Err(refusals);
        }
        let served = served.map(|(_, served)| served);
        let component = match served.filter(|served| *served.bytes == *bytes) {
            Some(served) => Ok(Arc::clone(served.plugin.component())),
            None => self.component(&bytes).await,
        };
        let built = match (component, &secrets) {
            (Ok(component), Some(secrets)) => {
                configure(name, spec, &bytes, secrets, component, served).await
            }
            (Ok(component), None) => Err(missing_grants(name, spec, &component)),
            (Err(refusal), _) => Err(vec![refusal]),
        };
        match (&built, secrets) {
            (Ok(_), _) => {
                self.refused().remove(name);
            }
            (Err(refusals), Some(secrets)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let refused = Refused {
                    spec: spec.clone(),
                    bytes,
                    secrets,
                    refusals: refusals.clone(),
                    at: Instant::now(),
                };
                self.refused().insert(name.clone(), refused);
            }
            (Err(_), None) => {}
        }
        built
    }

    /// Forgets the refusals of plugins that are not configured any more, which hold up to the size
    /// of a component each.
    pub(super) fn retain(&self, is_configured: impl Fn(&PolicyName) -> bool) {
        self.refused().retain(|name, _| is_configured(name));
    }

    async fn component(&self, bytes: &Arc<[u8]>) -> Result<Arc<Component>, Refusal> {
        let refusal = Refusal::of_source;
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

    fn known_refusals(
        &self,
        name: &PolicyName,
        spec: &PluginSpec,
        bytes: &[u8],
        secrets: &GrantedSecrets,
    ) -> Option<Vec<Refusal>> {
        let refused = self.refused();
        let known = refused.get(name)?;
        let is_same = known.spec == *spec && *known.bytes == *bytes && known.secrets == *secrets;
        (is_same && known.at.elapsed() < BELIEVED).then(|| known.refusals.clone())
    }

    /// The lock is held for moments and nothing under it panics halfway.
    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<PolicyName, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the component needs and was not given.
fn missing_grants(name: &PolicyName, spec: &PluginSpec, component: &Component) -> Vec<Refusal> {
    let missing = component.missing_grants(&spec.grants);
    let refusals = missing.iter().map(|missing| {
        let message = format!("the component {}, which needs a grant", missing.what);
        Refusal {
            help: Some(format!(
                "add to [plugins.{name}], if it is to have that: {}",
                missing.grant
            )),
            ..Refusal::of_source(message)
        }
    });
    refusals.collect()
}

async fn configure(
    name: &PolicyName,
    spec: &PluginSpec,
    bytes: &Arc<[u8]>,
    secrets: &GrantedSecrets,
    component: Arc<Component>,
    previous: Option<&LivePlugin>,
) -> Result<Arc<Policy>, Vec<Refusal>> {
    let missing = missing_grants(name, spec, &component);
    if !missing.is_empty() {
        return Err(missing);
    }
    let setup = PluginSetup {
        name: name.clone(),
        config: spec.config.clone(),
        limits: spec.limits,
        isolation: spec.isolation,
        grants: spec.grants.clone(),
        secrets: Secrets::new(secrets.clone()),
    };
    let previous = previous.map(|previous| &*previous.plugin);
    match Plugin::set_up(component, setup, previous).await {
        Ok(plugin) => Ok(Arc::new(Policy::Plugin(Box::new(LivePlugin {
            name: name.clone(),
            spec: spec.clone(),
            bytes: Arc::clone(bytes),
            secrets: secrets.clone(),
            plugin,
        })))),
        Err(error) => Err(vec![Refusal {
            field: "",
            message: with_causes(&error),
            help: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use postern_core::config::parse::parse;
    use postern_core::config::problem::ConfigText;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_forgotten_with_its_plugin() {
        let engine = PluginEngine::new(None).unwrap();
        let workshop = Workshop::new(engine);
        let text = "[plugins.a]\nsource = \"a.wasm\"";
        let file = ConfigText {
            path: "a.toml".into(),
            text: text.to_owned(),
        };
        let loaded = parse(&[file]).unwrap();
        let (name, spec) = loaded.config.policies.first_key_value().unwrap();
        let spec = spec.plugin().unwrap();
        let no_plugin: Arc<[u8]> = b"no plugin".as_slice().into();
        for _ in 0..2 {
            let secrets = Some(GrantedSecrets::default());
            let bytes = Arc::clone(&no_plugin);
            let built = workshop.plugin(name, spec, bytes, secrets, None).await;
            assert!(built.is_err());
            workshop.retain(|_| true);
        }
        assert_eq!(workshop.builds().failed, 1, "the second time it is known");
        workshop.retain(|other| other != name);
        assert_eq!(Arc::strong_count(&no_plugin), 1);
    }
}
