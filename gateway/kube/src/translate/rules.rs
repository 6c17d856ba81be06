//! Hosts and paths.
//!
//! A host belongs to the namespace of the oldest Ingress that names it. Its paths may come from
//! several Ingresses; of two that accept the same, the older answers. What none of them accepts
//! goes to a default backend or is answered 404: the rules of a matched host never fall through to
//! those of a wildcard, or of no host.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use postern_core::config::RouteSpec;
use postern_core::config::policy::HeadersSpec;
use postern_core::config::route::ActionSpec;
use postern_core::config::route::BackendRef;
use postern_core::config::route::MatchSpec;
use postern_core::config::route::PathMatch;
use postern_core::config::route::Refusal;
use postern_core::config::route::RuleSpec;
use postern_core::hostname::Hostname;
use postern_core::name::PolicyName;
use postern_core::name::RouteName;

use super::Fault;
use super::Owned;
use super::Pass;
use crate::object::ObjectName;
use crate::object::Reason;
use crate::record::Backend;
use crate::record::Ingress;

/// Up to this many paths of a host, looking at each is faster than hashing.
const FEW_PATHS: usize = 8;

/// `None`: requests for a host that nobody names.
pub(super) type Host<'c> = Option<&'c Hostname>;

/// The hosts that an Ingress names, in any way.
pub(super) fn hosts_of(ingress: &Ingress) -> impl Iterator<Item = Host<'_>> {
    hosts_of_rules(ingress).chain(hosts_of_certificates(ingress))
}

fn hosts_of_rules(ingress: &Ingress) -> impl Iterator<Item = Host<'_>> {
    let rules = ingress.rules.iter().map(|rule| rule.host.as_ref());
    rules.chain(ingress.rules.is_empty().then_some(None))
}

fn hosts_of_certificates(ingress: &Ingress) -> impl Iterator<Item = Host<'_>> {
    ingress.tls.iter().flat_map(|tls| &tls.hosts).map(Some)
}

/// Every host, and whose it is.
pub(super) struct Hosts<'c> {
    /// By the order in which hosts are first named.
    list: Vec<HostState<'c>>,
    index: HashMap<Host<'c>, usize>,
    is_shared: bool,
    /// For hosts that nobody names, if one of these Ingresses says so.
    pub(super) everywhere: Option<Fallback>,
}

struct HostState<'c> {
    host: Host<'c>,
    owner: &'c ObjectName,
    /// The position of the last route for it, to which its last rule belongs.
    route: Option<usize>,
    paths: Paths<'c>,
    /// What requests get that no path accepts.
    default: Option<Fallback>,
}

/// Who has a path: whether it is exact, and its text.
#[derive(Default)]
struct Paths<'c> {
    /// Of most hosts, all of them.
    few: Vec<((bool, &'c str), &'c ObjectName)>,
    many: HashMap<(bool, &'c str), &'c ObjectName>,
}

impl<'c> Paths<'c> {
    fn get(&self, path: (bool, &str)) -> Option<&'c ObjectName> {
        let few = self.few.iter().find(|(known, _)| *known == path);
        let many = || match self.many.is_empty() {
            true => None,
            false => self.many.get(&path),
        };
        few.map(|(_, owner)| owner).or_else(many).copied()
    }

    /// Gives it to `owner`, unless another has it already, who is returned then.
    fn take(&mut self, path: (bool, &'c str), owner: &'c ObjectName) -> Option<&'c ObjectName> {
        let first = self.get(path);
        if first.is_none() {
            if self.few.len() < FEW_PATHS {
                self.few.push((path, owner));
            } else {
                self.many.insert(path, owner);
            }
        }
        first
    }
}

/// What answers where no path accepts a request.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Fallback {
    name: RouteName,
    action: ActionSpec,
    policies: Vec<PolicyName>,
}

/// Who has a host, for a message.
pub(super) struct Owner<'h>(&'h ObjectName);

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "namespace '{}', whose Ingress '{}' is older",
            self.0.namespace, self.0.name
        )
    }
}

