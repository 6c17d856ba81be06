//! Why this rule, or why none: each candidate in the order in which it is asked, and the first
//! condition that rejected it. Asks the same code as [`RouteTable::find`].

use super::HostRules;
use super::Mismatch;
use super::RouteTable;
use super::RuleId;
use super::matcher;
use crate::hostname::parent_of;
use crate::path::lenient_reading;
use crate::request::RequestHead;

/// Which set of rules was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostScope {
    Exact,
    Wildcard,
    /// Routes without hosts.
    Any,
}

/// One rule that was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'t> {
    pub id: RuleId,
    pub scope: HostScope,
    /// `None`: the rule accepts the request, and answers it.
    pub mismatch: Option<Mismatch<'t>>,
}

/// Every rule that could have answered, down to the one that does.
#[derive(Clone, Debug)]
pub struct Explanation<'t> {
    /// Whether a route names the host; if not, only routes without hosts are candidates.
    pub is_host_known: bool,
    pub candidates: Vec<Candidate<'t>>,
}

impl Explanation<'_> {
    pub fn winner(&self) -> Option<RuleId> {
        let last = self.candidates.last()?;
        last.mismatch.is_none().then_some(last.id)
    }
}

impl RouteTable {
    pub fn explain<'t>(&'t self, request: &RequestHead) -> Explanation<'t> {
        let host = request.authority.host();
        let of_host = match (
            self.exact.get(host),
            parent_of(host).and_then(|parent| self.wildcard.get(parent)),
        ) {
            (Some(rules), _) => Some((HostScope::Exact, rules)),
            (None, Some(rules)) => Some((HostScope::Wildcard, rules)),
            (None, None) => None,
        };
        let mut explanation = Explanation {
            is_host_known: of_host.is_some(),
            candidates: Vec::new(),
        };
        let scopes = of_host.into_iter().chain([(HostScope::Any, &self.any)]);
        for (scope, rules) in scopes {
            collect(scope, rules, request, &mut explanation.candidates);
            if explanation.winner().is_some() {
                break;
            }
        }
        explanation
    }
}

fn collect<'t>(
    scope: HostScope,
    rules: &'t HostRules,
    request: &RequestHead,
    into: &mut Vec<Candidate<'t>>,
) {
    let path = request.path.path();
    let lenient = lenient_reading(path);
    for rule in &rules.rules {
        let checked = matcher::check(&rule.matches, request, path);
        let mismatch = match (checked, &lenient) {
            (Err(_), Some(lenient)) => matcher::check(&rule.matches, request, lenient).err(),
            (checked, _) => checked.err(),
        };
        into.push(Candidate {
            id: rule.id,
            scope,
            mismatch,
        });
        if mismatch.is_none() {
            return;
        }
    }
}
