//! The frames of an HTTP/2 connection, counted below the HTTP implementation.
//!
//! [`Guarded`] lets every byte pass and looks at the nine bytes in front of each frame, in both
//! directions. A client that spends a budget (see [`Http2Limits`]) gets GOAWAY with
//! ENHANCE_YOUR_CALM, and its requests are cancelled. What the implementation above notices itself
//! ends the same way; here it is counted.
//!
//! [`Wire`] is what the connection's task is told: it decides about time, this about counts.
//!
//! Not here: whether a frame is valid. That is decided above, with the payload at hand.

mod budget;
mod fields;
mod frames;
mod goodbye;
mod log;
mod outbound;

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

pub(crate) use budget::Abuse;
use frames::Frames;
pub(crate) use goodbye::goodbye;
pub(crate) use log::AbuseLog;
use outbound::Outbound;
use postern_core::config::listener::Http2Limits;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::clock::Clock;
use crate::connection::Signals;
use crate::stream::Stream;

/// What the connection's task has to know of the frames.
#[derive(Default)]
pub(crate) struct Wire {
    /// The client has said the preface and its first SETTINGS.
    pub(crate) is_greeted: Cell<bool>,
    /// A request's head has begun and not ended.
    pub(crate) is_head_open: Cell<bool>,
    /// Streams whose response has not been sent to its end.
    pub(crate) unfinished: Cell<usize>,
    /// Bytes of DATA frames sent to the client.
    pub(crate) data_sent: Cell<u64>,
    /// Why the connection was ended, if the client is to blame.
    abuse: Cell<Option<Abuse>>,
    /// The stream of a connection that was ended so, for [`goodbye`].
    left: RefCell<Option<Left>>,
}

/// What is left of a connection whose client is to blame.
pub(crate) struct Left {
    stream: Stream,
    /// For a GOAWAY that has not been sent yet: the last stream that was opened. `None` if one
    /// was sent, or cannot be, because another frame has been sent in part.
    last_stream: Option<u32>,
}

impl Wire {
    /// Blames the client; the connection has to be dropped next.
    pub(crate) fn blame(&self, abuse: Abuse) {
        self.abuse.set(Some(abuse));
    }

    /// Why and with what the connection ended, if the client is to blame for it.
    pub(crate) fn abused(&self) -> Option<(Abuse, Option<Left>)> {
        Some((self.abuse.get()?, self.left.take()))
    }
}

/// The bytes of an HTTP/2 connection.
pub(crate) struct Guarded {
    /// `None` once the connection has been ended.
    stream: Option<Stream>,
    wire: Rc<Wire>,
    signals: Arc<Signals>,
    clock: Clock,
    frames: Frames,
    outbound: Outbound,
}

impl Guarded {
    pub(crate) fn new(
        stream: Stream,
        limits: &Http2Limits,
        head_fields: u32,
        clock: &Clock,
        wire: Rc<Wire>,
        signals: Arc<Signals>,
    ) -> Self {
        Self {
            stream: Some(stream),
            wire,
            signals,
            clock: clock.clone(),
            frames: Frames::new(limits, head_fields),
            outbound: Outbound::default(),
        }
    }

    fn end(&mut self, abuse: Abuse) -> io::Error {
        self.wire.abuse.set(Some(abuse));
        if let Some(stream) = self.stream.take() {
            let last_stream = self.outbound.is_between_frames();
            let last_stream = last_stream.then(|| self.frames.last_opened());
            *self.wire.left.borrow_mut() = Some(Left {
                stream,
                last_stream,
            });
        }
        io::Error::other(abuse)
    }

