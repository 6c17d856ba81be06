//! A request taken through the policies of its rule and no further: what `explain --run` shows.
//!
//! The policies are those of a worker, called as a worker calls them, but one at a time, so that
//! what each of them did can be told apart. The worker has no sockets, and nothing goes to an
//! upstream in the name of the client. What policies ask upstreams for themselves is sent if the
//! snapshot has endpoints that can be reached.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::Version;
use http::header;
use postern_core::config::AccessLogFormat;
use postern_core::config::route::ActionSpec;
use postern_core::header::PeerFields;
use postern_core::name::ListenerName;
use postern_core::request::RequestHead;
use postern_core::request::Scheme;
use postern_core::route::redirect_location;
use postern_core::route::rewrite;
use postern_wasm::Exchange;
use postern_wasm::exchange::ResponseHead;

use crate::Snapshot;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::error::ProxyError;
use crate::policy::Policy;
use crate::policy::PolicyChain;
use crate::policy::Verdict;
use crate::response;
use crate::snapshot::Rule;
use crate::worker::Alone;
use crate::worker::View;
use crate::worker::Worker;

/// The request to rehearse, canonical.
pub struct Given {
    pub head: RequestHead,
    pub client: IpAddr,
    /// Whose rules the request came in by.
    pub listener: Option<ListenerName>,
    pub port: u16,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Policies on the request, in order, up to the one that answered.
    pub request: Vec<Step>,
    /// What went on to the upstream, if nothing answered before.
    pub sent: Option<Sent>,
    /// Policies on the response, in the order in which they see it.
    pub response: Vec<Step>,
    /// What the client gets. Of an upstream it is assumed that it answers 200 with nothing.
    pub answer: Answered,
}

/// What one policy did to one message.
#[derive(Clone, Debug)]
pub struct Step {
    pub policy: String,
    /// `plugin`, or the name of the built-in.
    pub kind: &'static str,
    pub edits: Vec<Edit>,
    pub end: Option<End>,
}

/// One thing that is different after a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    /// `field NAME`, or `method`, `host`, `path`, `upstream`, `status`.
    pub what: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A policy that ended the request.
#[derive(Clone, Debug)]
pub enum End {
    /// It made the answer; a reason makes that a refusal.
    Answered(Answered, Option<&'static str>),
    /// It failed, or wants the connection closed.
    Failed {
        status: StatusCode,
        reason: &'static str,
        message: String,
    },
}

#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    /// `None`: not known without the upstream.
    pub body: Option<Bytes>,
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub upstream: String,
    /// A policy chose it; else the weights of the rule did.
    pub is_chosen: bool,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// Runs the policies of the rule that answers `given`. `None` if none does. On a thread whose
/// runtime runs local tasks.
pub async fn rehearse(snapshot: Snapshot, given: Given) -> io::Result<Option<Rehearsal>> {
    let alone = Alone::start(snapshot)?;
    let worker = &alone.worker;
    let view = worker.view();
    debug_assert!(view.snapshot.config.access_log.format == AccessLogFormat::Off);
    let rule = view.snapshot.routes.find(&given.head);
    let Some(rule) = rule.and_then(|id| view.snapshot.rule(id)) else {
        return Ok(None);
    };
    let mut stage = Stage::new(worker, &view, rule, given);
    Ok(Some(stage.run().await))
}

struct Stage<'s> {
    worker: &'s Rc<Worker>,
    view: &'s Rc<View>,
    rule: &'s Rule,
    chain: PolicyChain<'s>,
    exchange: Exchange,
}

impl<'s> Stage<'s> {
    fn new(worker: &'s Rc<Worker>, view: &'s Rc<View>, rule: &'s Rule, given: Given) -> Self {
        let Given {
            mut head,
            client,
            listener,
            port,
        } = given;
        let host = head.authority.value().clone();
        let is_tls = head.scheme == Scheme::Https;
        PeerFields::new(client, is_tls, port).write(&mut head.headers, &host, None);
        let traceparent = head.headers.get("traceparent");
        let traceparent = traceparent.and_then(|value| value.to_str().ok());
        let traceparent = traceparent.map(Into::into);
        let encoded_slash = listener.as_ref().and_then(|name| {
            let spec = view.snapshot.config.listeners.get(name)?;
            Some(spec.encoded_slash)
        });
        let mut exchange = Exchange::new(head);
        exchange.id = worker.next_id();
        exchange.version = Version::HTTP_11;
        exchange.client = Some(client);
        exchange.peer = Some((client, 0).into());
        exchange.listener = listener;
        exchange.encoded_slash = encoded_slash.unwrap_or_default();
        exchange.upstreams = Some(Arc::clone(&view.upstreams));
        exchange.traceparent = traceparent;
        exchange.route = Some(rule.route.name.clone());
        Self {
            worker,
            view,
            rule,
            chain: PolicyChain::new(worker, view, rule, client),
            exchange,
        }
    }

