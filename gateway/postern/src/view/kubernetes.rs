//! What is taken from a cluster, as it is configured.

use postern_core::config::KubernetesSpec;
use postern_core::config::kubernetes::EndpointMode;
use postern_core::config::kubernetes::NamespacedName;
use postern_core::config::kubernetes::SecretScope;
use serde_json::Value;
use serde_json::json;

use super::object;
use super::path;

pub(super) fn kubernetes(spec: &KubernetesSpec) -> Value {
    let namespaced = |name: &NamespacedName| format!("{}/{}", name.namespace, name.name);
    let publish = &spec.publish;
    let addresses = publish.addresses.iter();
    let external_names = spec.external_names.iter();
    object([
        ("controller", json!(spec.controller)),
        ("ingress-classes", json!(spec.classes)),
        ("class-less", json!(spec.serves_classless)),
        ("share-hosts", json!(spec.shares_hosts)),
        (
            "endpoints",
            json!(match spec.endpoints {
                EndpointMode::Pods => "pods",
                EndpointMode::Service => "service",
            }),
        ),
        (
            "external-names",
            external_names.map(ToString::to_string).collect(),
        ),
        (
            "default-certificate",
            json!(spec.default_certificate.as_ref().map(namespaced)),
        ),
        ("publish-hostname", json!(publish.hostname)),
        (
            "publish-addresses",
            addresses.map(ToString::to_string).collect(),
        ),
        (
            "publish-service",
            json!(publish.service.as_ref().map(namespaced)),
        ),
        ("trusted-namespaces", json!(spec.trusted_namespaces)),
        ("plugin-dir", json!(spec.plugin_dir.as_deref().map(path))),
        (
            "secrets",
            json!(match spec.secrets {
                SecretScope::Named => "named",
                SecretScope::Cluster => "cluster",
            }),
        ),
        ("lease", json!(spec.lease)),
        (
            "issuer",
            json!(spec.issuer.as_ref().map(ToString::to_string)),
        ),
        ("peers", json!(spec.peers)),
    ])
}
