//! Issuers, and the certificates that are had from them, as they are configured.

use postern_core::config::IssuerSpec;
use postern_core::config::ManagedSpec;
use postern_core::config::issuer::ReachSpec;
use postern_core::hostname::Hostname;
use serde_json::Value;
use serde_json::json;

use super::object;
use super::path;

pub(super) fn issuer(spec: &IssuerSpec) -> Value {
    let texts = |hosts: &[Hostname]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let external = spec
        .external_account
        .as_ref()
        .map(|external| json!({ "key-id": external.key_id, "key-file": path(&external.key_file) }));
    let challenges = spec.challenges.iter().map(|kind| kind.as_str());
    object([
        ("directory", json!(spec.directory)),
        ("contact", json!(spec.contact)),
        ("ca-file", json!(spec.ca_file.as_deref().map(path))),
        ("external-account", json!(external)),
        ("challenges", json!(challenges.collect::<Vec<_>>())),
        ("key-type", json!(spec.key_type.as_str())),
        ("profile", json!(spec.profile)),
        ("allowed", json!(spec.allowed.as_deref().map(texts))),
        ("namespaces", json!(spec.namespaces)),
        (
            "fallback",
            json!(spec.fallback.as_ref().map(ToString::to_string)),
        ),
        ("certificates-a-week", json!(spec.certificates_a_week)),
        ("reach", spec.reach.as_ref().map_or(Value::Null, reach)),
    ])
}

fn reach(spec: &ReachSpec) -> Value {
    let texts = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>();
    object([
        (
            "record",
            json!(spec.record.as_ref().map(ToString::to_string)),
        ),
        (
            "addresses",
            json!(texts(&mut spec.addresses.iter().map(ToString::to_string))),
        ),
        (
            "resolvers",
            json!(texts(&mut spec.resolvers.iter().map(ToString::to_string))),
        ),
    ])
}

pub(super) fn managed(spec: &ManagedSpec) -> Value {
    let hosts = spec.hosts.iter().map(ToString::to_string);
    object([
        ("issuer", json!(spec.issuer.as_str())),
        ("hosts", json!(hosts.collect::<Vec<_>>())),
        ("as-one", json!((spec.hosts.len() > 1).then_some(true))),
    ])
}
