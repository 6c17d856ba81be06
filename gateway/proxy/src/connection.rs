//! One client connection: handshake, protocol, its deadlines, its end.
//!
//! Every phase has a deadline, all kept by one coarse timer: the TLS handshake, the head of a
//! request, the idle time between requests. While a request is served the timer rests; bodies have
//! timers of their own.

mod proxy_header;

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use postern_core::header::PeerFields;
use postern_core::request::RequestRules;
use postern_core::request::Scheme;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::access_log::AccessRecord;
use crate::clock::Clock;
use crate::clock::Timer;
use crate::listener::Listener;
use crate::listener::Permit;
use crate::request;
use crate::stream::Stream;
use crate::tls::TlsSession;
use crate::worker::LocalExecutor;
use crate::worker::Worker;

/// Bytes of a request body that a stream may have in flight; the sheet of limits says why small.
const H2_STREAM_WINDOW: u32 = 64 << 10;
/// The same for all streams of one connection.
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of responses buffered for one stream.
const H2_SEND_BUFFER: usize = 256 << 10;
/// Resets that a client made us send before the connection ends with GOAWAY.
const H2_LOCAL_RESETS: usize = 200;
/// What a client with prior knowledge of HTTP/2 sends first (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Enough of the preface to tell it from any HTTP/1 request line.
const H2_PREFACE_START: usize = 4;

/// What is known of a connection, for all its requests.
pub(crate) struct Connection {
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: SocketAddr,
    /// The load balancer that passed the connection on for `peer`.
    pub(crate) balancer: Option<SocketAddr>,
    pub(crate) peer_fields: PeerFields,
    pub(crate) scheme: Scheme,
    pub(crate) rules: RequestRules,
    pub(crate) tls: Option<TlsSession>,
    pub(crate) is_h2: bool,
    watch: Rc<Watch>,
    /// Until the last request, a tunnel included, is over.
    _open: (Registered, Permit),
}

impl Connection {
    /// Counts a request as in flight until the returned value is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        let watch = Rc::clone(&self.watch);
        watch.active.set(watch.active.get() + 1);
        watch.phase.set(Phase::Serving);
        watch.timer.disarm();
        InFlight(watch)
    }
}

/// A request in flight on its connection.
pub(crate) struct InFlight(Rc<Watch>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let watch = &self.0;
        watch.active.set(watch.active.get() - 1);
        if watch.active.get() == 0 {
            watch.phase.set(Phase::Idle);
            watch.has_read.store(false, Ordering::Relaxed);
            watch.timer.arm(watch.keep_alive);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// A request head, the first one included, is being waited for and has begun.
    Head,
    Serving,
    /// Between two requests.
    Idle,
}

/// The deadline of a connection, and whether it has to go.
pub(crate) struct Watch {
    phase: Cell<Phase>,
    active: Cell<u32>,
    draining: Cell<bool>,
    /// Bytes arrived since the last request ended.
    has_read: Arc<AtomicBool>,
    timer: Timer,
    request_head: Duration,
    keep_alive: Duration,
}

/// Every open connection of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Option<Rc<Watch>>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
}

impl Connections {
    fn insert(self: &Rc<Self>, watch: Rc<Watch>) -> Registered {
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut open = self.open.borrow_mut();
            open.push(None);
            open.len() - 1
        });
        self.open.borrow_mut()[index] = Some(watch);
        self.count.set(self.count.get() + 1);
        Registered {
            connections: Rc::clone(self),
            index,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Asks every connection to end: after what it is serving, with GOAWAY or `connection: close`.
    pub(crate) fn drain(&self) {
        for watch in self.open.borrow().iter().flatten() {
            watch.draining.set(true);
            watch.timer.fire();
        }
    }
}

pub(crate) struct Registered {
    connections: Rc<Connections>,
    index: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let connections = &self.connections;
        connections.open.borrow_mut()[self.index] = None;
        connections.free.borrow_mut().push(self.index);
        connections.count.set(connections.count.get() - 1);
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) {
    let mut accepted = Accepted::new(&worker, &listener, peer, permit);
    match accepted.open(&worker.clock, &listener, stream).await {
        Ok(opened) => serve_opened(worker, listener, accepted, opened).await,
        // A health check that connects and leaves is no failure.
        Err(error) if proxy_header::is_silence(&error) => {}
        Err(error) => {
            worker.stats.handshakes_failed.add(1);
            let error = &error as &dyn std::error::Error;
            tracing::debug!(listener = %listener.name, client.addr = %peer, error, "connection not opened");
        }
    }
}

