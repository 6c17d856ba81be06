//! Bodies on their way through: never buffered whole, counted, and not allowed to stand still.
//!
//! Both directions stream with back-pressure: a frame is asked for only when the other side can
//! take it. What has to happen when a body ends, in whatever way, happens when it is dropped: the
//! access line is written, the connection goes back to its pool.
//!
//! The exceptions are asked for by plugins, and bounded: a body may be held until a plugin has
//! decided ([`held`]), or pass through plugins piece by piece ([`filter`]).

mod encode;
pub(crate) mod filter;
mod held;
mod pace;
mod replay;
mod request;
mod response;
mod tap;

use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use postern_core::header::retain_trailers;
use postern_core::name::PolicyName;
use postern_wasm::exchange::HeldBody;

pub(crate) use self::pace::Pace;
use self::pace::is_small;
pub(crate) use self::replay::Kept;
use self::request::Limit;
pub(crate) use self::request::Progress;
pub(crate) use self::request::RequestBody;
pub(crate) use self::response::ResponseBody;
pub(crate) use self::tap::Tap;
use crate::clock::Timer;

/// A body was cut short. Which way, the access record knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body stood still for too long")]
    Idle,
    #[error("the body is larger than a policy allows")]
    TooLarge,
    /// Without a source if its stream was reset and nothing was said to be wrong.
    #[error("the body ended early")]
    Cut(#[source] Option<hyper::Error>),
    #[error("the trailers are too large")]
    Trailers,
    #[error("plugin {plugin} failed on the body")]
    Plugin {
        plugin: PolicyName,
        status: StatusCode,
        reason: &'static str,
    },
    #[error("the body cannot be compressed")]
    Coding(#[source] std::io::Error),
    #[error("plugin {plugin} asked to end the message")]
    Aborted { plugin: PolicyName },
}

type PolledFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// A body that is read from one side of the gateway.
struct Inbound {
    body: Incoming,
    /// It came over HTTP/2.
    is_h2: bool,
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
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(Some(error))))),
            // hyper ends a body whose stream was reset with NO_ERROR as if it were whole. Only
            // END_STREAM says that it is (RFC 9113, 8.1); hyper knows of that for HTTP/2 alone.
            Poll::Ready(None) if self.is_h2 && !self.body.is_end_stream() => {
                Poll::Ready(Some(Err(BodyError::Cut(None))))
            }
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
