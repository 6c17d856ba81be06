//! A [`Config`] as it can be shown: the file format, with every default filled in.
//!
//! One view serves `check --print` and the admin listener. The latter hides what may be a secret:
//! values of header edits and of plugin configuration. Keys and certificates appear as file names
//! in both, since a configuration holds nothing else of them.
//!
//! Parsing what [`toml`] writes gives the same configuration again, as long as file names are read
//! from the same directory.

mod dns;
mod issuer;
mod kubernetes;
mod limits;
mod policy;
pub mod toml;
mod upstream;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use postern_core::config::AccessLogFormat;
use postern_core::config::CertificateSpec;
use postern_core::config::Config;
use postern_core::config::ListenerSpec;
use postern_core::config::ManagedSpec;
use postern_core::config::PluginSpec;
use postern_core::config::PolicySpec;
use postern_core::config::Problem;
use postern_core::config::RouteSpec;
use postern_core::config::listener::ClientAuthSpec;
use postern_core::config::listener::PassthroughSpec;
use postern_core::config::listener::TlsVersion;
use postern_core::config::parse::units::print_size;
use postern_core::config::plugin::Grants;
use postern_core::config::plugin::Isolation;
use postern_core::config::plugin::OnError;
use postern_core::config::plugin::PluginSource;
use postern_core::config::plugin::SecretSource;
use postern_core::config::policy::HeaderEdits;
use postern_core::config::route::ActionSpec;
use postern_core::config::route::FieldMatch;
use postern_core::config::route::PathMatch;
use postern_core::config::route::RedirectSpec;
use postern_core::config::route::RewriteSpec;
use postern_core::config::route::RuleSpec;
use postern_core::config::route::ValueMatch;
use postern_core::config::route::pattern;
use postern_core::config::source::FetchSpec;
use postern_core::config::source::Location;
use postern_core::config::source::LoginSpec;
use postern_core::name::CertificateName;
use postern_core::path::EncodedSlash;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// What stands in the place of a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// Whether values that may be secrets are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Secrets {
    Shown,
    Hidden,
}

pub fn config(config: &Config, secrets: Secrets) -> Value {
    let view = View { secrets };
    let mut plugins = Map::new();
    let mut policies = Map::new();
    for (name, policy) in &config.policies {
        match policy {
            PolicySpec::Plugin(spec) => plugins.insert(name.to_string(), view.plugin(spec)),
            spec => policies.insert(name.to_string(), view.policy(spec)),
        };
    }
    let managed =
        |(name, spec): (&CertificateName, &ManagedSpec)| (name.to_string(), issuer::managed(spec));
    // What was issued is shown as what was asked for.
    let mut certificates = config.certificates.clone();
    certificates.retain(|name, _| !config.managed.contains_key(name));
    let mut certificates = named(&certificates, certificate);
    if let Value::Object(certificates) = &mut certificates {
        certificates.extend(config.managed.iter().map(managed));
    }
    object([
        ("runtime", runtime(config)),
        ("access-log", access_log(config)),
        ("admin", json!({ "bind": config.admin.bind.to_string() })),
        ("limits", limits::process(&config.limits)),
        (
            "kubernetes",
            config
                .kubernetes
                .as_ref()
                .map_or(Value::Null, kubernetes::kubernetes),
        ),
        ("listeners", named(&config.listeners, listener)),
        ("dns", dns::dns(&config.dns)),
        ("dns-solvers", named(&config.dns_solvers, dns::solver)),
        ("certificates", certificates),
        ("issuers", named(&config.issuers, issuer::issuer)),
        (
            "upstreams",
            named(&config.upstreams, |spec| upstream::upstream(spec)),
        ),
        ("plugins", Value::Object(plugins)),
        ("policies", Value::Object(policies)),
        (
            "routes",
            config.routes.iter().map(|spec| view.route(spec)).collect(),
        ),
    ])
}

fn certificate(spec: &CertificateSpec) -> Value {
    let hosts = spec.hosts.as_ref();
    let hosts = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
    object([
        ("cert-file", json!(path(&spec.cert_file))),
        ("key-file", json!(path(&spec.key_file))),
        ("hosts", json!(hosts)),
    ])
}

