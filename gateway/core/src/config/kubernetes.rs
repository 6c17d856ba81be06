//! The cluster as a second source of configuration: which of its objects count, and how.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::hostname::Hostname;
use crate::name::IssuerName;

/// The `spec.controller` of the IngressClasses that are served.
pub const DEFAULT_CONTROLLER: &str = "postern.dev/ingress-controller";
/// The class that is served by its name alone, for Ingresses with the old annotation.
pub const DEFAULT_CLASS: &str = "postern";

/// The Lease whose holder writes to the cluster.
pub const DEFAULT_LEASE: &str = "postern";
/// What is put behind its name for the Lease whose holder gets certificates.
pub const ISSUING_LEASE: &str = "-acme";
/// The headless Service of all gateways.
pub const DEFAULT_PEERS: &str = "postern-peers";

/// What is taken from a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubernetesSpec {
    pub controller: String,
    /// Names of IngressClasses; empty: every one of the controller.
    pub classes: Vec<String>,
    /// Whether Ingresses without a class are served.
    pub serves_classless: bool,
    /// Whether Ingresses of several namespaces may have paths of one host.
    pub shares_hosts: bool,
    pub endpoints: EndpointMode,
    /// Names that Services of the type ExternalName may lead to; none if empty.
    pub external_names: Vec<Hostname>,
    /// The Secret with the certificate for hosts that have none.
    pub default_certificate: Option<NamespacedName>,
    pub publish: Publish,
    /// Namespaces whose plugins may be granted what concerns the whole gateway, and choose their own
    /// limits.
    pub trusted_namespaces: Vec<String>,
    /// The only folder from which a Plugin may take a file.
    pub plugin_dir: Option<PathBuf>,
    pub secrets: SecretScope,
    /// The Lease, in the gateway's own namespace, whose holder writes.
    pub lease: String,
    /// What Ingresses get certificates from that name no issuer.
    pub issuer: Option<IssuerName>,
    /// A headless Service of the gateway's own namespace.
    pub peers: String,
}

impl Default for KubernetesSpec {
    fn default() -> Self {
        Self {
            controller: DEFAULT_CONTROLLER.to_owned(),
            classes: Vec::new(),
            serves_classless: false,
            shares_hosts: false,
            endpoints: EndpointMode::default(),
            external_names: Vec::new(),
            default_certificate: None,
            publish: Publish::default(),
            trusted_namespaces: Vec::new(),
            plugin_dir: None,
            secrets: SecretScope::default(),
            lease: DEFAULT_LEASE.to_owned(),
            issuer: None,
            peers: DEFAULT_PEERS.to_owned(),
        }
    }
}

/// Where the requests of a Service are sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EndpointMode {
    /// To its pods, from EndpointSlices.
    #[default]
    Pods,
    /// To its cluster IP.
    Service,
}

/// How Secrets are watched, which decides what RBAC has to allow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SecretScope {
    /// Each that is named, by its name.
    #[default]
    Named,
    /// All of the cluster at once.
    Cluster,
}

/// The addresses that are written into the status of Ingresses. The first of these that is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Publish {
    pub hostname: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// `namespace/name` of a Service whose addresses they are.
    pub service: Option<NamespacedName>,
}

/// An object by namespace and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}
