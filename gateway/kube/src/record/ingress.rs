//! Ingresses.
//!
//! A path that is written in another controller's style, or as no request can have it, is not left
//! out, and the object is not refused for it: it is kept as [`IngressPath::is_refused`], so that its
//! requests get an answer of their own and never the rule of a broader path.

use std::sync::Arc;

use postern_core::config::problem::Severity;
use postern_core::config::route::PathMatch;
use postern_core::hostname::Hostname;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use serde_json::Value;

use super::Meta;
use super::service::Address;
use super::service::load_balancer;
use crate::object::Reason;
use crate::read::At;
use crate::read::Findings;
use crate::read::quote;

/// The class, before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";
/// Annotations that are kept: ours, and those of the controller that most Ingresses were written
/// for.
pub(crate) const ANNOTATIONS: [&str; 2] = ["postern.dev/", "nginx.ingress.kubernetes.io/"];

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ingress {
    pub meta: Meta,
    /// `spec.ingressClassName`.
    pub class: Option<Arc<str>>,
    /// The old annotation; it counts where the field is absent.
    pub old_class: Option<Arc<str>>,
    /// Those that begin with one of the prefixes that are understood, sorted.
    pub annotations: Vec<(Arc<str>, Arc<str>)>,
    pub default_backend: Option<Backend>,
    pub rules: Vec<IngressRule>,
    pub tls: Vec<IngressTls>,
    /// `status.loadBalancer.ingress` as it is now.
    pub addresses: Vec<Address>,
    /// It is malformed, and what can be read of it are its hosts: all their requests are refused,
    /// so that they do not go to the next broader host, or to the next who names it.
    pub is_broken: bool,
}

