//! Built-in policies as they can be shown.

use http::HeaderValue;
use postern_core::config::PolicySpec;
use postern_core::config::policy::access::ForwardAuthSpec;
use postern_core::config::policy::answer::CorsSpec;
use postern_core::config::policy::answer::HstsSpec;
use postern_core::config::policy::limit::LimitKey;
use postern_core::config::policy::traffic::CanarySpec;
use postern_core::config::policy::traffic::ErrorPagesSpec;
use postern_core::config::policy::traffic::PageSpec;
use postern_core::hostname::Authority;
use serde_json::Value;
use serde_json::json;

use super::View;
use super::duration;
use super::object;
use super::on_error;
use super::path;
use super::print_size;
use super::redirect;

impl View {
    pub(super) fn policy(&self, policy: &PolicySpec) -> Value {
        let mut value = self.settings(policy);
        if let Value::Object(table) = &mut value {
            table.insert("kind".to_owned(), json!(policy.kind()));
        }
        value
    }

    fn canary(&self, spec: &CanarySpec) -> Value {
        let (header, header_value) = match &spec.header {
            Some((name, value)) => (Some(name.as_str()), value.as_ref()),
            None => (None, None),
        };
        let header_value = header_value.map(|text| self.secret(json!(value(text))));
        let by = match &spec.by {
            LimitKey::All => "request".to_owned(),
            by => by.to_string(),
        };
        object([
            ("upstream", json!(spec.upstream.as_str())),
            ("weight", json!(spec.weight)),
            ("header", json!(header)),
            ("header-value", json!(header_value)),
            ("cookie", json!(spec.cookie)),
            ("by", json!(by)),
        ])
    }

    fn settings(&self, policy: &PolicySpec) -> Value {
        match policy {
            PolicySpec::BasicAuth(spec) => object([
                ("users-file", path(&spec.users_file)),
                ("realm", json!(spec.realm)),
                (
                    "user-header",
                    json!(spec.user_header.as_ref().map(http::HeaderName::as_str)),
                ),
                ("keep-credentials", json!(spec.keeps_credentials)),
            ]),
            PolicySpec::BodySize(spec) => json!({ "limit": print_size(spec.limit) }),
            PolicySpec::Canary(spec) => self.canary(spec),
            PolicySpec::Compression(spec) => json!({
                "codings": spec.codings.iter().map(|c| c.as_str()).collect::<Vec<_>>(),
                "types": texts(&spec.types),
                "min-size": print_size(spec.min_size),
                "responses": spec.responses,
            }),
            PolicySpec::Concurrency(spec) => json!({
                "requests": spec.requests,
                "key": spec.key.to_string(),
                "keys": spec.keys,
                "status": spec.status.as_u16(),
            }),
            PolicySpec::Cors(spec) => cors(spec),
            PolicySpec::ErrorPages(spec) => error_pages(spec),
            PolicySpec::ForwardAuth(spec) => forward_auth(spec),
            PolicySpec::Headers(spec) => object([
                ("request-headers", self.edits(&spec.request)),
                ("response-headers", self.edits(&spec.response)),
            ]),
            PolicySpec::IpAccess(spec) => json!({
                "allow": texts(&spec.allow),
                "deny": texts(&spec.deny),
            }),
            PolicySpec::Maintenance(spec) => object([
                ("on", json!(spec.is_on)),
                ("status", json!(spec.status.as_u16())),
                ("retry-after", json!(spec.retry_after.map(duration))),
                ("content-type", value(&spec.content_type)),
                ("body", json!(spec.body)),
                ("allow", json!(texts(&spec.allow))),
            ]),
            PolicySpec::Mirror(spec) => json!({
                "upstream": spec.upstream.as_str(),
                "percent": spec.percent,
                "body": print_size(spec.body),
                "requests": spec.requests,
                "timeout": duration(spec.timeout),
            }),
            PolicySpec::RateLimit(spec) => json!({
                "rate": spec.rate.to_string(),
                "burst": spec.burst,
                "key": spec.key.to_string(),
                "keys": spec.keys,
                "status": spec.status.as_u16(),
                "headers": spec.headers,
            }),
            PolicySpec::Redirect(spec) => redirect(spec),
            PolicySpec::RequestId(spec) => json!({
                "header": spec.header.as_str(),
                "keep": spec.keeps,
            }),
            PolicySpec::SecurityHeaders(spec) => object([
                ("hsts", spec.hsts.as_ref().map_or(Value::Null, hsts)),
                ("nosniff", json!(spec.is_nosniff)),
                (
                    "frame-options",
                    json!(spec.frame_options.as_ref().map(value)),
                ),
                (
                    "referrer-policy",
                    json!(spec.referrer_policy.as_ref().map(value)),
                ),
                (
                    "content-security-policy",
                    json!(spec.content_security_policy.as_ref().map(value)),
                ),
                (
                    "permissions-policy",
                    json!(spec.permissions_policy.as_ref().map(value)),
                ),
                ("overwrite", json!(spec.overwrites)),
            ]),
            // Shown among the plugins.
            PolicySpec::Plugin(_) => Value::Null,
        }
    }
}

fn cors(spec: &CorsSpec) -> Value {
    object([
        ("origins", json!(texts(&spec.origins))),
        ("methods", json!(texts(&spec.methods))),
        ("headers", json!(spec.headers.as_deref().map(texts))),
        ("expose", json!(texts(&spec.expose))),
        ("credentials", json!(spec.credentials)),
        ("max-age", json!(duration(spec.max_age))),
    ])
}

fn error_pages(spec: &ErrorPagesSpec) -> Value {
    let statuses = spec.statuses.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    let page = match &spec.page {
        PageSpec::File(file) => ("file", path(file)),
        PageSpec::Body(body) => ("body", json!(String::from_utf8_lossy(body))),
    };
    object([
        ("statuses", json!(statuses.collect::<Vec<_>>())),
        page,
        ("content-type", value(&spec.content_type)),
    ])
}

fn forward_auth(spec: &ForwardAuthSpec) -> Value {
    object([
        ("upstream", json!(spec.upstream.as_str())),
        ("path", json!(spec.path.as_str())),
        ("host", json!(spec.host.as_ref().map(Authority::as_str))),
        (
            "request-headers",
            json!(spec.request_headers.as_deref().map(texts)),
        ),
        ("upstream-headers", json!(texts(&spec.upstream_headers))),
        ("client-headers", json!(texts(&spec.client_headers))),
        ("signin", json!(spec.signin)),
        ("signin-parameter", json!(spec.signin_parameter)),
        ("timeout", json!(duration(spec.timeout))),
        ("on-unavailable", on_error(spec.on_unavailable)),
        ("cache", json!(spec.cache.map(duration))),
        ("cache-key", json!(spec.cache_key.as_deref().map(texts))),
    ])
}

fn hsts(spec: &HstsSpec) -> Value {
    json!({
        "max-age": duration(spec.max_age),
        "include-subdomains": spec.subdomains,
        "preload": spec.preload,
    })
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn value(value: &HeaderValue) -> Value {
    json!(String::from_utf8_lossy(value.as_bytes()))
}
