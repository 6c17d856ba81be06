//! What is kept of each object: small, plain, comparable, with nothing of the API's types.
//!
//! A record is made from JSON, whatever that holds: a list of objects of which one is broken gives
//! a record for each of the others.

mod class;
mod custom;
mod ingress;
mod secret;
mod service;
mod slice;

use std::sync::Arc;

pub use class::ClassDefaults;
pub use class::IngressClass;
pub use class::Parameters;
pub use custom::ConfigMap;
pub use custom::Custom;
pub use custom::Grant;
pub use custom::HeldRef;
pub use ingress::Backend;
pub use ingress::Ingress;
pub use ingress::IngressPath;
pub use ingress::IngressRule;
pub use ingress::IngressTls;
pub use ingress::PortRef;
pub use secret::Secret;
pub(crate) use secret::TLS_CERT;
pub(crate) use secret::TLS_KEY;
pub use secret::TlsPair;
pub use service::Address;
pub use service::AppProtocol;
pub use service::BackendTls;
pub(crate) use service::ENDPOINTS;
pub use service::Service;
pub use service::ServicePort;
pub(crate) use service::TLS_CA;
pub(crate) use service::TLS_VERIFY;
pub use service::Target;
pub use service::Trust;
pub(crate) use service::parse_mode;
pub use slice::EndpointSlice;
pub use slice::SliceEndpoint;
pub use slice::SlicePort;

use crate::object::Kind;
use crate::object::ObjectName;
use crate::read::At;
use crate::read::Findings;

/// Longest name of an object or a namespace.
const MAX_NAME: usize = 253;

/// What every object has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Meta {
    pub uid: Option<Arc<str>>,
    /// Unix time in seconds; objects of manifests have none, and count as the newest.
    pub created: Option<i64>,
    pub generation: Option<i64>,
}

/// What is kept of one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    IngressClass(Arc<IngressClass>),
    ClassDefaults(Arc<ClassDefaults>),
    Ingress(Arc<Ingress>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Secret(Arc<Secret>),
    ConfigMap(Arc<ConfigMap>),
    Plugin(Arc<Custom>),
    Policy(Arc<Custom>),
}

impl Record {
    /// Reads an object. What comes back although there are findings is as good as it can be; an
    /// object that is malformed gives no record, or that of an Ingress that
    /// [refuses everything](Ingress::is_broken).
    pub(crate) fn read(
        kind: Kind,
        name: &ObjectName,
        object: &At<'_>,
        findings: &mut Findings,
    ) -> Option<Self> {
        let meta = meta(object, findings);
        let record = match kind {
            Kind::IngressClass => Self::IngressClass(class::read(object, meta, findings)?.into()),
            Kind::ClassDefaults => {
                Self::ClassDefaults(class::read_defaults(object, meta, findings)?.into())
            }
            Kind::Ingress => Self::Ingress(ingress::read(object, meta, findings)?.into()),
            Kind::Service => Self::Service(service::read(name, object, meta, findings)?.into()),
            Kind::EndpointSlice => Self::EndpointSlice(slice::read(object, meta, findings)?.into()),
            Kind::Secret => Self::Secret(secret::read(object, meta, findings)?.into()),
            Kind::ConfigMap => Self::ConfigMap(custom::read_config_map(object, findings)?.into()),
            Kind::Plugin => Self::Plugin(custom::read(kind, name, object, meta, findings)?.into()),
            Kind::Policy => Self::Policy(custom::read(kind, name, object, meta, findings)?.into()),
        };
        match record {
            record if !findings.is_malformed() => Some(record),
            Self::Ingress(ingress) => ingress.stand_in().map(|it| Self::Ingress(it.into())),
            _ => None,
        }
    }
}

/// Namespace and name; `None` if the object has none that can be one.
pub(crate) fn object_name(kind: Kind, object: &At<'_>) -> Option<ObjectName> {
    let mut ignored = Findings::default();
    let metadata = object.key("metadata");
    let name = metadata.key("name").text(&mut ignored)?;
    let namespace = metadata.key("namespace").text(&mut ignored);
    let namespace = match kind.is_namespaced() {
        // A manifest may leave it out.
        true => namespace
            .filter(|text| !text.is_empty())
            .unwrap_or("default"),
        false => "",
    };
    let is_name = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        text.len() <= MAX_NAME && text.bytes().all(is_part)
    };
    // The API server sees to more than that; here it matters that no name can be read as two.
    (!name.is_empty() && is_name(name) && is_name(namespace))
        .then(|| ObjectName::new(namespace, name))
}

fn meta(object: &At<'_>, findings: &mut Findings) -> Meta {
    let metadata = object.key("metadata");
    let created = metadata.key("creationTimestamp");
    let created = created.text(findings).and_then(|text| {
        let time = text.parse::<jiff::Timestamp>();
        if time.is_err() {
            created.malformed(findings, "it is no time".to_owned());
        }
        time.ok()
    });
    Meta {
        uid: metadata.key("uid").arc(findings),
        created: created.map(jiff::Timestamp::as_second),
        generation: metadata.key("generation").value().as_i64(),
    }
}
