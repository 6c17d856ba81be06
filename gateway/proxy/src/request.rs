//! One request, from its head to the head of its answer. Start here.
//!
//! [`handle`] cannot fail: errors end in it. [`forward`] only knows success, one phase a statement.

mod challenge;
mod policies;
mod subrequest;
mod tunnel;

use std::convert::Infallible;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http::uri::PathAndQuery;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use postern_core::config::route::ActionSpec;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::header::has_plain_framing;
use postern_core::header::remove_hop_by_hop;
use postern_core::request::RequestError;
use postern_core::request::RequestHead;
use postern_core::request::RequestRules;
use postern_core::route::redirect_location;
use postern_core::route::rewrite;
use postern_wasm::Exchange;

pub(crate) use self::subrequest::subrequest;
use crate::access_log::AccessRecord;
use crate::body::Pace;
use crate::body::Progress;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::body::filter::Direction;
use crate::body::filter::Filter;
use crate::clock::Timer;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::error::Side;
use crate::error::request_body_error;
use crate::log_calls::LogCall;
use crate::policy::PolicyChain;
use crate::policy::Verdict;
use crate::request::policies::filter_response;
use crate::request::policies::introduce;
use crate::request::policies::respond;
use crate::response;
use crate::snapshot::Rule;
use crate::upstream::Http1;
use crate::upstream::Lease;
use crate::upstream::Sender;
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
    let in_flight = connection.begin(worker.overload.closes(steps));
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
    if worker.overload.refuses(&view.snapshot.config.limits.memory) {
        return Err(ProxyError::Overloaded);
    }
    let (mut parts, body) = request.into_parts();
    // HTTP/1 counts them while it reads; in HTTP/2 each crumb of a cookie is one.
    if parts.headers.len() > connection.listener.spec.limits.head_fields as usize {
        return Err(ProxyError::Request(RequestError::Fields));
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
        .write(&mut head.headers, &host, is_trusted);
    if let Some(client) = connection.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        client.write(&mut head.headers);
    }

    let mut exchange = Exchange::new(head);
    let mut chain = PolicyChain::new(worker, view, rule, client);
    exchange.id = record.id();
    if rule.has_plugins {
        introduce(&mut exchange, view, connection, client, version);
        exchange.route = Some(rule.route.clone());
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
    Ok(answer)
}

/// What is asked of a rule that accepted a request.
struct Going<'g> {
    worker: &'g Rc<Worker>,
    view: &'g Rc<View>,
    connection: &'g Rc<Connection>,
    rule: &'g Rule,
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
        RequestBody::new(body, timer, pace, record.request_bytes())
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
                self.act(exchange, body, upgrade, keeps_request, record)
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
        let spec = &rule.spec.headers.response;
        spec.apply(answer.response_mut().headers_mut());
        if !rule.policies.is_empty() {
            Box::pin(respond(chain, exchange, &mut answer, record)).await?;
        }
        Ok(answer)
    }

    async fn act(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
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
                let lease = view.pool(upstream).lease();
                record.forwarded(lease.pool(), lease.endpoint_index());
                self.send(exchange, body, upgrade, keeps_request, lease)
                    .await
            }
        }
    }

    async fn send(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
        upgrade: Option<OnUpgrade>,
        keeps_request: bool,
        lease: Lease,
    ) -> Result<Answer, ProxyError> {
        let clock = &self.worker.clock;
        let of_upstream = lease.upstream().spec.timeouts.first_byte;
        let limit = self.rule.first_byte.unwrap_or(of_upstream);
        let upload = body.progress();
        let is_upgrade = upgrade.is_some();
        let request = upstream_request(
            &mut exchange.request,
            body,
            &lease,
            is_upgrade,
            keeps_request,
        );

        let timer = clock.timer();
        let mut sender = lease.connection(clock).await?;
        timer.arm(limit);
        let mut sent = first_byte(sender.send(request, &upload), &timer, limit, &upload).await;
        if let Err(Unsent::Returned(request)) = sent {
            // The connection closed before anything was written: nobody has seen the request.
            timer.disarm();
            sender = lease.fresh_connection(clock).await?;
            timer.arm(limit);
            let sending = Box::pin(sender.send(*request, &upload));
            sent = first_byte(sending, &timer, limit, &upload).await;
        }
        let mut response = sent.map_err(|unsent| unsent.into_error(&lease))?;
        timer.disarm();
        upload.answered();
        if !has_plain_framing(response.headers()) {
            // Dropping the sender closes the connection, whose next bytes mean nothing.
            return Err(ProxyError::Framing {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
            });
        }

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                return Err(ProxyError::UnaskedUpgrade {
                    upstream: lease.upstream().name.clone(),
                    endpoint: lease.endpoint().clone(),
                });
            };
            let upstream = sender.upgrade(&mut response);
            let tunnel = tunnel::Tunnel::new(client, upstream, lease);
            let response = tunnel::switching(response);
            self.worker.stats.tunnels.add(1);
            return Ok(Answer::Tunnel(response, tunnel));
        }
        let idle = lease.upstream().spec.timeouts.body_idle;
        let is_head = exchange.request.method == Method::HEAD;
        let connection = sender.into_http1();
        let mut response = downstream_response(response, timer, idle, connection, lease, is_head);
        response.body_mut().follow(upload);
        Ok(Answer::Response(response))
    }
}

