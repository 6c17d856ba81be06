//! A plugin: a component with a configuration that it has accepted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_core::config::plugin::Grants;
use postern_core::config::plugin::Isolation;
use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;

use crate::bindings::exports::postern::plugin::lifecycle::BodyMode;
use crate::bindings::exports::postern::plugin::lifecycle::Spec;
use crate::breaker::Breaker;
use crate::callout::Callouts;
use crate::component::Component;
use crate::component::Phase;
use crate::component::Phases;
use crate::error::PluginError;
use crate::instance::Instance;
use crate::instance::Wall;
use crate::limits::LogBudget;
use crate::metrics::PluginMetrics;
use crate::record::Record;
use crate::shared::SharedState;
use crate::solver::Solver;
use crate::stats::PluginStats;
use crate::view::ViewSpec;
use crate::worker::PluginWorker;

/// How long `configure` may take when a plugin is taken into service. Longer than a call may: no
/// request waits for it.
const CONFIGURE_TIME: Duration = Duration::from_secs(10);
/// Least time between two calls of `background.on-tick`.
pub const MIN_TICK_MS: u32 = 100;

/// What a plugin is configured with.
#[derive(Clone, Debug)]
pub struct PluginSetup {
    pub name: PolicyName,
    /// JSON text.
    pub config: String,
    pub limits: PluginLimits,
    pub isolation: Isolation,
    pub grants: Grants,
    /// The secrets among the grants.
    pub secrets: Secrets,
}

/// Secrets by name.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Arc<[u8]>>);

/// A configured plugin. Shared by all workers; each makes its own [`PluginWorker`] of it.
pub struct Plugin {
    component: Arc<Component>,
    name: PolicyName,
    config: String,
    limits: PluginLimits,
    isolation: Isolation,
    powers: Arc<Powers>,
    pub(crate) record: Arc<Record>,
    /// Of the phases that a request waits for.
    breaker: Breaker,
    /// Of the others: a tick that fails must not keep requests from being answered.
    beside: Breaker,
    spec: PluginSpec,
}

/// What its instances may use beside their exchange.
pub(crate) struct Powers {
    pub(crate) upstreams: BTreeSet<UpstreamName>,
    pub(crate) secrets: Secrets,
    pub(crate) shared: Option<Arc<SharedState>>,
    pub(crate) metrics: Arc<PluginMetrics>,
}

/// What `configure` answered, understood.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PluginSpec {
    pub(crate) request_view: ViewSpec,
    pub(crate) response_view: ViewSpec,
    pub(crate) request_chunks: bool,
    pub(crate) response_chunks: bool,
    pub(crate) tick: Option<Duration>,
}

impl PluginSetup {
    /// With nothing granted.
    pub fn new(name: PolicyName, config: String, limits: PluginLimits) -> Self {
        Self {
            name,
            config,
            limits,
            isolation: Isolation::default(),
            grants: Grants::default(),
            secrets: Secrets::default(),
        }
    }
}

impl Secrets {
    pub fn new(secrets: impl IntoIterator<Item = (String, Arc<[u8]>)>) -> Self {
        Self(secrets.into_iter().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.0.get(name)
    }
}

/// Names only.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Plugin {
    /// Starts one instance and shows it its configuration, which it may refuse. Grants it nothing.
    pub async fn configure(
        component: Arc<Component>,
        name: PolicyName,
        config: String,
        limits: PluginLimits,
    ) -> Result<Arc<Self>, PluginError> {
        Self::set_up(component, PluginSetup::new(name, config, limits), None).await
    }