/// A problem for programs.
pub fn problem(problem: &Problem) -> Value {
    json!({
        "severity": if problem.is_error() { "error" } else { "warning" },
        "file": path(&problem.origin.file),
        "line": problem.origin.line,
        "column": problem.origin.column,
        "message": problem.message,
        "help": problem.help,
    })
}

struct View {
    secrets: Secrets,
}

impl View {
    fn secret(&self, value: Value) -> Value {
        match self.secrets {
            Secrets::Shown => value,
            Secrets::Hidden => json!(HIDDEN),
        }
    }

    /// A key that a client has to send is in a match as well.
    fn field<N>(&self, name: &str, field: &FieldMatch<N>) -> Value {
        match &field.value {
            ValueMatch::Exact(text) => json!({ "name": name, "exact": self.secret(json!(text)) }),
            ValueMatch::Regex(regex) => json!({ "name": name, "regex": pattern(regex) }),
            ValueMatch::Present => json!({ "name": name, "present": true }),
            ValueMatch::Absent => json!({ "name": name, "present": false }),
        }
    }

    fn plugin(&self, spec: &PluginSpec) -> Value {
        let limits = &spec.limits;
        // `PluginSpec::config` is JSON that the parser wrote.
        let given: Map<String, Value> = serde_json::from_str(&spec.config).unwrap_or_default();
        let given = given
            .into_iter()
            .map(|(key, value)| (key, self.secret(value)));
        let mut shown = source(&spec.source);
        let rest = json!({
            "on-error": on_error(spec.on_error),
            "limits": {
                "cpu": duration(limits.cpu),
                "time": duration(limits.time),
                "memory": print_size(limits.memory),
                "instances": limits.instances,
                "log-lines": limits.log_lines,
                "body": print_size(limits.body),
                "callouts": limits.callouts,
            },
            "isolation": match spec.isolation {
                Isolation::Plugin => "plugin",
                Isolation::Request => "request",
            },
            "grants": grants(&spec.grants),
            "config": given.collect::<Map<_, _>>(),
        });
        if let Value::Object(rest) = rest {
            shown.extend(rest);
        }
        Value::Object(shown)
    }

    /// `null` for none.
    fn edits(&self, edits: &HeaderEdits) -> Value {
        if edits.is_empty() {
            return Value::Null;
        }
        let pairs = |pairs: &[(http::HeaderName, http::HeaderValue)]| -> Value {
            let pairs = pairs.iter().map(|(name, value)| {
                let value = json!(String::from_utf8_lossy(value.as_bytes()));
                (name.to_string(), self.secret(value))
            });
            Value::Object(pairs.collect())
        };
        let remove: Vec<&str> = edits.remove.iter().map(http::HeaderName::as_str).collect();
        json!({ "remove": remove, "set": pairs(&edits.set), "add": pairs(&edits.add) })
    }

    fn route(&self, spec: &RouteSpec) -> Value {
        let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
        let rules: Vec<Value> = spec.rules.iter().map(|rule| self.rule(rule)).collect();
        json!({ "name": spec.name.as_str(), "hosts": hosts, "rules": rules })
    }

