//! A plugin: a component with a configuration that it has accepted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;

use crate::bindings::exports::postern::plugin::lifecycle::BodyMode;
use crate::bindings::exports::postern::plugin::lifecycle::Spec;
use crate::component::Component;
use crate::component::Phases;
use crate::error::PluginError;
use crate::instance::Instance;
use crate::instance::Wall;
use crate::limits::LogBudget;
use crate::stats::PluginStats;
use crate::view::ViewSpec;
use crate::worker::PluginWorker;

/// How long `configure` may take when a plugin is taken into service. Longer than a call may: no
/// request waits for it.
const CONFIGURE_TIME: Duration = Duration::from_secs(10);

/// A configured plugin. Shared by all workers; each makes its own [`PluginWorker`] of it.
pub struct Plugin {
    component: Arc<Component>,
    name: PolicyName,
    config: String,
    limits: PluginLimits,
    spec: PluginSpec,
}

/// What `configure` answered, understood.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PluginSpec {
    pub(crate) request_view: ViewSpec,
    pub(crate) response_view: ViewSpec,
}

impl Plugin {
    /// Starts one instance and shows it its configuration, which it may refuse.
    pub async fn configure(
        component: Arc<Component>,
        name: PolicyName,
        config: String,
        limits: PluginLimits,
    ) -> Result<Arc<Self>, PluginError> {
        let mut plugin = Self {
            component,
            name,
            config,
            limits,
            spec: PluginSpec::default(),
        };
        let log = LogBudget::new(limits.log_lines, Arc::new(PluginStats::default()));
        let activity = plugin.component.engine().activity();
        let _running = activity.enter();
        let mut wall = Wall::new(CONFIGURE_TIME);
        let (_instance, spec) = Instance::start(&plugin, Arc::new(log), &mut wall).await?;
        plugin.spec = spec;
        Ok(Arc::new(plugin))
    }

    /// One worker's share of the plugin.
    pub fn worker(self: &Arc<Self>) -> PluginWorker {
        PluginWorker::new(Arc::clone(self))
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

    pub fn phases(&self) -> Phases {
        self.component.phases()
    }

    pub(crate) fn spec(&self) -> &PluginSpec {
        &self.spec
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
    pub(crate) fn parse(spec: &Spec) -> Result<Self, PluginError> {
        for (mode, what) in [
            (spec.request_body, "request bodies"),
            (spec.response_body, "response bodies"),
        ] {
            match mode {
                BodyMode::None => {}
                BodyMode::Chunks => return Err(PluginError::Unsupported { what }),
            }
        }
        if spec.tick_ms != 0 {
            return Err(PluginError::Unsupported {
                what: "a background phase",
            });
        }
        Ok(Self {
            request_view: ViewSpec::request(&spec.request_view)?,
            response_view: ViewSpec::response(&spec.response_view)?,
        })
    }
}
