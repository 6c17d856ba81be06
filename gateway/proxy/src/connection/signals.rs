//! The bytes of an HTTP/1 connection, and what its task is told of them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::stream::Stream;

/// What a client is told whose request head did not come in time (RFC 9110, 15.5.9).
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What a connection's task is told of its bytes, and tells.
///
/// Atomics although one thread uses them: hyper moves the stream into a `Send` box on an upgrade.
#[derive(Default)]
pub(crate) struct Signals {
    /// Bytes arrived since the last request ended.
    has_read: AtomicBool,
    /// The last write had to wait for the client.
    is_blocked: AtomicBool,
    /// The client took bytes since somebody last looked.
    has_written: AtomicBool,
    /// The request head that is being read came too late.
    is_expired: AtomicBool,
    /// What the client has not taken is not to be kept for it.
    is_aborted: AtomicBool,
}

impl Signals {
    pub(super) fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Relaxed)
    }

    pub(super) fn forget_read(&self) {
        self.has_read.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    pub(super) fn take_written(&self) -> bool {
        let has_written = self.has_written.load(Ordering::Relaxed);
        self.has_written.store(false, Ordering::Relaxed);
        has_written
    }

    pub(super) fn expire(&self) {
        self.is_expired.store(true, Ordering::Relaxed);
    }

    pub(super) fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(_) => {
                self.is_blocked.store(false, Ordering::Relaxed);
                self.has_written.store(true, Ordering::Relaxed);
            }
            Poll::Pending => self.is_blocked.store(true, Ordering::Relaxed),
        }
    }

    /// TLS takes bytes that it has not written yet: a flush that waits, waits for the client.
    pub(crate) fn note_flush(&self, polled: &Poll<io::Result<()>>) {
        let is_blocked = polled.is_pending();
        self.is_blocked.store(is_blocked, Ordering::Relaxed);
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }
}

/// The bytes of an HTTP/1 connection.
pub(super) struct Watched {
    stream: Stream,
    signals: Arc<Signals>,
}

impl Watched {
    pub(super) fn new(stream: Stream, signals: Arc<Signals>) -> Self {
        Self { stream, signals }
    }

    /// Answers in place of the HTTP implementation, which reads the end of the connection.
    fn expire(&mut self, cx: &mut Context<'_>) {
        let stream = Pin::new(&mut self.stream);
        // A client whose window is full does not get to know why it was closed.
        if stream.poll_write(cx, TIMED_OUT).is_ready() {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.signals.is_aborted() {
            self.stream.abort();
        }
    }
}

impl AsyncRead for Watched {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signals.is_expired.load(Ordering::Relaxed) {
            this.expire(cx);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.signals.has_read.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.signals.note_write(&polled);
        polled
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.signals.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.signals.note_flush(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
