//! One request, from its head to the head of its answer. Start here.
//!
//! [`handle`] cannot fail: errors end in it. [`forward`] only knows success, one phase a statement.

mod challenge;
mod policies;
pub(crate) mod send;
mod subrequest;
mod tunnel;

use std::convert::Infallible;
use std::rc::Rc;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::header;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use postern_core::config::route::ActionSpec;
use postern_core::request::RequestError;
use postern_core::request::RequestHead;
use postern_core::request::RequestRules;
use postern_core::request::line_bytes;
use postern_core::route::redirect_location;
use postern_core::route::rewrite;
use postern_wasm::Exchange;

pub(crate) use self::subrequest::subrequest;
use crate::access_log::AccessRecord;
use crate::body::Pace;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::body::filter::Direction;
use crate::body::filter::Filter;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::error::Side;
use crate::log_calls::LogCall;
use crate::policy::Copying;
use crate::policy::PolicyChain;
use crate::policy::Verdict;
use crate::request::policies::filter_response;
use crate::request::policies::introduce;
use crate::request::policies::respond;
use crate::response;
use crate::snapshot::Rule;
use crate::worker::View;
use crate::worker::Worker;

/// Answers one request, whatever happens. The only place where an error becomes a response.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    // One view for the whole request: a reload must not show it two configurations.
    let view = worker.view();
    let steps = &view.snapshot.config.limits.memory;
    let begun = worker.share.begin();
    let in_flight = connection.begin(worker.share.closes(steps), begun);
    let stall = connection.stall();
    let is_head = request.method() == Method::HEAD;
    let mut record = AccessRecord::start(
        &worker,
        &view,
        &connection,
        request.method(),
        request.version(),
    );

    let answer = forward(&worker, &view, &connection, request, &mut record).await;
    let mut answer = match answer {
        Ok(Answer::Response(response)) => response,
        // The tunnel takes the record with it.
        Ok(Answer::Tunnel(response, tunnel)) => {
            record.status(response.status());
            tunnel.spawn(record, in_flight, connection);
            return Ok(response);
        }
        Err(error) => {
            log_error(&error, record.id());
            record.failed(&error);
            response::of_error(&error, record.id(), connection.is_h2)
        }
    };
    record.status(answer.status());
    if (worker.is_leaving() || connection.is_ending()) && !connection.is_h2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer.body_mut().attach(record, in_flight, stall, is_head);
    Ok(answer)
}

/// What a request comes to.
enum Answer {
    Response(Response<ResponseBody>),
    /// 101, and then bytes.
    Tunnel(Response<ResponseBody>, tunnel::Tunnel),
}

impl Answer {
    fn response_mut(&mut self) -> &mut Response<ResponseBody> {
        let (Self::Response(response) | Self::Tunnel(response, _)) = self;
        response
    }
}

