//! What a file may say of upstreams.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use super::At;
use super::Text;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawUpstream {
    /// Addresses with ports, as in "10.0.0.7:8080" or "app.internal:8080", or tables with `address`
    /// and `weight` or `priority`.
    pub endpoints: At<Vec<At<RawEndpoint>>>,
    /// "least-requests" takes the less busy of two by chance; "hash" the same endpoint for the same
    /// `hash-key`. Default: "round-robin".
    pub balance: Option<At<RawBalance>>,
    /// What "hash" goes by: "source" for the client's address, "header:NAME" or "cookie:NAME".
    /// Requests without the field go round. Default: "source".
    pub hash_key: Option<Text>,
    /// Keeps a client at its endpoint by a cookie, as long as the endpoint can take requests.
    /// Default: none.
    pub sticky: Option<RawSticky>,
    /// The time over which the share of an endpoint grows that is new or has come back. Default:
    /// none, it gets its whole share at once.
    pub slow_start: Option<Text>,
    /// "http2" is h2c without TLS, and what gRPC needs. Default: "http1".
    pub protocol: Option<RawProtocol>,
    /// The host that endpoints are told. Default: the one that the client asked for.
    pub host: Option<Text>,
    /// Makes connections to the endpoints use TLS; `{}` takes every default.
    pub tls: Option<RawUpstreamTls>,
    /// Tells endpoints the client's address before anything else. Each request then has a
    /// connection of its own. Not for "http2". Default: off.
    pub proxy_protocol: Option<At<RawProxyVersion>>,
    pub timeouts: Option<RawUpstreamTimeouts>,
    /// Unused connections kept by one worker for one endpoint. Default: 128.
    pub idle_connections: Option<At<i64>>,
    /// What may be under way at once; what is beyond is answered with 503.
    pub limits: Option<RawUpstreamLimits>,
    /// When a request is sent once more, to another endpoint if there is one.
    pub retries: Option<RawRetries>,
    /// Asks each endpoint for its health; `{}` only connects. Default: off.
    pub health_check: Option<RawHealthCheck>,
    /// Leaves an endpoint that fails requests alone for a while.
    pub ejection: Option<RawEjection>,
    /// What to do when every endpoint is known to be bad: try them all the same, or answer 503.
    /// Default: true, since health checks that all fail are more often wrong than right.
    pub fail_open: Option<bool>,
}

/// An address, or a table.
pub(in crate::config) struct RawEndpoint {
    pub address: Option<Text>,
    /// The address where it is no table.
    pub plain: String,
    pub weight: Option<At<i64>>,
    pub priority: Option<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawEndpointTable {
    /// As in "10.0.0.7:8080" or "app.internal:8080".
    address: Text,
    /// Share of the requests, from 1 to 1000. Default: 1.
    weight: Option<At<i64>>,
    /// Endpoints with the lowest number serve; others only when none of those can. From 0 to 15.
    /// Default: 0.
    priority: Option<At<i64>>,
}

impl<'de> Deserialize<'de> for RawEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Endpoint;

        impl<'de> Visitor<'de> for Endpoint {
            type Value = RawEndpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a table")
            }

            fn visit_str<E>(self, text: &str) -> Result<RawEndpoint, E> {
                Ok(RawEndpoint {
                    address: None,
                    plain: text.to_owned(),
                    weight: None,
                    priority: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawEndpoint, A::Error> {
                let table = RawEndpointTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawEndpoint {
                    address: Some(table.address),
                    plain: String::new(),
                    weight: table.weight,
                    priority: table.priority,
                })
            }
        }

        deserializer.deserialize_any(Endpoint)
    }
}

impl JsonSchema for RawEndpoint {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RawEndpoint".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let table = RawEndpointTable::json_schema(generator);
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawBalance {
    RoundRobin,
    LeastRequests,
    Hash,
}

#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawProtocol {
    Http1,
    Http2,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawProxyVersion {
    V1,
    V2,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawSticky {
    /// Its name. The value tells nothing but which endpoint.
    pub cookie: Text,
    /// How long browsers keep it. Default: until they end.
    pub max_age: Option<Text>,
    /// Default: "lax".
    pub same_site: Option<RawSameSite>,
    /// Whether browsers send it over TLS alone. Default: where the client speaks TLS.
    pub secure: Option<bool>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawSameSite {
    Strict,
    Lax,
    None,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawUpstreamTls {
    /// The name to ask for and to verify. Default: the endpoint's host.
    pub server_name: Option<Text>,
    /// PEM roots to trust. Default: the system's.
    pub ca_file: Option<Text>,
    /// PEM: the certificate, then its chain, for endpoints that ask for one.
    pub cert_file: Option<Text>,
    /// PEM: the private key of `cert-file`.
    pub key_file: Option<Text>,
    /// Takes any certificate, so that anyone in between can read and change everything.
    /// Default: false.
    pub insecure: Option<At<bool>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawUpstreamTimeouts {
    /// Default: "3s".
    pub connect: Option<Text>,
    /// To the first byte of the response, retries included. Default: "60s".
    pub first_byte: Option<Text>,
    /// How long a response body may stand still. Default: "60s".
    pub body_idle: Option<Text>,
    /// How long an unused connection is kept. Default: "60s".
    pub keep_alive: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawUpstreamLimits {
    /// HTTP/1 connections to one endpoint, all workers together. Default: no limit.
    pub connections: Option<At<i64>>,
    /// Requests that wait for a connection where those are limited, for as long as the connect
    /// timeout. Default: 1024.
    pub pending: Option<At<i64>>,
    /// Requests in flight to all endpoints, all workers together. Default: no limit.
    pub requests: Option<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawRetries {
    /// Attempts after the first one, from 0 to 5. A request that an endpoint may have acted on is
    /// only repeated if its method allows it. Default: 1.
    pub count: Option<At<i64>>,
    /// Retries for every hundred requests, beyond a reserve of 10 a worker. Default: 20.
    pub budget: Option<At<i64>>,
    /// How long one attempt may take to the first byte, while another is left. Default: as long as
    /// all of them.
    pub per_try: Option<Text>,
    /// Statuses, from 500 to 599, that are tried again elsewhere, where the method allows it.
    /// Default: none.
    #[serde(default)]
    pub on_status: Vec<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawHealthCheck {
    /// What is asked for by GET. Default: nothing, a connection that opens is enough.
    pub path: Option<Text>,
    /// The host that is asked for. Default: the upstream's `host`, or the endpoint.
    pub host: Option<Text>,
    /// Default: "5s".
    pub interval: Option<Text>,
    /// Default: "2s".
    pub timeout: Option<Text>,
    /// Good answers in a row that bring an endpoint back. Default: 2.
    pub healthy: Option<At<i64>>,
    /// Bad answers in a row that take an endpoint out; the very first is enough. Default: 3.
    pub unhealthy: Option<At<i64>>,
    /// Statuses that are good, as in "204" or "200-299". Default: "200-399".
    pub status: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawEjection {
    /// Failures in a row: no connection, no response in time, or none that can be understood.
    /// 0 ejects nobody. Default: 5.
    pub failures: Option<At<i64>>,
    /// How long an endpoint is left alone the first time; doubled each time it fails again at
    /// once. Default: "1s".
    pub time: Option<Text>,
    /// The longest of those times. Default: "8s".
    pub max_time: Option<Text>,
    /// How many of a hundred endpoints may be left alone at once. Default: 50.
    pub max_percent: Option<At<i64>>,
}
