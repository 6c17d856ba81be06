//! A response body on its way to a client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_core::policy::compression::Coding;
use postern_wasm::exchange::HeldBody;

use super::BodyError;
use super::Inbound;
use super::PolledFrame;
use super::Progress;
use super::encode::Encoder;
use super::filter::Filter;
use super::held::read_ahead;
use super::larger;
use super::pace::Pace;
use super::shown;
use crate::access_log::AccessRecord;
use crate::clock::Timer;
use crate::connection::InFlight;
use crate::connection::Stall;
use crate::policy::Compressing;
use crate::upstream::Http1;
use crate::upstream::Lease;

/// Bytes of a response that an HTTP/2 stream hands over at once: what a frame holds. A client has
/// to take one in the time of `write-idle`.
const PIECE: usize = 16 << 10;

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
    Encoded(Box<(Self, Encoder)>),
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
            Self::Encoded(encoded) => encoded.1.is_over(),
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
            Self::Encoded(encoded) => {
                let (source, encoder) = &mut **encoded;
                encoder.poll_frame(cx, source, Self::poll_frame)
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
            Self::Filtered(_) | Self::Encoded(_) => SizeHint::default(),
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
                is_h2: connection.is_none(),
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

    /// Compresses what is to come; false if there is no coder to be had.
    pub(crate) fn encode(&mut self, coding: Coding, place: Compressing) -> bool {
        let Ok(encoder) = Encoder::new(coding, place) else {
            return false;
        };
        let source = std::mem::replace(&mut self.source, Source::Empty);
        self.source = Source::Encoded(Box::new((source, encoder)));
        true
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
