//! Routes: hosts, the rules below them, and what each rule does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use regex::Regex;

use super::policy::HeadersSpec;
use crate::hostname::Hostname;
use crate::name::PolicyName;
use crate::name::RouteName;
use crate::name::UpstreamName;

/// Host names with rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteSpec {
    pub name: RouteName,
    /// Empty: every host that no other route covers.
    pub hosts: Vec<Hostname>,
    pub rules: Vec<RuleSpec>,
}

/// A match, and what happens to a request that it accepts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleSpec {
    /// Shared with the route table.
    pub matches: Arc<MatchSpec>,
    pub action: ActionSpec,
    /// In the order in which they see the request.
    pub policies: Vec<PolicyName>,
    /// Edits that belong to the rule itself, after the policies on the request and before them on
    /// the response.
    pub headers: HeadersSpec,
    pub rewrite: Option<RewriteSpec>,
    /// Longest time to the first byte of the response; the upstream's own if absent.
    pub first_byte: Option<Duration>,
}

/// One conjunction of conditions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MatchSpec {
    pub path: PathMatch,
    /// Empty: any method.
    pub methods: Vec<Method>,
    pub headers: Vec<FieldMatch<HeaderName>>,
    pub query: Vec<FieldMatch<String>>,
}

/// What a path has to look like. Paths are compared in canonical form.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// By whole elements. Without trailing slash; `""` accepts every path.
    Prefix(String),
    /// Anchored at both ends.
    Regex(Regex),
}

impl Eq for PathMatch {}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A condition on a header field or a query parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldMatch<N> {
    pub name: N,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(String),
    /// Anchored at both ends.
    Regex(Regex),
    Present,
    Absent,
}

impl Eq for ValueMatch {}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ActionSpec {
    /// Never empty, and at least one weight is above zero.
    Forward(Vec<BackendRef>),
    Redirect(RedirectSpec),
    Respond(RespondSpec),
    /// Refuses. It is a rule all the same, so that its requests do not go where a broader one leads.
    Refuse(Refusal),
}

/// Why a rule refuses its requests.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Refusal {
    /// What it forwards to is not there, or may not be used.
    Backend,
    /// A policy that it names is not there, or cannot be used.
    Policy,
    /// It is not clear what it was meant to be.
    Rule,
    /// It stands for the paths of a host that no rule accepts.
    NoPath,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Backend | Self::Policy | Self::Rule => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoPath => StatusCode::NOT_FOUND,
        }
    }

    /// The stable label of access log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Backend => "backend-missing",
            Self::Policy => "policy-missing",
            Self::Rule => "rule-refused",
            Self::NoPath => "no-route",
        }
    }
}

/// A rule's weighted reference to an upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendRef {
    pub upstream: UpstreamName,
    pub weight: u32,
}

/// What changes in the target on the way to the upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RewriteSpec {
    /// The matched prefix becomes this. Without trailing slash; `""` removes it.
    Prefix(String),
    /// The whole path becomes this.
    Path(String),
}

/// A redirect; what is absent stays as it was requested.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectSpec {
    pub status: StatusCode,
    pub scheme: Option<&'static str>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<RewriteSpec>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RespondSpec {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A regular expression as the operator wrote it: without the anchors that parsing puts around it.
pub fn pattern(regex: &Regex) -> &str {
    let text = regex.as_str();
    let inner = text.strip_prefix("^(?:").and_then(|t| t.strip_suffix(")$"));
    inner.unwrap_or(text)
}
