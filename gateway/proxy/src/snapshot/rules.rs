//! The rules of a configuration with their references resolved to positions.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::PolicySpec;
use postern_core::config::RouteSpec;
use postern_core::config::route::ActionSpec;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::route::RuleId;

use super::Backends;
use super::Rule;
use super::Snapshot;

/// The very list of the snapshot before, where it says the same: who holds it can tell by that.
pub(super) fn upstream_names(
    config: &Config,
    previous: Option<&Arc<Snapshot>>,
) -> Arc<[UpstreamName]> {
    let names = config.upstreams.keys();
    match previous {
        Some(previous) if names.clone().eq(previous.upstream_names.iter()) => {
            Arc::clone(&previous.upstream_names)
        }
        _ => names.cloned().collect(),
    }
}

/// Those of a route that has not changed are taken over, as long as what they refer to by position
/// stands where it stood.
pub(super) fn compile(
    config: &Config,
    upstream_names: &Arc<[UpstreamName]>,
    previous: Option<&Snapshot>,
) -> Vec<Arc<[Rule]>> {
    let is_plugin =
        |(name, spec): (&PolicyName, &PolicySpec)| (name.clone(), spec.plugin().is_some());
    let previous = previous.filter(|previous| {
        let policies = config.policies.iter().map(is_plugin);
        Arc::ptr_eq(&previous.upstream_names, upstream_names)
            && policies.eq(previous.config.policies.iter().map(is_plugin))
    });
    // Positions by name, once: with 10,000 upstreams a search for each rule would take seconds.
    let upstreams: LazyCell<HashMap<_, _>, _> =
        LazyCell::new(|| config.upstreams.keys().zip(0..).collect());
    let policies: HashMap<_, _> = config.policies.keys().zip(0..).collect();
    let compile = |(route_index, route): (usize, &Arc<RouteSpec>)| {
        if let Some(previous) = previous
            && let Some(before) = previous.config.routes.get(route_index)
            && Arc::ptr_eq(before, route)
            && let Some(rules) = previous.rules.get(route_index)
        {
            return Arc::clone(rules);
        }
        let rules = route.rules.iter().enumerate();
        let rules = rules.map(|(rule_index, spec)| {
            let backends = match &spec.action {
                ActionSpec::Forward(backends) => backends.as_slice(),
                ActionSpec::Redirect(_) | ActionSpec::Respond(_) | ActionSpec::Refuse(_) => &[],
            };
            Rule {
                id: RuleId {
                    route: u32::try_from(route_index).unwrap_or(u32::MAX),
                    rule: u32::try_from(rule_index).unwrap_or(u32::MAX),
                },
                route: Arc::clone(route),
                backends: Backends::new(backends.iter().filter_map(|backend| {
                    Some((*upstreams.get(&backend.upstream)?, backend.weight))
                })),
                policies: spec
                    .policies
                    .iter()
                    .filter_map(|name| policies.get(name).copied())
                    .collect(),
                has_plugins: spec
                    .policies
                    .iter()
                    .filter_map(|name| config.policies.get(name))
                    .any(|policy| policy.plugin().is_some()),
            }
        });
        rules.collect()
    };
    config.routes.iter().enumerate().map(compile).collect()
}
