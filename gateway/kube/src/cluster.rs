//! Every object at one moment, as records.
//!
//! Invariants:
//! - An object that cannot be read keeps its last good record, and its problems are known until
//!   it can, or is deleted.
//! - A list that comes anew replaces what was there in one step, and what it does not hold is gone.
//! - What comes from one object changes no record of another.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;
use serde_json::json;

use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::At;
use crate::read::Findings;
use crate::record::ClassDefaults;
use crate::record::ConfigMap;
use crate::record::Custom;
use crate::record::EndpointSlice;
use crate::record::Ingress;
use crate::record::IngressClass;
use crate::record::Record;
use crate::record::Secret;
use crate::record::Service;
use crate::record::object_name;

/// Records of one kind, by name.
pub type Records<T> = BTreeMap<ObjectName, Arc<T>>;

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub classes: Records<IngressClass>,
    pub class_defaults: Records<ClassDefaults>,
    pub ingresses: Records<Ingress>,
    pub services: Records<Service>,
    pub slices: Records<EndpointSlice>,
    /// The slices of each Service, by name.
    pub(crate) by_service: Records<BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    pub secrets: Records<Secret>,
    pub config_maps: Records<ConfigMap>,
    pub plugins: Records<Custom>,
    pub policies: Records<Custom>,
    /// What is wrong with objects as they are; none of it stands in a record.
    pub(crate) problems: BTreeMap<ObjectRef, Vec<ObjectProblem>>,
}

impl Cluster {
    /// Takes an object as it is now. Returns whether that changed anything.
    pub fn apply(&mut self, kind: Kind, object: &Value) -> bool {
        let root = At::root(object);
        let Some(name) = object_name(kind, &root) else {
            // Nothing can be said of an object without a name. The API server has none.
            return false;
        };
        let (record, problems) = read(kind, &name, &root);
        let is_changed = match record {
            // One that was good stays.
            Some(Record::Ingress(new))
                if new.is_broken && self.ingresses.get(&name).is_some_and(|old| !old.is_broken) =>
            {
                false
            }
            Some(record) => self.put(name.clone(), record),
            None => false,
        };
        self.set_problems(ObjectRef { kind, name }, problems) || is_changed
    }

    /// Forgets an object. Returns whether it was known.
    pub fn delete(&mut self, kind: Kind, name: &ObjectName) -> bool {
        let object = ObjectRef {
            kind,
            name: name.clone(),
        };
        let had_problems = self.problems.remove(&object).is_some();
        let was_known = match kind {
            Kind::IngressClass => self.classes.remove(name).is_some(),
            Kind::ClassDefaults => self.class_defaults.remove(name).is_some(),
            Kind::Ingress => self.ingresses.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::EndpointSlice => match self.slices.remove(name) {
                Some(slice) => {
                    self.unlink(name, &slice);
                    true
                }
                None => false,
            },
            Kind::Secret => self.secrets.remove(name).is_some(),
            Kind::ConfigMap => self.config_maps.remove(name).is_some(),
            Kind::Plugin => self.plugins.remove(name).is_some(),
            Kind::Policy => self.policies.remove(name).is_some(),
        };
        was_known || had_problems
    }

