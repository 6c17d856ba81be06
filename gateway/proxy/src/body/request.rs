//! A request body on its way to an upstream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_wasm::exchange::HeldBody;
use tokio::sync::oneshot;

use super::BodyError;
use super::Inbound;
use super::PolledFrame;
use super::filter::Filter;
use super::held::read_ahead;
use super::larger;
use super::pace::Pace;
use super::replay::Kept;
use super::replay::Replay;
use super::shown;
use super::tap::Tap;
use crate::clock::Timer;
use crate::error::ProxyError;

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
    /// Of a body that is copied.
    tap: Option<Box<Tap>>,
}

/// Bytes that may still come, and whether more did.
pub(super) type Limit = (u64, Rc<Cell<bool>>);

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
    /// More was asked for than the client, or a plugin, has given.
    is_waited_for: Cell<bool>,
    /// Pieces that the connection has taken.
    pieces: Cell<u64>,
    /// What the body failed with. Kept here because an HTTP/2 connection says only that it reset
    /// the stream.
    fault: Cell<Option<ProxyError>>,
}

/// How a request body does on its way.
#[derive(Clone)]
pub(crate) struct Progress(Option<Rc<Upload>>);

impl Progress {
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.is_over.get())
    }

    /// Whether what is left of the body keeps the endpoint from answering: there is some, and the
    /// client is waited for, or the endpoint has taken some since it was `seen` last.
    pub(crate) fn goes_on(&self, seen: &mut u64) -> bool {
        let Some(upload) = &self.0 else { return false };
        let before = std::mem::replace(seen, upload.pieces.get());
        !upload.is_over.get() && (upload.is_waited_for.get() || upload.pieces.get() > before)
    }

    /// What the body failed with, if it was that and not the endpoint.
    pub(crate) fn take_fault(&self) -> Option<ProxyError> {
        self.0.as_ref()?.fault.take()
    }

    /// The response has begun. Until it ends, the pace of the request is not the gateway's
    /// business: two sides may be talking.
    pub(crate) fn answered(&self) {
        self.set_answered(true);
    }

    pub(super) fn set_answered(&self, is_answered: bool) {
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
                tap: None,
            },
            filter: None,
        }
    }

    pub(crate) fn new(
        body: Incoming,
        is_h2: bool,
        timer: Timer,
        pace: Pace,
        bytes: Rc<Cell<u64>>,
    ) -> Self {
        Self {
            source: RequestSource {
                held: Bytes::new(),
                inbound: Some(Inbound {
                    body,
                    is_h2,
                    timer,
                    pace,
                }),
                trailers: None,
                tally: Some(Tally {
                    bytes,
                    upload: Rc::default(),
                }),
                limit: None,
                replay: None,
                tap: None,
            },
            filter: None,
        }
    }

    /// Ends the body with an error once there are more than so many bytes, those that are held
    /// among them. The cell says whether that happened. No more than that are held: the caller has
    /// looked.
    pub(crate) fn limit(&mut self, bytes: u64) -> Rc<Cell<bool>> {
        let is_too_large = Rc::default();
        let left = bytes.saturating_sub(self.source.held.len() as u64);
        self.source.limit = Some((left, Rc::clone(&is_too_large)));
        is_too_large
    }

    /// Copies the body while it passes by.
    pub(crate) fn tap(&mut self, mut tap: Tap) -> oneshot::Receiver<Bytes> {
        let whole = tap.whole();
        self.source.tap = Some(Box::new(tap));
        whole
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
                tap: None,
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
        let polled = self.poll_next(cx);
        if self.tap.is_some() {
            self.tapped(&polled);
        }
        polled
    }

    fn tapped(&mut self, polled: &PolledFrame<BodyError>) {
        // Nobody polls for an end that is known.
        let is_over = self.is_over();
        let Some(tap) = &mut self.tap else { return };
        let has_ended = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                tap.passed(frame.data_ref().map_or(&[], |data| data));
                is_over
            }
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if has_ended {
            tap.ended();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
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

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, filter } = self.get_mut();
        let polled = match filter {
            None => source.poll_frame(cx),
            Some(filter) => filter.poll_frame(
                cx,
                source,
                RequestSource::poll_frame,
                RequestSource::is_over,
            ),
        };
        if let Some(Tally { upload, .. }) = &source.tally {
            upload.is_waited_for.set(polled.is_pending());
            match &polled {
                Poll::Ready(Some(Ok(_))) => upload.pieces.set(upload.pieces.get() + 1),
                Poll::Ready(Some(Err(error))) => {
                    upload.fault.set(Some(ProxyError::of_body(error)));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        polled
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
