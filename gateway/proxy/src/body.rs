//! Bodies on their way through: never buffered whole, counted, and not allowed to stand still.
//!
//! Both directions stream with back-pressure: a frame is asked for only when the other side can
//! take it. What has to happen when a body ends, in whatever way, happens when it is dropped: the
//! access line is written, the connection goes back to its pool.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_core::header::retain_trailers;

use crate::access_log::AccessRecord;
use crate::clock::Timer;
use crate::clock::time;
use crate::connection::Connection;
use crate::connection::InFlight;
use crate::connection::Stall;
use crate::upstream::Http1;
use crate::upstream::Lease;

/// A body was cut short. Which way, the access record knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body stood still for too long")]
    Idle,
    #[error("the body ended early")]
    Cut(#[source] hyper::Error),
    #[error("the trailers are too large")]
    Trailers,
}

/// Most fields of trailers, and bytes of their names and values.
const TRAILER_FIELDS: usize = 32;
const TRAILER_BYTES: usize = 16 << 10;
/// Bytes of a response that an HTTP/2 stream hands over at once: what a frame holds. A client has
/// to take one in the time of `write-idle`.
const PIECE: usize = 16 << 10;

type PolledFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

fn is_small(trailers: &HeaderMap) -> bool {
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    trailers.len() <= TRAILER_FIELDS && trailers.iter().map(bytes).sum::<usize>() <= TRAILER_BYTES
}

/// A body that is read from one side of the gateway.
struct Inbound {
    body: Incoming,
    timer: Timer,
    pace: Pace,
}

/// How slow a body may be.
pub(crate) struct Pace {
    /// How long it may stand still.
    idle: Duration,
    /// Bytes a second after `grace`; zero: any.
    rate: u32,
    grace: Duration,
    /// Ticks for which the sender was waited for so far, and since when it is.
    waited: u64,
    since: Option<u64>,
}

impl Pace {
    /// Of the body of a request with these fields.
    pub(crate) fn new(connection: &Connection, headers: &HeaderMap) -> Self {
        let spec = &connection.listener.spec;
        // A gRPC stream is no upload: it is quiet until there is something to say.
        let is_grpc = connection.is_h2
            && headers
                .get(http::header::CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        Self {
            rate: if is_grpc { 0 } else { spec.limits.body_rate },
            grace: spec.timeouts.body_grace,
            ..Self::idle(spec.timeouts.body_idle)
        }
    }

    fn idle(idle: Duration) -> Self {
        Self {
            idle,
            rate: 0,
            grace: Duration::ZERO,
            waited: 0,
            since: None,
        }
    }

    /// How long the sender may be waited for now, after `bytes`.
    fn limit(&self, bytes: u64) -> Duration {
        if self.rate == 0 {
            return self.idle;
        }
        // Each byte buys time.
        let bought = Duration::from_millis(bytes.saturating_mul(1000) / u64::from(self.rate));
        let waited = time(self.waited);
        let left = (self.grace.saturating_add(bought)).saturating_sub(waited);
        left.min(self.idle)
    }
}

impl Inbound {
    /// What was read, or the end of the wait for it. `poll` reads, `bytes` came before.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        bytes: u64,
        poll: impl FnOnce(&mut Incoming, &mut Context<'_>) -> PolledFrame<hyper::Error>,
    ) -> PolledFrame<BodyError> {
        match poll(&mut self.body, cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(since) = self.pace.since.take() {
                    self.pace.waited += self.timer.now().saturating_sub(since);
                    self.timer.disarm();
                }
                if let Some(trailers) = frame.trailers_mut() {
                    if !is_small(trailers) {
                        return Poll::Ready(Some(Err(BodyError::Trailers)));
                    }
                    retain_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                // Armed only while this side is waited for: a slow reader on the other side is not
                // this one's fault.
                if self.pace.since.is_none() {
                    self.pace.since = Some(self.timer.now());
                    self.timer.arm(self.pace.limit(bytes));
                }
                self.timer.poll_due(cx).map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }
}

/// A request body on its way to an upstream.
pub(crate) struct RequestBody {
    inbound: Option<Inbound>,
    tally: Option<Tally>,
}

struct Tally {
    /// Shared with the access record.
    bytes: Rc<Cell<u64>>,
    state: Rc<Upload>,
}

#[derive(Default)]
struct Upload {
    is_over: Cell<bool>,
    /// The response has begun and not ended: the client may listen before it goes on.
    is_answered: Cell<bool>,
}

/// Whether a request body has been sent.
#[derive(Clone)]
pub(crate) struct Progress(Option<Rc<Upload>>);

impl Progress {
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.is_over.get())
    }

    /// The response has begun. Until it ends, the pace of the request is not the gateway's
    /// business: two sides may be talking.
    pub(crate) fn answered(&self) {
        self.set_answered(true);
    }

    fn set_answered(&self, is_answered: bool) {
        if let Some(upload) = &self.0 {
            upload.is_answered.set(is_answered);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.state.is_over.set(true);
    }
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self {
            inbound: None,
            tally: None,
        }
    }

