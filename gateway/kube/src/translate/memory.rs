//! What is kept of one translation for the next.
//!
//! The unit is the [group](super::group): it is made anew if a member, a Secret that it names, or
//! what became of a Service that it names has changed. Pods that come and go change an upstream and
//! no group. A class, a policy or a setting that changes makes everything new, and what is equal to
//! what was there before is that very thing all the same, so that it is found to be so at once.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::RouteSpec;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::RouteName;
use postern_core::name::UpstreamName;

use super::Pass;
use super::Piece;
use super::Settings;
use super::Status;
use super::Translation;
use super::backend::Upstreams;
use super::class::Classes;
use super::group::Age;
use super::group::Group;
use super::group::Member;
use super::group::groups;
use super::managed;
use super::policy::Made;
use super::rules::Fallback;
use super::rules::Host;
use super::rules::hosts_of;
use super::seen::Changes;
use super::seen::Seen;
use super::tls::Served;
use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;

/// Problems of one object that are told: its author reads no more, and the others want to be heard.
const MAX_PROBLEMS: usize = 20;

/// What was found out about single objects.
#[derive(Default)]
pub(super) struct Known {
    pub(super) classes: Classes,
    pub(super) upstreams: Upstreams,
    pub(super) policies: HashMap<ObjectName, Made>,
}

#[derive(Default)]
pub(super) struct Memory {
    settings: Option<Settings>,
    seen: Seen,
    known: Known,
    /// What is wrong with classes.
    of_classes: Vec<ObjectProblem>,
    groups: BTreeMap<Age, Group>,
    by_ingress: HashMap<ObjectName, Age>,
    by_host: HashMap<Hostname, Age>,
    /// The group of those that name no host.
    without_host: Option<Age>,
    everywhere: Option<Fallback>,
    statuses: BTreeMap<ObjectName, Arc<Status>>,
    uses: Uses,
}

impl Memory {
    pub(super) fn translate(&mut self, cluster: &Cluster, settings: &Settings) -> Translation {
        let mut changes = self.seen.take(cluster);
        if self.settings.as_ref() != Some(settings) {
            self.settings = Some(settings.clone());
            changes.is_general = true;
        }
        let mut pass = Pass {
            cluster,
            settings,
            known: std::mem::take(&mut self.known),
            out: Piece::default(),
        };
        if !changes.secrets.is_empty() || !changes.config_maps.is_empty() {
            let known = pass.known.upstreams.ports.iter();
            let concerned = known.filter(|(_, ports)| {
                let mut held = ports.held.iter();
                held.any(|held| changes.has(held))
            });
            let concerned: Vec<_> = concerned.map(|(name, _)| name.clone()).collect();
            changes.services.extend(concerned);
        }
        // From here on the Services whose backends are not what they were.
        changes.services.retain(|service| !pass.renew(service));
        let mut made = pass.known.policies.values();
        changes.is_general |= made.any(|made| made.piece.is_concerned(&changes));
        let gone = match changes.is_general {
            true => self.begin(&mut pass),
            false => self.renew(&mut pass, &changes),
        };
        for group in gone {
            self.uses.release(&group.piece, &mut pass.known);
        }
        let used = &self.uses.upstreams;
        let Upstreams { found, before, .. } = &mut pass.known.upstreams;
        before.clear();
        if found.len() != used.len() {
            found.retain(|name, _| used.contains_key(name));
        }
        let translation = self.assemble(&mut pass);
        self.known = pass.known;
        translation
    }

