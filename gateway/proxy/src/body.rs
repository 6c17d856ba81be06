//! Bodies on their way through: never buffered whole, counted, and not allowed to stand still.
//!
//! Both directions stream with back-pressure: a frame is asked for only when the other side can
//! take it. What has to happen when a body ends, in whatever way, happens when it is dropped: the
//! access line is written, the connection goes back to its pool.
//!
//! The exceptions are asked for by plugins, and bounded: a body may be held until a plugin has
//! decided ([`held`]), or pass through plugins piece by piece ([`filter`]).

pub(crate) mod filter;
mod held;
mod pace;
mod replay;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_core::header::retain_trailers;
use postern_core::name::PolicyName;
use postern_wasm::exchange::HeldBody;

pub(crate) use replay::Kept;
use replay::Replay;

use crate::access_log::AccessRecord;
use crate::body::filter::Filter;
use crate::body::held::read_ahead;
pub(crate) use crate::body::pace::Pace;
use crate::body::pace::is_small;
use crate::clock::Timer;
use crate::connection::InFlight;
use crate::connection::Stall;
use crate::upstream::Http1;
use crate::upstream::Lease;

/// A body was cut short. Which way, the access record knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body stood still for too long")]
    Idle,
    #[error("the body is larger than a policy allows")]
    TooLarge,
    #[error("the body ended early")]
    Cut(#[source] hyper::Error),
    #[error("the trailers are too large")]
    Trailers,
    #[error("plugin {plugin} failed on the body")]
    Plugin {
        plugin: PolicyName,
        status: StatusCode,
        reason: &'static str,
    },
    #[error("plugin {plugin} asked to end the message")]
    Aborted { plugin: PolicyName },
}

/// Bytes of a response that an HTTP/2 stream hands over at once: what a frame holds. A client has
/// to take one in the time of `write-idle`.
const PIECE: usize = 16 << 10;

type PolledFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// A body that is read from one side of the gateway.
struct Inbound {
    body: Incoming,
    timer: Timer,
    pace: Pace,
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
                self.pace.moved(&self.timer);
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
                self.pace.waits(&self.timer, bytes);
                self.timer.poll_due(cx).map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }
}

/// A request body on its way to an upstream.
pub(crate) struct RequestBody {
    source: RequestSource,
    filter: Option<Box<Filter>>,
}

struct RequestSource {
    /// Read ahead, or put in the place of what was; sent first.
    held: Bytes,
    inbound: Option<Inbound>,
    /// Read ahead. Boxed, because every request moves its body.
    trailers: Option<Box<HeaderMap>>,
    tally: Option<Tally>,
    limit: Option<Limit>,
    /// Of a body that may have to be sent again.
    replay: Option<Box<Replay>>,
}

/// Bytes that may still come, and whether more did.
type Limit = (u64, Rc<Cell<bool>>);

struct Tally {
    /// Shared with the access record.
    bytes: Rc<Cell<u64>>,
    upload: Rc<Upload>,
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
        self.upload.is_over.set(true);
    }
}

