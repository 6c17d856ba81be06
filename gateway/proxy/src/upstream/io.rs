//! The stream of an upstream connection: counted while it is open, and what comes over it too.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::endpoint::Endpoint;
use super::interim::Interim;
use crate::stream::Stream;

/// A connection to an endpoint, as counted among all workers' connections to it.
pub(super) struct Open(Arc<Endpoint>);

impl Open {
    /// `None` if there are `most` already.
    pub(super) fn new(endpoint: &Arc<Endpoint>, most: Option<u32>) -> Option<Self> {
        let most = most.unwrap_or(u32::MAX);
        let connections = &endpoint.connections;
        // One that waits counts itself before it looks here; one that ends its connection looks for
        // those that wait after that. `SeqCst` on all four: with less, neither might see the other.
        let counted = connections.fetch_update(SeqCst, SeqCst, |open| {
            (open < most).then_some(open.saturating_add(1))
        });
        counted.ok().map(|_| Self(Arc::clone(endpoint)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
        if self.0.waiting.load(SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// How many bytes have come over a connection. Written by the one who reads them.
#[derive(Clone, Default)]
pub(super) struct Received(Arc<AtomicU64>);

impl Received {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

pub(super) struct Io {
    stream: Stream,
    received: Received,
    /// Of HTTP/1.
    interim: Option<Interim>,
    _open: Open,
}

impl Io {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            received: Received::default(),
            interim: None,
            _open: open,
        }
    }

    /// Fails once there are too many interim responses before a response. `is_next` is set when a
    /// request is sent.
    pub(super) fn bound_interim(&mut self, is_next: Arc<AtomicBool>) {
        self.interim = Some(Interim::new(is_next));
    }

    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        // One reader: no read-modify-write is needed.
        let received = &this.received.0;
        received.store(received.load(Relaxed) + read.len() as u64, Relaxed);
        if let Some(interim) = &mut this.interim {
            interim.see(read)?;
        }
        polled
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
