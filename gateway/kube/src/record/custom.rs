//! Our own kinds that state policies, and what they may take bytes from.
//!
//! A Policy and a Plugin say what a table of a file says, in the same words: their `spec` becomes
//! such a table ([`toml`]), which is read by the code that reads files. So each rule and each
//! message exists once. Only what cannot be the same is different: an object names Secrets and
//! ConfigMaps of its namespace where a file names files, and Services where that names upstreams.

mod toml;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_core::config::Held;
use postern_core::config::PolicySpec;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use self::toml::Document;
use super::Meta;
use super::PortRef;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::At;
use crate::read::Finding;
use crate::read::Findings;
use crate::read::quote;
use crate::read::quoted;

/// The key of a Secret with users, as `htpasswd` and ingress-nginx have it.
const USERS: &str = "auth";
/// The key of a Secret for a registry.
const DOCKER_CONFIG: &str = ".dockerconfigjson";
/// Keys by which files name files, in policies and in a plugin's `fetch`.
const FILE_KEYS: [&str; 5] = [
    "users-file",
    "file",
    "password-file",
    "docker-config",
    "ca-file",
];

/// A Plugin or a Policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Custom {
    pub meta: Meta,
    /// Who may name it.
    pub grant: Grant,
    /// Its upstreams are `namespace/service:port`, its files those of `files`.
    pub spec: PolicySpec,
    /// Services of its namespace that it sends requests to.
    pub services: Vec<(Arc<str>, PortRef)>,
    /// What it names in the place of files.
    pub files: Vec<HeldRef>,
}

/// A value of a Secret or a ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldRef {
    pub object: ObjectRef,
    pub key: Arc<str>,
    /// Its name in the configuration.
    pub path: PathBuf,
}

impl HeldRef {
    pub(super) fn new(kind: Kind, name: ObjectName, key: &str) -> Self {
        let word = match kind {
            Kind::Secret => "secret",
            _ => "configmap",
        };
        Self {
            path: PathBuf::from(format!("{word}:{name}/{key}")),
            object: ObjectRef { kind, name },
            key: key.into(),
        }
    }
}

/// Which namespaces may use an object, beside its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Grant {
    #[default]
    Nobody,
    Namespaces(Vec<Arc<str>>),
    Everybody,
}

impl Grant {
    pub fn allows(&self, namespace: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Namespaces(names) => names.iter().any(|name| **name == *namespace),
            Self::Everybody => true,
        }
    }
}

/// A ConfigMap that a plugin takes its component from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigMap {
    /// `data` and `binaryData`.
    pub values: BTreeMap<Arc<str>, Held>,
}

pub(super) fn read(
    kind: Kind,
    name: &ObjectName,
    object: &At<'_>,
    meta: Meta,
    findings: &mut Findings,
) -> Option<Custom> {
    let spec_at = object.key("spec");
    let mut spec = spec_at.required(findings)?.clone();
    let grant = grant(&spec_at, findings);
    spec.remove("namespaces");
    let mut reading = Reading {
        name,
        spec_at: &spec_at,
        findings,
        services: Vec::new(),
        files: Vec::new(),
    };
    let section = match kind {
        Kind::Plugin => {
            reading.plugin(&mut spec);
            "plugins"
        }
        _ => {
            reading.policy(&mut spec);
            "policies"
        }
    };
    let Reading {
        services, files, ..
    } = reading;
    let spec = parsed(section, name, &spec, &services, findings)?;
    Some(Custom {
        meta,
        grant,
        spec,
        services,
        files,
    })
}

fn grant(spec: &At<'_>, findings: &mut Findings) -> Grant {
    let list = spec.key("namespaces");
    let mut names: Vec<Arc<str>> = Vec::new();
    for item in list.items(findings) {
        names.extend(item.required_text(findings).map(Arc::from));
    }
    match names {
        names if names.iter().any(|name| &**name == "*") => Grant::Everybody,
        names if names.is_empty() => Grant::Nobody,
        names => Grant::Namespaces(names),
    }
}

/// Turns what only an object can say into what a file can.
struct Reading<'r> {
    name: &'r ObjectName,
    spec_at: &'r At<'r>,
    findings: &'r mut Findings,
    services: Vec<(Arc<str>, PortRef)>,
    files: Vec<HeldRef>,
}

