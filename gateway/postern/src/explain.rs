//! What would happen to a request: the same answer for the command and for the admin listener.
//!
//! The request goes through the code that the data plane runs: it is made canonical or refused,
//! the rules are asked in order, and the rewrite or redirect is computed. What comes out is plain
//! values; [`text`] draws them for a terminal and [`json`] for programs.
//!
//! No plugin runs here, unless it is asked for: then [`Question::run`] takes the request through
//! the policies of the rule that answers it. Else a plugin that chooses the upstream itself is
//! listed, not predicted.

pub mod json;
mod run;
pub mod text;

use std::fmt::Write as _;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use postern_core::config::Config;
use postern_core::config::ListenerSpec;
use postern_core::config::Origins;
use postern_core::config::PolicySpec;
use postern_core::config::route::ActionSpec;
use postern_core::config::route::PathMatch;
use postern_core::config::route::RuleSpec;
use postern_core::config::route::ValueMatch;
use postern_core::config::route::pattern;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::name::ListenerName;
use postern_core::request::RequestError;
use postern_core::request::RequestHead;
use postern_core::request::RequestRules;
use postern_core::request::Scheme;
use postern_core::route::Mismatch;
use postern_core::route::RouteTable;
use postern_core::route::RuleId;
use postern_core::route::explain::HostScope;
use postern_core::route::redirect_location;
use postern_core::route::rewrite;
use postern_proxy::EndpointHealth;

pub use self::run::Failure;
pub use self::run::Ran;
pub use self::run::Run;

/// A request as somebody describes it.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    url: String,
    scheme: Scheme,
    port: Option<u16>,
    /// Origin form, as a client would send it.
    target: Uri,
    headers: HeaderMap,
    listener: Option<String>,
}

/// Why a text describes no request at all. Shown to whoever wrote it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuestionError {
    #[error("'{0}' is no method")]
    Method(String),
    #[error("'{0}' is no URL: it begins with http:// or https://")]
    Scheme(String),
    #[error("'{0}' is no URL: no HTTP client can send this path")]
    Target(String),
    #[error("'{0}' is no header field: write 'Name: value'")]
    Header(String),
    #[error("there is no listener '{0}'")]
    Listener(String),
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub method: String,
    pub url: String,
    /// The listener that it would come in by; `None` if none speaks its scheme.
    pub listener: Option<ListenerView>,
    pub outcome: Outcome,
    /// What the policies did, if they were run.
    pub run: Option<Ran>,
}

#[derive(Clone, Debug)]
pub struct ListenerView {
    pub name: String,
    pub bind: String,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// Before routing.
    Refused {
        status: StatusCode,
        reason: &'static str,
        message: String,
    },
    Asked(Box<Asked>),
}

/// A request that the rules were asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    pub canonical: Canonical,
    /// Whether a route names the host.
    pub is_host_known: bool,
    pub candidates: Vec<Candidate>,
    pub answer: Option<Answer>,
}

/// What router, policies and upstream see.
#[derive(Clone, Debug)]
pub struct Canonical {
    pub scheme: &'static str,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Candidate {
    pub rule: RuleView,
    pub scope: HostScope,
    /// The first condition that failed; `None`: the rule answers.
    pub mismatch: Option<String>,
}

#[derive(Clone, Debug)]
pub struct RuleView {
    pub route: String,
    /// From 1, in the order of the file.
    pub number: usize,
    pub place: String,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub rule: RuleView,
    pub policies: Vec<PolicyView>,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub struct PolicyView {
    pub name: String,
    /// `plugin`, or the name of the built-in.
    pub kind: &'static str,
}

#[derive(Clone, Debug)]
pub enum Action {
    Forward {
        /// Path and query that go upstream, or why they cannot.
        target: Result<String, String>,
        backends: Vec<BackendView>,
    },
    Redirect {
        status: StatusCode,
        location: Result<String, String>,
    },
    Respond {
        status: StatusCode,
        body_len: usize,
    },
    Refuse {
        status: StatusCode,
        reason: &'static str,
    },
}

#[derive(Clone, Debug)]
pub struct BackendView {
    pub upstream: String,
    pub weight: u32,
    pub endpoints: Vec<String>,
    /// How each endpoint does; empty where nothing runs.
    pub health: Vec<&'static str>,
    pub protocol: &'static str,
    pub is_tls: bool,
}

impl Explanation {
    /// Adds what a running gateway knows of the endpoints.
    pub fn add_health(&mut self, health: &[EndpointHealth]) {
        let Outcome::Asked(asked) = &mut self.outcome else {
            return;
        };
        let action = asked.answer.as_mut().map(|answer| &mut answer.action);
        let Some(Action::Forward { backends, .. }) = action else {
            return;
        };
        for backend in backends {
            let known = health
                .iter()
                .filter(|known| known.upstream.as_str() == backend.upstream);
            backend.health = known.map(|known| known.state).collect();
        }
    }
}

impl Question {
    pub fn parse<'h>(
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = &'h str>,
        listener: Option<String>,
    ) -> Result<Self, QuestionError> {
        let bad_method = |_| QuestionError::Method(method.to_owned());
        let method = Method::from_bytes(method.as_bytes()).map_err(bad_method)?;
        let (scheme, rest) = split_scheme(url)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = match target.as_bytes().first() {
            Some(b'/') => target.to_owned(),
            _ => format!("/{target}"),
        };
        // A fragment never leaves the client.
        let target = target.split('#').next().unwrap_or_default();
        let bad_target = |_| QuestionError::Target(url.to_owned());
        let target = target.parse::<Uri>().map_err(bad_target)?;
        let mut fields = HeaderMap::new();
        for text in headers {
            let (name, value) = field(text)?;
            fields.append(name, value);
        }
        if !fields.contains_key(header::HOST) {
            let bad_host = |_| QuestionError::Header(format!("Host: {authority}"));
            let host = HeaderValue::from_str(authority).map_err(bad_host)?;
            fields.insert(header::HOST, host);
        }
        let port = authority.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
        Ok(Self {
            method,
            url: url.to_owned(),
            scheme,
            port,
            target,
            headers: fields,
            listener,
        })
    }