/// The phases of a request. `?` is the only error handling here.
async fn forward(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    connection: &Rc<Connection>,
    request: Request<Incoming>,
    record: &mut AccessRecord,
) -> Result<Answer, ProxyError> {
    if worker.share.refuses(&view.snapshot.config.limits.memory) {
        return Err(ProxyError::MemoryShort);
    }
    let (mut parts, body) = request.into_parts();
    // HTTP/1 counts them while it reads; in HTTP/2 each crumb of a cookie is one.
    if parts.headers.len() > connection.listener.spec.limits.head_fields as usize {
        return Err(ProxyError::Request(RequestError::Fields));
    }
    if line_bytes(&parts.method, &parts.uri) > connection.listener.spec.limits.request_line as usize
    {
        return Err(ProxyError::Request(RequestError::Line));
    }
    let version = parts.version;
    let on_upgrade = parts.extensions.remove::<OnUpgrade>();
    let mut head = RequestHead::parse(
        parts.method,
        &parts.uri,
        parts.version,
        parts.headers,
        connection.scheme,
        connection.rules,
    )
    .map_err(ProxyError::Request)?;
    let client = client(connection, &head);
    record.parsed(&head, client);
    if let Some((tls, listener)) = connection
        .tls
        .as_ref()
        .zip(connection.listener.tls.as_ref())
        && !listener.admits(tls, head.authority.host())
    {
        return Err(ProxyError::Misdirected);
    }

    if let Some(response) = challenge::own(&view.snapshot.challenges, &head) {
        return Ok(Answer::Response(response));
    }
    if challenge::may_come(&view.snapshot, &head) {
        let held = challenge::held(&view.snapshot.challenges, &worker.clock, &head);
        if let Some(response) = Box::pin(held).await {
            return Ok(Answer::Response(response));
        }
    }
    if !view.challengers.is_empty() && challenge::is_challenge(connection, &head) {
        let asked = challenge::answer(view, connection, head, client, version, record);
        head = match Box::pin(asked).await? {
            challenge::Asked::Answered(response) => return Ok(Answer::Response(response)),
            challenge::Asked::NotOurs(head) => head,
        };
    }

    let rule = view.snapshot.routes.find(&head);
    let rule = rule.and_then(|id| view.snapshot.rule(id));
    let rule = rule.ok_or(ProxyError::NoRoute)?;
    record.routed(rule.id);

    let RequestRules { is_trusted, .. } = connection.rules;
    let host = head.authority.value().clone();
    connection
        .peer_fields
        .write(&mut head.headers, &host, is_trusted.then_some(client));
    if let Some(client) = connection.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        client.write(&mut head.headers);
    }

    let mut exchange = Exchange::new(head);
    let mut chain = PolicyChain::new(worker, view, rule, client);
    exchange.id = record.id();
    if rule.has_plugins {
        introduce(&mut exchange, view, connection, client, version);
        exchange.route = Some(rule.route.name.clone());
        let plugins = chain.log_plugins();
        if !plugins.is_empty() {
            let exchange = exchange.fork();
            record.log_call(LogCall { exchange, plugins });
        }
    }
    let going = Going {
        worker,
        view,
        connection,
        rule,
        client,
    };
    let body = going.request_body(body, &exchange.request.headers, record);
    let upgrade = on_upgrade.filter(|_| exchange.request.is_websocket);
    let answer = going
        .exchange(&mut chain, &mut exchange, body, upgrade, record)
        .await;
    record.note(&exchange);
    let mut answer = answer?;
    if rule.has_plugins {
        filter_response(&chain, exchange, &mut answer);
    }
    if let (Some(compress), Answer::Response(response)) = (&chain.effects.compress, &mut answer) {
        compress.apply(response);
    }
    Ok(answer)
}

/// What is asked of a rule that accepted a request.
struct Going<'g> {
    worker: &'g Rc<Worker>,
    view: &'g Rc<View>,
    connection: &'g Rc<Connection>,
    rule: &'g Rule,
    client: std::net::IpAddr,
}