impl Drop for RequestSource {
    fn drop(&mut self) {
        if let Some(replay) = &self.replay {
            replay.kept.inbound.set(self.inbound.take());
            replay.kept.limit.set(self.limit.take());
        }
    }
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self {
            source: RequestSource {
                held: bytes,
                inbound: None,
                trailers: None,
                tally: None,
                limit: None,
                replay: None,
            },
            filter: None,
        }
    }

    pub(crate) fn new(body: Incoming, timer: Timer, pace: Pace, bytes: Rc<Cell<u64>>) -> Self {
        Self {
            source: RequestSource {
                held: Bytes::new(),
                inbound: Some(Inbound { body, timer, pace }),
                trailers: None,
                tally: Some(Tally {
                    bytes,
                    upload: Rc::default(),
                }),
                limit: None,
                replay: None,
            },
            filter: None,
        }
    }

    /// Ends the body with an error once there are more than so many bytes from now on. The cell
    /// says whether that happened.
    pub(crate) fn limit(&mut self, bytes: u64) -> Rc<Cell<bool>> {
        let is_too_large = Rc::default();
        self.source.limit = Some((bytes, Rc::clone(&is_too_large)));
        is_too_large
    }

    /// Keeps what is sent, as far as it is little, so that the body can be sent once more. A body
    /// that plugins see, or have read ahead, can be sent once only.
    pub(crate) fn keep(&mut self) -> Option<Rc<Kept>> {
        let source = &mut self.source;
        let tally = source.tally.as_ref()?;
        if self.filter.is_some() || !source.held.is_empty() || source.trailers.is_some() {
            return None;
        }
        if let Some(replay) = &source.replay {
            return Some(Rc::clone(&replay.kept));
        }
        let kept = Rc::new(Kept::new(Rc::clone(&tally.bytes)));
        source.replay = Some(Box::new(Replay::of(&kept)));
        Some(kept)
    }

    /// The body of another attempt, if all that was sent of it is kept.
    pub(crate) fn again(kept: &Rc<Kept>) -> Option<Self> {
        let inbound = kept.inbound.take()?;
        if !kept.is_whole.get() {
            return None;
        }
        Some(Self {
            source: RequestSource {
                held: Bytes::new(),
                inbound: Some(inbound),
                trailers: None,
                tally: Some(Tally {
                    bytes: Rc::clone(&kept.bytes_read),
                    upload: Rc::default(),
                }),
                limit: kept.limit.take(),
                replay: Some(Box::new(Replay::of(kept))),
            },
            filter: None,
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        let tally = self.source.tally.as_ref();
        Progress(tally.map(|tally| Rc::clone(&tally.upload)))
    }

    /// Reads ahead until the body is over or has more than `limit` bytes, and shows at most so
    /// many. They are still sent.
    pub(crate) async fn hold(&mut self, limit: usize) -> Result<HeldBody, BodyError> {
        let source = &mut self.source;
        let ahead = read_ahead(limit, |cx| source.poll_frame(cx)).await?;
        if ahead.is_whole {
            source.inbound = None;
        }
        source.held = ahead.bytes;
        source.trailers = ahead.trailers.map(Box::new);
        Ok(shown(&source.held, limit, ahead.is_whole))
    }

    /// Sends these bytes instead of the ones that are held. Only of a body that was held whole.
    pub(crate) fn replace(&mut self, bytes: Bytes) {
        self.source.held = bytes;
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_over(&self) -> bool {
        self.source.is_over()
    }

    /// Lets plugins see the body on its way. A body that is over has nothing to see.
    pub(crate) fn filter(&mut self, filter: Filter) {
        if !self.source.is_over() {
            self.filter = Some(Box::new(filter));
        }
    }
}

impl RequestSource {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        if let Some(bytes) = self.replay.as_mut().and_then(|replay| replay.next()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.held.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.held)))));
        }
        let Some(inbound) = &mut self.inbound else {
            return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(*t))));
        };
        let Some(tally) = &self.tally else {
            return Poll::Ready(None);
        };
        loop {
            let bytes = tally.bytes.get();
            let polled = inbound.poll_frame(cx, bytes, |body, cx| Pin::new(body).poll_frame(cx));
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.data_ref().map_or(0, Bytes::len) as u64;
                    tally.bytes.set(bytes + data);
                    if let Some((left, is_too_large)) = &mut self.limit {
                        let Some(rest) = left.checked_sub(data) else {
                            is_too_large.set(true);
                            return Poll::Ready(Some(Err(BodyError::TooLarge)));
                        };
                        *left = rest;
                    }
                    if let Some(replay) = &mut self.replay {
                        replay.read(frame);
                    }
                }
                Poll::Ready(Some(Err(BodyError::Idle))) if tally.upload.is_answered.get() => {
                    // Looked at again in as long, when the response may have ended.
                    inbound.pace.begin_again();
                    continue;
                }
                _ => {}
            }
            return polled;
        }
    }

    fn is_over(&self) -> bool {
        let inbound = self.inbound.as_ref();
        self.held.is_empty()
            && self.trailers.is_none()
            && self.replay.as_ref().is_none_or(|replay| replay.is_over())
            && inbound.is_none_or(|inbound| inbound.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let inbound = self.inbound.as_ref();
        let rest = inbound.map_or_else(|| SizeHint::with_exact(0), |i| i.body.size_hint());
        let kept = self.replay.as_ref().map_or(0, |replay| replay.bytes_left());
        larger(rest, self.held.len() as u64 + kept)
    }
}

/// What a plugin sees of a body that was read ahead.
fn shown(held: &Bytes, limit: usize, is_whole: bool) -> HeldBody {
    HeldBody {
        bytes: held.slice(..held.len().min(limit)),
        is_truncated: !is_whole || held.len() > limit,
        is_replaced: false,
    }
}

/// The hint of a body that has more bytes before it.
fn larger(rest: SizeHint, held: u64) -> SizeHint {
    if held == 0 {
        return rest;
    }
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(held));
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(held)) {
        hint.set_upper(upper);
    }
    hint
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, filter } = self.get_mut();
        match filter {
            None => source.poll_frame(cx),
            Some(filter) => filter.poll_frame(
                cx,
                source,
                RequestSource::poll_frame,
                RequestSource::is_over,
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.filter {
            None => self.source.is_over(),
            Some(filter) => filter.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.filter {
            None => self.source.size_hint(),
            // Plugins may make it longer or shorter.
            Some(_) => SizeHint::default(),
        }
    }
}

/// A response body on its way to a client.
pub(crate) struct ResponseBody {
    source: Source,
    /// What has arrived and was too large for one piece.
    rest: Bytes,
    record: Option<Box<AccessRecord>>,
    /// Of an HTTP/2 stream: whether its client is waited for.
    stall: Option<Rc<Stall>>,
    /// The request's body, which is told when the response is over.
    upload: Option<Progress>,
    /// Counts the request as in flight on its connection until the body ends.
    _in_flight: Option<InFlight>,
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // What has been handed over is the connection's.
        if let Some(stall) = &self.stall {
            stall.end();
        }
        if let Some(upload) = &self.upload {
            upload.set_answered(false);
        }
    }
}

