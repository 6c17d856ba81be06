//! IngressClasses, and the defaults that their parameters refer to.

use std::sync::Arc;

use postern_core::config::kubernetes::EndpointMode;

use super::Meta;
use super::service::parse_mode;
use crate::object::ObjectName;
use crate::read::At;
use crate::read::Findings;
use crate::read::quote;

/// Marks the class that Ingresses without one get.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IngressClass {
    pub meta: Meta,
    pub controller: Arc<str>,
    pub is_default: bool,
    pub parameters: Option<Parameters>,
}

/// What `spec.parameters` refers to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameters {
    pub group: Option<Arc<str>>,
    pub kind: Arc<str>,
    /// With an empty namespace if it is of the cluster.
    pub name: ObjectName,
}

/// What the Ingresses of a class get.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClassDefaults {
    pub meta: Meta,
    /// Before those that an Ingress names itself. Names of this object's namespace.
    pub policies: Vec<Arc<str>>,
    /// Where requests for Services go that say nothing about it.
    pub endpoints: Option<EndpointMode>,
}

pub(super) fn read(object: &At<'_>, meta: Meta, findings: &mut Findings) -> Option<IngressClass> {
    let metadata = object.key("metadata");
    let annotations = metadata.key("annotations");
    let is_default = annotations.key(DEFAULT_CLASS).text(findings) == Some("true");
    let spec = object.key("spec");
    spec.required(findings)?;
    let controller = spec.key("controller").required_text(findings)?.into();
    let parameters = spec.key("parameters");
    let parameters = parameters.object(findings).and_then(|_| {
        let name = parameters.key("name").required_text(findings)?;
        let namespace = parameters.key("namespace").text(findings);
        Some(Parameters {
            group: parameters.key("apiGroup").arc(findings),
            kind: parameters.key("kind").required_text(findings)?.into(),
            name: ObjectName::new(namespace.unwrap_or_default(), name),
        })
    });
    Some(IngressClass {
        meta,
        controller,
        is_default,
        parameters,
    })
}

pub(super) fn read_defaults(
    object: &At<'_>,
    meta: Meta,
    findings: &mut Findings,
) -> Option<ClassDefaults> {
    let spec = object.key("spec");
    for (key, _) in spec.required(findings)? {
        if !matches!(&**key, "policies" | "endpoints") {
            let at = spec.key(key);
            let message = "it is not known: there are 'policies' and 'endpoints'";
            at.malformed(findings, message.to_owned());
        }
    }
    let list = spec.key("policies");
    let mut policies = Vec::new();
    for item in list.items(findings) {
        policies.extend(item.required_text(findings).map(Arc::from));
    }
    let at = spec.key("endpoints");
    let endpoints = at.text(findings).and_then(|text| {
        let mode = parse_mode(text);
        if mode.is_none() {
            let message = format!("{} is neither pods nor service", quote(text));
            at.malformed(findings, message);
        }
        mode
    });
    Some(ClassDefaults {
        meta,
        policies,
        endpoints,
    })
}