impl<'c> Hosts<'c> {
    /// Gives each host to the first that names it.
    fn claim(owned: &[Owned<'c>], is_shared: bool) -> Self {
        let mut hosts = Self {
            list: Vec::new(),
            index: HashMap::new(),
            is_shared,
            everywhere: None,
        };
        for owned in owned {
            for host in hosts_of_rules(owned.ingress) {
                hosts.give(host, owned.name);
            }
        }
        // Hosts that have a certificate and no rule.
        for owned in owned {
            for host in hosts_of_certificates(owned.ingress) {
                hosts.give(host, owned.name);
            }
        }
        hosts
    }

    fn give(&mut self, host: Host<'c>, owner: &'c ObjectName) {
        let next = self.list.len();
        if *self.index.entry(host).or_insert(next) == next {
            self.list.push(HostState {
                host,
                owner,
                route: None,
                paths: Paths::default(),
                default: None,
            });
        }
    }

    /// Whose it is, if that is another namespace.
    pub(super) fn owner_beside(&self, host: Host<'_>, namespace: &str) -> Option<Owner<'_>> {
        let state = &self.list[*self.index.get(&host)?];
        (!self.is_shared && *state.owner.namespace != *namespace).then_some(Owner(state.owner))
    }

    fn state(&mut self, host: Host<'c>) -> Option<&mut HostState<'c>> {
        let index = *self.index.get(&host)?;
        self.list.get_mut(index)
    }
}

/// A path of one Ingress, before it is known who has it.
struct Wish<'c> {
    matches: PathRef<'c>,
    len: usize,
    backend: Option<&'c Backend>,
    is_refused: bool,
    field: Field,
}

/// A path without the text being copied.
#[derive(Clone, Copy)]
enum PathRef<'c> {
    Exact(&'c str),
    Prefix(&'c str),
}

impl<'c> PathRef<'c> {
    fn of(path: &'c PathMatch) -> Self {
        match path {
            PathMatch::Exact(path) => Self::Exact(path),
            PathMatch::Prefix(path) => Self::Prefix(path),
            // No path of an Ingress is one.
            PathMatch::Regex(_) => Self::Prefix(""),
        }
    }

    fn key(self) -> (bool, &'c str) {
        match self {
            Self::Exact(path) => (true, path),
            Self::Prefix(path) => (false, path),
        }
    }

    fn to_match(self) -> PathMatch {
        match self {
            Self::Exact(path) => PathMatch::Exact(path.to_owned()),
            Self::Prefix(path) => PathMatch::Prefix(path.to_owned()),
        }
    }
}

/// Where a path stands; written out only for a problem.
#[derive(Clone, Copy)]
enum Field {
    Path(usize, usize),
    Rule(usize),
    Default,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(rule, path) => write!(f, "spec.rules[{rule}].http.paths[{path}]"),
            Self::Rule(rule) => write!(f, "spec.rules[{rule}]"),
            Self::Default => f.write_str("spec.defaultBackend"),
        }
    }
}

impl<'c> Pass<'c> {
    /// The routes of Ingresses that share hosts. `everywhere` answers for hosts that nobody names;
    /// returned is what does so if that is among these.
    pub(super) fn routes(
        &mut self,
        owned: &[Owned<'c>],
        everywhere: Option<&Fallback>,
    ) -> (Vec<RouteSpec>, Hosts<'c>) {
        let mut hosts = Hosts::claim(owned, self.settings.spec.shares_hosts);
        let mut routes = Vec::new();
        for owned in owned {
            self.ingress(owned, &mut hosts, &mut routes);
        }
        let everywhere = match hosts.state(None) {
            Some(state) => state.default.clone(),
            None => everywhere.cloned(),
        };
        defaults(&mut hosts, everywhere.as_ref(), &mut routes);
        hosts.everywhere = everywhere.filter(|_| hosts.index.contains_key(&None));
        (routes, hosts)
    }

    fn ingress(&mut self, owned: &Owned<'c>, hosts: &mut Hosts<'c>, routes: &mut Vec<RouteSpec>) {
        // Names that the API server takes are names here too.
        let Ok(name) = RouteName::parse(&owned.name.to_string()) else {
            return;
        };
        let ingress = owned.ingress;
        let mut by_host: Vec<(Host<'c>, Vec<Wish<'c>>)> = Vec::new();
        for (index, rule) in ingress.rules.iter().enumerate() {
            let host = rule.host.as_ref();
            if self.is_taken(owned, host, hosts, &format!("spec.rules[{index}].host")) {
                continue;
            }
            let slot = match by_host.iter().position(|(known, _)| *known == host) {
                Some(position) => position,
                None => {
                    by_host.push((host, Vec::new()));
                    by_host.len() - 1
                }
            };
            let wishes = &mut by_host[slot].1;
            match &rule.paths {
                Some(paths) => {
                    let paths = paths.iter().enumerate();
                    wishes.extend(paths.map(|(position, path)| Wish {
                        matches: PathRef::of(&path.matches),
                        len: path.len,
                        backend: Some(&path.backend),
                        is_refused: path.is_refused,
                        field: Field::Path(index, position),
                    }));
                }
                None => wishes.extend(ingress.default_backend.as_ref().map(|backend| Wish {
                    matches: PathRef::Prefix(""),
                    len: 0,
                    backend: Some(backend),
                    is_refused: false,
                    field: Field::Rule(index),
                })),
            }
        }
        let default = ingress.default_backend.as_ref().map(|backend| {
            let action = self.action(owned, backend, Field::Default);
            let policies = owned.policies.clone().unwrap_or_default();
            Fallback {
                name: name.clone(),
                action,
                policies,
            }
        });
        for (host, mut wishes) in by_host {
            // Stable: of those of equal length, the first in the object.
            wishes.sort_by_key(|wish| Reverse(wish.len));
            self.host(owned, &name, (host, wishes), hosts, routes);
            if let (Some(default), Some(state)) = (&default, hosts.state(host)) {
                state.default.get_or_insert_with(|| default.clone());
            }
        }
        if let Some(default) = default
            && ingress.rules.is_empty()
            && !self.is_taken(owned, None, hosts, "spec.defaultBackend")
            && let Some(state) = hosts.state(None)
        {
            let is_first = state.default.is_none();
            let owner = state.owner;
            state.default.get_or_insert(default);
            if !is_first {
                let message = format!("Ingress '{owner}' is the default for all hosts already");
                let fault = Fault::error(Reason::Conflict, message);
                self.problem(owned.object(), "spec.defaultBackend", fault);
            }
        }
    }

    /// Whether a host belongs to another namespace, which is a problem then.
    fn is_taken(
        &mut self,
        owned: &Owned<'c>,
        host: Host<'c>,
        hosts: &Hosts<'c>,
        field: &str,
    ) -> bool {
        let Some(owner) = hosts.owner_beside(host, &owned.name.namespace) else {
            return false;
        };
        let message = match host {
            Some(host) => format!("the host '{host}' belongs to {owner}"),
            None => format!("requests without a host of their own belong to {owner}"),
        };
        let fault = Fault::error(Reason::Conflict, message)
            .with_help("use another host, or share them: share-hosts = true in [kubernetes]");
        self.problem(owned.object(), field, fault);
        true
    }

    fn host(
        &mut self,
        owned: &Owned<'c>,
        name: &RouteName,
        (host, wishes): (Host<'c>, Vec<Wish<'c>>),
        hosts: &mut Hosts<'c>,
        routes: &mut Vec<RouteSpec>,
    ) {
        let mut rules = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let Some(state) = hosts.state(host) else {
                return;
            };
            let fault = match state.paths.take(wish.matches.key(), owned.name) {
                None => None,
                Some(first) if first == owned.name => Some(Fault::warning(
                    Reason::Doubtful,
                    "this path never answers: another of this object accepts the same requests",
                )),
                Some(first) => {
                    let message = format!("Ingress '{first}' has this path already, and is older");
                    Some(Fault::error(Reason::Conflict, message))
                }
            };
            if let Some(fault) = fault {
                self.problem(owned.object(), wish.field.to_string(), fault);
                continue;
            }
            let action = match wish.backend {
                _ if wish.is_refused => ActionSpec::Refuse(Refusal::Rule),
                Some(backend) => self.action(owned, backend, wish.field),
                None => ActionSpec::Refuse(Refusal::Backend),
            };
            let policies = owned.policies.clone().unwrap_or_default();
            let mut rule = rule(wish.matches.to_match(), action, policies);
            rule.rewrite = owned.nginx.rewrite_of(wish.matches.key().1);
            rules.push(rule);
        }
        if rules.is_empty() {
            return;
        }
        if let Some(state) = hosts.state(host) {
            state.route = Some(routes.len());
        }
        routes.push(RouteSpec {
            name: name.clone(),
            hosts: host.cloned().into_iter().collect(),
            rules,
        });
    }

