//! Route selection: which rule, if any, answers a request.
//!
//! A [`RouteTable`] is built once per snapshot and only read afterwards. The host picks one set of
//! rules: those of the exact name, else those of the wildcard above it. In it, the first rule by
//! [`Specificity`] that accepts the request answers. If none does, the rules of routes without
//! hosts are asked in the same way.
//!
//! A path matches as it is or as a lenient upstream reads it: `/x;a/b` and `/%40/b` are asked for
//! where `/x` and `/@` are guarded, because many an upstream takes them for `/x/b` and `/@/b`.
//!
//! Precedence, documented for operators in this order: exact path; regular expression, the longer
//! first; prefix, the longer first; then a rule with a method before one without; more header
//! conditions; more query conditions; source order.
//!
//! Invariants:
//! - Lookup does no I/O and takes no lock. It allocates nothing but for a path with
//!   parameters or escapes.
//! - Its cost depends on the request and on the rules of one path, not on the number of hosts, and
//!   not on the number of paths.
//! - This module knows nothing of Kubernetes or TOML. Both arrive here as the same specs.

pub mod explain;
mod matcher;
mod rewrite;
mod specificity;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
pub use matcher::Mismatch;
pub use rewrite::RewriteError;
pub use rewrite::redirect_location;
pub use rewrite::rewrite;
use specificity::Specificity;

use crate::config::RouteSpec;
use crate::config::route::MatchSpec;
use crate::config::route::PathMatch;
use crate::hostname::Hostname;
use crate::hostname::parent_of;
use crate::path::lenient_reading;
use crate::request::RequestHead;

type Map<V> = HashMap<Box<str>, V, RandomState>;

/// Up to this many rules, looking at each is faster than hashing the path.
const LINEAR_RULES: usize = 8;

/// Position of a rule: the route in `Config::routes`, the rule in it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RuleId {
    pub route: u32,
    pub rule: u32,
}

/// Every rule of a configuration, ready to be looked up.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: Map<HostRules>,
    wildcard: Map<HostRules>,
    any: HostRules,
}

/// The rules of one host.
#[derive(Debug, Default)]
struct HostRules {
    /// The most specific first.
    rules: Vec<Rule>,
    /// Positions in `rules`, for hosts with many of them.
    index: Option<PathIndex>,
}

#[derive(Clone, Debug)]
struct Rule {
    id: RuleId,
    specificity: Specificity,
    matches: Arc<MatchSpec>,
}

/// Positions in a host's rules by path, each list ascending: the most specific first.
#[derive(Debug, Default)]
struct PathIndex {
    exact: Map<Vec<u32>>,
    prefix: Map<Vec<u32>>,
    regex: Vec<u32>,
    longest_prefix: usize,
}

impl RouteTable {
    pub fn new(routes: &[Arc<RouteSpec>]) -> Self {
        let mut table = Self::default();
        for (route_index, route) in routes.iter().enumerate() {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                // 4 billion rules do not fit into a configuration file.
                let id = RuleId {
                    route: u32::try_from(route_index).unwrap_or(u32::MAX),
                    rule: u32::try_from(rule_index).unwrap_or(u32::MAX),
                };
                let rule = Rule {
                    id,
                    specificity: Specificity::of(&rule.matches),
                    matches: Arc::clone(&rule.matches),
                };
                if route.hosts.is_empty() {
                    table.any.rules.push(rule);
                    continue;
                }
                for host in &route.hosts {
                    let rules = match host {
                        Hostname::Exact(name) => table.exact.entry(name.clone()),
                        Hostname::Wildcard(parent) => table.wildcard.entry(parent.clone()),
                    };
                    rules.or_default().rules.push(rule.clone());
                }
            }
        }
        for rules in table.exact.values_mut() {
            rules.sort();
        }
        for rules in table.wildcard.values_mut() {
            rules.sort();
        }
        table.any.sort();
        table
    }

    /// The rule that answers.
    pub fn find(&self, request: &RequestHead) -> Option<RuleId> {
        let host = request.authority.host();
        self.of_host(host)
            .and_then(|rules| rules.find(request))
            .or_else(|| self.any.find(request))
            .map(|rule| rule.id)
    }

    /// Whether any route names this host.
    pub fn covers(&self, host: &str) -> bool {
        self.of_host(host).is_some()
    }

    fn of_host(&self, host: &str) -> Option<&HostRules> {
        self.exact
            .get(host)
            .or_else(|| self.wildcard.get(parent_of(host)?))
    }
}

impl HostRules {
    fn sort(&mut self) {
        // The sort is stable, so rules of equal rank stay in source order: the last tie-break.
        self.rules.sort_by_key(|rule| Reverse(rule.specificity));
        if self.rules.len() > LINEAR_RULES {
            self.index = Some(PathIndex::new(&self.rules));
        }
    }

    fn find(&self, request: &RequestHead) -> Option<&Rule> {
        let path = request.path.path();
        let mut found = self.position(request, path);
        if let Some(lenient) = lenient_reading(path) {
            // The more specific of both.
            let other = self.position(request, &lenient);
            found = found.into_iter().chain(other).min();
        }
        self.rules.get(found?)
    }

    fn position(&self, request: &RequestHead, path: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.position(&self.rules, request, path),
            None => self
                .rules
                .iter()
                .position(|rule| matcher::check(&rule.matches, request, path).is_ok()),
        }
    }
}

impl PathIndex {
    fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            match &rule.matches.path {
                PathMatch::Exact(path) => {
                    index
                        .exact
                        .entry(path.as_str().into())
                        .or_default()
                        .push(position);
                }
                PathMatch::Prefix(path) => {
                    index.longest_prefix = index.longest_prefix.max(path.len());
                    index
                        .prefix
                        .entry(path.as_str().into())
                        .or_default()
                        .push(position);
                }
                PathMatch::Regex(_) => index.regex.push(position),
            }
        }
        index
    }

    fn position(&self, rules: &[Rule], request: &RequestHead, path: &str) -> Option<usize> {
        let first = |positions: &[u32]| {
            positions
                .iter()
                .map(|&position| position as usize)
                .find(|&position| matcher::check(&rules[position].matches, request, path).is_ok())
        };
        if let Some(rule) = self.exact.get(path).and_then(|positions| first(positions)) {
            return Some(rule);
        }
        if let Some(rule) = first(&self.regex) {
            return Some(rule);
        }
        // Longest first. Cut to the longest prefix there is, so that a path of a thousand elements
        // costs no more than one of those that are configured.
        let mut end = path.len();
        if end > self.longest_prefix {
            end = match path.as_bytes().get(self.longest_prefix) {
                Some(b'/') => self.longest_prefix,
                _ => path.as_bytes()[..self.longest_prefix]
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .unwrap_or(0),
            };
        }
        loop {
            let prefix = path[..end].trim_end_matches('/');
            if let Some(rule) = self
                .prefix
                .get(prefix)
                .and_then(|positions| first(positions))
            {
                return Some(rule);
            }
            if end == 0 {
                return None;
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests;
