//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use postern_core::config::kubernetes::EndpointMode;
use postern_core::config::problem::Severity;
use postern_core::hostname::Hostname;

use super::HeldRef;
use super::Meta;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::Reason;
use crate::read::At;
use crate::read::Findings;
use crate::read::quote;

/// Whether requests go to the pods of a Service or to its cluster IP.
pub(crate) const ENDPOINTS: &str = "postern.dev/endpoints";

/// Who may sign the certificates of its pods.
pub(crate) const TLS_CA: &str = "postern.dev/tls-ca";
/// The name that those hold, if it is not that of the Service.
const TLS_SERVER_NAME: &str = "postern.dev/tls-server-name";
/// `off`: any certificate will do.
pub(crate) const TLS_VERIFY: &str = "postern.dev/tls-verify";
/// Where certificates of authorities are by convention.
pub(super) const CA_KEY: &str = "ca.crt";

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    pub meta: Meta,
    pub target: Target,
    pub ports: Vec<ServicePort>,
    /// What the annotation `postern.dev/endpoints` says; otherwise it is as in `[kubernetes]`.
    pub endpoints: Option<EndpointMode>,
    /// What `spec.trafficDistribution` says, if it asks for endpoints nearby.
    pub prefers_same_zone: bool,
    pub prefers_same_node: bool,
    /// `status.loadBalancer.ingress`: where the Service is reached from outside.
    pub addresses: Vec<Address>,
    /// Of ports that speak TLS, if an annotation says anything about it.
    pub tls: Option<Box<BackendTls>>,
}

/// How endpoints are spoken to over TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackendTls {
    /// Who may sign the certificates of endpoints; nobody if absent.
    pub trust: Option<Trust>,
    /// The name that they have to hold.
    pub server_name: Option<String>,
    /// Whether any certificate will do.
    pub is_insecure: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Whom this machine trusts.
    System,
    Held(HeldRef),
}

/// Where the requests of a Service go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Target {
    /// Its endpoints alone: `clusterIP: None`, or none yet.
    #[default]
    Headless,
    ClusterIps(Vec<IpAddr>),
    /// A name outside.
    External(Arc<str>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePort {
    /// Empty where there is one port.
    pub name: Arc<str>,
    pub number: u16,
    /// Where a headless Service without selector has no slices that say so.
    pub protocol: AppProtocol,
}

/// How endpoints are spoken to (`appProtocol`).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AppProtocol {
    #[default]
    Http,
    /// HTTP/2 in clear text, with prior knowledge.
    H2c,
    Https,
}

impl AppProtocol {
    /// `None`: a word that is not known, which by convention changes nothing.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "http" | "kubernetes.io/ws" | "ws" => Some(Self::Http),
            "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Some(Self::H2c),
            "https" | "kubernetes.io/wss" | "wss" => Some(Self::Https),
            _ => None,
        }
    }
}

/// An entry of `status.loadBalancer`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Address {
    Ip(IpAddr),
    Hostname(Arc<str>),
}

pub(super) fn read(
    name: &ObjectName,
    object: &At<'_>,
    meta: Meta,
    findings: &mut Findings,
) -> Option<Service> {
    let spec = object.key("spec");
    spec.required(findings)?;
    let external = spec.key("externalName");
    let target = match spec.key("type").text(findings) {
        Some("ExternalName") => Target::External(external.required_text(findings)?.into()),
        _ => cluster_ips(&spec, findings),
    };
    let list = spec.key("ports");
    let ports = list.items(findings);
    let ports = ports.filter_map(|port| {
        let number = port.key("port");
        if number.is_absent() {
            number.malformed(findings, "it is missing".to_owned());
        }
        // What is no TCP is no backend.
        let is_tcp = matches!(port.key("protocol").text(findings), None | Some("TCP"));
        let protocol = port.key("appProtocol").text(findings);
        let read = ServicePort {
            name: port.key("name").arc(findings).unwrap_or_default(),
            number: number.port(findings)?,
            protocol: protocol.and_then(AppProtocol::parse).unwrap_or_default(),
        };
        is_tcp.then_some(read)
    });
    let ports = ports.collect();
    let distribution = spec.key("trafficDistribution");
    let distribution = distribution.text(findings).unwrap_or_default();
    let tls = backend_tls(object, name, findings);
    Some(Service {
        meta,
        target,
        ports,
        endpoints: mode(object, findings),
        prefers_same_zone: matches!(distribution, "PreferSameZone" | "PreferClose"),
        prefers_same_node: distribution == "PreferSameNode",
        addresses: load_balancer(object, findings),
        tls: tls.map(Box::new),
    })
}

