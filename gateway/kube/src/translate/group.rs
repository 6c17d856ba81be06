//! Ingresses that share a host, directly or by way of others: what one of them gets depends on the
//! others, and on no Ingress beside them but on the one that is the default for all hosts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use postern_core::config::RouteSpec;
use postern_core::hostname::Hostname;

use super::Owned;
use super::Pass;
use super::Piece;
use super::Status;
use super::managed::ManagedSecret;
use super::rules::Fallback;
use super::rules::Host;
use super::rules::hosts_of;
use super::tls::Served;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::record::Ingress;

/// The order in which Ingresses are taken: the oldest first, then by name. What is not created yet,
/// in a manifest, comes after all that is there.
pub(super) type Age = (i64, ObjectName);

/// An Ingress of a class that is served.
#[derive(Clone, Copy)]
pub(super) struct Member<'c> {
    pub(super) name: &'c ObjectName,
    pub(super) ingress: &'c Ingress,
}

impl Member<'_> {
    pub(super) fn age(&self) -> Age {
        let created = self.ingress.meta.created.unwrap_or(i64::MAX);
        (created, self.name.clone())
    }
}

/// What is made of a group.
pub(super) struct Group {
    /// Of its oldest member.
    pub(super) age: Age,
    pub(super) members: Vec<ObjectName>,
    /// Every host that one of them names.
    pub(super) hosts: Vec<Option<Hostname>>,
    pub(super) routes: Vec<Arc<RouteSpec>>,
    pub(super) served: Served,
    pub(super) managed: Vec<(ObjectName, ManagedSecret)>,
    /// What answers for hosts that nobody names, if one of them says so.
    pub(super) everywhere: Option<Fallback>,
    pub(super) statuses: Vec<Arc<Status>>,
    pub(super) piece: Piece,
}

impl<'c> Pass<'c> {
    /// `members` are in their order, and at least one.
    pub(super) fn group(
        &mut self,
        members: &[Member<'c>],
        everywhere: Option<&Fallback>,
    ) -> Option<Group> {
        let age = members.first()?.age();
        let owned = members.iter();
        let owned: Vec<Owned<'c>> = owned
            .filter_map(|member| self.own(member.name, member.ingress))
            .collect();
        let (routes, hosts) = self.routes(&owned, everywhere);
        let served = self.certificates(&owned, &hosts);
        let managed = self.managed(&owned, &hosts);
        let everywhere = hosts.everywhere;
        let mut piece = std::mem::take(&mut self.out);
        piece.sort();
        let hosts: BTreeSet<Host<'_>> = members
            .iter()
            .flat_map(|member| hosts_of(member.ingress))
            .collect();
        Some(Group {
            age,
            members: members.iter().map(|member| member.name.clone()).collect(),
            hosts: hosts.into_iter().map(Option::<&_>::cloned).collect(),
            routes: routes.into_iter().map(Arc::new).collect(),
            served,
            managed,
            everywhere,
            statuses: members
                .iter()
                // Also of one that serves nothing, which its author has to hear of.
                .filter(|member| self.class_of(member.ingress).is_some())
                .map(|member| self.status(member, &piece.problems))
                .collect(),
            piece,
        })
    }

    fn status(&self, member: &Member<'_>, problems: &[ObjectProblem]) -> Arc<Status> {
        let object = ObjectRef {
            kind: Kind::Ingress,
            name: member.name.clone(),
        };
        let of_itself = self.cluster.problems.get(&object).into_iter().flatten();
        let mut problems = of_itself.chain(problems);
        Arc::new(Status {
            is_accepted: !problems.any(|found| found.is_error() && found.object == object),
            object,
            uid: member.ingress.meta.uid.clone(),
            generation: member.ingress.meta.generation,
            addresses: member.ingress.addresses.clone(),
        })
    }
}

/// Ingresses by groups, each in the order in which they are given.
pub(super) fn groups<'c>(members: &[Member<'c>]) -> Vec<Vec<Member<'c>>> {
    // Of two that share a host, the later points at the earlier; at the end of the chain stands the
    // first of the group.
    let mut above: Vec<usize> = (0..members.len()).collect();
    fn first(above: &mut [usize], mut at: usize) -> usize {
        while above[at] != at {
            above[at] = above[above[at]];
            at = above[at];
        }
        at
    }
    let mut named: HashMap<Host<'c>, usize> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        for host in hosts_of(member.ingress) {
            let other = *named.entry(host).or_insert(index);
            let (a, b) = (first(&mut above, index), first(&mut above, other));
            above[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<Member<'c>>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        groups
            .entry(first(&mut above, index))
            .or_default()
            .push(*member);
    }
    groups.into_values().collect()
}