impl Going<'_> {
    fn request_body(
        &self,
        body: Incoming,
        headers: &HeaderMap,
        record: &AccessRecord,
    ) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::empty();
        }
        let pace = Pace::new(self.connection, headers);
        let timer = self.worker.clock.timer();
        let is_h2 = self.connection.is_h2;
        RequestBody::new(body, is_h2, timer, pace, record.request_bytes())
    }

    /// The policies on the request, what the rule says, the policies on the response.
    async fn exchange(
        &self,
        chain: &mut PolicyChain<'_>,
        exchange: &mut Exchange,
        mut body: RequestBody,
        upgrade: Option<OnUpgrade>,
        record: &mut AccessRecord,
    ) -> Result<Answer, ProxyError> {
        let rule = self.rule;
        let verdict = if rule.policies.is_empty() {
            Ok(Verdict::Continue)
        } else {
            // Boxed, here and below, because what waits in it is large: every request would move
            // it.
            Box::pin(chain.on_request(exchange, &mut body)).await
        };
        record.hold(std::mem::take(&mut chain.effects.permits));
        let answer = match verdict {
            Ok(Verdict::Respond {
                response,
                by,
                reason,
            }) => {
                record.answered_by(&by, reason);
                Ok(Answer::Response(response::of_plugin(response)))
            }
            Ok(Verdict::Continue) => {
                let mut keeps_request = false;
                if rule.has_plugins {
                    keeps_request = chain.reads_request_later();
                    let stages = chain.request_stages();
                    if !stages.is_empty() {
                        body.filter(Filter::new(Direction::Request, exchange.fork(), stages));
                    }
                }
                let copying = chain.effects.copying.take();
                self.act(exchange, body, upgrade, keeps_request, copying, record)
                    .await
            }
            Err(error) => Err(error),
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) if rule.policies.is_empty() => return Err(error),
            // Built-in policies have their say on the page for it too.
            Err(error) => {
                let error = chain.has_failed(error);
                log_error(&error, record.id());
                record.failed(&error);
                let is_h2 = self.connection.is_h2;
                Answer::Response(response::of_error(&error, record.id(), is_h2))
            }
        };
        let spec = &rule.spec().headers.response;
        spec.apply(answer.response_mut().headers_mut());
        if !rule.policies.is_empty() {
            Box::pin(respond(chain, exchange, &mut answer, record)).await?;
        }
        Ok(answer)
    }

    async fn act(
        &self,
        exchange: &mut Exchange,
        mut body: RequestBody,
        upgrade: Option<OnUpgrade>,
        keeps_request: bool,
        copying: Option<Copying>,
        record: &mut AccessRecord,
    ) -> Result<Answer, ProxyError> {
        let Self { rule, view, .. } = self;
        let spec = rule.spec();
        match &spec.action {
            ActionSpec::Redirect(redirect) => {
                let request = &exchange.request;
                let location = redirect_location(request, &spec.matches.path, redirect)
                    .map_err(ProxyError::Rewrite)?;
                let mut response = response::of_parts(redirect.status, bytes::Bytes::new());
                // The path is canonical and the host checked: always a valid value.
                if let Ok(location) = HeaderValue::try_from(location) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                Ok(Answer::Response(response))
            }
            ActionSpec::Respond(respond) => Ok(Answer::Response(response::of_parts(
                respond.status,
                respond.body.clone(),
            ))),
            ActionSpec::Refuse(why) => Err(ProxyError::Refused { why: *why }),
            ActionSpec::Forward(_) => {
                spec.headers.request.apply(&mut exchange.request.headers);
                if let Some(to) = &spec.rewrite {
                    let path = rewrite(&exchange.request.path, &spec.matches.path, to);
                    exchange.request.path = path.map_err(ProxyError::Rewrite)?;
                }
                let chosen = exchange.upstream.as_ref();
                let chosen = chosen.and_then(|name| view.snapshot.upstream_index(name.as_str()));
                let upstream = chosen.or_else(|| rule.backends.pick(self.worker.turn()));
                // Parsing refuses a rule whose weights are all zero.
                let upstream = upstream.ok_or(ProxyError::NoRoute)?;
                let pool = view.pool(upstream);
                if let Some(copying) = copying.filter(|_| upgrade.is_none()) {
                    copying.start(self.worker, view, &exchange.request, &mut body);
                }
                self.send(exchange, body, upgrade, keeps_request, pool, record)
                    .await
            }
        }
    }
}

fn client(connection: &Connection, head: &RequestHead) -> std::net::IpAddr {
    let peer = connection.peer_fields.peer;
    if connection.rules.is_trusted {
        let proxies = &connection.listener.spec.trusted_proxies;
        proxies.client(peer, &head.headers)
    } else {
        peer
    }
}

fn log_error(error: &ProxyError, id: u64) {
    let side = error.side();
    // A client's mistakes are in its access lines already.
    if side != Side::Downstream {
        let error = error as &dyn std::error::Error;
        tracing::debug!(
            request.id = id,
            side = side.as_str(),
            error,
            "request failed"
        );
    }
}