/// A connection from accept on.
pub(crate) struct Accepted {
    peer: SocketAddr,
    /// What a PROXY protocol header said.
    balanced: Option<Balanced>,
    watch: Rc<Watch>,
    open: (Registered, Permit),
}

impl Accepted {
    pub(crate) fn new(
        worker: &Worker,
        listener: &Listener,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        let timeouts = listener.spec.timeouts;
        let watch = Rc::new(Watch {
            phase: Cell::new(Phase::Head),
            active: Cell::new(0),
            draining: Cell::new(worker.is_draining()),
            has_read: Arc::new(AtomicBool::new(false)),
            timer: worker.clock.timer(),
            request_head: timeouts.request_head,
            keep_alive: timeouts.keep_alive,
        });
        let registered = worker.connections.insert(Rc::clone(&watch));
        Self {
            peer,
            balanced: None,
            watch,
            open: (registered, permit),
        }
    }

    async fn open(
        &mut self,
        clock: &Clock,
        listener: &Listener,
        mut stream: TcpStream,
    ) -> io::Result<Opened> {
        if let Some(protocol) = &listener.spec.proxy_protocol {
            let limit = listener.spec.timeouts.proxy_header;
            let read = proxy_header::read(&mut stream, self.peer.ip(), protocol);
            let read = clock.timeout(limit, read).await;
            let read = read.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            if let Some((client, destination)) = read {
                let balancer = std::mem::replace(&mut self.peer, client);
                self.balanced = Some(Balanced {
                    balancer,
                    destination,
                });
            }
        }
        open(clock, listener, stream).await
    }
}

/// A connection that a load balancer passed on with a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balanced {
    pub(crate) balancer: SocketAddr,
    /// The address that the client connected to.
    destination: SocketAddr,
}

/// A connection whose protocol is known.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) is_h2: bool,
    pub(crate) tls: Option<TlsSession>,
}

pub(crate) async fn serve_opened(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    accepted: Accepted,
    opened: Opened,
) {
    let _counted = PanicCount(&worker);
    let Accepted {
        peer,
        balanced,
        watch,
        open,
    } = accepted;
    let Opened { stream, is_h2, tls } = opened;
    let is_tls = tls.is_some();
    watch.timer.arm(watch.request_head);
    let connection = Rc::new(Connection {
        peer_fields: PeerFields::new(
            peer.ip(),
            is_tls,
            balanced
                .map_or(listener.socket.addr, |b| b.destination)
                .port(),
        ),
        peer,
        balancer: balanced.map(|b| b.balancer),
        scheme: if is_tls { Scheme::Https } else { Scheme::Http },
        rules: RequestRules {
            encoded_slash: listener.spec.encoded_slash,
            is_trusted: listener.spec.trusted_proxies.contains(peer.ip()),
        },
        tls,
        is_h2,
        listener,
        watch,
        _open: open,
    });
    let ended = if is_h2 {
        serve_http2(&worker, &connection, stream).await
    } else {
        serve_http1(&worker, &connection, stream).await
    };
    let Err(error) = ended else { return };
    if error.is_parse() {
        let status = if error.is_parse_too_large() {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        };
        AccessRecord::refused(&worker, &connection, status);
    }
    let error = &error as &dyn std::error::Error;
    tracing::debug!(client.addr = %peer, error, "connection ended with an error");
}

/// Notices that a connection's task is unwinding. The task ends, and with it that connection only.
struct PanicCount<'w>(&'w Worker);

impl Drop for PanicCount<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stats.panics.add(1);
            tracing::error!("a connection was ended by a panic");
        }
    }
}