    async fn run(&mut self) -> Rehearsal {
        let mut sent = None;
        let request = self.on_request().await;
        let mut answer = match request.last().and_then(|step| step.end.as_ref()) {
            Some(End::Answered(answer, _)) => answer.clone(),
            Some(End::Failed { status, .. }) => {
                let page = answered_page(*status, self.exchange.id);
                self.chain.skip_plugins();
                page
            }
            None => match self.act() {
                Ok((answer, request)) => {
                    sent = request;
                    answer
                }
                Err(error) => {
                    let error = self.chain.has_failed(error);
                    answered_page(error.status(), self.exchange.id)
                }
            },
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &answer.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(name.as_str()),
                HeaderValue::try_from(value.as_str()),
            ) {
                headers.append(name, value);
            }
        }
        self.rule.spec().headers.response.apply(&mut headers);
        self.exchange.response = Some(ResponseHead {
            status: answer.status,
            headers,
        });
        let response = self.on_response(&mut answer).await;
        if let Some(response) = self.exchange.response.take() {
            answer.status = response.status;
            answer.headers = texts(&response.headers);
        }
        Rehearsal {
            request,
            sent,
            response,
            answer,
        }
    }

    fn step(&self, position: usize) -> Step {
        let policy = self.rule.policies.get(position);
        let policy = policy.map(|&index| &*self.view.snapshot.policies[index]);
        let (name, kind) = match policy {
            Some(Policy::Native(native)) => (native.name.as_str(), native.kind()),
            Some(Policy::Plugin(live)) => (live.name.as_str(), "plugin"),
            Some(Policy::Absent(name)) => (name.as_str(), "plugin"),
            None => ("", ""),
        };
        Step {
            policy: name.to_owned(),
            kind,
            edits: Vec::new(),
            end: None,
        }
    }

    /// What a policy makes of the choice of an upstream is shown with what it makes of the
    /// request, though all choices come first.
    async fn on_request(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for position in 0..self.rule.policies.len() {
            let before = self.exchange.upstream.clone();
            let selected = self
                .chain
                .select(position..position + 1, &mut self.exchange)
                .await;
            let mut step = self.step(position);
            if before != self.exchange.upstream {
                step.edits.push(Edit {
                    what: "upstream".to_owned(),
                    before: before.map(|name| name.to_string()),
                    after: self.exchange.upstream.as_ref().map(ToString::to_string),
                });
            }
            step.end = selected.err().map(|error| failed(&error));
            let is_end = step.end.is_some();
            steps.push(step);
            if is_end {
                return steps;
            }
        }
        let mut body = RequestBody::empty();
        for position in 0..steps.len() {
            let before = (
                self.exchange.request.clone(),
                self.exchange.upstream.clone(),
            );
            let range = position..position + 1;
            let verdict = self.chain.pass(range, &mut self.exchange, &mut body).await;
            let step = &mut steps[position];
            step.edits
                .extend(request_edits(&before.0, &self.exchange.request));
            if before.1 != self.exchange.upstream {
                step.edits.push(Edit {
                    what: "upstream".to_owned(),
                    before: before.1.map(|name| name.to_string()),
                    after: self.exchange.upstream.as_ref().map(ToString::to_string),
                });
            }
            step.end = match verdict {
                Ok(Verdict::Continue) => None,
                Ok(Verdict::Respond {
                    response, reason, ..
                }) => {
                    let answered = Answered {
                        status: response.status,
                        headers: texts(&response.headers),
                        body: Some(response.body),
                    };
                    Some(End::Answered(answered, reason))
                }
                Err(error) => Some(failed(&error)),
            };
            if step.end.is_some() {
                steps.truncate(position + 1);
                break;
            }
        }
        steps
    }

    /// What the rule says: an answer of its own, or the request as it would go out.
    fn act(&mut self) -> Result<(Answered, Option<Sent>), ProxyError> {
        let spec = self.rule.spec();
        let request = &mut self.exchange.request;
        match &spec.action {
            ActionSpec::Redirect(redirect) => {
                let location = redirect_location(request, &spec.matches.path, redirect)
                    .map_err(ProxyError::Rewrite)?;
                let answered = Answered {
                    status: redirect.status,
                    headers: vec![(header::LOCATION.to_string(), location)],
                    body: Some(Bytes::new()),
                };
                Ok((answered, None))
            }
            ActionSpec::Respond(respond) => {
                let answered = Answered {
                    status: respond.status,
                    headers: Vec::new(),
                    body: Some(respond.body.clone()),
                };
                Ok((answered, None))
            }
            ActionSpec::Refuse(why) => Err(ProxyError::Refused { why: *why }),
            ActionSpec::Forward(_) => {
                spec.headers.request.apply(&mut request.headers);
                if let Some(to) = &spec.rewrite {
                    let path = rewrite(&request.path, &spec.matches.path, to);
                    request.path = path.map_err(ProxyError::Rewrite)?;
                }
                let snapshot = &self.view.snapshot;
                let chosen = self.exchange.upstream.clone();
                let index = chosen
                    .as_ref()
                    .and_then(|name| snapshot.upstream_index(name.as_str()));
                let index = index.or_else(|| self.rule.backends.pick(self.worker.turn()));
                let upstream = index.ok_or(ProxyError::NoRoute)?;
                let sent = Sent {
                    upstream: snapshot.upstream_names[upstream].to_string(),
                    is_chosen: chosen.is_some(),
                    method: request.method.to_string(),
                    path: request.path.as_str().to_owned(),
                    headers: texts(&request.headers),
                };
                let answered = Answered {
                    status: StatusCode::OK,
                    headers: Vec::new(),
                    body: None,
                };
                Ok((answered, Some(sent)))
            }
        }
    }

    async fn on_response(&mut self, answer: &mut Answered) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut body = ResponseBody::full(answer.body.clone().unwrap_or_default());
        for position in (0..self.chain.passed()).rev() {
            let before = self.exchange.response.clone();
            let range = position..position + 1;
            let returned = self.chain.pass_back(range, &mut self.exchange, &mut body);
            let returned = returned.await;
            let mut step = self.step(position);
            if let (Some(before), Some(after)) = (&before, &self.exchange.response) {
                step.edits = response_edits(before, after);
            }
            if let Err(error) = returned {
                step.end = Some(failed(&error));
                self.chain.skip_plugins();
                let page = answered_page(error.status(), self.exchange.id);
                answer.status = page.status;
                answer.headers = page.headers;
                answer.body = page.body;
                self.exchange.response = None;
                steps.push(step);
                break;
            }
            if !step.edits.is_empty() {
                steps.push(step);
            }
        }
        steps
    }
}

