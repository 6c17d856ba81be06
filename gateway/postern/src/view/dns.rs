//! The view of whom the gateway asks about names, and where it writes records.

use postern_core::config::dns::DnsProviderSpec;
use postern_core::config::dns::DnsSolverSpec;
use postern_core::config::dns::DnsSpec;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::object;
use super::path;

pub(super) fn dns(spec: &DnsSpec) -> Value {
    if *spec == DnsSpec::default() {
        return Value::Object(Map::new());
    }
    let resolvers: Vec<String> = spec.resolvers.iter().map(ToString::to_string).collect();
    let resolvers = (!resolvers.is_empty()).then_some(resolvers);
    object([
        ("resolvers", json!(resolvers)),
        ("authority-port", json!(spec.authority_port)),
    ])
}

pub(super) fn solver(spec: &DnsSolverSpec) -> Value {
    let mut own = match &spec.provider {
        DnsProviderSpec::Update {
            server,
            key_name,
            algorithm,
            secret_file,
        } => object([
            ("kind", json!("rfc2136")),
            ("server", json!(server)),
            ("key-name", json!(key_name)),
            ("algorithm", json!(algorithm.as_str())),
            ("secret-file", json!(path(secret_file))),
        ]),
        DnsProviderSpec::Route53(spec) => {
            let keys = spec.keys.as_ref();
            let secret = keys.map(|keys| path(&keys.secret_file));
            object([
                ("kind", json!("route53")),
                ("hosted-zone-id", json!(spec.hosted_zone_id)),
                ("region", json!(spec.region)),
                ("access-key-id", json!(keys.map(|keys| &keys.id))),
                ("secret-key-file", json!(secret)),
                ("role-arn", json!(spec.role_arn)),
                ("external-id", json!(spec.external_id)),
                ("endpoint", json!(spec.endpoint)),
                ("sts-endpoint", json!(spec.sts_endpoint)),
                (
                    "ca-file",
                    json!(spec.ca_file.as_ref().map(|file| path(file))),
                ),
            ])
        }
        DnsProviderSpec::Plugin(plugin) => object([
            ("kind", json!("plugin")),
            ("plugin", json!(plugin.as_str())),
        ]),
    };
    let hosts = spec.hosts.as_ref();
    let hosts = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
    let shared = object([
        ("hosts", json!(hosts)),
        (
            "delegation",
            json!(spec.delegation.as_ref().map(ToString::to_string)),
        ),
        ("propagation", json!(super::duration(spec.propagation))),
        ("delay", json!(spec.delay.map(super::duration))),
    ]);
    if let (Value::Object(own), Value::Object(shared)) = (&mut own, shared) {
        own.extend(shared);
    }
    own
}