async fn open(clock: &Clock, listener: &Listener, stream: TcpStream) -> io::Result<Opened> {
    let Some(tls) = &listener.tls else {
        let limit = listener.spec.timeouts.request_head;
        let is_h2 = clock.timeout(limit, has_h2_preface(&stream)).await;
        return Ok(Opened {
            is_h2: is_h2.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?,
            stream: Stream::Plain(stream),
            tls: None,
        });
    };
    let limit = listener.spec.timeouts.handshake;
    let handshaken = clock.timeout(limit, tls.accept(stream)).await;
    let handshaken = handshaken.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(Opened {
        stream: Stream::Server(handshaken.stream),
        is_h2: handshaken.is_h2,
        tls: Some(handshaken.session),
    })
}

/// Whether a clear-text client begins with the preface of HTTP/2. Looks without taking.
async fn has_h2_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; H2_PREFACE_START];
    let mut seen = 0;
    loop {
        let peeked = stream.peek(&mut start).await?;
        if start[..peeked] != H2_PREFACE[..peeked] || peeked == 0 {
            return Ok(false);
        }
        if peeked == H2_PREFACE_START {
            return Ok(true);
        }
        if peeked == seen {
            // The socket stays readable while the rest is on its way.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen = peeked;
    }
}

async fn serve_http1(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    stream: Stream,
) -> hyper::Result<()> {
    let limits = connection.listener.spec.limits;
    let watch = &connection.watch;
    let io = TokioIo::new(Watched {
        stream,
        has_read: Arc::clone(&watch.has_read),
    });
    let service =
        service_fn(|request| request::handle(Rc::clone(worker), Rc::clone(connection), request));
    let served = http1::Builder::new()
        .max_headers(limits.head_fields as usize)
        .max_header_size(limits.head_bytes as usize)
        .serve_connection(io, service)
        .with_upgrades();
    watch
        .serve(
            served,
            |served| served.graceful_shutdown(),
            AtDeadline::Close,
        )
        .await
}

async fn serve_http2(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    stream: Stream,
) -> hyper::Result<()> {
    let limits = connection.listener.spec.limits;
    let watch = &connection.watch;
    let service =
        service_fn(|request| request::handle(Rc::clone(worker), Rc::clone(connection), request));
    let served = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_local_error_reset_streams(H2_LOCAL_RESETS)
        .serve_connection(TokioIo::new(stream), service);
    watch
        .serve(
            served,
            |served| served.graceful_shutdown(),
            AtDeadline::GoAway,
        )
        .await
}

/// What a connection's deadline does to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AtDeadline {
    Close,
    /// First GOAWAY, then one more idle time for the client to go; then it is closed.
    GoAway,
}

impl Watch {
    /// Polls a connection to its end, and ends it at its deadline or when the worker drains.
    async fn serve<C>(
        &self,
        connection: C,
        mut shut_down: impl FnMut(Pin<&mut C>),
        at_deadline: AtDeadline,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut is_closing = false;
        std::future::poll_fn(|cx| {
            loop {
                if self.draining.get() && !is_closing {
                    is_closing = true;
                    self.note_closing();
                    shut_down(connection.as_mut());
                }
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                self.note_head();
                match self.timer.poll_due(cx) {
                    // Woken to close, which the next turn begins.
                    Poll::Ready(()) if self.draining.get() && !is_closing => {}
                    Poll::Ready(()) if at_deadline == AtDeadline::GoAway && !is_closing => {
                        self.draining.set(true);
                    }
                    Poll::Ready(()) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Between requests, the first byte of the next one changes which deadline holds.
    fn note_head(&self) {
        if self.phase.get() == Phase::Idle && self.has_read.load(Ordering::Relaxed) {
            self.phase.set(Phase::Head);
            self.timer.arm(self.request_head);
        }
    }

    /// The timer that woke the connection to close was no deadline: one begins now, or none while
    /// a request is served.
    fn note_closing(&self) {
        match self.phase.get() {
            Phase::Serving => self.timer.disarm(),
            Phase::Head | Phase::Idle => self.timer.arm(self.request_head),
        }
    }
}

/// A stream that notes when bytes of another request arrive.
///
/// An atomic although one thread uses it: hyper moves the stream into a `Send` box on an upgrade.
struct Watched {
    stream: Stream,
    has_read: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.has_read.store(true, Ordering::Relaxed);
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
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
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