    fn rule(&self, spec: &RuleSpec) -> Value {
        let matches = &spec.matches;
        let methods: Vec<&str> = matches.methods.iter().map(http::Method::as_str).collect();
        let headers = matches.headers.iter();
        let headers: Vec<Value> = headers.map(|f| self.field(f.name.as_str(), f)).collect();
        let query = matches.query.iter();
        let query: Vec<Value> = query.map(|f| self.field(&f.name, f)).collect();
        let policies: Vec<&str> = spec.policies.iter().map(|name| name.as_str()).collect();
        let mut pairs = vec![
            (
                "path",
                match &matches.path {
                    PathMatch::Exact(text) => json!({ "exact": text }),
                    PathMatch::Prefix(text) if text.is_empty() => json!({ "prefix": "/" }),
                    PathMatch::Prefix(text) => json!({ "prefix": text }),
                    PathMatch::Regex(regex) => json!({ "regex": pattern(regex) }),
                },
            ),
            ("methods", json!(methods)),
            ("headers", json!(headers)),
            ("query", json!(query)),
            ("policies", json!(policies)),
            ("request-headers", self.edits(&spec.headers.request)),
            ("response-headers", self.edits(&spec.headers.response)),
            (
                "rewrite",
                spec.rewrite.as_ref().map_or(Value::Null, rewrite),
            ),
            (
                "timeouts",
                spec.first_byte
                    .map_or(Value::Null, |time| json!({ "first-byte": duration(time) })),
            ),
        ];
        pairs.push(match &spec.action {
            ActionSpec::Forward(backends) => match backends.as_slice() {
                [only] if only.weight == 1 => ("upstream", json!(only.upstream.as_str())),
                several => (
                    "upstreams",
                    several
                        .iter()
                        .map(|b| json!({ "name": b.upstream.as_str(), "weight": b.weight }))
                        .collect(),
                ),
            },
            ActionSpec::Redirect(spec) => ("redirect", redirect(spec)),
            ActionSpec::Refuse(why) => ("refuse", json!(why.reason())),
            ActionSpec::Respond(spec) => (
                "respond",
                json!({
                    "status": spec.status.as_u16(),
                    "body": String::from_utf8_lossy(&spec.body),
                }),
            ),
        });
        object(pairs)
    }
}

fn on_error(on_error: OnError) -> Value {
    match on_error {
        OnError::Deny => json!("deny"),
        OnError::Allow => json!("allow"),
        OnError::Status(status) => json!(status.as_u16()),
    }
}

/// Where secrets are, never what they are.
fn grants(grants: &Grants) -> Value {
    let upstreams = grants.upstreams.iter();
    let secrets = grants.secrets.iter().map(|(name, source)| {
        let source = match source {
            SecretSource::File(file) => json!({ "file": path(file) }),
            SecretSource::Env(variable) => json!({ "env": variable }),
        };
        (name.clone(), source)
    });
    json!({
        "upstreams": upstreams.map(ToString::to_string).collect::<Vec<_>>(),
        "secrets": secrets.collect::<Map<_, _>>(),
        "shared-state": grants.shared_state.map(print_size),
        "challenges": grants.challenges,
        "dns": grants.dns,
    })
}

fn runtime(config: &Config) -> Value {
    let spec = &config.runtime;
    object([
        ("workers", json!(spec.workers.map(|count| count.get()))),
        ("cache-dir", json!(spec.cache_dir.as_deref().map(path))),
        ("state-dir", json!(spec.state_dir.as_deref().map(path))),
    ])
}

fn access_log(config: &Config) -> Value {
    let spec = &config.access_log;
    let format = match spec.format {
        AccessLogFormat::Json => "json",
        AccessLogFormat::Text => "text",
        AccessLogFormat::Off => "off",
    };
    object([
        ("format", json!(format)),
        ("path", json!(spec.path.as_deref().map(path))),
    ])
}

fn listener(spec: &ListenerSpec) -> Value {
    let tls = spec.tls.as_ref().map(|tls| {
        let certificates = tls.certificates.iter();
        let certificates: Vec<&str> = certificates.map(|name| name.as_str()).collect();
        let default = tls.default_certificate.as_ref();
        object([
            (
                "min-version",
                json!(match tls.min_version {
                    TlsVersion::Tls12 => "1.2",
                    TlsVersion::Tls13 => "1.3",
                }),
            ),
            ("certificates", json!(certificates)),
            (
                "default-certificate",
                json!(default.map(|name| name.as_str())),
            ),
            (
                "passthrough",
                tls.passthrough.iter().map(passthrough).collect(),
            ),
            (
                "ticket-keys",
                tls.ticket_keys.iter().map(|file| path(file)).collect(),
            ),
            (
                "client-auth",
                tls.client_auth.iter().map(client_auth).collect(),
            ),
        ])
    });
    let networks = spec.trusted_proxies.networks().iter();
    let networks: Vec<String> = networks.map(ToString::to_string).collect();
    let senders = spec.proxy_protocol.as_ref().map(|protocol| {
        let networks = protocol.from.networks().iter();
        networks.map(ToString::to_string).collect::<Vec<_>>()
    });
    object([
        ("bind", json!(spec.bind.to_string())),
        ("tls", json!(tls)),
        ("trusted-proxies", json!(networks)),
        (
            "proxy-protocol",
            json!(match &spec.proxy_protocol {
                None => "off",
                Some(protocol) if protocol.is_required => "required",
                Some(_) => "optional",
            }),
        ),
        ("proxy-protocol-from", json!(senders)),
        (
            "encoded-slash",
            json!(match spec.encoded_slash {
                EncodedSlash::Reject => "reject",
                EncodedSlash::Keep => "keep",
            }),
        ),
        ("timeouts", limits::timeouts(&spec.timeouts)),
        ("limits", limits::listener(&spec.limits)),
        ("http2", limits::http2(&spec.http2)),
    ])
}