impl Ingress {
    /// What is left of a malformed object, if it names a host.
    pub(super) fn stand_in(&self) -> Option<Self> {
        let refusal = IngressPath {
            matches: PathMatch::Prefix(String::new()),
            len: 1,
            backend: Backend::Resource,
            is_refused: true,
        };
        let hosts = self.rules.iter().filter_map(|rule| rule.host.clone());
        let rules: Vec<_> = hosts
            .map(|host| IngressRule {
                host: Some(host),
                paths: Some(vec![refusal.clone()]),
            })
            .collect();
        (!rules.is_empty()).then(|| Self {
            rules,
            default_backend: None,
            tls: Vec::new(),
            is_broken: true,
            ..self.clone()
        })
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IngressRule {
    /// `None`: every host.
    pub host: Option<Hostname>,
    /// `None`: the rule has no `http`, and all of its host goes to the default backend.
    pub paths: Option<Vec<IngressPath>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IngressPath {
    pub matches: PathMatch,
    /// Bytes of the path as it was written: of two that accept the same, the longer wins.
    pub len: usize,
    pub backend: Backend,
    /// Requests are answered 503: it does not say what its author meant.
    pub is_refused: bool,
}

/// No path of an Ingress is a regular expression, and the others are texts.
impl Eq for IngressPath {}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Backend {
    /// Of the same namespace.
    Service { name: Arc<str>, port: PortRef },
    /// An object of another kind, which nobody knows how to forward to.
    Resource,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PortRef {
    Number(u16),
    Name(Arc<str>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IngressTls {
    /// Empty: those of the rules.
    pub hosts: Vec<Hostname>,
    /// Of the same namespace. `None`: the default certificate.
    pub secret: Option<Arc<str>>,
}

pub(super) fn read(object: &At<'_>, meta: Meta, findings: &mut Findings) -> Option<Ingress> {
    let metadata = object.key("metadata");
    let annotations = metadata.key("annotations");
    let old_class = annotations.key(CLASS).arc(findings);
    let pairs = annotations.pairs(findings).into_iter();
    let known = pairs.filter(|(key, _)| ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)));
    let mut annotations: Vec<_> = known
        .map(|(key, value)| (Arc::from(key), Arc::from(value)))
        .collect();
    annotations.sort();

    let spec = object.key("spec");
    spec.required(findings)?;
    let default_backend = spec.key("defaultBackend");
    let old_default = spec.key("backend");
    if !old_default.is_absent() {
        old_form(&old_default, findings, "defaultBackend");
    }
    let default_backend = match default_backend.is_absent() {
        true => None,
        false => backend(&default_backend, findings),
    };
    let rules_at = spec.key("rules");
    let mut rules = Vec::new();
    for rule_at in rules_at.items(findings) {
        rules.extend(rule(&rule_at, findings));
    }
    if rules.is_empty() && default_backend.is_none() && !findings.is_malformed() {
        spec.malformed(
            findings,
            "an Ingress has rules or a default backend".to_owned(),
        );
    }
    let no_http = rules.iter().position(|rule| rule.paths.is_none());
    if let Some(index) = no_http.filter(|_| default_backend.is_none()) {
        rules_at.find(
            findings,
            Severity::Warning,
            Reason::Doubtful,
            format!("rule {index} has no paths, and there is no default backend for its host"),
            None,
        );
    }
    let tls_at = spec.key("tls");
    let mut tls = Vec::new();
    for entry in tls_at.items(findings) {
        let hosts_at = entry.key("hosts");
        let mut hosts = Vec::new();
        for host_at in hosts_at.items(findings) {
            hosts.extend(host(&host_at, findings));
        }
        let secret = entry.key("secretName").arc(findings);
        tls.push(IngressTls {
            hosts,
            secret: secret.filter(|name| !name.is_empty()),
        });
    }
    Some(Ingress {
        meta,
        class: spec.key("ingressClassName").arc(findings),
        old_class,
        annotations,
        default_backend,
        rules,
        tls,
        addresses: load_balancer(object, findings),
        is_broken: false,
    })
}

fn rule(at: &At<'_>, findings: &mut Findings) -> Option<IngressRule> {
    at.required(findings)?;
    let host_at = at.key("host");
    let host = match host_at.value() {
        Value::Null => Some(None),
        Value::String(text) if text.is_empty() => Some(None),
        // Not read as "every host": a rule whose host is wrong is no rule.
        _ => host(&host_at, findings).map(Some),
    };
    let http = at.key("http");
    if http.object(findings).is_none() {
        return Some(IngressRule {
            host: host?,
            paths: None,
        });
    }
    let paths_at = http.key("paths");
    let mut paths = Vec::new();
    let mut is_empty = true;
    for path_at in paths_at.items(findings) {
        is_empty = false;
        paths.extend(path(&path_at, findings));
    }
    if is_empty {
        paths_at.malformed(findings, "a rule has at least one path".to_owned());
    }
    Some(IngressRule {
        host: host?,
        paths: Some(paths),
    })
}

fn host(at: &At<'_>, findings: &mut Findings) -> Option<Hostname> {
    let text = at.required_text(findings)?;
    let host = match Hostname::parse(text) {
        Ok(host) => host,
        Err(error) => {
            let message = format!("{} is no host name: {error}", quote(text));
            let help = match text {
                "*" => "leave the host out to mean every host",
                _ if text.contains(':') => "write the name without a port",
                _ => "write a name, or '*.' and a name for one more label",
            };
            at.malformed_with_help(findings, message, help.to_owned());
            return None;
        }
    };
    let is_address = matches!(&host, Hostname::Exact(name)
        if name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok());
    if is_address {
        let message = format!("{} is an address, not a host name", quote(text));
        let help = "leave the host out to serve requests for addresses";
        at.malformed_with_help(findings, message, help.to_owned());
        return None;
    }
    Some(host)
}

fn path(at: &At<'_>, findings: &mut Findings) -> Option<IngressPath> {
    at.required(findings)?;
    let backend_at = at.key("backend");
    let backend = backend(&backend_at, findings);
    let kind_at = at.key("pathType");
    let kind = match kind_at.text(findings) {
        Some(kind @ ("Exact" | "Prefix" | "ImplementationSpecific")) => kind,
        Some(other) => {
            let message = format!("{} is no path type", quote(other));
            let help = "write Prefix, Exact or ImplementationSpecific";
            kind_at.malformed_with_help(findings, message, help.to_owned());
            return None;
        }
        None => {
            if kind_at.is_absent() {
                let help = "write pathType: Prefix, or Exact";
                kind_at.malformed_with_help(findings, "it is missing".to_owned(), help.to_owned());
            }
            return None;
        }
    };
    let path_at = at.key("path");
    let text = path_at.text(findings).unwrap_or_default();
    if text.is_empty() && kind != "ImplementationSpecific" {
        path_at.malformed(findings, format!("a path of type {kind} begins with '/'"));
        return None;
    }
    let (path, is_refused) = match foreign_style(kind, text) {
        Some(meant) => {
            let message = format!(
                "{} is how paths are written for another controller; requests below it get 503",
                quote(text)
            );
            let help = format!("write path: {meant}, pathType: Prefix");
            path_at.find(
                findings,
                Severity::Error,
                Reason::Unsupported,
                message,
                Some(help),
            );
            (meant, true)
        }
        None => (text, false),
    };
    let (path, is_refused) = match (canonical(path), likely(path)) {
        (Ok(path), _) => (path, is_refused),
        (Err(message), Some(likely)) => {
            let shown = quote(text);
            let message = format!("{shown} is no path: {message}; requests below it get 503");
            let help = Some(format!("write path: {likely}, if that is meant"));
            let (severity, reason) = (Severity::Error, Reason::Unsupported);
            path_at.find(findings, severity, reason, message, help);
            (likely, true)
        }
        (Err(message), None) => {
            path_at.malformed(findings, format!("{} is no path: {message}", quote(text)));
            return None;
        }
    };
    let matches = match kind {
        "Exact" => PathMatch::Exact(path),
        // As core has them: without trailing slash.
        _ => PathMatch::Prefix(path.trim_end_matches('/').to_owned()),
    };
    Some(IngressPath {
        matches,
        len: text.len(),
        backend: backend?,
        is_refused,
    })
}

/// The prefix that was meant by `/api/*` (the AWS load balancer controller) or by a regular
/// expression (ingress-nginx): as a plain prefix, such a path would accept nothing.
fn foreign_style<'t>(kind: &str, text: &'t str) -> Option<&'t str> {
    if kind == "Exact" && !text.ends_with("/*") {
        return None;
    }
    if kind == "Prefix" && !text.contains(['*', '(', '[']) {
        return None;
    }
    // Of these, ingress-nginx reads any as a regular expression.
    let at = text.find(['*', '(', '[', '^', '$', '|', '\\'])?;
    let meant = text[..at].trim_end_matches(['/', '.', '?']);
    Some(if meant.is_empty() { "/" } else { meant })
}

/// As requests are compared: a path that says the same in another spelling would match nothing.
fn canonical(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if text.contains('?') {
        return Err("a query is no part of it".to_owned());
    }
    let encoded = encode(text);
    let path = RequestPath::from_text(&encoded, EncodedSlash::Reject);
    let path = path.map_err(|error| error.to_string())?;
    let path = path.path();
    // A segment that goes away would make it a path that nobody wrote.
    if path.matches('/').count() != encoded.matches('/').count() {
        return Err("it holds an empty segment, '.' or '..'".to_owned());
    }
    Ok(path.to_owned())
}

/// What was most likely meant by a path that no request can have.
fn likely(text: &str) -> Option<String> {
    let path = text.split('?').next()?;
    let slashes = ["\\", "%2f", "%2F", "%5c", "%5C"];
    let path = slashes
        .iter()
        .fold(path.to_owned(), |path, slash| path.replace(slash, "/"));
    let mut plain = String::with_capacity(path.len());
    for (at, c) in path.char_indices() {
        let is_hex = |b: &u8| b.is_ascii_hexdigit();
        let escape = path.as_bytes().get(at + 1..at + 3);
        match c {
            '%' if !escape.is_some_and(|digits| digits.iter().all(is_hex)) => plain.push_str("%25"),
            '#' => plain.push_str("%23"),
            c => plain.push(c),
        }
    }
    let path = RequestPath::from_text(&encode(&plain), EncodedSlash::Reject).ok()?;
    Some(path.path().to_owned())
}

/// What stands in a path of JSON need not be encoded there.
fn encode(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' ' => "%20".to_owned(),
            '"' | '<' | '>' | '`' | '{' | '}' | '^' | '|' => format!("%{:02X}", u32::from(c)),
            c if !c.is_ascii() => {
                let mut bytes = [0; 4];
                let bytes = c.encode_utf8(&mut bytes).bytes();
                bytes.map(|byte| format!("%{byte:02X}")).collect()
            }
            c => c.to_string(),
        })
        .collect()
}

