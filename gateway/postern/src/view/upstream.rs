//! Upstreams as they are shown.

use postern_core::config::UpstreamSpec;
use postern_core::config::upstream::Balance;
use postern_core::config::upstream::EndpointShare;
use postern_core::config::upstream::HashKey;
use postern_core::config::upstream::HealthCheckSpec;
use postern_core::config::upstream::ProxyProtocol;
use postern_core::config::upstream::SameSite;
use postern_core::config::upstream::StickySpec;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::config::upstream::UpstreamTlsSpec;
use serde_json::Value;
use serde_json::json;

use super::duration;
use super::object;
use super::path;

pub(super) fn upstream(spec: &UpstreamSpec) -> Value {
    let endpoints = spec.endpoints.iter().zip(&spec.shares);
    let endpoints: Vec<Value> = endpoints
        .map(|(endpoint, share)| {
            if *share == EndpointShare::default() {
                return json!(endpoint.to_string());
            }
            json!({
                "address": endpoint.to_string(),
                "weight": share.weight,
                "priority": share.priority,
            })
        })
        .collect();
    let (balance, hash_key) = match &spec.balance {
        Balance::RoundRobin => ("round-robin", Value::Null),
        Balance::LeastRequests => ("least-requests", Value::Null),
        Balance::Hash(HashKey::Source) => ("hash", json!("source")),
        Balance::Hash(HashKey::Header(name)) => ("hash", json!(format!("header:{name}"))),
        Balance::Hash(HashKey::Cookie(name)) => ("hash", json!(format!("cookie:{name}"))),
    };
    let slow_start = (!spec.slow_start.is_zero()).then(|| duration(spec.slow_start));
    let on_status = spec.retries.on_status.iter();
    let on_status: Vec<u16> = on_status.map(|status| status.as_u16()).collect();
    object([
        ("endpoints", json!(endpoints)),
        ("balance", json!(balance)),
        ("hash-key", hash_key),
        ("sticky", json!(spec.sticky.as_ref().map(sticky))),
        ("slow-start", json!(slow_start)),
        (
            "protocol",
            json!(match spec.protocol {
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
            }),
        ),
        ("host", host(spec.host.as_ref())),
        ("tls", json!(spec.tls.as_ref().map(tls))),
        (
            "proxy-protocol",
            json!(spec.proxy_protocol.map(|version| match version {
                ProxyProtocol::V1 => "v1",
                ProxyProtocol::V2 => "v2",
            })),
        ),
        (
            "timeouts",
            json!({
                "connect": duration(spec.timeouts.connect),
                "first-byte": duration(spec.timeouts.first_byte),
                "body-idle": duration(spec.timeouts.body_idle),
                "keep-alive": duration(spec.timeouts.keep_alive),
            }),
        ),
        ("idle-connections", json!(spec.idle_connections)),
        (
            "limits",
            object([
                ("connections", json!(spec.limits.connections)),
                ("pending", json!(spec.limits.pending)),
                ("requests", json!(spec.limits.requests)),
            ]),
        ),
        (
            "retries",
            object([
                ("count", json!(spec.retries.count)),
                ("budget", json!(spec.retries.budget_percent)),
                ("per-try", json!(spec.retries.per_try.map(duration))),
                ("on-status", json!(on_status)),
            ]),
        ),
        (
            "health-check",
            json!(spec.health_check.as_ref().map(health_check)),
        ),
        (
            "ejection",
            json!({
                "failures": spec.ejection.failures,
                "time": duration(spec.ejection.time),
                "max-time": duration(spec.ejection.max_time),
                "max-percent": spec.ejection.max_percent,
            }),
        ),
        ("fail-open", json!(spec.fail_open)),
    ])
}

fn host(host: Option<&http::HeaderValue>) -> Value {
    json!(host.map(|host| String::from_utf8_lossy(host.as_bytes())))
}

fn sticky(spec: &StickySpec) -> Value {
    object([
        ("cookie", json!(spec.cookie)),
        ("max-age", json!(spec.max_age.map(duration))),
        (
            "same-site",
            json!(match spec.same_site {
                SameSite::Strict => "strict",
                SameSite::Lax => "lax",
                SameSite::None => "none",
            }),
        ),
        ("secure", json!(spec.secure)),
    ])
}

fn tls(spec: &UpstreamTlsSpec) -> Value {
    let client = spec.client.as_ref();
    object([
        ("server-name", json!(spec.server_name)),
        ("ca-file", json!(spec.ca_file.as_deref().map(path))),
        ("cert-file", json!(client.map(|pair| path(&pair.cert_file)))),
        ("key-file", json!(client.map(|pair| path(&pair.key_file)))),
        ("insecure", json!(spec.is_insecure.then_some(true))),
    ])
}

fn health_check(spec: &HealthCheckSpec) -> Value {
    let status = spec.path.as_ref().map(|_| {
        let (first, last) = (spec.status.start(), spec.status.end());
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    object([
        ("path", json!(spec.path)),
        ("host", host(spec.host.as_ref())),
        ("interval", json!(duration(spec.interval))),
        ("timeout", json!(duration(spec.timeout))),
        ("healthy", json!(spec.healthy)),
        ("unhealthy", json!(spec.unhealthy)),
        ("status", json!(status)),
    ])
}