    pub fn ask(
        self,
        config: &Config,
        routes: &RouteTable,
        origins: &Origins,
    ) -> Result<Explanation, QuestionError> {
        let listener = self.listener(config)?;
        let head = self.head(listener);
        Ok(Explanation {
            method: self.method.to_string(),
            url: self.url,
            listener: listener.map(|(name, spec)| ListenerView {
                name: name.to_string(),
                bind: spec.bind.to_string(),
            }),
            outcome: match head {
                Ok(head) => Outcome::Asked(Box::new(asked(&head, config, routes, origins))),
                Err(error) => refused(error),
            },
            run: None,
        })
    }

    /// The request as the listener would read it.
    fn head(
        &self,
        listener: Option<(&ListenerName, &ListenerSpec)>,
    ) -> Result<RequestHead, RequestError> {
        let rules = RequestRules {
            encoded_slash: listener.map_or_else(Default::default, |(_, spec)| spec.encoded_slash),
            is_trusted: false,
        };
        RequestHead::parse(
            self.method.clone(),
            &self.target,
            Version::HTTP_11,
            self.headers.clone(),
            self.scheme,
            rules,
        )
    }

    /// The listener that was named, else the one on the URL's port, else the first by name that
    /// speaks the scheme.
    fn listener<'c>(
        &self,
        config: &'c Config,
    ) -> Result<Option<(&'c ListenerName, &'c ListenerSpec)>, QuestionError> {
        if let Some(wanted) = &self.listener {
            let mut listeners = config.listeners.iter();
            let found = listeners.find(|(name, _)| name.as_str() == wanted);
            let missing = || QuestionError::Listener(wanted.clone());
            return found.map(Some).ok_or_else(missing);
        }
        let is_https = self.scheme == Scheme::Https;
        let port = self.port.unwrap_or(if is_https { 443 } else { 80 });
        let speaking = || {
            let listeners = config.listeners.iter();
            listeners.filter(|(_, spec)| spec.tls.is_some() == is_https)
        };
        let on_port = speaking().find(|(_, spec)| spec.bind.port() == port);
        Ok(on_port.or_else(|| speaking().next()))
    }
}

fn split_scheme(url: &str) -> Result<(Scheme, &str), QuestionError> {
    if let Some(rest) = url.strip_prefix("http://") {
        return Ok((Scheme::Http, rest));
    }
    if let Some(rest) = url.strip_prefix("https://") {
        return Ok((Scheme::Https, rest));
    }
    Err(QuestionError::Scheme(url.to_owned()))
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), QuestionError> {
    let bad = || QuestionError::Header(text.to_owned());
    let (name, value) = text.split_once(':').ok_or_else(bad)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| bad())?;
    let value = HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| bad())?;
    Ok((name, value))
}

fn refused(error: RequestError) -> Outcome {
    Outcome::Refused {
        status: error.status(),
        reason: error.reason(),
        message: chain(&error),
    }
}

