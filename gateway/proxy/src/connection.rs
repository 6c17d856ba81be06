//! One client connection: handshake, protocol, its deadlines, its end.
//!
//! Every phase has a deadline, kept by [`watch`]: the TLS handshake, the head of a request, the
//! idle time between requests, the time that a client takes nothing of what is written to it.
//! Bodies have timers of their own. What has none is a connection that is a tunnel or is passed on:
//! it ends with one of its peers, which the kernel asks whether they are there, or with the worker.

mod proxy_header;
mod signals;
mod streams;
mod watch;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use postern_core::header::PeerFields;
use postern_core::name::UpstreamName;
use postern_core::request::RequestRules;
use postern_core::request::Scheme;
use tokio::net::TcpStream;

pub(crate) use self::signals::Signals;
use self::signals::Watched;
use self::streams::Streams;
use self::watch::AtDeadline;
pub(crate) use self::watch::Connections;
pub(crate) use self::watch::InFlight;
use self::watch::Registered;
pub(crate) use self::watch::Stall;
use self::watch::Watch;
use crate::access_log::AccessRecord;
use crate::clock::Clock;
use crate::guard::Guarded;
use crate::guard::goodbye;
use crate::listener::Listener;
use crate::listener::Permit;
use crate::overload::Begun;
use crate::request;
use crate::stream::Stream;
use crate::tls::TlsSession;
use crate::tls::passthrough;
use crate::upstream::Addresses;
use crate::worker::Worker;

/// Bytes of a request body that a stream may have in flight; the sheet of limits says why small.
const H2_STREAM_WINDOW: u32 = 64 << 10;
/// The same for all streams of one connection.
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of responses buffered for one stream.
const H2_SEND_BUFFER: usize = 256 << 10;
/// What a client with prior knowledge of HTTP/2 sends first (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Enough of the preface to tell it from any HTTP/1 request line.
const H2_PREFACE_START: usize = 4;
/// How long the rest of a preface is first left to arrive, and at most: a client that sends half of
/// one must not keep its worker busy.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(160);
/// Bytes that are looked at before an HTTP implementation gets them.
const FIRST_LOOK: usize = 64;

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
    stall: Cell<Option<Rc<Stall>>>,
    /// Until the last request, a tunnel included, is over.
    _open: (Registered, Permit),
}

impl Connection {
    /// Counts a request as in flight until the returned value is dropped. `is_last` if no other is
    /// wanted after it.
    pub(crate) fn begin(&self, is_last: bool, begun: Begun) -> InFlight {
        self.watch.begin(is_last, begun)
    }

    /// The connection ends after what it is serving.
    pub(crate) fn is_ending(&self) -> bool {
        self.watch.is_draining()
    }

    /// The client stopped taking a response.
    pub(crate) fn has_stalled(&self) -> bool {
        self.watch.has_stalled()
    }

    /// Of the HTTP/2 stream whose request is being taken up.
    pub(crate) fn stall(&self) -> Option<Rc<Stall>> {
        self.stall.take()
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
        Ok(Opening::Ours(opened)) => serve_opened(worker, listener, accepted, opened).await,
        Ok(Opening::Passed(stream, upstream)) => {
            let addresses = accepted.addresses(&listener);
            let passing = passthrough::pass_on(&worker, &upstream, stream, addresses);
            if let Err(error) = passing.await {
                worker.stats.error(error.reason());
                let error = &error as &dyn std::error::Error;
                tracing::debug!(upstream = %upstream, client.addr = %peer, error, "connection not passed on");
            }
        }
        Ok(Opening::Over) => {}
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
        let watch = Rc::new(Watch::new(
            &worker.clock,
            listener.spec.timeouts,
            listener.spec.limits.requests,
            worker.is_draining(),
        ));
        watch.start();
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
    ) -> io::Result<Opening> {
        if let Some(protocol) = &listener.spec.proxy_protocol {
            let limit = listener.spec.timeouts.proxy_header;
            let read = proxy_header::read(&mut stream, self.peer.ip(), protocol);
            let read = clock.timeout(limit, read).await;
            let read = read.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            // The header had a time of its own.
            self.watch.start();
            if let Some((client, destination)) = read {
                let balancer = std::mem::replace(&mut self.peer, client);
                self.balanced = Some(Balanced {
                    balancer,
                    destination,
                });
            }
        }
        if let Some(tls) = &listener.tls {
            let limit = listener.spec.timeouts.handshake;
            let looked = clock.timeout(limit, tls.passes_on(&stream)).await;
            let looked = looked.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            if let Some(upstream) = looked {
                return Ok(Opening::Passed(stream, upstream.clone()));
            }
        }
        let opened = open(clock, listener, stream).await?;
        Ok(opened.map_or(Opening::Over, Opening::Ours))
    }

