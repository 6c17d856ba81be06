//! Which Ingresses are ours, by their class, and in which order they are taken.

use std::collections::HashMap;

use postern_core::config::kubernetes::DEFAULT_CLASS;

use super::Fault;
use super::Owned;
use super::Translator;
use super::annotation::CANARY;
use crate::object::GROUP;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::record::Ingress;
use crate::record::IngressClass;

/// A class that is served.
#[derive(Clone, Default)]
struct Class {
    is_default: bool,
    /// What its Ingresses get first; `None` if that is not to be had.
    policies: Option<Vec<ObjectName>>,
}

impl<'c> Translator<'c> {
    /// The Ingresses that are served: the oldest first, which is the order in which they get what
    /// they ask for.
    pub(super) fn owned(&mut self) -> Vec<Owned<'c>> {
        let cluster = self.cluster;
        let classes = self.classes();
        let served = cluster.ingresses.iter();
        let mut served: Vec<_> = served
            .filter_map(|(name, ingress)| {
                let class = self.class_of(&classes, ingress)?;
                Some((name, &**ingress, class))
            })
            .collect();
        served.retain(|(name, ingress, _)| !self.is_canary(name, ingress));
        // What is not created yet, in a manifest, comes after all that is there.
        served.sort_by_key(|(name, ingress, _)| (ingress.meta.created.unwrap_or(i64::MAX), *name));
        let served = served.into_iter();
        served
            .map(|(name, ingress, class)| Owned {
                name,
                ingress,
                policies: self.policies_of(name, ingress, class.policies.as_deref()),
            })
            .collect()
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

    fn classes(&mut self) -> HashMap<&'c str, Class> {
        let mut classes = HashMap::new();
        let spec = &self.settings.spec;
        let is_named =
            |name: &str| spec.classes.is_empty() || spec.classes.iter().any(|class| class == name);
        for (name, class) in &self.cluster.classes {
            if *class.controller == *spec.controller && is_named(&name.name) {
                let served = Class {
                    is_default: class.is_default,
                    policies: self.class_policies(name, class),
                };
                classes.insert(&*name.name, served);
            }
        }
        classes
    }

    /// What `spec.parameters` gives; `None` if that cannot be found out.
    fn class_policies(
        &mut self,
        name: &ObjectName,
        class: &IngressClass,
    ) -> Option<Vec<ObjectName>> {
        let Some(parameters) = &class.parameters else {
            return Some(Vec::new());
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
        Some(
            policies
                .map(|policy| parameters.name.beside(policy))
                .collect(),
        )
    }

    /// The class of an Ingress that is served; `None` if it is not ours.
    fn class_of(&self, classes: &HashMap<&str, Class>, ingress: &Ingress) -> Option<Class> {
        let none = || Class {
            is_default: false,
            policies: Some(Vec::new()),
        };
        // Without an object, a class is served by its name alone, unless it is somebody's object.
        let by_name = |name: &str| {
            let names = &self.settings.spec.classes;
            let is_ours = match names.is_empty() {
                true => name == DEFAULT_CLASS,
                false => names.iter().any(|class| class == name),
            };
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