fn backend(at: &At<'_>, findings: &mut Findings) -> Option<Backend> {
    at.required(findings)?;
    if !at.key("serviceName").is_absent() || !at.key("servicePort").is_absent() {
        old_form(at, findings, "backend");
        return None;
    }
    let service = at.key("service");
    if service.is_absent() && !at.key("resource").is_absent() {
        return Some(Backend::Resource);
    }
    service.required(findings)?;
    let name = service.key("name").required_text(findings)?.into();
    let port = service.key("port");
    // A common slip, as the port is a number elsewhere.
    if port.value().is_number() || port.value().is_string() {
        let number = crate::read::quoted(port.value());
        let message = format!("the port is an object, not {number}");
        let help = match port.value().is_number() {
            true => format!("write port: {{number: {}}}", port.value()),
            false => "write port: {name: NAME}".to_owned(),
        };
        port.malformed_with_help(findings, message, help);
        return None;
    }
    port.required(findings)?;
    let number = port.key("number");
    let text = port.key("name").text(findings).unwrap_or_default();
    let port = match (number.is_absent(), text) {
        (false, "") => PortRef::Number(number.port(findings)?),
        (true, name) if !name.is_empty() => PortRef::Name(name.into()),
        _ => {
            let help = "write port: {number: 80}, or port: {name: http}";
            let message = "a port has one of number and name".to_owned();
            port.malformed_with_help(findings, message, help.to_owned());
            return None;
        }
    };
    Some(Backend::Service { name, port })
}

/// The form of `extensions/v1beta1`.
fn old_form(at: &At<'_>, findings: &mut Findings, key: &str) {
    let mut ignored = Findings::default();
    let name = at.key("serviceName").text(&mut ignored);
    let name = name.unwrap_or("NAME");
    let port_at = at.key("servicePort");
    let port = match port_at.value() {
        Value::Number(number) => format!("number: {number}"),
        Value::String(name) => format!("name: {}", quote(name)),
        _ => "number: 80".to_owned(),
    };
    at.malformed_with_help(
        findings,
        "this is the form of v1beta1, which has not been served since Kubernetes 1.22".to_owned(),
        format!(
            "write {key}: {{service: {{name: {}, port: {{{port}}}}}}}",
            quote(name)
        ),
    );
}