    /// As [`Plugin::configure`], with grants. Refuses a component that needs others. Takes over
    /// shared state, metrics and statistics of `previous`, an earlier configuration of the plugin.
    pub async fn set_up(
        component: Arc<Component>,
        setup: PluginSetup,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, PluginError> {
        if let Some(missing) = component.missing_grants(&setup.grants).pop() {
            return Err(PluginError::NotGranted { what: missing.what });
        }
        let record = previous.map(|previous| Arc::clone(&previous.record));
        let record = record.unwrap_or_default();
        let powers = Powers {
            upstreams: setup.grants.upstreams,
            secrets: setup.secrets,
            shared: record.shared(setup.grants.shared_state),
            metrics: record.metrics(),
        };
        let mut plugin = Self {
            component,
            name: setup.name,
            config: setup.config,
            limits: setup.limits,
            isolation: setup.isolation,
            powers: Arc::new(powers),
            record,
            breaker: Breaker::new(),
            beside: Breaker::new(),
            spec: PluginSpec::default(),
        };
        let log = LogBudget::new(plugin.limits.log_lines, Arc::new(PluginStats::default()));
        let activity = plugin.component.engine().activity();
        let _running = activity.enter();
        let mut wall = Wall::new(CONFIGURE_TIME);
        let (_instance, spec) = Instance::start(&plugin, Arc::new(log), None, &mut wall).await?;
        plugin.spec = spec;
        let Powers {
            shared, metrics, ..
        } = &*plugin.powers;
        plugin.record.keep(shared.clone(), Arc::clone(metrics));
        Ok(Arc::new(plugin))
    }

    /// One worker's share of the plugin, which makes no callouts.
    pub fn worker(self: &Arc<Self>) -> PluginWorker {
        PluginWorker::new(Arc::clone(self), None)
    }

    /// One worker's share of the plugin.
    pub fn worker_with(self: &Arc<Self>, callouts: Arc<dyn Callouts>) -> PluginWorker {
        PluginWorker::new(Arc::clone(self), Some(callouts))
    }

    /// The plugin as a writer of DNS records, if it is one.
    pub fn solver(self: &Arc<Self>, callouts: Option<Arc<dyn Callouts>>) -> Option<Solver> {
        let is_solver = self.phases().solver;
        is_solver.then(|| Solver::new(PluginWorker::new(Arc::clone(self), callouts)))
    }

    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    pub fn config(&self) -> &str {
        &self.config
    }

    pub fn limits(&self) -> &PluginLimits {
        &self.limits
    }

    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    pub fn phases(&self) -> Phases {
        self.component.phases()
    }

    /// Time between two calls of `background.on-tick`, if it is to be called.
    pub fn tick(&self) -> Option<Duration> {
        self.spec.tick
    }

    /// The sum over all workers, those of earlier configurations included.
    pub fn totals(&self) -> PluginStats {
        self.record.stats.sum()
    }

    /// Figures of the plugin's own.
    pub fn metrics(&self) -> &PluginMetrics {
        &self.powers.metrics
    }

    /// Bytes of shared state, if it was granted any.
    pub fn shared_bytes(&self) -> Option<u64> {
        self.powers.shared.as_ref().map(|shared| shared.bytes())
    }

    /// Whether it failed too often and is not called for requests now.
    pub fn is_suspended(&self) -> bool {
        self.breaker.is_open()
    }

    /// Whether a phase on the response may look at the fields of the request. If not, they need not
    /// be kept when the request is sent.
    pub fn reads_request_later(&self) -> bool {
        let is_called = self.phases().response || self.spec.response_chunks;
        is_called
            && (self.component.reads_request_fields()
                || self.spec.response_view.has_request_fields())
    }

    pub(crate) fn breaker(&self, phase: Phase) -> &Breaker {
        match phase {
            Phase::Log | Phase::Tick | Phase::Solver => &self.beside,
            Phase::Configure
            | Phase::Route
            | Phase::Request
            | Phase::RequestBody
            | Phase::RequestStream
            | Phase::Response
            | Phase::ResponseBody
            | Phase::ResponseStream
            | Phase::Challenge => &self.breaker,
        }
    }

    pub(crate) fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    pub(crate) fn powers(&self) -> &Arc<Powers> {
        &self.powers
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl PluginSpec {
    /// Refuses what asks for a phase that is not there: it would never be called.
    pub(crate) fn parse(spec: &Spec, phases: Phases) -> Result<Self, PluginError> {
        let needs = |is_asked: bool, is_there: bool, what, phase| {
            if is_asked && !is_there {
                return Err(PluginError::MissingPhase { what, phase });
            }
            Ok(is_asked)
        };
        let request_chunks = needs(
            spec.request_body == BodyMode::Chunks,
            phases.request_stream,
            "request bodies in chunks",
            "request-stream",
        )?;
        let response_chunks = needs(
            spec.response_body == BodyMode::Chunks,
            phases.response_stream,
            "response bodies in chunks",
            "response-stream",
        )?;
        let ticks = needs(spec.tick_ms != 0, phases.background, "ticks", "background")?;
        if ticks && spec.tick_ms < MIN_TICK_MS {
            return Err(PluginError::TickTooShort { ms: spec.tick_ms });
        }
        Ok(Self {
            request_view: ViewSpec::request(&spec.request_view)?,
            response_view: ViewSpec::response(&spec.response_view)?,
            request_chunks,
            response_chunks,
            tick: ticks.then(|| Duration::from_millis(spec.tick_ms.into())),
        })
    }
}