    /// Notes what was written and, if it spent a budget, ends the connection.
    fn wrote(&mut self, slices: &[IoSlice<'_>], mut count: usize) -> io::Result<()> {
        let wire = &self.wire;
        for slice in slices {
            let part = &slice[..count.min(slice.len())];
            count -= part.len();
            let frames = &mut self.frames;
            self.outbound.feed(part, |frame| frames.sent(frame));
            if count == 0 {
                break;
            }
        }
        wire.unfinished.set(self.frames.unfinished());
        wire.data_sent.set(self.frames.data_sent());
        if let Some(abuse) = self.frames.abuse_by_answers() {
            return Err(self.end(abuse));
        }
        Ok(())
    }

    fn noted(&mut self, polled: Polled, slices: &[IoSlice<'_>]) -> Polled {
        self.signals.note_write(&polled);
        if let Poll::Ready(Ok(count)) = polled {
            self.wrote(slices, count)?;
        }
        polled
    }
}

type Polled = Poll<io::Result<usize>>;

/// The implementation above still has something to say, to nobody.
fn ended() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Drop for Guarded {
    /// A connection that the implementation above ended with an error has said so to the client,
    /// who gets the time to read it; one that was blamed from outside has not.
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let said = self.outbound.goaway().filter(|&code| code != 0);
        let last_stream = match said {
            Some(code) => {
                self.wire.abuse.set(Some(Abuse::of_code(code)));
                None
            }
            None if self.wire.abuse.get().is_none() => return,
            None => {
                let can_say = self.outbound.is_between_frames();
                can_say.then(|| self.frames.last_opened())
            }
        };
        *self.wire.left.borrow_mut() = Some(Left {
            stream,
            last_stream,
        });
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(ended()));
        };
        let before = buffer.filled().len();
        let polled = Pin::new(stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            let fed = this.frames.feed(read, this.clock.now());
            this.wire.is_greeted.set(this.frames.is_greeted());
            this.wire.is_head_open.set(this.frames.is_head_open());
            this.wire.unfinished.set(this.frames.unfinished());
            if let Err(abuse) = fed {
                return Poll::Ready(Err(this.end(abuse)));
            }
        }
        polled
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Polled {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(ended()));
        };
        let polled = Pin::new(stream).poll_write(cx, bytes);
        this.noted(polled, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Polled {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(ended()));
        };
        let polled = Pin::new(stream).poll_write_vectored(cx, slices);
        this.noted(polled, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(ended()));
        };
        let polled = Pin::new(stream).poll_flush(cx);
        this.signals.note_flush(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// The first nine bytes of a frame (RFC 9113, 4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Bytes of a [`FrameHead`].
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

impl FrameHead {
    fn parse(bytes: &[u8; FRAME_HEAD]) -> Self {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l1, l2, l3]),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([s1, s2, s3, s4]) & 0x7fff_ffff,
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts bytes into frames, wherever they are cut themselves, and keeps the first `KEPT` bytes of
/// each payload.
struct Cutter<const KEPT: usize> {
    head: [u8; FRAME_HEAD],
    filled: usize,
    /// A frame whose kept bytes are not all there.
    frame: Option<FrameHead>,
    kept: [u8; KEPT],
    kept_filled: usize,
    /// Bytes of the payload that are still to come.
    rest: usize,
}

impl<const KEPT: usize> Default for Cutter<KEPT> {
    fn default() -> Self {
        Self {
            head: [0; FRAME_HEAD],
            filled: 0,
            frame: None,
            kept: [0; KEPT],
            kept_filled: 0,
            rest: 0,
        }
    }
}

impl<const KEPT: usize> Cutter<KEPT> {
    /// Takes bytes up to the next whole head with its kept part of the payload, and gives both.
    /// `None`: the bytes are used up. `payload` is shown what comes behind the kept part of the
    /// frame before.
    fn next(
        &mut self,
        bytes: &mut &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Option<(FrameHead, [u8; KEPT])> {
        loop {
            if let Some(frame) = self.frame {
                let wanted = KEPT.min(frame.length as usize);
                let taken = take(bytes, wanted - self.kept_filled);
                let end = self.kept_filled + taken.len();
                self.kept[self.kept_filled..end].copy_from_slice(taken);
                self.kept_filled = end;
                self.rest -= taken.len();
                if end < wanted {
                    return None;
                }
                self.frame = None;
                self.kept_filled = 0;
                return Some((frame, std::mem::replace(&mut self.kept, [0; KEPT])));
            }
            let rest = take(bytes, self.rest);
            self.rest -= rest.len();
            payload(rest);
            if self.rest > 0 || bytes.is_empty() {
                return None;
            }
            let taken = take(bytes, FRAME_HEAD - self.filled);
            let end = self.filled + taken.len();
            self.head[self.filled..end].copy_from_slice(taken);
            if end < FRAME_HEAD {
                self.filled = end;
                return None;
            }
            self.filled = 0;
            let frame = FrameHead::parse(&self.head);
            self.rest = frame.length as usize;
            self.frame = Some(frame);
        }
    }

    /// The next byte would be the first of a frame.
    fn is_between_frames(&self) -> bool {
        self.filled == 0 && self.rest == 0 && self.frame.is_none()
    }
}

fn take<'b>(bytes: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests;
