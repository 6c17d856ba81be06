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
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_core::header::retain_trailers;

use crate::access_log::AccessRecord;
use crate::clock::Timer;
use crate::connection::InFlight;
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
}

type PolledFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// A body that is read from one side of the gateway.
struct Inbound {
    body: Incoming,
    timer: Timer,
    idle: Duration,
}

impl Inbound {
    /// What was read, or the end of the wait for it. `poll` reads.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Incoming, &mut Context<'_>) -> PolledFrame<hyper::Error>,
    ) -> PolledFrame<BodyError> {
        match poll(&mut self.body, cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.timer.disarm();
                if let Some(trailers) = frame.trailers_mut() {
                    retain_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                // Armed only while this side is waited for: a slow reader on the other side is not
                // this one's fault.
                self.timer.arm_if_disarmed(self.idle);
                self.timer.poll_due(cx).map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }
}

/// A request body on its way to an upstream.
pub(crate) struct RequestBody {
    inbound: Option<Inbound>,
    tally: Option<Tally>,
    /// Bytes that may still come, and whether more did.
    limit: Option<(u64, Rc<Cell<bool>>)>,
}

struct Tally {
    /// Shared with the access record.
    bytes: Rc<Cell<u64>>,
    is_over: Rc<Cell<bool>>,
}

/// Whether a request body has been sent.
#[derive(Clone)]
pub(crate) struct Progress(Option<Rc<Cell<bool>>>);

impl Progress {
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|is_over| is_over.get())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.is_over.set(true);
    }
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self {
            inbound: None,
            tally: None,
            limit: None,
        }
    }

    pub(crate) fn new(body: Incoming, timer: Timer, idle: Duration, bytes: Rc<Cell<u64>>) -> Self {
        Self {
            inbound: Some(Inbound { body, timer, idle }),
            tally: Some(Tally {
                bytes,
                is_over: Rc::default(),
            }),
            limit: None,
        }
    }

    /// Ends the body with an error after so many bytes. The cell says whether that happened.
    pub(crate) fn limit(&mut self, bytes: u64) -> Rc<Cell<bool>> {
        let is_too_large = Rc::default();
        self.limit = Some((bytes, Rc::clone(&is_too_large)));
        is_too_large
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress(self.tally.as_ref().map(|tally| Rc::clone(&tally.is_over)))
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
        let polled = inbound.poll_frame(cx, |body, cx| Pin::new(body).poll_frame(cx));
        if let (Poll::Ready(Some(Ok(frame))), Some(tally)) = (&polled, &this.tally)
            && let Some(data) = frame.data_ref()
        {
            tally.bytes.set(tally.bytes.get() + data.len() as u64);
            if let Some((left, is_too_large)) = &mut this.limit {
                match left.checked_sub(data.len() as u64) {
                    Some(rest) => *left = rest,
                    None => {
                        is_too_large.set(true);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                }
            }
        }
        polled
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
            Self::Upstream(upstream) => upstream.inbound.body.is_end_stream(),
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
        let source = if bytes.is_empty() {
            Source::Empty
        } else {
            Source::Full(bytes)
        };
        Self {
            source,
            record: None,
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
            inbound: Inbound { body, timer, idle },
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
            record: None,
            _in_flight: None,
        }
    }

    /// Ties what has to end with the response to its body.
    pub(crate) fn attach(
        &mut self,
        mut record: Box<AccessRecord>,
        in_flight: InFlight,
        is_head: bool,
    ) {
        // Nobody will poll for a body that is not sent.
        if is_head || self.source.is_over() {
            record.completed();
        }
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
        let polled = self.inbound.poll_frame(cx, |body, cx| match connection {
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
        let polled = match &mut this.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Upstream(upstream) => upstream.poll_frame(cx),
        };
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
            Source::Upstream(upstream) => upstream.inbound.body.size_hint(),
        }
    }
}