impl Reading<'_> {
    fn policy(&mut self, spec: &mut Map<String, Value>) {
        self.no_files(spec, "spec");
        if let Some(users) = spec.remove("users-secret") {
            let at = "spec.users-secret";
            let file = match users.is_string() {
                true => self.held(Kind::Secret, &users, USERS, at),
                false => {
                    let message =
                        format!("it has to be the name of a Secret, not {}", quoted(&users));
                    self.error(at, message, None);
                    None
                }
            };
            spec.insert("users-file".to_owned(), file.unwrap_or_else(unnamed));
        }
        if let Some(page) = spec.remove("config-map") {
            let file = self.held(Kind::ConfigMap, &page, "", "spec.config-map");
            spec.insert("file".to_owned(), file.unwrap_or_else(unnamed));
        }
        if let Some(upstream) = spec.get_mut("upstream") {
            self.service(upstream, "spec.upstream");
        }
    }

    fn plugin(&mut self, spec: &mut Map<String, Value>) {
        if let Some(map) = spec.remove("config-map") {
            if spec.contains_key("source") {
                let message = "a plugin has one of source and config-map".to_owned();
                self.error("spec.config-map", message, None);
            }
            let file = self.held(Kind::ConfigMap, &map, "", "spec.config-map");
            spec.insert("source".to_owned(), file.unwrap_or_else(unnamed));
        } else if let Some(Value::String(source)) = spec.get_mut("source") {
            let is_remote = source.starts_with("oci://") || source.starts_with("https://");
            match source.strip_prefix("file://") {
                Some(path) => *source = path.to_owned(),
                None if is_remote => {}
                None => {
                    let message = format!("{} is no source", quote(source));
                    let help = "write oci://registry/repository@sha256:..., https://... with \
                                sha256, file:///..., or config-map: {name: NAME, key: KEY}";
                    self.error("spec.source", message, Some(help.to_owned()));
                }
            }
        }
        if let Some(Value::Object(fetch)) = spec.get_mut("fetch") {
            self.no_files(fetch, "spec.fetch");
            if let Some(secret) = fetch.remove("pull-secret") {
                let at = "spec.fetch.pull-secret";
                let file = self.held(Kind::Secret, &secret, DOCKER_CONFIG, at);
                if let Some(file) = file {
                    fetch.insert("docker-config".to_owned(), file);
                }
            }
        }
        let Some(Value::Object(grants)) = spec.get_mut("grants") else {
            return;
        };
        if let Some(Value::Array(upstreams)) = grants.get_mut("upstreams") {
            for (index, upstream) in upstreams.iter_mut().enumerate() {
                self.service(upstream, &format!("spec.grants.upstreams[{index}]"));
            }
        }
        let Some(Value::Object(secrets)) = grants.get_mut("secrets") else {
            return;
        };
        for (key, secret) in secrets {
            let at = format!("spec.grants.secrets.{key}");
            if let Some(file) = self.held(Kind::Secret, secret, key, &at) {
                *secret = json!({ "file": file });
            }
        }
    }

    /// An object has no business with the files of the gateway.
    fn no_files(&mut self, table: &mut Map<String, Value>, at: &str) {
        for key in FILE_KEYS {
            if table.remove(key).is_none() {
                continue;
            }
            // That it is missing would be a second problem.
            if matches!(key, "users-file" | "file") {
                table.insert(key.to_owned(), unnamed());
            }
            let help = match key {
                "users-file" => "write users-secret: NAME for the key 'auth' of a Secret",
                "file" => "write body, or config-map: {name: NAME, key: KEY}",
                "docker-config" | "password-file" => {
                    "write pull-secret: NAME, of the type kubernetes.io/dockerconfigjson"
                }
                _ => "registries are trusted as the gateway's own configuration says",
            };
            let message = "an object cannot name files of the gateway".to_owned();
            self.error(&format!("{at}.{key}"), message, Some(help.to_owned()));
        }
    }

    /// The name of a file that stands for a value of an object of the same namespace: `NAME`, or
    /// `{name: NAME, key: KEY}`.
    fn held(&mut self, kind: Kind, value: &Value, default: &str, at: &str) -> Option<Value> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let name = value.as_str().or_else(|| text("name"));
        let key = text("key").unwrap_or(default);
        let is_known = |key: &String| key == "name" || key == "key";
        let has_others = value
            .as_object()
            .is_some_and(|table| !table.keys().all(is_known));
        let name = name.filter(|name| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.len() <= 253 && name.bytes().all(is_part)
        });
        let is_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let (Some(name), false, true) =
            (name, has_others, !key.is_empty() && key.bytes().all(is_key))
        else {
            let message = format!(
                "it has to name a {kind} of this namespace, not {}",
                quoted(value)
            );
            let help = "write {name: NAME, key: KEY}".to_owned();
            self.error(at, message, Some(help));
            return None;
        };
        let held = HeldRef::new(kind, self.name.beside(&name.into()), key);
        let path = held.path.display().to_string();
        self.files.push(held);
        Some(json!(path))
    }

    /// A Service of the same namespace, as `service:port`.
    fn service(&mut self, value: &mut Value, at: &str) {
        let service = value.as_str().and_then(|text| {
            let (service, port) = text.split_once(':')?;
            let number = port.parse().ok().filter(|port: &u16| *port > 0)?;
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_name = !service.is_empty() && service.bytes().all(is_part);
            is_name.then_some((service, number))
        });
        let Some((service, number)) = service else {
            let message = format!("{} is no Service with a port", quoted(value));
            let help = "write the Service of this namespace and its port, as in auth:8080";
            self.error(at, message, Some(help.to_owned()));
            return;
        };
        let upstream = format!("{}/{service}:{number}", self.name.namespace);
        self.services
            .push((service.into(), PortRef::Number(number)));
        *value = json!(upstream);
    }

    fn error(&mut self, field: &str, message: String, help: Option<String>) {
        let _ = self.spec_at;
        self.findings.add(Finding {
            field: field.to_owned(),
            severity: postern_core::config::problem::Severity::Error,
            reason: Reason::Malformed,
            message,
            help,
        });
    }
}