enum Source {
    Empty,
    Full(Bytes),
    Upstream(Box<UpstreamBody>),
    Held(Box<HeldSource>),
    Filtered(Box<(Self, Filter)>),
}

/// A body that was read ahead.
struct HeldSource {
    bytes: Bytes,
    rest: Source,
    trailers: Option<HeaderMap>,
}

impl Source {
    fn of(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upstream(upstream) => upstream.inbound.body.is_end_stream(),
            Self::Held(held) => {
                held.bytes.is_empty() && held.trailers.is_none() && held.rest.is_over()
            }
            Self::Filtered(filtered) => filtered.1.is_end_stream(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upstream(upstream) => upstream.poll_frame(cx),
            Self::Held(held) if !held.bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut held.bytes)))))
            }
            Self::Held(held) => match held.trailers.take() {
                Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                None => held.rest.poll_frame(cx),
            },
            Self::Filtered(filtered) => {
                let (source, filter) = &mut **filtered;
                filter.poll_frame(cx, source, Self::poll_frame, Self::is_over)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(upstream) => upstream.inbound.body.size_hint(),
            Self::Held(held) => larger(held.rest.size_hint(), held.bytes.len() as u64),
            // Plugins may make it longer or shorter.
            Self::Filtered(_) => SizeHint::default(),
        }
    }
}

/// A response body from an upstream, and the connection it comes over.
struct UpstreamBody {
    inbound: Inbound,
    /// Of HTTP/1: goes back to its pool when the body ended well.
    connection: Option<Http1>,
    lease: Lease,
}

impl ResponseBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self {
            source: Source::of(bytes),
            rest: Bytes::new(),
            record: None,
            stall: None,
            upload: None,
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
        };
        // A response without body is over before anybody polls it.
        if upstream.inbound.body.is_end_stream() {
            upstream.finish();
            return Self::full(Bytes::new());
        }
        Self {
            source: Source::Upstream(Box::new(upstream)),
            rest: Bytes::new(),
            record: None,
            stall: None,
            upload: None,
            _in_flight: None,
        }
    }

    /// Whether there is nothing to come.
    pub(crate) fn is_over(&self) -> bool {
        self.source.is_over()
    }

    /// Reads ahead until the body is over or has more than `limit` bytes, and shows at most so
    /// many. They are still sent.
    pub(crate) async fn hold(&mut self, limit: usize) -> Result<HeldBody, BodyError> {
        let source = &mut self.source;
        let ahead = read_ahead(limit, |cx| source.poll_frame(cx)).await?;
        let shown = shown(&ahead.bytes, limit, ahead.is_whole);
        let rest = match ahead.is_whole {
            true => Source::Empty,
            false => std::mem::replace(source, Source::Empty),
        };
        *source = Source::Held(Box::new(HeldSource {
            bytes: ahead.bytes,
            rest,
            trailers: ahead.trailers,
        }));
        Ok(shown)
    }

    /// Sends these bytes instead of the ones that are held. Only of a body that was held whole.
    pub(crate) fn replace(&mut self, bytes: Bytes) {
        match &mut self.source {
            Source::Held(held) => held.bytes = bytes,
            source => *source = Source::of(bytes),
        }
    }

    /// Lets plugins see the body on its way. A body that is over has nothing to see.
    pub(crate) fn filter(&mut self, filter: Filter) {
        if !self.source.is_over() {
            let source = std::mem::replace(&mut self.source, Source::Empty);
            self.source = Source::Filtered(Box::new((source, filter)));
        }
    }

    /// Tells the request's body when the response is over.
    pub(crate) fn follow(&mut self, upload: Progress) {
        self.upload = Some(upload);
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

impl ResponseBody {
    /// What comes next. An HTTP/2 stream gets it in pieces, so that one that its client does not
    /// take is noticed.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        let Some(stall) = &self.stall else {
            return self.source.poll_frame(cx);
        };
        let polled = if self.rest.is_empty() {
            self.source.poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
        };
        let Poll::Ready(Some(Ok(frame))) = polled else {
            stall.end();
            return polled;
        };
        // Polled again once the client has taken it.
        stall.begin();
        let frame = match frame.into_data() {
            Ok(mut bytes) => {
                self.rest = bytes.split_off(bytes.len().min(PIECE));
                Frame::data(bytes)
            }
            Err(trailers) => trailers,
        };
        Poll::Ready(Some(Ok(frame)))
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
        let polled = this.poll_piece(cx);
        if let Some(record) = &mut this.record {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    record.sent(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(Some(Err(error))) => record.cut(error),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.rest.is_empty() && this.source.is_over() || matches!(polled, Poll::Ready(None))
            {
                record.completed();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        larger(self.source.size_hint(), self.rest.len() as u64)
    }
}