fn failed(error: &ProxyError) -> End {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    End::Failed {
        status: error.status(),
        reason: error.reason(),
        message,
    }
}

fn answered_page(status: StatusCode, id: u64) -> Answered {
    let page = response::page(status, id);
    Answered {
        status: page.status,
        headers: texts(&page.headers),
        body: Some(page.body),
    }
}

fn request_edits(before: &RequestHead, after: &RequestHead) -> Vec<Edit> {
    let mut edits = Vec::new();
    let parts = [
        ("method", before.method.as_str(), after.method.as_str()),
        ("host", before.authority.as_str(), after.authority.as_str()),
        ("path", before.path.as_str(), after.path.as_str()),
    ];
    for (what, before, after) in parts {
        if before != after {
            edits.push(Edit {
                what: what.to_owned(),
                before: Some(before.to_owned()),
                after: Some(after.to_owned()),
            });
        }
    }
    field_edits(&before.headers, &after.headers, &mut edits);
    edits
}

fn response_edits(before: &ResponseHead, after: &ResponseHead) -> Vec<Edit> {
    let mut edits = Vec::new();
    if before.status != after.status {
        edits.push(Edit {
            what: "status".to_owned(),
            before: Some(before.status.as_u16().to_string()),
            after: Some(after.status.as_u16().to_string()),
        });
    }
    field_edits(&before.headers, &after.headers, &mut edits);
    edits
}

fn field_edits(before: &HeaderMap, after: &HeaderMap, edits: &mut Vec<Edit>) {
    let names = before.keys().chain(after.keys());
    let names: BTreeSet<&str> = names.map(HeaderName::as_str).collect();
    for name in names {
        let (old, new) = (values(before, name), values(after, name));
        if old != new {
            edits.push(Edit {
                what: format!("field {name}"),
                before: old,
                after: new,
            });
        }
    }
}

/// All values of a field, as one.
fn values(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let fields = headers.iter();
    fields
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// For people: bytes that are no text are shown as such.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes())
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
