//! One compiled configuration, and the cell that holds the current one.
//!
//! Invariants:
//! - There is one [`ArcSwap`] in the program and one task that stores into it. With a cell for
//!   routes and another for upstreams, a request could read a route of one generation and the
//!   upstreams of the next.
//! - A snapshot is complete and valid before it is published. Building one may fail; publishing
//!   may not.
//! - State that outlives a change (sockets, pools, plugins) hangs off it in `Arc`s, which
//!   [`compile`] takes over where name and spec are equal.

pub(crate) mod compile;
pub(crate) mod component;
pub(crate) mod materials;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use postern_core::config::Config;
use postern_core::config::RouteSpec;
use postern_core::config::route::RuleSpec;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::route::RouteTable;
use postern_core::route::RuleId;
use postern_wasm::Plugin;

use crate::challenges::Challenges;
use crate::listener::Listener;
use crate::policy::Policy;
use crate::tls::certificates::Certificate;
use crate::upstream::Upstream;

/// One compiled configuration. Immutable from [`compile`] on.
pub struct Snapshot {
    /// 1 for the first that was published.
    pub generation: u64,
    pub config: Arc<Config>,
    pub routes: RouteTable,
    /// By [`RuleId`].
    rules: Vec<Arc<[Rule]>>,
    /// By [`UpstreamIndex`].
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// The names of `upstreams`, in the same order, which is that of names.
    pub(crate) upstream_names: Arc<[UpstreamName]>,
    /// By [`PolicyIndex`].
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) listeners: Vec<Arc<Listener>>,
    certificates: BTreeMap<CertificateName, Arc<Certificate>>,
    /// Shared by all snapshots.
    pub(crate) challenges: Arc<Challenges>,
    /// What is served otherwise than it was declared.
    impairments: Vec<Impairment>,
}

/// A plugin that is not as declared, because it could not be fetched or cannot be used: the one
/// before it serves on, or there is none and what needs it is answered 503.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Impairment {
    /// The declared thing, as in [`Origins::find`](postern_core::config::Origins::find).
    pub at: String,
    pub message: String,
    pub help: &'static str,
    /// Trying again is no use until somebody changes something.
    pub is_lasting: bool,
}

/// Position in `Snapshot::upstreams`.
pub(crate) type UpstreamIndex = usize;
/// Position in `Snapshot::policies`.
pub(crate) type PolicyIndex = usize;

/// A rule with its references resolved.
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    /// Shared with the configuration: a copy for each rule would be most of what a rule weighs.
    pub(crate) route: Arc<RouteSpec>,
    /// Empty unless the rule forwards.
    pub(crate) backends: Backends,
    pub(crate) policies: Vec<PolicyIndex>,
    /// Whether any policy is a plugin; if not, nobody asks an exchange about its connection.
    pub(crate) has_plugins: bool,
}

impl Rule {
    pub(crate) fn spec(&self) -> &RuleSpec {
        &self.route.rules[self.id.rule as usize]
    }
}

/// Upstreams by weight.
#[derive(Default)]
pub(crate) struct Backends {
    /// The upstream, and the sum of the weights up to and including it.
    cumulative: Vec<(UpstreamIndex, u64)>,
}

impl Backends {
    fn new(weights: impl Iterator<Item = (UpstreamIndex, u32)>) -> Self {
        let mut sum = 0;
        let cumulative = weights
            .filter(|(_, weight)| *weight > 0)
            .map(|(upstream, weight)| {
                sum += u64::from(weight);
                (upstream, sum)
            })
            .collect();
        Self { cumulative }
    }

    /// The upstream for the `turn`-th request; over as many turns as the weights sum up to, each
    /// gets its share.
    pub(crate) fn pick(&self, turn: u64) -> Option<UpstreamIndex> {
        match self.cumulative.as_slice() {
            [] => None,
            [(only, _)] => Some(*only),
            [.., (_, sum)] => {
                // Spread by a multiplier that is coprime to any small sum, so that a weight of 9
                // to 1 is not nine requests in a row to the one.
                let at = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % sum;
                let position = self.cumulative.partition_point(|(_, end)| *end <= at);
                self.cumulative.get(position).map(|(upstream, _)| *upstream)
            }
        }
    }
}

impl Snapshot {
    pub(crate) fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules
            .get(id.route as usize)
            .and_then(|rules| rules.get(id.rule as usize))
    }

    pub(crate) fn upstream_index(&self, name: &str) -> Option<UpstreamIndex> {
        self.upstream_names
            .binary_search_by(|probe| probe.as_str().cmp(name))
            .ok()
    }

    pub fn impairments(&self) -> &[Impairment] {
        &self.impairments
    }

    pub(crate) fn plugin(&self, name: &PolicyName) -> Option<&Arc<Plugin>> {
        let index = self.config.policies.keys().position(|n| n == name)?;
        match &**self.policies.get(index)? {
            Policy::Plugin(live) => Some(&live.plugin),
            Policy::Native(_) | Policy::Absent(_) => None,
        }
    }

    /// Every certificate, by name.
    pub fn certificates(&self) -> impl Iterator<Item = ServedCertificate> {
        let certificates = self.certificates.iter();
        certificates.map(|(name, certificate)| ServedCertificate {
            name: name.clone(),
            hosts: certificate.names().to_vec(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        })
    }

    /// Each certificate with the Unix time, in seconds, at which it expires.
    pub(crate) fn certificate_expiries(&self) -> impl Iterator<Item = (&str, i64)> {
        let certificates = self.certificates.iter();
        certificates.map(|(name, certificate)| (name.as_str(), certificate.not_after()))
    }
}

/// A certificate that is served, whoever brought it.
#[derive(Clone, Debug)]
pub struct ServedCertificate {
    pub name: CertificateName,
    pub hosts: Vec<Hostname>,
    /// Unix time in seconds.
    pub not_before: i64,
    pub not_after: i64,
}

/// The cell that holds the current snapshot.
pub struct Published(ArcSwap<Snapshot>);

impl Published {
    pub(crate) fn new(first: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    /// The snapshot to use for one whole request.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Whether this is still the current snapshot. Costs one read of a line that all workers share
    /// and none writes.
    pub(crate) fn is_current(&self, snapshot: &Arc<Snapshot>) -> bool {
        std::ptr::eq(Arc::as_ptr(snapshot), Arc::as_ptr(&*self.0.load()))
    }

    /// Called by the control loop alone, so that generations never go backwards.
    pub(crate) fn publish(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_met_over_many_requests_and_mixed_on_the_way() {
        let backends = Backends::new([(0, 9), (1, 0), (2, 1)].into_iter());
        let mut counts = [0; 3];
        let mut longest_run = 0;
        let mut run = 0;
        for turn in 0..10_000 {
            let pick = backends.pick(turn).unwrap();
            counts[pick] += 1;
            run = if pick == 0 { run + 1 } else { 0 };
            longest_run = longest_run.max(run);
        }
        assert_eq!(counts[1], 0);
        assert!((8_900..=9_100).contains(&counts[0]), "{counts:?}");
        assert!(longest_run < 60, "{longest_run}");
    }
}
