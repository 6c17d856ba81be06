//! A byte stream to a client or an endpoint: TCP, with or without TLS.
//!
//! An enum rather than a trait object: reads and writes are the hot path, and there are two kinds.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use socket2::TcpKeepalive;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::client;
use tokio_rustls::server;

/// How long a connection may be silent before the kernel asks the peer whether it is still there,
/// and how often it asks. A tunnel may be silent for as long as its two ends like, so nothing else
/// ends one whose peer is gone without a word.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;

/// For every TCP connection of the data plane.
pub(crate) fn tcp_keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES)
}

/// A stream, whatever protects it.
pub(crate) enum Stream {
    Plain(TcpStream),
    /// Boxed: the state of a TLS session is a thousand bytes, and most streams are moved once.
    Server(Box<server::TlsStream<TcpStream>>),
    Client(Box<client::TlsStream<TcpStream>>),
    #[cfg(feature = "test-util")]
    Memory(tokio::io::DuplexStream),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Server($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
            Stream::Client($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
            #[cfg(feature = "test-util")]
            Stream::Memory($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
        }
    };
}

impl Stream {
    /// Lets the kernel forget what the other side has not taken, when the stream is dropped.
    pub(crate) fn abort(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Server(tls) => tls.get_ref().0,
            Self::Client(tls) => tls.get_ref().0,
            #[cfg(feature = "test-util")]
            Self::Memory(_) => return,
        };
        // A socket that cannot do that is closed as any other.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => inner.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => inner.poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => inner.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_write_vectored(),
            Self::Server(inner) => inner.is_write_vectored(),
            Self::Client(inner) => inner.is_write_vectored(),
            #[cfg(feature = "test-util")]
            Self::Memory(inner) => inner.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => inner.poll_shutdown(cx))
    }
}
