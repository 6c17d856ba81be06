//! What a file may say about the cluster.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Text;

/// What is taken from a Kubernetes cluster by `postern run --kubernetes`. Without that flag the
/// section has no effect.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(in crate::config) struct RawKubernetes {
    /// The `spec.controller` of the IngressClasses that are served. Default:
    /// "postern.dev/ingress-controller".
    pub controller: Option<Text>,
    /// Names of the IngressClasses that are served. Default: every one of the controller.
    pub ingress_classes: Vec<Text>,
    /// Whether Ingresses without a class are served too. Default: false.
    pub class_less: Option<bool>,
    /// Whether Ingresses of several namespaces may have paths of one host. Default: false, a host
    /// belongs to the namespace of the oldest Ingress that names it.
    pub share_hosts: Option<bool>,
    /// "pods": requests go to the addresses in EndpointSlices; "service": to the cluster IP of the
    /// Service, past the gateway's own balancing, health and retries. Default: "pods".
    pub endpoints: Option<RawEndpointMode>,
    /// Names that Services of the type ExternalName may lead to, as in "api.example.com" or
    /// "*.example.com". This machine, its network and the metadata service of a cloud stay out of
    /// reach. Default: none, such Services are refused.
    pub external_names: Vec<Text>,
    /// The Secret with the certificate for server names that no other covers, as
    /// "namespace/name". Default: their handshake fails.
    pub default_certificate: Option<Text>,
    /// The hostname that is written into the status of Ingresses.
    pub publish_hostname: Option<Text>,
    /// The addresses that are written there instead.
    pub publish_addresses: Vec<Text>,
    /// The Service, as "namespace/name", whose load balancer's addresses are written there instead.
    /// Default, if none of the three is given: the addresses of the nodes that gateways run on.
    pub publish_service: Option<Text>,
    /// Namespaces whose Plugins may be granted `challenges` and `dns`, which concern the whole
    /// gateway, and may have more than 64 MiB of memory, bodies of 8 MiB, 32 instances in a worker
    /// and 16 MiB of shared state. Default: none.
    pub trusted_namespaces: Vec<Text>,
    /// The only folder from which Plugins may take files. Default: none, they take no files.
    pub plugin_dir: Option<Text>,
    /// How Secrets are watched. "named": each that an Ingress or a policy names, by its name, so that
    /// RBAC may allow single ones; up to 256 of them. "cluster": all at once, which takes the right to
    /// read all. Default: "named".
    pub secrets: Option<RawSecretScope>,
    /// The Lease, in the gateway's own namespace, whose holder writes statuses and Events. The holder
    /// of the one with `-acme` behind that name gets certificates from issuers. Default: "postern".
    pub lease: Option<Text>,
    /// The issuer that certificates for the `tls` of Ingresses are got from where the annotation
    /// `postern.dev/issuer` names none. Default: none, somebody else provides those Secrets.
    pub issuer: Option<Text>,
    /// The headless Service, in the gateway's own namespace, by which the replica that orders
    /// certificates finds the others, to see that all of them answer an authority. Default:
    /// "postern-peers".
    pub peers: Option<Text>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawSecretScope {
    Named,
    Cluster,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawEndpointMode {
    Pods,
    Service,
}
