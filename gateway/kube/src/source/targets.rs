//! What is followed at this moment, and how each of it does.
//!
//! Kinds are followed from the start. Secrets and ConfigMaps are followed one by one, those that the
//! last translation named, so that RBAC need not let the gateway read any other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::NEEDED;
use super::OPTIONAL;
use super::SecretWatch;
use super::Taken;
use super::aside::Aside;
use super::name_of;
use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::watch::Failure;
use crate::watch::Gate;
use crate::watch::News;
use crate::watch::Target;
use crate::watch::follow;

/// Most objects that are followed one by one. Each is a connection to the API server.
const MAX_NAMED: usize = 256;

pub(super) struct Targets {
    client: Client,
    gate: Arc<Gate>,
    news: mpsc::Sender<(u64, News)>,
    secrets: SecretWatch,
    followed: BTreeMap<u64, Followed>,
    /// Marks of objects that are followed one by one.
    named: BTreeMap<ObjectRef, u64>,
    next_mark: u64,
    /// Objects that are named and beyond [`MAX_NAMED`].
    left_out: usize,
}

struct Followed {
    target: Target,
    task: AbortHandle,
    /// Whether anything is known of it: a list, or why there is none.
    is_reported: bool,
    has_list: bool,
    failure: Option<Failure>,
    /// What the list that is under way has held so far.
    listing: Option<BTreeSet<ObjectName>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Targets {
    pub(super) fn new(
        client: Client,
        gate: Arc<Gate>,
        news: mpsc::Sender<(u64, News)>,
        secrets: SecretWatch,
    ) -> Self {
        Self {
            client,
            gate,
            news,
            secrets,
            followed: BTreeMap::new(),
            named: BTreeMap::new(),
            next_mark: 0,
            left_out: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }

    /// Follows every kind of which all objects are wanted.
    pub(super) fn follow_kinds(&mut self) {
        let secrets = (self.secrets == SecretWatch::Cluster).then_some(Kind::Secret);
        for kind in NEEDED.into_iter().chain(OPTIONAL).chain(secrets) {
            self.follow(Target { kind, name: None });
        }
    }

    fn follow(&mut self, target: Target) -> u64 {
        let mark = self.next_mark;
        self.next_mark += 1;
        let (client, gate) = (self.client.clone(), Arc::clone(&self.gate));
        // Aborted when the target is dropped.
        let task = tokio::spawn(follow(
            client,
            gate,
            target.clone(),
            mark,
            self.news.clone(),
        ));
        let followed = Followed {
            target,
            task: task.abort_handle(),
            is_reported: false,
            has_list: false,
            failure: None,
            listing: None,
        };
        self.followed.insert(mark, followed);
        mark
    }

    /// Follows these objects one by one, and no others. Returns whether records were dropped.
    pub(super) fn follow_named(
        &mut self,
        wanted: &BTreeSet<ObjectRef>,
        cluster: &mut Cluster,
    ) -> bool {
        let is_single = |object: &&ObjectRef| match object.kind {
            Kind::Secret => self.secrets == SecretWatch::Named,
            kind => kind == Kind::ConfigMap,
        };
        let (wanted, left_out) = in_turn(wanted.iter().filter(is_single), MAX_NAMED);
        let gone: Vec<ObjectRef> = self
            .named
            .keys()
            .filter(|object| !wanted.contains(object))
            .cloned()
            .collect();
        let mut has_dropped = false;
        for object in gone {
            if let Some(mark) = self.named.remove(&object) {
                self.followed.remove(&mark);
                has_dropped |= cluster.delete(object.kind, &object.name);
            }
        }
        for object in wanted {
            if self.named.contains_key(object) {
                continue;
            }
            let mark = self.follow(Target {
                kind: object.kind,
                name: Some(object.name.clone()),
            });
            self.named.insert(object.clone(), mark);
        }
        if left_out > 0 && self.left_out == 0 {
            tracing::warn!(
                left_out,
                limit = MAX_NAMED,
                "more Secrets and ConfigMaps are named than can be watched one by one; \
                 set secrets = \"cluster\" in [kubernetes]"
            );
        }
        self.left_out = left_out;
        has_dropped
    }

    /// Takes what a watch brought; `None` if it is of a target that is no longer followed.
    pub(super) fn take(
        &mut self,
        mark: u64,
        news: News,
        cluster: &mut Cluster,
        aside: &mut Aside,
    ) -> Option<Taken> {
        let followed = self.followed.get_mut(&mark)?;
        let kind = followed.target.kind;
        let mut taken = Taken::default();
        let mut failure = None;
        match news {
            News::Listing => {
                followed.listing = Some(BTreeSet::new());
                // Nothing has been asked yet, so nothing is better either.
                failure.clone_from(&followed.failure);
            }
            News::Listed(object) => {
                if let Some(listing) = &mut followed.listing {
                    listing.extend(name_of(kind, &object));
                }
                // What is newer than what is known may be known at once; what is missing, not
                // before the list is whole.
                taken.has_changed = cluster.apply(kind, &object);
                taken.has_changed |= aside.keep(kind, &object, cluster);
            }
            News::Whole => {
                let listed = followed.listing.take().unwrap_or_default();
                taken.has_changed = match &followed.target.name {
                    Some(name) => !listed.contains(name) && cluster.delete(kind, name),
                    None => cluster.retain(kind, &listed),
                };
                if followed.target.name.is_none() {
                    aside.retain(kind, &listed);
                }
                taken.is_reported = !followed.is_reported;
                followed.is_reported = true;
                followed.has_list = true;
            }
            News::Applied(object) => {
                taken.has_changed = cluster.apply(kind, &object);
                taken.has_changed |= aside.keep(kind, &object, cluster);
            }
            News::Deleted(name) => {
                aside.drop(kind, &name);
                taken.has_changed = cluster.delete(kind, &name);
            }
            News::Recovered => {}
            News::Failed(failed) => {
                // One that is refused has told what there is to tell; one that is away has not.
                if failed.is_lasting() {
                    taken.is_reported = !followed.is_reported;
                    followed.is_reported = true;
                }
                failure = Some(failed);
            }
        }
        let class = |failure: &Option<Failure>| failure.as_ref().map(discriminant);
        if class(&followed.failure) != class(&failure) {
            taken.has_failure_changed = true;
            self.fail(mark, failure);
        }
        Some(taken)
    }

    /// Whether everything is known that has to be before anything is told.
    pub(super) fn is_settled(&self) -> bool {
        let mut kinds = self.followed.values().filter(|f| f.target.name.is_none());
        kinds.all(|followed| match needs_list(followed) {
            true => followed.has_list,
            false => followed.is_reported,
        })
    }

    fn fail(&mut self, mark: u64, failure: Option<Failure>) {
        let was_away = !self.is_connected();
        if let Some(followed) = self.followed.get_mut(&mark) {
            followed.failure = failure;
        }
        self.log(mark, was_away);
    }

    /// Waits for nothing any more that has not been looked at.
    pub(super) fn give_up_waiting(&mut self) {
        for followed in self.followed.values_mut() {
            followed.is_reported = true;
        }
    }

    /// Whether an object that is named has not been looked at.
    pub(super) fn has_unreported(&self) -> bool {
        self.followed.values().any(|followed| !followed.is_reported)
    }

    pub(super) fn is_connected(&self) -> bool {
        let mut followed = self.followed.values();
        !followed.any(|followed| matches!(followed.failure, Some(Failure::Away(_))))
    }

    pub(super) fn waiting_for(&self) -> Vec<String> {
        let waiting = self.followed.values().filter(|followed| {
            let is_known = match needs_list(followed) {
                true => followed.has_list,
                false => followed.is_reported,
            };
            !is_known && followed.target.name.is_none()
        });
        waiting.map(|f| f.target.kind.to_string()).collect()
    }

    pub(super) fn failures(&self) -> Vec<(String, Failure)> {
        let failed = self.followed.values().filter_map(|followed| {
            let failure = followed.failure.clone()?;
            Some((followed.target.to_string(), failure))
        });
        failed.collect()
    }

    /// Says what has changed, once; that the server is away is one change for all.
    fn log(&self, mark: u64, was_away: bool) {
        let Some(followed) = self.followed.get(&mark) else {
            return;
        };
        let target = followed.target.to_string();
        match &followed.failure {
            Some(Failure::Away(error)) => {
                if !was_away {
                    tracing::warn!(
                        error,
                        "the API server cannot be reached; what is known is served"
                    );
                }
            }
            Some(failure) => tracing::warn!(target, %failure, "not watched"),
            None if was_away => {
                if self.is_connected() {
                    tracing::info!("the API server is back");
                }
            }
            None => tracing::info!(target, "watched again"),
        }
    }
}

/// So many of the objects, one of each namespace in turn: one that names many leaves the others
/// theirs. With how many are left out.
fn in_turn<'o>(
    objects: impl Iterator<Item = &'o ObjectRef>,
    limit: usize,
) -> (BTreeSet<&'o ObjectRef>, usize) {
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, &ObjectRef)> = objects
        .map(|object| {
            let turn = taken.entry(&object.name.namespace).or_default();
            *turn += 1;
            (*turn, object)
        })
        .collect();
    turns.sort_unstable();
    let left_out = turns.len().saturating_sub(limit);
    let chosen = turns.into_iter().take(limit);
    (chosen.map(|(_, object)| object).collect(), left_out)
}

fn needs_list(followed: &Followed) -> bool {
    NEEDED.contains(&followed.target.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_names_many_leaves_the_others_theirs() {
        let object = |namespace: &str, number: usize| ObjectRef {
            kind: Kind::Secret,
            name: ObjectName::new(namespace, &format!("s{number:03}")),
        };
        let mut wanted: BTreeSet<ObjectRef> = (0..300).map(|n| object("a", n)).collect();
        wanted.extend((0..3).map(|n| object("b", n)));
        wanted.insert(object("c", 0));
        let (chosen, left_out) = in_turn(wanted.iter(), 10);
        assert_eq!((chosen.len(), left_out), (10, 294));
        let of = |namespace: &str| {
            let of = chosen.iter().filter(|o| *o.name.namespace == *namespace);
            of.count()
        };
        assert_eq!([of("a"), of("b"), of("c")], [6, 3, 1]);
        let (all, left_out) = in_turn(wanted.iter(), 1000);
        assert_eq!((all.len(), left_out), (wanted.len(), 0));
    }
}