    pub(crate) fn new(body: Incoming, timer: Timer, pace: Pace, bytes: Rc<Cell<u64>>) -> Self {
        Self {
            inbound: Some(Inbound { body, timer, pace }),
            tally: Some(Tally {
                bytes,
                state: Rc::default(),
            }),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress(self.tally.as_ref().map(|tally| Rc::clone(&tally.state)))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inbound) = &mut this.inbound else {
            return Poll::Ready(None);
        };
        let Some(tally) = &this.tally else {
            return Poll::Ready(None);
        };
        loop {
            let bytes = tally.bytes.get();
            let polled = inbound.poll_frame(cx, bytes, |body, cx| Pin::new(body).poll_frame(cx));
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.data_ref().map_or(0, Bytes::len);
                    tally.bytes.set(bytes + data as u64);
                }
                Poll::Ready(Some(Err(BodyError::Idle))) if tally.state.is_answered.get() => {
                    // Looked at again in as long, when the response may have ended.
                    inbound.pace = Pace::idle(inbound.pace.idle);
                    continue;
                }
                _ => {}
            }
            return polled;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inbound
            .as_ref()
            .is_none_or(|inbound| inbound.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inbound {
            Some(inbound) => inbound.body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// A response body on its way to a client.
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Box<AccessRecord>>,
    /// Of an HTTP/2 stream: whether its client is waited for.
    stall: Option<Rc<Stall>>,
    /// Counts the request as in flight on its connection until the body ends.
    _in_flight: Option<InFlight>,
}

enum Source {
    Empty,
    Full(Bytes),
    Upstream(Box<UpstreamBody>),
}

impl Source {
    fn is_over(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upstream(upstream) => {
                upstream.rest.is_empty() && upstream.inbound.body.is_end_stream()
            }
        }
    }

    /// What comes next, in pieces of no more than `most` bytes.
    fn poll_piece(&mut self, cx: &mut Context<'_>, most: usize) -> PolledFrame<BodyError> {
        let mut bytes = match self {
            Self::Empty => return Poll::Ready(None),
            Self::Full(bytes) => std::mem::take(bytes),
            Self::Upstream(upstream) if !upstream.rest.is_empty() => {
                std::mem::take(&mut upstream.rest)
            }
            Self::Upstream(upstream) => {
                let polled = upstream.poll_frame(cx);
                match polled {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) => bytes,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    other => return other,
                }
            }
        };
        let piece = bytes.split_to(bytes.len().min(most));
        match self {
            Self::Upstream(upstream) => upstream.rest = bytes,
            _ if bytes.is_empty() => *self = Self::Empty,
            _ => *self = Self::Full(bytes),
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// What has been handed over is the connection's.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(stall) = &self.stall {
            stall.end();
        }
    }
}

/// A response body from an upstream, and the connection it comes over.
struct UpstreamBody {
    inbound: Inbound,
    /// Of HTTP/1: goes back to its pool when the body ended well.
    connection: Option<Http1>,
    lease: Lease,
    /// What has arrived and was too large for one piece.
    rest: Bytes,
    upload: Option<Progress>,
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.set_answered(false);
        }
    }
}

impl ResponseBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        let source = if bytes.is_empty() {
            Source::Empty
        } else {
            Source::Full(bytes)
        };
        Self {
            source,
            record: None,
            stall: None,
            _in_flight: None,
        }
    }

    pub(crate) fn upstream(
        body: Incoming,
        timer: Timer,
        idle: Duration,
        connection: Option<Http1>,
        lease: Lease,
    ) -> Self {
        let mut upstream = UpstreamBody {
            inbound: Inbound {
                body,
                timer,
                pace: Pace::idle(idle),
            },
            connection,
            lease,
            rest: Bytes::new(),
            upload: None,
        };
        // A response without body is over before anybody polls it.
        if upstream.inbound.body.is_end_stream() {
            upstream.finish();
            return Self::full(Bytes::new());
        }
        Self {
            source: Source::Upstream(Box::new(upstream)),
            record: None,
            stall: None,
            _in_flight: None,
        }
    }

    /// Tells the request's body when the response is over.
    pub(crate) fn follow(&mut self, upload: Progress) {
        match &mut self.source {
            Source::Upstream(upstream) => upstream.upload = Some(upload),
            Source::Empty | Source::Full(_) => upload.set_answered(false),
        }
    }

    /// Ties what has to end with the response to its body.
    pub(crate) fn attach(
        &mut self,
        mut record: Box<AccessRecord>,
        in_flight: InFlight,
        stall: Option<Rc<Stall>>,
        is_head: bool,
    ) {
        // Nobody will poll for a body that is not sent.
        if is_head || self.source.is_over() {
            record.completed();
        } else if let Some(stall) = &stall {
            stall.begin();
        }
        self.stall = stall;
        self.record = Some(record);
        self._in_flight = Some(in_flight);
    }
}

impl UpstreamBody {
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.lease.put_back(connection);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        let connection = self.connection.as_ref();
        let polled = self.inbound.poll_frame(cx, 0, |body, cx| match connection {
            Some(connection) => connection.poll_body(body, cx),
            None => Pin::new(body).poll_frame(cx),
        });
        let is_over = match &polled {
            Poll::Ready(None) => true,
            // Known to be the last frame: the connection is free for the next request before the
            // client has taken this one's last byte.
            Poll::Ready(Some(Ok(_))) => self.inbound.body.is_end_stream(),
            _ => false,
        };
        if is_over {
            self.finish();
        }
        polled
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let most = match this.stall {
            Some(_) => PIECE,
            None => usize::MAX,
        };
        let polled = this.source.poll_piece(cx, most);
        if let Some(stall) = &this.stall {
            match polled {
                // Polled again once the client has taken it.
                Poll::Ready(Some(Ok(_))) => stall.begin(),
                _ => stall.end(),
            }
        }
        if let Some(record) = &mut this.record {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    record.sent(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(Some(Err(error))) => record.cut(error),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.source.is_over() || matches!(polled, Poll::Ready(None)) {
                record.completed();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(upstream) => {
                let rest = upstream.rest.len() as u64;
                let hint = upstream.inbound.body.size_hint();
                let mut whole = SizeHint::new();
                whole.set_lower(hint.lower() + rest);
                if let Some(upper) = hint.upper() {
                    whole.set_upper(upper.saturating_add(rest));
                }
                whole
            }
        }
    }
}