    /// Takes the objects of a whole list in place of all that were known of a kind. Returns whether
    /// that changed anything.
    pub fn replace<'v>(&mut self, kind: Kind, objects: impl Iterator<Item = &'v Value>) -> bool {
        let mut listed = BTreeSet::new();
        let mut is_changed = false;
        for object in objects {
            listed.extend(object_name(kind, &At::root(object)));
            is_changed |= self.apply(kind, object);
        }
        let gone: Vec<ObjectName> = self
            .names(kind)
            .into_iter()
            .filter(|name| !listed.contains(name))
            .collect();
        for name in gone {
            is_changed |= self.delete(kind, &name);
        }
        is_changed
    }

    /// Forgets every object of a kind that a whole list does not hold. Returns whether that changed
    /// anything.
    pub fn retain(&mut self, kind: Kind, listed: &BTreeSet<ObjectName>) -> bool {
        let gone: Vec<ObjectName> = self
            .names(kind)
            .into_iter()
            .filter(|name| !listed.contains(name))
            .collect();
        let mut is_changed = false;
        for name in gone {
            is_changed |= self.delete(kind, &name);
        }
        is_changed
    }

    /// Every object of a kind of which anything is known, also those that could not be read.
    fn names(&self, kind: Kind) -> BTreeSet<ObjectName> {
        fn of<T>(records: &Records<T>) -> BTreeSet<ObjectName> {
            records.keys().cloned().collect()
        }
        let mut names = match kind {
            Kind::IngressClass => of(&self.classes),
            Kind::ClassDefaults => of(&self.class_defaults),
            Kind::Ingress => of(&self.ingresses),
            Kind::Service => of(&self.services),
            Kind::EndpointSlice => of(&self.slices),
            Kind::Secret => of(&self.secrets),
            Kind::ConfigMap => of(&self.config_maps),
            Kind::Plugin => of(&self.plugins),
            Kind::Policy => of(&self.policies),
        };
        let broken = self.problems.keys().filter(|object| object.kind == kind);
        names.extend(broken.map(|object| object.name.clone()));
        names
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let slices = self.by_service.get(service);
        slices.into_iter().flat_map(|slices| slices.values())
    }

    /// What is wrong with objects by themselves.
    pub fn problems(&self) -> impl Iterator<Item = &ObjectProblem> {
        self.problems.values().flatten()
    }

    /// Whether an object as it is now could not be read.
    pub fn is_broken(&self, object: &ObjectRef) -> bool {
        let mut problems = self.problems.get(object).into_iter().flatten();
        problems.any(|problem| problem.reason == Reason::Malformed)
    }

    fn put(&mut self, name: ObjectName, record: Record) -> bool {
        fn put<T: PartialEq>(records: &mut Records<T>, name: ObjectName, new: Arc<T>) -> bool {
            match records.get_mut(&name) {
                Some(old) if **old == *new => false,
                Some(old) => {
                    *old = new;
                    true
                }
                None => {
                    records.insert(name, new);
                    true
                }
            }
        }
        match record {
            Record::IngressClass(new) => put(&mut self.classes, name, new),
            Record::ClassDefaults(new) => put(&mut self.class_defaults, name, new),
            Record::Ingress(new) => put(&mut self.ingresses, name, new),
            Record::Service(new) => put(&mut self.services, name, new),
            Record::EndpointSlice(new) => {
                if let Some(old) = self.slices.get(&name).cloned()
                    && old.service != new.service
                {
                    self.unlink(&name, &old);
                }
                if let Some(service) = &new.service {
                    let slices = self.by_service.entry(name.beside(service)).or_default();
                    let known = slices.get(&name.name);
                    if known.is_none_or(|known| *known != new) {
                        let slices = Arc::make_mut(slices);
                        slices.insert(Arc::clone(&name.name), Arc::clone(&new));
                    }
                }
                put(&mut self.slices, name, new)
            }
            Record::Secret(new) => put(&mut self.secrets, name, new),
            Record::ConfigMap(new) => put(&mut self.config_maps, name, new),
            Record::Plugin(new) => put(&mut self.plugins, name, new),
            Record::Policy(new) => put(&mut self.policies, name, new),
        }
    }

    fn unlink(&mut self, name: &ObjectName, slice: &EndpointSlice) {
        let Some(service) = &slice.service else {
            return;
        };
        let service = name.beside(service);
        if let Some(slices) = self.by_service.get_mut(&service) {
            Arc::make_mut(slices).remove(&name.name);
            if slices.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    fn set_problems(&mut self, object: ObjectRef, problems: Vec<ObjectProblem>) -> bool {
        let old = match problems.is_empty() {
            true => self.problems.remove(&object),
            false => self.problems.insert(object.clone(), problems),
        };
        old.as_ref() != self.problems.get(&object)
    }
}

fn read(kind: Kind, name: &ObjectName, root: &At<'_>) -> (Option<Record>, Vec<ObjectProblem>) {
    let mut findings = Findings::default();
    let record = Record::read(kind, name, root, &mut findings);
    let problems = findings.into_list().into_iter();
    let problems = problems.map(|finding| ObjectProblem {
        object: ObjectRef {
            kind,
            name: name.clone(),
        },
        field: finding.field,
        severity: finding.severity,
        reason: finding.reason,
        message: finding.message,
        help: finding.help,
    });
    (record, problems.collect())
}

/// An object as a watch gives it, as [`Cluster::apply`] takes it: of its metadata, what is read.
pub fn object_value(object: DynamicObject) -> Value {
    let metadata = object.metadata;
    let created = metadata.creation_timestamp.map(|time| time.0.to_string());
    let metadata = json!({
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "generation": metadata.generation,
        "creationTimestamp": created,
        "annotations": metadata.annotations,
        "labels": metadata.labels,
    });
    let mut value = match object.data {
        Value::Object(data) => data,
        _ => serde_json::Map::new(),
    };
    value.insert("metadata".to_owned(), metadata);
    Value::Object(value)
}
