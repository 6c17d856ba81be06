//! What a translation was made of, and what has changed since.
//!
//! Records are shared and never changed in place, so one that is the same object says the same.
//! They are kept here: otherwise another record could come to lie where one of them lay.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cluster::Records;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::record::ClassDefaults;
use crate::record::ConfigMap;
use crate::record::Custom;
use crate::record::EndpointSlice;
use crate::record::Ingress;
use crate::record::IngressClass;
use crate::record::Secret;
use crate::record::Service;

#[derive(Default)]
pub(super) struct Seen {
    classes: Records<IngressClass>,
    class_defaults: Records<ClassDefaults>,
    ingresses: Records<Ingress>,
    services: Records<Service>,
    slices: Records<BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    secrets: Records<Secret>,
    config_maps: Records<ConfigMap>,
    plugins: Records<Custom>,
    policies: Records<Custom>,
    problems: BTreeMap<ObjectRef, Vec<ObjectProblem>>,
}

/// Names of objects that are not what they were.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) ingresses: BTreeSet<ObjectName>,
    /// They, or their slices.
    pub(super) services: BTreeSet<ObjectName>,
    pub(super) secrets: BTreeSet<ObjectName>,
    pub(super) config_maps: BTreeSet<ObjectName>,
    /// A class, a plugin or a policy: anything may be different.
    pub(super) is_general: bool,
}

impl Changes {
    /// Whether a Secret or a ConfigMap is not what it was.
    pub(super) fn has(&self, object: &ObjectRef) -> bool {
        match object.kind {
            Kind::Secret => self.secrets.contains(&object.name),
            Kind::ConfigMap => self.config_maps.contains(&object.name),
            _ => false,
        }
    }
}

impl Seen {
    /// Looks at a cluster and remembers it.
    pub(super) fn take(&mut self, cluster: &Cluster) -> Changes {
        let mut changes = Changes::default();
        let mut general = BTreeSet::new();
        follow(&mut self.classes, &cluster.classes, &mut general);
        follow(
            &mut self.class_defaults,
            &cluster.class_defaults,
            &mut general,
        );
        follow(&mut self.plugins, &cluster.plugins, &mut general);
        follow(&mut self.policies, &cluster.policies, &mut general);
        changes.is_general = !general.is_empty();
        follow(
            &mut self.ingresses,
            &cluster.ingresses,
            &mut changes.ingresses,
        );
        follow(&mut self.services, &cluster.services, &mut changes.services);
        follow(&mut self.slices, &cluster.by_service, &mut changes.services);
        follow(&mut self.secrets, &cluster.secrets, &mut changes.secrets);
        follow(
            &mut self.config_maps,
            &cluster.config_maps,
            &mut changes.config_maps,
        );
        if self.problems != cluster.problems {
            let objects = self.problems.keys().chain(cluster.problems.keys());
            for object in objects {
                if self.problems.get(object) == cluster.problems.get(object) {
                    continue;
                }
                let name = object.name.clone();
                match object.kind {
                    Kind::Ingress => _ = changes.ingresses.insert(name),
                    Kind::Secret => _ = changes.secrets.insert(name),
                    Kind::ConfigMap => _ = changes.config_maps.insert(name),
                    // Nothing but the list of problems says so.
                    Kind::Service | Kind::EndpointSlice => {}
                    Kind::IngressClass | Kind::ClassDefaults | Kind::Plugin | Kind::Policy => {
                        changes.is_general = true;
                    }
                }
            }
            self.problems.clone_from(&cluster.problems);
        }
        changes
    }
}

/// Makes `seen` what `now` is, and adds to `changed` the names of what differs.
fn follow<T>(seen: &mut Records<T>, now: &Records<T>, changed: &mut BTreeSet<ObjectName>) {
    let mut differing: Vec<(ObjectName, Option<Arc<T>>)> = Vec::new();
    let mut before = seen.iter().peekable();
    for (name, record) in now {
        // Names are shared too, so equality is found out faster than order.
        let mut same = before.next_if(|(known, _)| *known == name);
        while same.is_none()
            && let Some((gone, _)) = before.next_if(|(known, _)| *known < name)
        {
            differing.push((gone.clone(), None));
            same = before.next_if(|(known, _)| *known == name);
        }
        if !same.is_some_and(|(_, known)| Arc::ptr_eq(known, record)) {
            differing.push((name.clone(), Some(Arc::clone(record))));
        }
    }
    differing.extend(before.map(|(gone, _)| (gone.clone(), None)));
    for (name, record) in differing {
        match record {
            Some(record) => _ = seen.insert(name.clone(), record),
            None => _ = seen.remove(&name),
        }
        changed.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_went_and_changed_is_told_once() {
        let records = |pairs: &[(&str, &Arc<u8>)]| -> Records<u8> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, record)| (ObjectName::new("a", name), Arc::clone(record)))
                .collect()
        };
        let [one, two, three] = [Arc::new(1), Arc::new(2), Arc::new(1)];
        let cases: [(&[_], &[&str]); 7] = [
            (&[("b", &one), ("d", &two)], &["b", "d"]),
            (&[("b", &one), ("d", &two)], &[]),
            (&[("a", &one), ("b", &one), ("d", &two)], &["a"]),
            (&[("b", &one), ("c", &two), ("d", &two)], &["a", "c"]),
            (&[("d", &two), ("e", &one)], &["b", "c", "e"]),
            // Equal, and another object all the same.
            (&[("d", &two), ("e", &three)], &["e"]),
            (&[], &["d", "e"]),
        ];
        let mut seen = Records::new();
        for (now, want) in cases {
            let mut changed = BTreeSet::new();
            let now = records(now);
            follow(&mut seen, &now, &mut changed);
            let names: Vec<_> = changed.iter().map(|name| &*name.name).collect();
            assert_eq!(names, want);
            assert!(seen.iter().eq(now.iter()));
        }
    }
}