    fn action(&mut self, owned: &Owned<'c>, backend: &'c Backend, field: Field) -> ActionSpec {
        let fault = match backend {
            // Asked first, so that the object's problems are all known.
            Backend::Service { name, port } => {
                match self.upstream(&owned.name.namespace, name, port, owned.wish) {
                    Ok(_) if owned.policies.is_none() => {
                        return ActionSpec::Refuse(Refusal::Policy);
                    }
                    Ok(upstream) => {
                        let weight = 1;
                        return ActionSpec::Forward(vec![BackendRef { upstream, weight }]);
                    }
                    Err(fault) => fault,
                }
            }
            Backend::Resource => Fault::error(
                Reason::Unsupported,
                "a backend is a Service; no other resource can be one",
            ),
        };
        let field = match field {
            Field::Path(..) => format!("{field}.backend"),
            // One problem for it is enough.
            Field::Rule(_) | Field::Default => Field::Default.to_string(),
        };
        self.problem(owned.object(), field, fault);
        ActionSpec::Refuse(match owned.policies {
            Some(_) => Refusal::Backend,
            None => Refusal::Policy,
        })
    }
}

/// For each host, the rule for paths that no other accepts.
fn defaults(hosts: &mut Hosts<'_>, everywhere: Option<&Fallback>, routes: &mut Vec<RouteSpec>) {
    for state in &mut hosts.list {
        let has_rules = state.route.is_some() || state.default.is_some();
        if state.paths.get((false, "")).is_some() || !has_rules {
            continue;
        }
        let default = state.default.take().or_else(|| everywhere.cloned());
        let default = match (default, state.host) {
            (Some(default), _) => default,
            // Routes of other sources may be for hosts that nobody names.
            (None, None) => continue,
            (None, Some(_)) => {
                let Ok(name) = RouteName::parse(&state.owner.to_string()) else {
                    continue;
                };
                Fallback {
                    name,
                    action: ActionSpec::Refuse(Refusal::NoPath),
                    policies: Vec::new(),
                }
            }
        };
        let rule = rule(
            PathMatch::Prefix(String::new()),
            default.action,
            default.policies,
        );
        let last = state.route.and_then(|route| routes.get_mut(route));
        match last.filter(|route| route.name == default.name) {
            Some(route) => route.rules.push(rule),
            None => routes.push(RouteSpec {
                name: default.name,
                hosts: state.host.cloned().into_iter().collect(),
                rules: vec![rule],
            }),
        }
    }
}

fn rule(path: PathMatch, action: ActionSpec, policies: Vec<PolicyName>) -> RuleSpec {
    RuleSpec {
        matches: Arc::new(MatchSpec {
            path,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
        }),
        action,
        policies,
        headers: HeadersSpec::default(),
        rewrite: None,
        first_byte: None,
    }
}
