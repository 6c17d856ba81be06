//! Listening sockets and the loop that accepts from them.
//!
//! Every worker has a socket of its own for each listener (`SO_REUSEPORT`), so that the kernel
//! spreads connections and workers share nothing. A socket outlives changes of everything but its
//! address: settings are read from the snapshot for each connection.

pub(crate) mod takeover;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_core::config::LimitsSpec;
use postern_core::config::ListenerSpec;
use postern_core::name::ListenerName;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use self::takeover::Successor;
use crate::connection;
use crate::overload::Place;
use crate::overload::Share;
use crate::stream::tcp_keepalive;
use crate::tls::ListenerTls;
use crate::worker::Worker;

/// Connections that the kernel holds for one worker until it accepts them; it cuts this to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long a worker waits after an accept error. Out of file descriptors, the error repeats at
/// once, and a loop without a pause would burn the processor that is needed to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that accepts connections, as it is served.
pub(crate) struct Listener {
    pub(crate) name: ListenerName,
    pub(crate) spec: ListenerSpec,
    pub(crate) socket: Arc<ListenerSocket>,
    pub(crate) tls: Option<ListenerTls>,
}

/// The sockets of one address, one a worker.
pub(crate) struct ListenerSocket {
    pub(crate) addr: SocketAddr,
    /// How many there are. Workers that leave tell their own from a successor's by it.
    count: usize,
    /// Each is taken once by its worker.
    sockets: Mutex<Vec<Option<std::net::TcpListener>>>,
    /// Open connections, all workers together.
    pub(crate) connections: AtomicU32,
}

impl ListenerSocket {
    /// Binds one socket a worker. All or none.
    pub(crate) fn bind(addr: SocketAddr, workers: usize) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(workers);
        let mut bound = addr;
        for _ in 0..workers {
            let socket = listen(bound)?;
            // With port 0 the kernel picks one for the first; the others join it.
            bound = socket.local_addr()?;
            sockets.push(Some(socket));
        }
        Ok(Self {
            addr: bound,
            count: workers,
            sockets: Mutex::new(sockets),
            connections: AtomicU32::new(0),
        })
    }

    /// A stand-in where nothing is served.
    pub(crate) fn unbound(addr: SocketAddr) -> Self {
        Self {
            addr,
            count: 0,
            sockets: Mutex::new(Vec::new()),
            connections: AtomicU32::new(0),
        }
    }

    /// The worker's own socket, the first time it asks.
    pub(crate) fn take(&self, worker: usize) -> Option<std::net::TcpListener> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.get_mut(worker)?.take()
    }

    /// Leaves new connections to the process that follows, if there is one. `own` is any of these
    /// sockets.
    pub(crate) fn leave_to(&self, successor: Successor, own: &std::net::TcpListener) {
        if let Err(error) = takeover::leave_to(successor, own, self.count) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(listener = %self.addr, error, "a successor cannot take over without a gap");
        }
    }
}

/// A listening socket whose address other sockets of the same user may share, of this process and of
/// the one that follows it.
pub fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // [::] serves IPv4 as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Asked for any port, the kernel would pick one that another socket with this option has.
    let is_any_port = addr.port() == 0;
    socket.set_reuse_port(!is_any_port)?;
    // Accepted sockets inherit these: system calls of a listener instead of each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&tcp_keepalive())?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    if is_any_port {
        socket.set_reuse_port(true)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Counts an open connection, from accept to close.
pub(crate) struct Permit {
    socket: Arc<ListenerSocket>,
    /// Among those of all listeners.
    _place: Place,
}

impl Permit {
    pub(crate) fn acquire(
        socket: &Arc<ListenerSocket>,
        limit: u32,
        share: &Rc<Share>,
        limits: &LimitsSpec,
    ) -> Option<Self> {
        let place = share.admit(limits)?;
        let before = socket.connections.fetch_add(1, Ordering::Relaxed);
        let permit = Self {
            socket: Arc::clone(socket),
            _place: place,
        };
        // Dropping the permit takes the count back.
        (before < limit).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.socket.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the task is told to stop through `worker`; never ends on an error.
pub(crate) async fn accept(worker: Rc<Worker>, socket: Arc<ListenerSocket>, listener: TcpListener) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if failing {
                    failing = false;
                    tracing::info!(listener = %socket.addr, "accepting connections again");
                }
                accepted(&worker, &socket, stream, peer);
            }
            Err(error) => {
                worker.stats.accept_errors.add(1);
                // The client left between its handshake and our accept: nothing is wrong.
                if error.kind() == io::ErrorKind::ConnectionAborted {
                    continue;
                }
                if !failing {
                    failing = true;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(listener = %socket.addr, error, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves what the kernel has queued for a socket that is about to close: closing it would reset
/// connections that a client has seen established.
pub(crate) fn drain_queue(
    worker: &Rc<Worker>,
    socket: &Arc<ListenerSocket>,
    listener: &std::net::TcpListener,
) {
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = listener.accept() else {
            return;
        };
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            accepted(worker, socket, stream, peer);
        }
    }
}

fn accepted(
    worker: &Rc<Worker>,
    socket: &Arc<ListenerSocket>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    worker.stats.connections_accepted.add(1);
    let view = worker.view();
    let mut listeners = view.snapshot.listeners.iter();
    let Some(listener) = listeners.find(|listener| Arc::ptr_eq(&listener.socket, socket)) else {
        // The listener was removed; its last connections are served by nobody.
        return;
    };
    let limit = listener.spec.limits.connections;
    let limits = &view.snapshot.config.limits;
    let Some(permit) = Permit::acquire(socket, limit, &worker.share, limits) else {
        worker.stats.connections_refused.add(1);
        return;
    };
    let worker = Rc::clone(worker);
    let listener = Arc::clone(listener);
    // Ends by itself: every phase of a connection has a deadline, and draining ends the rest. Only
    // a tunnel, or what is passed on, ends with its peers, or with the worker.
    tokio::task::spawn_local(connection::serve(worker, listener, stream, peer, permit));
}