/// What stands in the place of a file that could not be named, so that the rest is read.
fn unnamed() -> Value {
    json!("unnamed")
}

/// The policy that the table states, read as in a file.
fn parsed(
    section: &str,
    name: &ObjectName,
    spec: &Map<String, Value>,
    services: &[(Arc<str>, PortRef)],
    findings: &mut Findings,
) -> Option<PolicySpec> {
    let mut document = Document::default();
    // What a file would have to have elsewhere.
    document.line("[runtime]\ncache-dir = \"/\"", "");
    for (service, port) in services {
        if let PortRef::Number(port) = port {
            let upstream = format!("{}/{service}:{port}", name.namespace);
            document.stub(&upstream);
        }
    }
    document.table(section, &name.to_string(), spec, findings);
    let (text, fields) = document.finish();
    let text = ConfigText {
        path: Path::new("spec").to_owned(),
        text,
    };
    let at = format!("{section}.{name}");
    let (policy, problems) = match parse(&[text]) {
        Ok(loaded) => {
            let mut policies = loaded.config.policies;
            (policies.pop_first(), loaded.warnings)
        }
        Err(problems) => (None, problems),
    };
    for problem in problems {
        let field = fields.get(problem.origin.line - 1);
        let message = problem.message.replace(&format!("{at}."), "");
        findings.add(Finding {
            field: field.cloned().unwrap_or_else(|| "spec".to_owned()),
            severity: problem.severity,
            reason: match problem.is_error() {
                true => Reason::Malformed,
                false => Reason::Doubtful,
            },
            message: message.replace(&at, "spec"),
            help: problem.help,
        });
    }
    policy.map(|(_, spec)| spec)
}

pub(super) fn read_config_map(object: &At<'_>, findings: &mut Findings) -> Option<ConfigMap> {
    let mut values: BTreeMap<Arc<str>, Held> = BTreeMap::new();
    let data = object.key("data");
    for (key, text) in data.pairs(findings) {
        values.insert(key.into(), text.as_bytes().to_vec().into());
    }
    let binary = object.key("binaryData");
    for (key, text) in binary.pairs(findings) {
        let text: String = text.split_ascii_whitespace().collect();
        match STANDARD.decode(text) {
            Ok(bytes) => {
                values.insert(key.into(), bytes.into());
            }
            Err(_) => {
                let at = binary.key(key);
                at.malformed(findings, "it is not encoded in base64".to_owned());
            }
        }
    }
    Some(ConfigMap { values })
}