fn asked(head: &RequestHead, config: &Config, routes: &RouteTable, origins: &Origins) -> Asked {
    let explanation = routes.explain(head);
    let candidates = explanation.candidates.iter();
    let candidates = candidates.filter_map(|candidate| {
        let rule = rule_of(config, candidate.id)?;
        let mismatch = candidate.mismatch.as_ref();
        Some(Candidate {
            rule: rule_view(config, origins, candidate.id)?,
            scope: candidate.scope,
            mismatch: mismatch.map(|mismatch| describe(mismatch, rule)),
        })
    });
    let candidates = candidates.collect();
    let answer = explanation.winner().and_then(|id| {
        let rule = rule_of(config, id)?;
        Some(Answer {
            rule: rule_view(config, origins, id)?,
            policies: policies(config, rule),
            action: action(config, rule, head),
        })
    });
    Asked {
        canonical: Canonical {
            scheme: head.scheme.as_str(),
            host: head.authority.to_string(),
            path: head.path.path().to_owned(),
            query: head.path.query().map(str::to_owned),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.to_string(), value)
                })
                .collect(),
        },
        is_host_known: explanation.is_host_known,
        candidates,
        answer,
    }
}

fn rule_of(config: &Config, id: RuleId) -> Option<&RuleSpec> {
    let route = config.routes.get(id.route as usize)?;
    route.rules.get(id.rule as usize)
}

fn rule_view(config: &Config, origins: &Origins, id: RuleId) -> Option<RuleView> {
    let route = config.routes.get(id.route as usize)?;
    let place = origins.find(&format!("routes.{}.rules.{}", id.route, id.rule));
    Some(RuleView {
        route: route.name.to_string(),
        number: id.rule as usize + 1,
        place: place.to_string(),
    })
}

fn describe(mismatch: &Mismatch<'_>, rule: &RuleSpec) -> String {
    match mismatch {
        Mismatch::Path(PathMatch::Exact(path)) => format!("the path is not {path}"),
        Mismatch::Path(PathMatch::Prefix(path)) => format!("the path is not below {path}/"),
        Mismatch::Path(PathMatch::Regex(regex)) => {
            format!("the path does not match {}", pattern(regex))
        }
        Mismatch::Method => {
            let methods = &rule.matches.methods;
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            format!("the method is not {}", methods.join(" or "))
        }
        Mismatch::Header(field) => differs("header field", field.name.as_str(), &field.value),
        Mismatch::Query(field) => differs("query parameter", &field.name, &field.value),
    }
}

fn differs(what: &str, name: &str, value: &ValueMatch) -> String {
    match value {
        // What it has to be may be a secret, and this is told to who asks.
        ValueMatch::Exact(_) => format!("the {what} {name} is not the one that is wanted"),
        ValueMatch::Regex(regex) => {
            format!("the {what} {name} does not match {}", pattern(regex))
        }
        ValueMatch::Present => format!("the {what} {name} is absent"),
        ValueMatch::Absent => format!("the {what} {name} is present"),
    }
}

fn policies(config: &Config, rule: &RuleSpec) -> Vec<PolicyView> {
    let named = rule.policies.iter().map(|name| PolicyView {
        name: name.to_string(),
        // A configuration that names a policy holds it.
        kind: config.policies.get(name).map_or("plugin", PolicySpec::kind),
    });
    let mut policies: Vec<PolicyView> = named.collect();
    if !rule.headers.request.is_empty() || !rule.headers.response.is_empty() {
        policies.push(PolicyView {
            name: "the rule's own edits".to_owned(),
            kind: "headers",
        });
    }
    policies
}

fn action(config: &Config, rule: &RuleSpec, head: &RequestHead) -> Action {
    let matched = &rule.matches.path;
    match &rule.action {
        ActionSpec::Forward(backends) => Action::Forward {
            target: match &rule.rewrite {
                Some(spec) => rewrite(&head.path, matched, spec)
                    .map(|path| path.as_str().to_owned())
                    .map_err(|error| chain(&error)),
                None => Ok(head.path.as_str().to_owned()),
            },
            backends: backends
                .iter()
                .map(|backend| {
                    let spec = config.upstreams.get(&backend.upstream);
                    let endpoints = spec.iter().flat_map(|spec| &spec.endpoints);
                    BackendView {
                        upstream: backend.upstream.to_string(),
                        weight: backend.weight,
                        endpoints: endpoints.map(ToString::to_string).collect(),
                        health: Vec::new(),
                        protocol: match spec.map(|spec| spec.protocol) {
                            Some(UpstreamProtocol::Http2) => "http2",
                            Some(UpstreamProtocol::Http1) | None => "http1",
                        },
                        is_tls: spec.is_some_and(|spec| spec.tls.is_some()),
                    }
                })
                .collect(),
        },
        ActionSpec::Redirect(spec) => Action::Redirect {
            status: spec.status,
            location: redirect_location(head, matched, spec).map_err(|error| chain(&error)),
        },
        ActionSpec::Respond(spec) => Action::Respond {
            status: spec.status,
            body_len: spec.body.len(),
        },
        ActionSpec::Refuse(why) => Action::Refuse {
            status: why.status(),
            reason: why.reason(),
        },
    }
}

/// The error and its causes, one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
