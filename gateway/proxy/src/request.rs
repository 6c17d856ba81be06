//! One request, from its head to the head of its answer. Start here.
//!
//! [`handle`] cannot fail: errors end in it. [`forward`] only knows success, one phase a statement.

mod send;
mod tunnel;

use std::convert::Infallible;
use std::rc::Rc;

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use postern_core::config::route::ActionSpec;
use postern_core::request::RequestHead;
use postern_core::request::RequestRules;
use postern_core::route::redirect_location;
use postern_core::route::rewrite;
use postern_wasm::Exchange;
use postern_wasm::exchange::ResponseHead;

use crate::access_log::AccessRecord;
use crate::body::ResponseBody;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::error::Side;
use crate::policy::PolicyChain;
use crate::policy::Verdict;
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
    let in_flight = connection.begin();
    // One view for the whole request: a reload must not show it two configurations.
    let view = worker.view();
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
    if worker.is_leaving() && !connection.is_h2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer.body_mut().attach(record, in_flight, is_head);
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
    let (mut parts, body) = request.into_parts();
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
    if let Some(tls) = &connection.tls
        && !tls.covers(head.authority.host())
    {
        return Err(ProxyError::Misdirected);
    }

    let rule = view.snapshot.routes.find(&head);
    let rule = rule.and_then(|id| view.snapshot.rule(id));
    let rule = rule.ok_or(ProxyError::NoRoute)?;
    record.routed(rule.id);

    let RequestRules { is_trusted, .. } = connection.rules;
    let host = head.authority.value().clone();
    connection
        .peer_fields
        .write(&mut head.headers, &host, is_trusted);

    let mut exchange = Exchange::new(head);
    if rule.has_plugins {
        introduce(
            &mut exchange,
            view,
            connection,
            rule,
            client,
            record.id(),
            parts.version,
        );
    }
    let mut chain = PolicyChain::new(view, rule);
    let verdict = if rule.policies.is_empty() {
        Verdict::Continue
    } else {
        // Boxed, here and below, because what waits in it is large: every request would move it.
        Box::pin(chain.on_request(&mut exchange)).await?
    };
    let mut answer = match verdict {
        Verdict::Respond { response, by } => {
            record.answered_by(&by);
            Answer::Response(response::of_plugin(response))
        }
        Verdict::Continue => {
            let keeps_request = chain.has_response_phase();
            let upgrade = on_upgrade.filter(|_| exchange.request.is_websocket);
            let going = Going {
                worker,
                view,
                connection,
                rule,
                client,
            };
            going
                .act(&mut exchange, body, upgrade, keeps_request, record)
                .await?
        }
    };

    let spec = &rule.spec.headers.response;
    spec.apply(answer.response_mut().headers_mut());
    if !rule.policies.is_empty() {
        Box::pin(respond(&mut chain, &mut exchange, &mut answer, record)).await?;
    }
    Ok(answer)
}

/// The policies on the response.
async fn respond(
    chain: &mut PolicyChain<'_>,
    exchange: &mut Exchange,
    answer: &mut Answer,
    record: &mut AccessRecord,
) -> Result<(), ProxyError> {
    let response = answer.response_mut();
    exchange.response = Some(ResponseHead {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
    });
    let mut replacement = None;
    chain
        .on_response(exchange, |exchange, local, by| {
            record.answered_by(by);
            exchange.response = Some(ResponseHead {
                status: local.status,
                headers: local.headers,
            });
            replacement = Some(local.body);
        })
        .await?;
    if let Some(ResponseHead { status, headers }) = exchange.response.take() {
        if let Some(body) = replacement {
            // Dropping what the upstream sent ends that exchange.
            *answer = Answer::Response(response::of_parts(status, body));
        }
        let response = answer.response_mut();
        // A switch of protocols is between client and upstream; nobody may rename it.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            *response.status_mut() = status;
        }
        *response.headers_mut() = headers;
    }
    Ok(())
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
    async fn act(
        &self,
        exchange: &mut Exchange,
        body: Incoming,
        upgrade: Option<OnUpgrade>,
        keeps_request: bool,
        record: &mut AccessRecord,
    ) -> Result<Answer, ProxyError> {
        let Self { rule, view, .. } = self;
        let spec = &rule.spec;
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
                self.send(exchange, body, upgrade, keeps_request, pool, record)
                    .await
            }
        }
    }
}

/// Tells plugins what they may ask about.
fn introduce(
    exchange: &mut Exchange,
    view: &View,
    connection: &Connection,
    rule: &Rule,
    client: std::net::IpAddr,
    id: u64,
    version: http::Version,
) {
    exchange.id = id;
    exchange.version = version;
    exchange.peer = Some(connection.peer);
    exchange.client = Some(client);
    exchange.sni = connection.tls.as_ref().and_then(|tls| tls.sni.clone());
    exchange.listener = Some(connection.listener.name.clone());
    exchange.route = Some(rule.route.clone());
    exchange.encoded_slash = connection.rules.encoded_slash;
    exchange.upstreams = Some(view.upstreams.clone());
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
