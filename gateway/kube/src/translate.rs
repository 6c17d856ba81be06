//! The cluster as a configuration: a pure function of what is known and of the settings.
//!
//! The order in which objects came makes no difference: Ingresses are taken by age, then by
//! namespace and name, and what is contended for goes to the first that names it. What cannot be
//! done as it is written is an [`ObjectProblem`], and the requests for it are refused: they never
//! go where a broader rule leads, and never pass without a policy that was named for them.
//!
//! Names in the configuration: an upstream is `namespace/service:port`; a route, a certificate and
//! a policy are `namespace/name`; the bytes of a Secret are the file `secret:namespace/name/key`.

mod annotation;
mod backend;
mod class;
mod group;
mod managed;
mod memory;
mod nginx;
mod policy;
mod rules;
mod seen;
mod tls;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::KubernetesSpec;
use postern_core::config::PolicySpec;
use postern_core::config::problem::Severity;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;

use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::record::Address;
use crate::record::Ingress;
use backend::Wish;
pub use managed::ManagedSecret;
use memory::Known;
use memory::Memory;
use nginx::Nginx;

/// What a translation depends on beside the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    pub spec: KubernetesSpec,
    /// Where this gateway runs: the labels of its node.
    pub zone: Option<Arc<str>>,
    pub node: Option<Arc<str>>,
    /// Addresses of this gateway that no endpoint may have, such as its admin listener.
    pub own: Vec<SocketAddr>,
    /// Manifests instead of a cluster: nobody has filled in the default class, and there may be no
    /// object for a class that is named.
    pub is_offline: bool,
}

/// What a cluster comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Certificates, upstreams, policies, routes and what they hold; everything else is as it is
    /// by default.
    pub config: Config,
    /// Sorted, each once.
    pub problems: Vec<ObjectProblem>,
    /// Every object of ours, in the order of kinds and names.
    pub statuses: Vec<Arc<Status>>,
    /// What belongs into the status of Ingresses, if settings say it: otherwise the addresses of
    /// nodes, which nobody knows here.
    pub addresses: Option<Vec<Address>>,
    /// The certificate for server names that no other covers.
    pub default_certificate: Option<CertificateName>,
    /// Certificates that are to be got from issuers.
    pub managed: BTreeMap<ObjectName, ManagedSecret>,
    /// Secrets and ConfigMaps that objects of ours name, whether they are there or not.
    pub wanted: BTreeSet<ObjectRef>,
}

/// An object that is ours, and whether all of it is served as it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    pub object: ObjectRef,
    pub uid: Option<Arc<str>>,
    pub generation: Option<i64>,
    /// No problem of it is an error.
    pub is_accepted: bool,
    /// Of an Ingress: what its status holds now.
    pub addresses: Vec<Address>,
}

impl Translation {
    /// What is said of an object of ours.
    pub fn status(&self, object: &ObjectRef) -> Option<&Status> {
        let statuses = &self.statuses;
        let found = statuses.binary_search_by(|status| status.object.cmp(object));
        found.ok().map(|index| &*statuses[index])
    }
}

/// Makes a configuration of what is known of a cluster.
pub fn translate(cluster: &Cluster, settings: &Settings) -> Translation {
    Translator::default().translate(cluster, settings)
}

/// Translates a cluster as it changes. What it makes of one is what [`translate()`] makes of it,
/// whatever came before; what has not changed since is not looked at again.
#[derive(Default)]
pub struct Translator {
    memory: Memory,
}

impl Translator {
    pub fn translate(&mut self, cluster: &Cluster, settings: &Settings) -> Translation {
        self.memory.translate(cluster, settings)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }
}

/// One look at a cluster.
struct Pass<'c> {
    cluster: &'c Cluster,
    settings: &'c Settings,
    /// What was found out already, now or before.
    known: Known,
    /// What is being made.
    out: Piece,
}

/// What was made of one thing, and what it was made with.
#[derive(Default)]
struct Piece {
    problems: Vec<ObjectProblem>,
    /// Secrets and ConfigMaps that it names.
    wanted: Vec<ObjectRef>,
    /// Services that it names.
    services: Vec<ObjectName>,
    upstreams: Vec<UpstreamName>,
    policies: Vec<ObjectName>,
    /// Policies that no object but this is.
    own: Vec<(PolicyName, PolicySpec)>,
}

impl Piece {
    fn sort(&mut self) {
        fn sort<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
            list.shrink_to_fit();
        }
        sort(&mut self.problems);
        sort(&mut self.wanted);
        sort(&mut self.services);
        sort(&mut self.upstreams);
        sort(&mut self.policies);
    }
}

/// An Ingress that is served.
struct Owned<'c> {
    name: &'c ObjectName,
    ingress: &'c Ingress,
    /// `None`: one of them is not to be had, and every request is refused.
    policies: Option<Vec<PolicyName>>,
    /// How Services are asked for, where they do not say it.
    wish: Wish,
    /// What its annotations for ingress-nginx come to.
    nginx: Nginx,
    /// What its certificates are got from; `None`: somebody else provides them.
    issuer: Option<IssuerName>,
}

impl Owned<'_> {
    fn object(&self) -> ObjectRef {
        ObjectRef {
            kind: Kind::Ingress,
            name: self.name.clone(),
        }
    }
}

/// What is wrong, without where.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Fault {
    severity: Severity,
    reason: Reason,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn error(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            reason,
            message: message.into(),
            help: None,
        }
    }

    /// What is named is not there. Beside manifests it may well be.
    fn absent(settings: &Settings, reason: Reason, message: impl Into<String>) -> Self {
        match settings.is_offline {
            true => Self::warning(reason, message),
            false => Self::error(reason, message),
        }
    }

    fn warning(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(reason, message)
        }
    }

    fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Pass<'_> {
    fn problem(&mut self, object: ObjectRef, field: impl Into<String>, fault: Fault) {
        self.out.problems.push(ObjectProblem {
            object,
            field: field.into(),
            severity: fault.severity,
            reason: fault.reason,
            message: fault.message,
            help: fault.help,
        });
    }

    fn wants(&mut self, kind: Kind, name: &ObjectName) {
        self.out.wanted.push(ObjectRef {
            kind,
            name: name.clone(),
        });
    }

    /// What belongs into the status of Ingresses.
    fn addresses(&self) -> Option<Vec<Address>> {
        let publish = &self.settings.spec.publish;
        match (&publish.hostname, &publish.service) {
            (Some(hostname), _) => Some(vec![Address::Hostname(hostname.as_str().into())]),
            (None, _) if !publish.addresses.is_empty() => {
                let mut addresses: Vec<_> =
                    publish.addresses.iter().copied().map(Address::Ip).collect();
                addresses.sort();
                addresses.dedup();
                Some(addresses)
            }
            (None, Some(service)) => {
                let name = ObjectName::new(&service.namespace, &service.name);
                let service = self.cluster.services.get(&name);
                Some(service.map_or_else(Vec::new, |service| service.addresses.clone()))
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests;