    /// Whether nothing is kept of any object.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let Upstreams {
            ports,
            found,
            before,
        } = &self.known.upstreams;
        self.known.policies.is_empty()
            && (ports.is_empty() && found.is_empty() && before.is_empty())
            && (self.groups.is_empty() && self.statuses.is_empty() && self.by_ingress.is_empty())
            && (self.by_host.is_empty() && self.without_host.is_none())
            && (self.uses.upstreams.is_empty() && self.uses.services.is_empty())
            && (self.uses.policies.is_empty() && self.uses.wanted.is_empty())
    }

    /// Makes everything. Returns nothing that has to be released.
    fn begin(&mut self, pass: &mut Pass<'_>) -> Vec<Group> {
        let before = std::mem::take(&mut pass.known.upstreams.found);
        pass.known = Known {
            upstreams: Upstreams {
                before,
                ..Upstreams::default()
            },
            ..Known::default()
        };
        let groups = std::mem::take(&mut self.groups).into_values();
        let mut spare = Spare::default();
        for group in groups {
            spare.add(&group);
        }
        *self = Self {
            settings: self.settings.take(),
            seen: std::mem::take(&mut self.seen),
            ..Self::default()
        };
        pass.known.classes = pass.classes();
        self.of_classes = std::mem::take(&mut pass.out).problems;
        let all = pass.cluster.ingresses.keys().cloned().collect();
        self.remake(pass, all, spare)
    }

    /// Makes what has changed. Returns the groups that are no more.
    fn renew(&mut self, pass: &mut Pass<'_>, changes: &Changes) -> Vec<Group> {
        let mut dirty = changes.ingresses.clone();
        if !changes.services.is_empty() || !changes.secrets.is_empty() {
            for group in self.groups.values() {
                if group.piece.is_concerned(changes) {
                    dirty.extend(group.members.iter().cloned());
                }
            }
        }
        match dirty.is_empty() {
            true => Vec::new(),
            false => self.remake(pass, dirty, Spare::default()),
        }
    }

    fn remake(
        &mut self,
        pass: &mut Pass<'_>,
        mut dirty: BTreeSet<ObjectName>,
        mut spare: Spare,
    ) -> Vec<Group> {
        let mut going = self.going(pass, &dirty);
        let mut parts = self.parts(pass, &dirty, &going);
        let (mut first, mut everywhere) = self.first(pass, &parts, &going);
        if everywhere != self.everywhere && !self.groups.is_empty() {
            // It answers for every host that has no default of its own.
            dirty.extend(self.by_ingress.keys().cloned());
            going = self.going(pass, &dirty);
            parts = self.parts(pass, &dirty, &going);
            (first, everywhere) = self.first(pass, &parts, &going);
        }
        let mut made = Vec::with_capacity(parts.len());
        for part in parts {
            let is_first = first.as_ref().is_some_and(|group| {
                let mut members = part.iter();
                members.any(|member| group.members.contains(member.name))
            });
            made.extend(match is_first {
                true => first.take(),
                false => pass.group(&part, everywhere.as_ref()),
            });
        }
        let gone = going.iter().filter_map(|age| self.remove(age)).collect();
        for group in &gone {
            spare.add(group);
        }
        for group in made {
            self.insert(group, &spare, &pass.known);
        }
        self.everywhere = everywhere;
        gone
    }

    /// The groups that are made anew: those of what is dirty, and those whose hosts it names.
    fn going(&self, pass: &Pass<'_>, dirty: &BTreeSet<ObjectName>) -> BTreeSet<Age> {
        let mut going = BTreeSet::new();
        for name in dirty {
            going.extend(self.by_ingress.get(name).cloned());
            let ingress = pass.cluster.ingresses.get(name);
            if let Some(ingress) = ingress.filter(|ingress| pass.class_of(ingress).is_some()) {
                going.extend(hosts_of(ingress).filter_map(|host| self.of_host(host).cloned()));
            }
        }
        going
    }

    /// What is in these groups and what is dirty, as far as it is there and ours, in new groups.
    fn parts<'c>(
        &self,
        pass: &Pass<'c>,
        dirty: &BTreeSet<ObjectName>,
        going: &BTreeSet<Age>,
    ) -> Vec<Vec<Member<'c>>> {
        let members = going.iter().filter_map(|age| self.groups.get(age));
        let members = members.flat_map(|group| &group.members);
        let names: BTreeSet<&ObjectName> = members.chain(dirty).collect();
        let members = names.into_iter().filter_map(|name| {
            let (name, ingress) = pass.cluster.ingresses.get_key_value(name)?;
            pass.class_of(ingress)?;
            Some(Member { name, ingress })
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_cached_key(Member::age);
        groups(&members)
    }

    /// The group of those that name no host, if it is among these, and what answers everywhere.
    fn first<'c>(
        &self,
        pass: &mut Pass<'c>,
        parts: &[Vec<Member<'c>>],
        going: &BTreeSet<Age>,
    ) -> (Option<Group>, Option<Fallback>) {
        let has_no_host = |member: &Member<'_>| hosts_of(member.ingress).any(|host| host.is_none());
        let part = parts.iter().find(|part| part.iter().any(has_no_host));
        let group = part.and_then(|part| pass.group(part, None));
        let is_going = self
            .without_host
            .as_ref()
            .is_some_and(|age| going.contains(age));
        let everywhere = match &group {
            Some(group) => group.everywhere.clone(),
            None if is_going => None,
            None => self.everywhere.clone(),
        };
        (group, everywhere)
    }

    fn of_host(&self, host: Host<'_>) -> Option<&Age> {
        match host {
            Some(host) => self.by_host.get(host),
            None => self.without_host.as_ref(),
        }
    }

    fn remove(&mut self, age: &Age) -> Option<Group> {
        let group = self.groups.remove(age)?;
        for name in &group.members {
            self.by_ingress.remove(name);
            self.statuses.remove(name);
        }
        for host in &group.hosts {
            match host {
                Some(host) => _ = self.by_host.remove(host),
                None => self.without_host = None,
            }
        }
        Some(group)
    }

    fn insert(&mut self, mut group: Group, spare: &Spare, known: &Known) {
        for route in &mut group.routes {
            spare.replace(route);
        }
        for name in &group.members {
            self.by_ingress.insert(name.clone(), group.age.clone());
        }
        for status in &group.statuses {
            let name = status.object.name.clone();
            self.statuses.insert(name, Arc::clone(status));
        }
        for host in &group.hosts {
            match host {
                Some(host) => _ = self.by_host.insert(host.clone(), group.age.clone()),
                None => self.without_host = Some(group.age.clone()),
            }
        }
        self.uses.hold(&group.piece, known);
        self.groups.insert(group.age.clone(), group);
    }

    fn assemble(&self, pass: &mut Pass<'_>) -> Translation {
        let default = pass.default_certificate();
        let of_default = std::mem::take(&mut pass.out);
        let Known {
            upstreams,
            policies,
            ..
        } = &pass.known;
        let mut config = Config::default();
        let mut served = Served::new();
        let mut managed = BTreeMap::new();
        let mut problems: Vec<ObjectProblem> = pass.cluster.problems().cloned().collect();
        problems.extend(self.of_classes.iter().cloned());
        problems.extend(of_default.problems);
        for group in self.groups.values() {
            config.routes.extend(group.routes.iter().cloned());
            problems.extend(group.piece.problems.iter().cloned());
            for (name, spec) in &group.piece.own {
                config.policies.insert(name.clone(), spec.clone());
                config.expendable.insert(name.clone());
            }
            for (secret, wanted) in &group.managed {
                managed::add(&mut managed, secret, wanted, &mut problems);
            }
            for (secret, hosts) in &group.served {
                let all = served.entry(secret.clone()).or_default();
                all.extend(hosts.iter().cloned());
            }
        }
        if let Some(secret) = &default {
            served.entry(secret.clone()).or_default();
        }
        pass.hold(served, &mut config);
        let specs = upstreams.found.iter();
        let specs = specs.map(|(name, found)| (name.clone(), Arc::clone(&found.spec)));
        config.upstreams = specs.collect();
        for found in upstreams.found.values() {
            config.held.extend(found.held.clone());
            problems.extend(found.problems.iter().cloned());
        }
        for made in policies.values() {
            if let (Ok(name), Some(spec)) = (&made.result, &made.spec) {
                config.policies.insert(name.clone(), spec.clone());
                config.expendable.insert(name.clone());
            }
            config.held.extend(made.held.iter().cloned());
            problems.extend(made.piece.problems.iter().cloned());
        }
        problems.sort_unstable();
        problems.dedup();
        let statuses = self.statuses(pass, &problems);
        let mut wanted: BTreeSet<ObjectRef> = self.uses.wanted.keys().cloned().collect();
        wanted.extend(of_default.wanted);
        Translation {
            config,
            statuses,
            problems: fewer(problems),
            addresses: pass.addresses(),
            default_certificate: default
                .and_then(|secret| CertificateName::parse(&secret.to_string()).ok()),
            managed,
            wanted,
        }
    }

    fn statuses(&self, pass: &Pass<'_>, problems: &[ObjectProblem]) -> Vec<Arc<Status>> {
        let errors = problems.iter().filter(|problem| problem.is_error());
        let failed: HashSet<&ObjectRef> = errors.map(|problem| &problem.object).collect();
        let mut statuses: Vec<_> = self.statuses.values().cloned().collect();
        let ours = [
            (Kind::Plugin, &pass.cluster.plugins),
            (Kind::Policy, &pass.cluster.policies),
        ];
        for (kind, records) in ours {
            for (name, record) in records {
                let object = ObjectRef {
                    kind,
                    name: name.clone(),
                };
                statuses.push(Arc::new(Status {
                    is_accepted: !failed.contains(&object),
                    object,
                    uid: record.meta.uid.clone(),
                    generation: record.meta.generation,
                    addresses: Vec::new(),
                }));
            }
        }
        statuses
    }
}

