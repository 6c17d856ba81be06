//! Which Ingresses are ours, by their class, and in which order they are taken.

use std::collections::HashMap;
use std::sync::Arc;

use postern_core::config::kubernetes::DEFAULT_CLASS;
use postern_core::config::kubernetes::EndpointMode;

use super::Fault;
use super::Owned;
use super::Pass;
use super::Settings;
use super::annotation::CANARY;
use super::backend::Wish;
use super::nginx::Nginx;
use crate::object::GROUP;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::quote;
use crate::record::ENDPOINTS;
use crate::record::Ingress;
use crate::record::IngressClass;
use crate::record::parse_mode;

/// A class that is served.
#[derive(Clone, Default)]
pub(super) struct Class {
    is_default: bool,
    /// What its Ingresses get first; `None` if that is not to be had.
    pub(super) policies: Option<Vec<ObjectName>>,
    endpoints: Option<EndpointMode>,
}

/// By name.
pub(super) type Classes = HashMap<Arc<str>, Arc<Class>>;

impl Settings {
    /// Whether Ingresses of a class are served although there is no object for it.
    pub(crate) fn serves_by_name(&self, class: &str) -> bool {
        match self.spec.classes.is_empty() {
            true => class == DEFAULT_CLASS,
            false => self.spec.classes.iter().any(|known| known == class),
        }
    }
}

impl<'c> Pass<'c> {
    /// An Ingress that is served, with its class.
    pub(super) fn own(&mut self, name: &'c ObjectName, ingress: &'c Ingress) -> Option<Owned<'c>> {
        let class = self.class_of(ingress)?;
        if self.is_canary(name, ingress) {
            return None;
        }
        let nginx = Nginx::read(name, ingress);
        Some(Owned {
            name,
            ingress,
            wish: Wish {
                endpoints: self.endpoints_of(name, ingress).or(class.endpoints),
                protocol: nginx.protocol,
            },
            policies: self.policies_of(name, ingress, class.policies.as_deref(), &nginx),
            nginx,
            issuer: self.issuer_of(name, ingress),
        })
    }

    /// What an Ingress itself says of the Services that it names.
    fn endpoints_of(&mut self, name: &ObjectName, ingress: &Ingress) -> Option<EndpointMode> {
        let mut annotations = ingress.annotations.iter();
        let (_, text) = annotations.find(|(key, _)| **key == *ENDPOINTS)?;
        let mode = parse_mode(text);
        if mode.is_none() {
            let object = ObjectRef {
                kind: Kind::Ingress,
                name: name.clone(),
            };
            let message = format!("{} is neither pods nor service", quote(text));
            let fault = Fault::warning(Reason::Unsupported, message);
            self.problem(object, format!("metadata.annotations[{ENDPOINTS}]"), fault);
        }
        mode
    }

    /// Whether ingress-nginx would only mix it into another Ingress. As one of its own, it would take
    /// all that is for that.
    fn is_canary(&mut self, name: &ObjectName, ingress: &Ingress) -> bool {
        let mut annotations = ingress.annotations.iter();
        if !annotations.any(|(key, value)| **key == *CANARY && &**value == "true") {
            return false;
        }
        let object = ObjectRef {
            kind: Kind::Ingress,
            name: name.clone(),
        };
        let message = "a canary of ingress-nginx is not understood here and serves nothing";
        let fault = Fault::error(Reason::Unsupported, message).with_help(
            "state it as a Policy of the kind canary, and name that in postern.dev/policies",
        );
        self.problem(object, format!("metadata.annotations[{CANARY}]"), fault);
        true
    }

    pub(super) fn classes(&mut self) -> Classes {
        let mut classes = Classes::new();
        let spec = &self.settings.spec;
        let is_named =
            |name: &str| spec.classes.is_empty() || spec.classes.iter().any(|class| class == name);
        for (name, class) in &self.cluster.classes {
            if *class.controller == *spec.controller && is_named(&name.name) {
                let defaults = self.class_defaults(name, class);
                let served = Class {
                    is_default: class.is_default,
                    endpoints: defaults.as_ref().and_then(|(_, endpoints)| *endpoints),
                    policies: defaults.map(|(policies, _)| policies),
                };
                classes.insert(Arc::clone(&name.name), Arc::new(served));
            }
        }
        classes
    }

    /// What `spec.parameters` gives; `None` if that cannot be found out.
    fn class_defaults(
        &mut self,
        name: &ObjectName,
        class: &IngressClass,
    ) -> Option<(Vec<ObjectName>, Option<EndpointMode>)> {
        let Some(parameters) = &class.parameters else {
            return Some((Vec::new(), None));
        };
        let object = ObjectRef {
            kind: Kind::IngressClass,
            name: name.clone(),
        };
        let is_ours = parameters.group.as_deref() == Some(GROUP)
            && *parameters.kind == *Kind::ClassDefaults.as_str()
            && !parameters.name.namespace.is_empty();
        if !is_ours {
            let fault = Fault::error(
                Reason::Unsupported,
                "the parameters of a class are a ClassDefaults of postern.dev in a namespace",
            )
            .with_help("write apiGroup: postern.dev, kind: ClassDefaults, scope: Namespace");
            self.problem(object, "spec.parameters", fault);
            return None;
        }
        let Some(defaults) = self.cluster.class_defaults.get(&parameters.name) else {
            let message = format!("there is no ClassDefaults '{}'", parameters.name);
            let fault = Fault::error(Reason::PolicyMissing, message)
                .with_help("until it is there, every request for this class is answered 503");
            self.problem(object, "spec.parameters", fault);
            return None;
        };
        let policies = defaults.policies.iter();
        let policies = policies.map(|policy| parameters.name.beside(policy));
        Some((policies.collect(), defaults.endpoints))
    }

    /// The class of an Ingress that is served; `None` if it is not ours.
    pub(super) fn class_of(&self, ingress: &Ingress) -> Option<Arc<Class>> {
        let classes = &self.known.classes;
        let none = || {
            Arc::new(Class {
                is_default: false,
                policies: Some(Vec::new()),
                endpoints: None,
            })
        };
        // Without an object, a class is served by its name alone, unless it is somebody's object.
        let by_name = |name: &str| {
            let is_ours = self.settings.serves_by_name(name);
            let is_object = self
                .cluster
                .classes
                .contains_key(&ObjectName::new("", name));
            (is_ours && !is_object).then(none)
        };
        match (ingress.class.as_deref(), ingress.old_class.as_deref()) {
            (Some(name), _) => classes
                .get(name)
                .cloned()
                .or_else(|| by_name(name).filter(|_| self.settings.is_offline)),
            (None, Some(name)) => classes.get(name).cloned().or_else(|| by_name(name)),
            (None, None) => {
                let default = classes.values().find(|class| class.is_default);
                let is_served = self.settings.spec.serves_classless
                    || (self.settings.is_offline
                        && (default.is_some() || self.cluster.classes.is_empty()));
                is_served.then(|| default.cloned().unwrap_or_else(none))
            }
        }
    }
}