    /// Whose connection it is, and where it came to.
    fn addresses(&self, listener: &Listener) -> Addresses {
        let destination = self.balanced.map(|balanced| balanced.destination);
        Addresses {
            client: self.peer,
            listener: destination.unwrap_or(listener.socket.addr),
        }
    }
}

/// Whose connection it turned out to be.
enum Opening {
    Ours(Opened),
    Passed(TcpStream, UpstreamName),
    /// A handshake was all.
    Over,
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
    if is_tls {
        // The handshake had a time of its own; in clear text the head began with the connection.
        watch.start();
    }
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
        stall: Cell::default(),
        _open: open,
    });
    let ended = if is_h2 {
        serve_http2(&worker, &connection, stream).await
    } else {
        serve_http1(&worker, &connection, stream).await
    };
    if connection.watch.has_stalled() {
        worker.stats.error("stalled-connection");
    }
    if connection.watch.has_expired() {
        AccessRecord::refused(&worker, &connection, StatusCode::REQUEST_TIMEOUT);
        return;
    }
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

async fn open(clock: &Clock, listener: &Listener, stream: TcpStream) -> io::Result<Option<Opened>> {
    let Some(tls) = &listener.tls else {
        let limit = listener.spec.timeouts.request_head;
        let is_h2 = clock.timeout(limit, has_h2_preface(&stream)).await;
        return Ok(Some(Opened {
            is_h2: is_h2.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?,
            stream: Stream::Plain(stream),
            tls: None,
        }));
    };
    let limit = listener.spec.timeouts.handshake;
    let handshaken = clock.timeout(limit, tls.accept(stream)).await;
    let handshaken = handshaken.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(handshaken.map(|handshaken| Opened {
        stream: Stream::Server(handshaken.stream),
        is_h2: handshaken.is_h2,
        tls: Some(handshaken.session),
    }))
}

/// Whether a clear-text client begins with the preface of HTTP/2. Looks without taking.
async fn has_h2_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; FIRST_LOOK];
    let mut seen = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let peeked = stream.peek(&mut start).await?;
        let compared = peeked.min(H2_PREFACE_START);
        if start[..compared] != H2_PREFACE[..compared] || peeked == 0 {
            if !is_other_protocol(&start[..peeked]) {
                return Ok(false);
            }
            // Closing a socket with unread bytes would reset it.
            let _ = stream.try_read(&mut start);
            return Err(io::ErrorKind::InvalidData.into());
        }
        if compared == H2_PREFACE_START {
            return Ok(true);
        }
        if peeked == seen {
            // The socket stays readable while the rest is on its way.
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LAST_PAUSE);
        }
        seen = peeked;
    }
}

/// Whether a first line names a protocol that is not HTTP: an answer in HTTP would mean nothing to
/// who wrote it. h2spec, for one, takes it for a frame.
fn is_other_protocol(start: &[u8]) -> bool {
    let Some(end) = start.windows(2).position(|pair| pair == b"\r\n") else {
        return false;
    };
    let mut words = start[..end].split(|&byte| byte == b' ');
    let third = words.nth(2);
    words.next().is_none() && third.is_some_and(|word| !word.starts_with(b"HTTP"))
}

async fn serve_http1(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    stream: Stream,
) -> hyper::Result<()> {
    let limits = connection.listener.spec.limits;
    let watch = &connection.watch;
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&watch.signals)));
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
    let spec = &connection.listener.spec;
    let (limits, http2) = (spec.limits, spec.http2);
    let watch = &connection.watch;
    let service =
        service_fn(|request| request::handle(Rc::clone(worker), Rc::clone(connection), request));
    let guarded = Guarded::new(
        stream,
        &http2,
        limits.head_fields,
        &worker.clock,
        Rc::clone(&watch.wire),
        Arc::clone(&watch.signals),
    );
    let streams = Streams {
        connection: Rc::clone(connection),
        clock: worker.clock.clone(),
    };
    let served = http2::Builder::new(streams)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        // A section of exactly this size is refused there.
        .max_header_list_size(http2.head_bytes + 1)
        .max_send_buf_size(H2_SEND_BUFFER)
        // Both are counted below as well, with what the implementation does not count.
        .max_local_error_reset_streams(http2.faults as usize)
        .max_pending_accept_reset_streams(http2.resets as usize + 1)
        .serve_connection(TokioIo::new(guarded), service);
    let ended = watch
        .serve(
            served,
            |served| served.graceful_shutdown(),
            AtDeadline::GoAway,
        )
        .await;
    if let Some((abuse, left)) = watch.wire.abused() {
        worker.stats.abuse(abuse, connection.peer);
        if let Some(left) = left {
            goodbye(&worker.clock, left, abuse).await;
        }
    }
    ended
}