fn mode(object: &At<'_>, findings: &mut Findings) -> Option<EndpointMode> {
    let metadata = object.key("metadata");
    let annotations = metadata.key("annotations");
    let annotation = annotations.key(ENDPOINTS);
    let text = annotation.text(findings)?;
    let mode = parse_mode(text);
    if mode.is_none() {
        let message = format!("{} is neither pods nor service", quote(text));
        let (severity, reason) = (Severity::Warning, Reason::Unsupported);
        annotation.find(findings, severity, reason, message, None);
    }
    mode
}

pub(crate) fn parse_mode(text: &str) -> Option<EndpointMode> {
    match text {
        "pods" => Some(EndpointMode::Pods),
        "service" => Some(EndpointMode::Service),
        _ => None,
    }
}

/// What is wrong here is malformed: to take half of it would be to trust whom nobody named.
fn backend_tls(
    object: &At<'_>,
    service: &ObjectName,
    findings: &mut Findings,
) -> Option<BackendTls> {
    let metadata = object.key("metadata");
    let annotations = metadata.key("annotations");
    let [ca, name, verify] = [TLS_CA, TLS_SERVER_NAME, TLS_VERIFY].map(|key| annotations.key(key));
    if ca.is_absent() && name.is_absent() && verify.is_absent() {
        return None;
    }
    let trust = match ca.text(findings) {
        None => None,
        Some("system") => Some(Trust::System),
        Some(text) => {
            let trust = parse_ca(text, service).map(Trust::Held);
            if trust.is_none() {
                let message = format!("{} names no certificates", quote(text));
                let help = "write configmap/NAME or secret/NAME of this namespace, whose key \
                            ca.crt is meant, or with /KEY after it; or system";
                ca.malformed_with_help(findings, message, help.to_owned());
            }
            trust
        }
    };
    let server_name = name.text(findings).and_then(|text| {
        let host = Hostname::parse(text).ok();
        let host = host.filter(|host| matches!(host, Hostname::Exact(_)));
        if host.is_none() {
            name.malformed(findings, format!("{} is no host name", quote(text)));
        }
        Some(host?.to_string())
    });
    let is_insecure = match verify.text(findings) {
        None | Some("on") => false,
        Some("off") => true,
        Some(other) => {
            let message = format!("{} is neither on nor off", quote(other));
            verify.malformed(findings, message);
            false
        }
    };
    if is_insecure && trust.is_some() {
        let message = "what is not verified needs nobody to trust".to_owned();
        let help = format!("leave one out of {TLS_CA} and {TLS_VERIFY}");
        verify.malformed_with_help(findings, message, help);
    }
    Some(BackendTls {
        trust,
        server_name,
        is_insecure,
    })
}

/// `secret/NAME`, `configmap/NAME`, or with the key after it.
fn parse_ca(text: &str, service: &ObjectName) -> Option<HeldRef> {
    let mut parts = text.split('/');
    let kind = match parts.next()? {
        "secret" => Kind::Secret,
        "configmap" => Kind::ConfigMap,
        _ => return None,
    };
    let name = parts.next()?;
    let key = parts.next().unwrap_or(CA_KEY);
    let is_part = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(is_part)
    };
    (parts.next().is_none() && is_part(name) && is_part(key))
        .then(|| HeldRef::new(kind, service.beside(&name.into()), key))
}

fn cluster_ips(spec: &At<'_>, findings: &mut Findings) -> Target {
    let mut ips = Vec::new();
    let list = spec.key("clusterIPs");
    let single = spec.key("clusterIP");
    let listed = list.items(findings);
    let mut texts: Vec<_> = listed.collect();
    if texts.is_empty() && !single.is_absent() {
        texts.push(single);
    }
    for at in texts {
        match at.text(findings) {
            None | Some("None" | "") => {}
            Some(text) => match text.parse() {
                Ok(ip) => ips.push(ip),
                Err(_) => at.malformed(findings, format!("{} is no address", quote(text))),
            },
        }
    }
    match ips.is_empty() {
        true => Target::Headless,
        false => Target::ClusterIps(ips),
    }
}

/// `status.loadBalancer.ingress`, sorted, each once.
pub(super) fn load_balancer(object: &At<'_>, findings: &mut Findings) -> Vec<Address> {
    let status = object.key("status");
    let balancer = status.key("loadBalancer");
    let list = balancer.key("ingress");
    let mut addresses: Vec<Address> = list
        .items(findings)
        .filter_map(|entry| {
            // Somebody else's writing: what is no address is none of ours.
            let mut ignored = Findings::default();
            if let Some(text) = entry.key("ip").text(&mut ignored) {
                return text.parse().ok().map(Address::Ip);
            }
            let host = entry.key("hostname").text(&mut ignored)?;
            (!host.is_empty()).then(|| Address::Hostname(host.into()))
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