impl Piece {
    /// Whether something that it names is not what it was.
    fn is_concerned(&self, changes: &Changes) -> bool {
        let mut services = self.services.iter();
        self.wanted.iter().any(|object| changes.has(object))
            || services.any(|service| changes.services.contains(service))
    }
}

/// How many name a thing; what nobody names is forgotten.
#[derive(Default)]
struct Uses {
    upstreams: HashMap<UpstreamName, usize>,
    services: HashMap<ObjectName, usize>,
    policies: HashMap<ObjectName, usize>,
    wanted: BTreeMap<ObjectRef, usize>,
}

impl Uses {
    fn hold(&mut self, piece: &Piece, known: &Known) {
        for upstream in &piece.upstreams {
            more(&mut self.upstreams, upstream);
        }
        for service in &piece.services {
            more(&mut self.services, service);
        }
        for object in &piece.wanted {
            *self.wanted.entry(object.clone()).or_default() += 1;
        }
        for policy in &piece.policies {
            if more(&mut self.policies, policy)
                && let Some(made) = known.policies.get(policy)
            {
                self.hold(&made.piece, known);
            }
        }
    }

    fn release(&mut self, piece: &Piece, known: &mut Known) {
        for upstream in &piece.upstreams {
            if less(&mut self.upstreams, upstream) {
                known.upstreams.forget(upstream, &piece.services);
            }
        }
        for service in &piece.services {
            if less(&mut self.services, service) {
                known.upstreams.ports.remove(service);
            }
        }
        for object in &piece.wanted {
            if let Some(count) = self.wanted.get_mut(object) {
                *count -= 1;
                if *count == 0 {
                    self.wanted.remove(object);
                }
            }
        }
        for policy in &piece.policies {
            if less(&mut self.policies, policy)
                && let Some(made) = known.policies.remove(policy)
            {
                self.release(&made.piece, known);
            }
        }
    }
}

