//! Our own kinds, as the API server is told about them.
//!
//! The types here are for the definitions and for who writes such objects in Rust. Objects are
//! read loosely (see [`record`](crate::record)), as everything else: a list must not fail for one
//! of them. Keys are those of a configuration file, so that what one says of a policy is true of
//! the other.

#![allow(
    clippy::duplicated_attributes,
    reason = "each column of a table has its type"
)]

mod yaml;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

/// A built-in policy: `kind`, and the keys that `[policies.NAME]` has in a configuration file.
/// Where a file names a file, it names a Secret (`users-secret`) or a ConfigMap (`config-map`) of
/// its namespace; where a file names an upstream, it names a Service of it, as `name:port`.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    namespaced,
    status = "CustomStatus",
    category = "postern",
    doc = "A step that requests take on their way, and responses on their way back.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyObject {
    /// Which policy it is.
    pub kind: PolicyKind,
    /// Namespaces whose Ingresses may name it, beside its own; "*" is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Vec<String>,
    /// Of basic-auth: the name of a Secret of this namespace, whose key `auth` has the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub users_secret: Option<String>,
    /// What the kind asks for.
    #[serde(flatten)]
    pub settings: BTreeMap<String, Value>,
}

/// The kinds of built-in policies.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    BasicAuth,
    BodySize,
    Canary,
    Compression,
    Concurrency,
    Cors,
    ErrorPages,
    ForwardAuth,
    Headers,
    IpAccess,
    Maintenance,
    Mirror,
    RateLimit,
    Redirect,
    RequestId,
    SecurityHeaders,
}

/// A policy in WebAssembly, with the keys that `[plugins.NAME]` has in a configuration file.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "Plugin",
    plural = "plugins",
    namespaced,
    status = "CustomStatus",
    category = "postern",
    doc = "A policy in WebAssembly.",
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.source) != has(self.config__dash__map)",
        "message": "a plugin has one of source and config-map"
    },
    {
        "rule": "!has(self.source) || self.source.matches('^(oci://[^@]+@sha256:[0-9a-fA-F]{64}|https://.+|file:///.+)$')",
        "message": "a source is oci://registry/repository@sha256:..., https://... or file:///..."
    },
    {
        "rule": "(has(self.source) && self.source.startsWith('https://')) == has(self.sha256)",
        "message": "sha256 goes with a source of https, and with no other"
    }
]))]
pub struct PluginObject {
    /// The component: an artifact in a registry by its digest ("oci://..."), "https://..." with
    /// `sha256`, or "file:///..." below the folder that the gateway's configuration allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub source: Option<String>,
    /// The SHA-256 of the component in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub sha256: Option<String>,
    /// A ConfigMap of this namespace that holds the component in `binaryData`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyRef>,
    /// How a source that is no file is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FetchObject>,
    /// Namespaces whose Ingresses may name it, beside its own; "*" is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Vec<String>,
    /// Given to the plugin, which checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub config: Option<Value>,
    /// What a request gets when the plugin fails: "deny", "allow", or a status from 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub on_error: Option<Value>,
    /// "plugin", or "request" for an instance a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Bounds of a call and of an instance, as in a file: cpu, time, memory, instances, log-lines,
    /// body, callouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub limits: Option<Value>,
    /// What it may do beyond looking at requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsObject>,
}

/// A value of an object of the same namespace.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct KeyRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How a component is fetched.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FetchObject {
    /// A Secret of this namespace, of the type kubernetes.io/dockerconfigjson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
    /// Whether clear text will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_http: Option<bool>,
}

/// What a plugin may do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GrantsObject {
    /// Services of this namespace, as `name:port`, that it may send requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<String>,
    /// Values of Secrets of this namespace, by the name that the plugin asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, KeyRef>,
    /// Memory that its instances share, as in "1MiB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_state: Option<String>,
    /// Whether it may answer ACME HTTP-01 challenges; for trusted namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenges: Option<bool>,
    /// Whether it may write DNS records for certificates; for trusted namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<bool>,
}

/// What the Ingresses of a class get: `spec.parameters` of an IngressClass names it.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "ClassDefaults",
    plural = "classdefaults",
    namespaced,
    category = "postern",
    doc = "What every Ingress of a class gets.",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "kebab-case")]
pub struct ClassDefaultsObject {
    /// Policies and Plugins of its namespace, which see a request before those that the Ingress
    /// names itself.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub policies: Vec<String>,
    /// Where requests for a Service go: to its "pods", past what the cluster does for Services, or to
    /// its cluster IP ("service"). An Ingress or a Service may say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsMode>,
}

/// Where requests for a Service go.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointsMode {
    Pods,
    Service,
}

/// What the gateways make of an object.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomStatus {
    #[serde(default)]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// As `metav1.Condition`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// "True", "False" or "Unknown".
    pub status: String,
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub last_transition_time: String,
}

fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1000,
        "items": {
            "type": "string",
            "maxLength": 63,
            "pattern": r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"
        }
    })
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// The definitions, in the order in which they are printed.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [ClassDefaults::crd(), Plugin::crd(), Policy::crd()]
}

/// The definitions as a manifest.
pub fn manifest() -> String {
    let mut text = String::new();
    for definition in definitions() {
        // Plain data: there is nothing in it that JSON cannot say.
        let value = serde_json::to_value(definition).unwrap_or_default();
        text.push_str("---\n");
        text.push_str(&yaml::render(&value));
    }
    text
}

#[cfg(test)]
mod tests;
