//! What is kept of objects beside their records, for whoever writes back: ids, and what our own
//! objects say about themselves.
//!
//! Records hold what routes are made of; an object that cannot be read has none, and its author has
//! to be told all the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::name_of;
use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::translate::Settings;

/// The name of the condition that is written.
pub(crate) const ACCEPTED: &str = "Accepted";
/// The class of an Ingress, before there was a field for it.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// The condition `Accepted` of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Accepted {
    /// As it was made: `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
    pub generation: Option<i64>,
    /// Since when the status is so, as it is written.
    pub since: String,
}

#[derive(Debug, Default)]
pub(super) struct Aside {
    accepted: BTreeMap<ObjectRef, Accepted>,
    /// Ids of objects that have no record, and the class that an Ingress among them names.
    broken: BTreeMap<ObjectRef, (Arc<str>, Option<String>)>,
}

impl Aside {
    /// Keeps what there is to keep of an object that the cluster has taken. Returns whether that
    /// changed anything.
    pub(super) fn keep(&mut self, kind: Kind, value: &Value, cluster: &Cluster) -> bool {
        let is_ours = matches!(kind, Kind::Plugin | Kind::Policy);
        if !is_ours && kind != Kind::Ingress {
            return false;
        }
        let Some(name) = name_of(kind, value) else {
            return false;
        };
        let object = ObjectRef { kind, name };
        if cluster.is_broken(&object) {
            if let Some(uid) = value["metadata"]["uid"].as_str() {
                let field = value["spec"]["ingressClassName"].as_str();
                let old = value["metadata"]["annotations"][OLD_CLASS].as_str();
                let class = field.or(old).map(str::to_owned);
                self.broken.insert(object.clone(), (uid.into(), class));
            }
        } else {
            self.broken.remove(&object);
        }
        if !is_ours {
            return false;
        }
        let now = accepted(value);
        let before = match &now {
            Some(now) => self.accepted.insert(object, now.clone()),
            None => self.accepted.remove(&object),
        };
        before != now
    }

    pub(super) fn drop(&mut self, kind: Kind, name: &ObjectName) {
        let name = name.clone();
        let object = ObjectRef { kind, name };
        self.accepted.remove(&object);
        self.broken.remove(&object);
    }

    /// Drops what is no longer listed.
    pub(super) fn retain(&mut self, kind: Kind, listed: &BTreeSet<ObjectName>) {
        let is_listed = |object: &ObjectRef| object.kind != kind || listed.contains(&object.name);
        self.accepted.retain(|object, _| is_listed(object));
        self.broken.retain(|object, _| is_listed(object));
    }

    pub(super) fn accepted(&self) -> &BTreeMap<ObjectRef, Accepted> {
        &self.accepted
    }

    /// The ids of broken objects that are ours to speak of: an Ingress of somebody else's class is
    /// not.
    pub(super) fn uids(
        &self,
        cluster: &Cluster,
        settings: &Settings,
    ) -> BTreeMap<ObjectRef, Arc<str>> {
        let is_ours = |object: &ObjectRef, class: Option<&str>| {
            if object.kind != Kind::Ingress {
                return true;
            }
            let Some(class) = class else {
                return settings.spec.serves_classless;
            };
            let known = cluster.classes.get(&ObjectName::new("", class));
            known.is_some_and(|known| *known.controller == *settings.spec.controller)
        };
        let ours = self.broken.iter();
        ours.filter(|(object, (_, class))| is_ours(object, class.as_deref()))
            .map(|(object, (uid, _))| (object.clone(), Arc::clone(uid)))
            .collect()
    }
}

fn accepted(value: &Value) -> Option<Accepted> {
    let conditions = value["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == ACCEPTED)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some(Accepted {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        generation: found["observedGeneration"].as_i64(),
        since: text("lastTransitionTime"),
    })
}
