//! One request to an upstream: attempts, and what follows from one that failed.
//!
//! The first attempt is the common path. What comes after it is boxed away: whether there is
//! another one is decided by [`retry::decide`], within the upstream's budget.

mod failed;

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

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
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::header::has_plain_framing;
use postern_core::header::remove_hop_by_hop;
use postern_core::request::RequestHead;
use postern_core::request::Scheme;
use postern_core::retry;
use postern_core::retry::Attempted;
use postern_core::retry::Decision;
use postern_core::retry::Fault;
use postern_wasm::Exchange;

use failed::Failed;
use failed::Rest;

use super::Answer;
use super::Going;
use super::tunnel;
use crate::access_log::AccessRecord;
use crate::body::Progress;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::clock::Timer;
use crate::error::ProxyError;
use crate::upstream::Addresses;
use crate::upstream::Ask;
use crate::upstream::Http1;
use crate::upstream::Lease;
use crate::upstream::Pool;
use crate::upstream::Sender;

/// Connections that may turn out to be closed, for one request. The second is opened for it.
const MAX_STALE: u32 = 2;

/// A response's head, the connection that its body comes over, and how the request's body does.
type Answered = (Response<Incoming>, Sender, Progress);

/// What holds for every attempt of a request.
struct Terms {
    keeps_request: bool,
    is_upgrade: bool,
    addresses: Addresses,
    /// From the end of the request to the first byte of the response.
    limit: Duration,
    /// What the request had taken when the first attempt began: not the endpoint's time.
    before: Duration,
}

impl Going<'_> {
    pub(super) async fn send(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
        upgrade: Option<OnUpgrade>,
        keeps_request: bool,
        pool: &Rc<Pool>,
        record: &mut AccessRecord,
    ) -> Result<Answer, ProxyError> {
        let clock = &self.worker.clock;
        let ask = Ask {
            headers: &exchange.request.headers,
            client: self.client,
        };
        let mut lease = pool.lease(&ask)?;
        record.forwarded(pool, lease.endpoint_index());
        let of_upstream = pool.upstream.spec.timeouts.first_byte;
        let terms = Terms {
            keeps_request,
            is_upgrade: upgrade.is_some(),
            addresses: self.addresses(),
            limit: self.rule.spec().first_byte.unwrap_or(of_upstream),
            before: record.took(),
        };
        let timer = clock.timer();
        let head = &mut exchange.request;
        let retries = pool.upstream.spec.retries.count;
        let attempt = self.attempt(head, body, &lease, &terms, &timer, terms.limit, retries);
        let (mut response, sender, upload) = match attempt.await {
            Ok(answered) => answered,
            Err(failed) => {
                Box::pin(self.go_on(head, *failed, &mut lease, &terms, &timer, record)).await?
            }
        };
        upload.answered();
        if !has_plain_framing(response.headers()) {
            lease.failed();
            // Dropping the sender closes the connection, whose next bytes mean nothing.
            return Err(ProxyError::Framing {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
            });
        }
        lease.succeeded();
        let is_tls = self.connection.scheme == Scheme::Https;
        let cookie = lease.set_cookie(is_tls).cloned();

        let mut answer = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                lease.failed();
                return Err(ProxyError::UnaskedUpgrade {
                    upstream: lease.upstream().name.clone(),
                    endpoint: lease.endpoint().clone(),
                });
            };
            let upstream = sender.upgrade(&mut response);
            let tunnel = tunnel::Tunnel::new(client, upstream, lease);
            let response = tunnel::switching(response);
            self.worker.stats.tunnels.add(1);
            Answer::Tunnel(response, tunnel)
        } else {
            let idle = lease.upstream().spec.timeouts.body_idle;
            let is_head = exchange.request.method == Method::HEAD;
            let connection = sender.into_http1();
            let mut response =
                downstream_response(response, timer, idle, connection, lease, is_head);
            response.body_mut().follow(upload);
            Answer::Response(response)
        };
        if let Some(cookie) = cookie {
            let headers = answer.response_mut().headers_mut();
            headers.append(header::SET_COOKIE, cookie);
        }
        Ok(answer)
    }

    fn addresses(&self) -> Addresses {
        let peer = self.connection.peer;
        let is_peer = peer.ip().to_canonical() == self.client;
        Addresses {
            // Of a client behind a proxy, only the address is known.
            client: if is_peer {
                peer
            } else {
                (self.client, 0).into()
            },
            listener: self.connection.listener.socket.addr,
        }
    }

    /// Sends the request once. `limit` is how long this attempt may wait for a response.
    #[expect(clippy::too_many_arguments, reason = "two callers, side by side")]
    async fn attempt(
        &self,
        head: &mut RequestHead,
        mut body: RequestBody,
        lease: &Lease,
        terms: &Terms,
        timer: &Timer,
        limit: Duration,
        retries_left: u32,
    ) -> Result<Answered, Box<Failed>> {
        let connecting = lease.connection(terms.addresses, &self.worker.clock);
        let mut sender = match connecting.await {
            Ok(sender) => sender,
            Err(error) => return Err(Failed::to_connect(error, body)),
        };
        let retries = &lease.upstream().spec.retries;
        let may_repeat = retry::may_repeat(&head.method);
        let per_try = retries.per_try.filter(|_| may_repeat && retries_left > 0);
        // What it costs to be able to send the request again is only paid where that may happen.
        let keeps = retries.count > 0
            && !terms.is_upgrade
            && match &sender {
                Sender::Http1(connection) => {
                    let is_asked = per_try.is_some() || !retries.on_status.is_empty();
                    may_repeat && (connection.was_reused() || is_asked)
                }
                Sender::Http2(_) => true,
            };
        let rest = match (body.is_over(), keeps) {
            (true, true) => Rest::None,
            (false, true) => body.keep().map_or(Rest::Gone, Rest::Kept),
            (_, false) => Rest::Gone,
        };
        let keeps = keeps || terms.keeps_request;
        let upload = body.progress();
        let request = upstream_request(head, body, lease, terms.is_upgrade, keeps);
        let wait = per_try.map_or(limit, |per_try| per_try.min(limit));
        timer.arm(wait);
        let sent = first_byte(sender.send(request, &upload), timer, wait, &upload).await;
        timer.disarm();
        match sent {
            Ok(response) if retries.on_status.contains(&response.status()) => {
                let answer = (response, sender, upload);
                Err(Failed::by_status(answer, rest, lease))
            }
            Ok(response) => Ok((response, sender, upload)),
            Err(Unsent::Returned(mut request)) => {
                if !keeps {
                    head.headers = std::mem::take(request.headers_mut());
                }
                let body = Rest::Untouched(Box::new(request.into_body()));
                Err(Failed::untouched(body, sender, lease))
            }
            Err(Unsent::Failed(error)) => {
                let of_body = upload.take_fault();
                Err(Failed::in_exchange(error, rest, of_body, sender, lease))
            }
            Err(Unsent::TimedOut(limit)) => Err(Failed::by_time(
                limit,
                rest,
                per_try.is_some(),
                sender,
                lease,
            )),
        }
    }

    /// What follows from a failed attempt: other attempts, as long as it is right to make them.
    async fn go_on(
        &self,
        head: &mut RequestHead,
        mut failed: Failed,
        lease: &mut Lease,
        terms: &Terms,
        timer: &Timer,
        record: &mut AccessRecord,
    ) -> Result<Answered, ProxyError> {
        let pool = Rc::clone(lease.pool());
        let spec = &pool.upstream.spec;
        let mut retries_left = spec.retries.count;
        let mut stale_left = MAX_STALE;
        let mut tried: Vec<usize> = Vec::new();
        loop {
            failed.blame(lease);
            if !tried.contains(&lease.endpoint_index()) {
                tried.push(lease.endpoint_index());
            }
            let is_silent = matches!(failed.error, ProxyError::FirstByteTimeout { .. });
            let Failed {
                fault,
                error,
                body,
                sender,
                answer,
            } = failed;
            let give_up = |answer: Option<Answered>| answer.ok_or(error);
            // An HTTP/2 connection over which no response came in time may be dead without a sign.
            // What else became of one stream says nothing of the others.
            let is_dead = match (fault, &sender) {
                (Fault::Unsent | Fault::GoneAway | Fault::Reset { .. }, _) => true,
                (_, Some(Sender::Http2(_))) => is_silent,
                _ => false,
            };
            if let Some(dead) = sender.as_ref().filter(|_| is_dead) {
                lease.forget_of(dead);
            }
            // Lets go of the body, and of the connection's place among the limited ones.
            drop(sender);
            let body = body.body().await;
            let decision = retry::decide(&Attempted {
                fault,
                method: &head.method,
                has_body: body.is_some(),
                has_other: tried.len() < spec.endpoints.len(),
                retries_left,
                is_on: spec.retries.count > 0,
                stale_left,
            });
            let Some(body) = body else {
                return give_up(answer);
            };
            match decision {
                Decision::GiveUp => return give_up(answer),
                Decision::Reconnect => stale_left -= 1,
                Decision::Retry => {
                    if !pool.spend_retry() {
                        return give_up(answer);
                    }
                    retries_left -= 1;
                    lease.move_on(&tried);
                    record.forwarded(&pool, lease.endpoint_index());
                }
            }
            let left = terms.limit.saturating_sub(record.took() - terms.before);
            if left.is_zero() {
                return give_up(answer);
            }
            drop(answer);
            lease.count_retry();
            let attempt = self.attempt(head, body, lease, terms, timer, left, retries_left);
            match attempt.await {
                Ok(answered) => return Ok(answered),
                Err(again) => failed = *again,
            }
        }
    }
}