/// Makes the request that goes upstream. Its framing is written by the connection, from the body.
fn upstream_request(
    head: &mut RequestHead,
    body: RequestBody,
    lease: &Lease,
    is_upgrade: bool,
    keeps_request: bool,
) -> Request<RequestBody> {
    let mut headers = if keeps_request {
        head.headers.clone()
    } else {
        std::mem::take(&mut head.headers)
    };
    let target = head.path.as_target().clone();
    let host = head.authority.value();
    let uri = match lease.upstream().spec.protocol {
        UpstreamProtocol::Http1 => {
            headers.insert(header::HOST, host.clone());
            if is_upgrade {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            Uri::from(target)
        }
        UpstreamProtocol::Http2 => {
            if head.takes_trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            h2_uri(lease, host, target)
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

pub(crate) fn h2_uri(lease: &Lease, host: &HeaderValue, target: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    let is_tls = lease.upstream().spec.tls.is_some();
    parts.scheme = Some(if is_tls {
        http::uri::Scheme::HTTPS
    } else {
        http::uri::Scheme::HTTP
    });
    parts.authority = http::uri::Authority::try_from(host.as_bytes()).ok();
    parts.path_and_query = Some(target.clone());
    // With all three parts it is always valid; a checked host is a valid authority.
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(target))
}

/// Makes the response that goes to the client out of the one that came.
fn downstream_response(
    response: Response<Incoming>,
    timer: Timer,
    idle: Duration,
    connection: Option<Http1>,
    lease: Lease,
    is_head: bool,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    let has_no_body = is_head || parts.status == StatusCode::NOT_MODIFIED;
    let length = body.size_hint().exact();
    if let Some(value) = parts.headers.get(header::CONTENT_LENGTH) {
        // Kept where it says what we know; written anew, or not at all, everywhere else.
        let says_so = has_no_body
            || length.is_some_and(|length| {
                let mut buffer = itoa::Buffer::new();
                value.as_bytes() == buffer.format(length).as_bytes()
            });
        let is_single = parts.headers.get_all(header::CONTENT_LENGTH).iter().count() == 1;
        let is_plain = value.as_bytes().iter().all(u8::is_ascii_digit);
        if !(says_so && is_single && is_plain) {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
    }
    let mut response = Response::new(ResponseBody::upstream(body, timer, idle, connection, lease));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// Why there is no response.
pub(crate) enum Unsent {
    /// The connection gave the request back untouched.
    Returned(Box<Request<RequestBody>>),
    Failed(hyper::Error),
    TimedOut(Duration),
}

impl Unsent {
    fn into_error(self, lease: &Lease) -> ProxyError {
        match self {
            // A second connection closed before it took the request.
            Self::Returned(_) => ProxyError::Connect {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
                source: std::io::ErrorKind::ConnectionReset.into(),
            },
            Self::Failed(source) => match request_body_error(&source) {
                Some(error) => error,
                None => lease.exchange_error(source),
            },
            Self::TimedOut(limit) => ProxyError::FirstByteTimeout {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
                limit,
            },
        }
    }
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        upload: &Progress,
    ) -> Result<Response<Incoming>, Unsent> {
        let sent = match self {
            Self::Http1(connection) => connection.send(request, upload).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unsent::Returned(Box::new(request)),
            None => Unsent::Failed(error.into_error()),
        })
    }

    fn upgrade(self, response: &mut Response<Incoming>) -> OnUpgrade {
        match self {
            Self::Http1(connection) => connection.upgrade(response),
            Self::Http2(_) => hyper::upgrade::on(response),
        }
    }

    /// What has to be driven until the response has ended, and then goes back to the pool.
    pub(crate) fn into_http1(self) -> Option<Http1> {
        match self {
            Self::Http1(connection) => Some(connection),
            Self::Http2(_) => None,
        }
    }
}

/// Waits for the head of the response. The time that the client takes for its own request body
/// does not count.
async fn first_byte(
    sending: impl Future<Output = Result<Response<Incoming>, Unsent>>,
    timer: &Timer,
    limit: Duration,
    upload: &Progress,
) -> Result<Response<Incoming>, Unsent> {
    let mut sending = std::pin::pin!(sending);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        while timer.poll_due(cx).is_ready() {
            if upload.is_over() {
                return Poll::Ready(Err(Unsent::TimedOut(limit)));
            }
            timer.arm(limit);
        }
        Poll::Pending
    })
    .await
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