fn passthrough(spec: &PassthroughSpec) -> Value {
    let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
    json!({ "hosts": hosts, "upstream": spec.upstream.as_str() })
}

fn client_auth(spec: &ClientAuthSpec) -> Value {
    let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
    let mode = if spec.is_required {
        "required"
    } else {
        "optional"
    };
    json!({ "hosts": hosts, "ca-file": path(&spec.ca_file), "mode": mode })
}

fn rewrite(spec: &RewriteSpec) -> Value {
    match spec {
        RewriteSpec::Prefix(text) => json!({ "prefix": text }),
        RewriteSpec::Path(text) => json!({ "path": text }),
    }
}

fn redirect(spec: &RedirectSpec) -> Value {
    let mut pairs = vec![
        ("status", json!(spec.status.as_u16())),
        ("scheme", json!(spec.scheme)),
        ("host", json!(spec.host)),
        ("port", json!(spec.port)),
    ];
    pairs.extend(spec.path.as_ref().map(|path| match path {
        RewriteSpec::Prefix(text) => ("prefix", json!(text)),
        RewriteSpec::Path(text) => ("path", json!(text)),
    }));
    object(pairs)
}

/// A table without the keys that are not set.
fn object<'k>(pairs: impl IntoIterator<Item = (&'k str, Value)>) -> Value {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn named<N: ToString, S>(
    items: &std::collections::BTreeMap<N, S>,
    view: impl Fn(&S) -> Value,
) -> Value {
    let items = items.iter();
    Value::Object(
        items
            .map(|(name, spec)| (name.to_string(), view(spec)))
            .collect(),
    )
}

/// Where a plugin comes from; files that hold secrets are named, not shown.
fn source(source: &PluginSource) -> Map<String, Value> {
    let remote = match source {
        PluginSource::File(file) => {
            return Map::from_iter([("source".to_owned(), path(file))]);
        }
        PluginSource::Remote(remote) => remote,
    };
    let FetchSpec {
        login,
        ca_file,
        plain_http,
    } = &remote.fetch;
    let (user, password_file, docker_config) = match login {
        None => (None, None, None),
        Some(LoginSpec::Password { user, file }) => (Some(user), Some(file), None),
        Some(LoginSpec::DockerConfig(file)) => (None, None, Some(file)),
        // Named by the object that it came from.
        Some(LoginSpec::HeldDockerConfig(_)) => (None, None, None),
    };
    let optional = |file: Option<&PathBuf>| file.map_or(Value::Null, |file| path(file));
    let sha256 = match &remote.location {
        Location::Https { digest, .. } => json!(digest.as_hex()),
        Location::Oci(_) => Value::Null,
    };
    let fetch = object([
        ("user", user.map_or(Value::Null, |user| json!(user))),
        ("password-file", optional(password_file)),
        ("docker-config", optional(docker_config)),
        ("ca-file", optional(ca_file.as_ref())),
        ("plain-http", json!(plain_http)),
    ]);
    let shown = [
        ("source", json!(remote.to_string())),
        ("sha256", sha256),
        ("fetch", fetch),
    ];
    let shown = shown.into_iter().filter(|(_, value)| !value.is_null());
    shown.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn path(path: &Path) -> Value {
    json!(path.to_string_lossy())
}

/// Durations come from whole milliseconds.
fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

#[cfg(test)]
mod tests;