/// Returns whether it is the first.
fn more<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(count) => {
            *count += 1;
            false
        }
        None => {
            counts.insert(key.clone(), 1);
            true
        }
    }
}

/// Returns whether it was the last.
fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(key);
    }
    is_last
}

/// Routes of groups that are no more: one that says the same is the same.
#[derive(Default)]
struct Spare(HashMap<RouteName, Vec<Arc<RouteSpec>>>);

impl Spare {
    fn add(&mut self, group: &Group) {
        for route in &group.routes {
            let routes = self.0.entry(route.name.clone()).or_default();
            routes.push(Arc::clone(route));
        }
    }

    fn replace(&self, route: &mut Arc<RouteSpec>) {
        let mut known = self.0.get(&route.name).into_iter().flatten();
        if let Some(known) = known.find(|known| *known == route) {
            *route = Arc::clone(known);
        }
    }
}

/// The worst of each object, and how many more there are. `problems` are sorted, as the answer is.
fn fewer(problems: Vec<ObjectProblem>) -> Vec<ObjectProblem> {
    let mut fewer = Vec::with_capacity(problems.len());
    for of_object in problems.chunk_by(|a, b| a.object == b.object) {
        let errors = of_object.iter().filter(|problem| problem.is_error());
        let others = of_object.iter().filter(|problem| !problem.is_error());
        let mut worst = errors.chain(others);
        fewer.extend(worst.by_ref().take(MAX_PROBLEMS).cloned());
        if let Some(next) = worst.next() {
            fewer.push(ObjectProblem {
                field: String::new(),
                message: format!("and {} more", 1 + worst.count()),
                help: None,
                ..next.clone()
            });
        }
    }
    fewer.sort_unstable();
    fewer
}