/// Makes the request that goes upstream. Its framing is written by the connection, from the body.
pub(super) fn upstream_request(
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
    let of_upstream = lease.upstream().spec.host.as_ref();
    let host = of_upstream.unwrap_or_else(|| head.authority.value());
    let uri = match lease.upstream().spec.protocol {
        UpstreamProtocol::Http1 => {
            headers.insert(header::HOST, host.clone());
            if !body.is_end_stream() && body.size_hint().exact().is_none() {
                // Of a GET, hyper would otherwise send the head alone and drop the body.
                let chunked = HeaderValue::from_static("chunked");
                headers.insert(header::TRANSFER_ENCODING, chunked);
            }
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
pub(super) fn downstream_response(
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
    /// For requests that are not tried again.
    pub(crate) fn into_error(self, lease: &Lease) -> ProxyError {
        match self {
            // A second connection closed before it took the request.
            Self::Returned(_) => ProxyError::Connect {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
                source: std::io::ErrorKind::ConnectionReset.into(),
            },
            Self::Failed(source) => lease.exchange_error(source),
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
            Self::Http2(h2) => h2.send(request).await,
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
/// does not count, nor that in which the endpoint takes it.
pub(super) async fn first_byte(
    sending: impl Future<Output = Result<Response<Incoming>, Unsent>>,
    timer: &Timer,
    limit: Duration,
    upload: &Progress,
) -> Result<Response<Incoming>, Unsent> {
    let mut sending = std::pin::pin!(sending);
    let mut seen = 0;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        while timer.poll_due(cx).is_ready() {
            if !upload.goes_on(&mut seen) {
                return Poll::Ready(Err(Unsent::TimedOut(limit)));
            }
            timer.arm(limit);
        }
        Poll::Pending
    })
    .await
}
