//! One worker without sockets: clients and endpoints are streams in memory.
//!
//! For benchmarks and fuzzing, which need the real connection task and nothing of the kernel.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use postern_core::config::AccessLogFormat;
use postern_core::config::upstream::EndpointSpec;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::Snapshot;
use crate::access_log;
use crate::connection;
use crate::connection::Accepted;
use crate::connection::Opened;
use crate::listener::Listener;
use crate::listener::Permit;
use crate::stream::Stream;
use crate::worker::Alone;

/// Bytes that wait in one direction of a stream.
const STREAM_BYTES: usize = 64 << 10;

type Connector = Box<dyn Fn(&EndpointSpec, DuplexStream)>;

thread_local! {
    static CONNECTOR: RefCell<Option<Connector>> = const { RefCell::new(None) };
}

pub(crate) fn connect(endpoint: &EndpointSpec) -> Option<DuplexStream> {
    CONNECTOR.with_borrow(|connector| {
        let connector = connector.as_ref()?;
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        connector(endpoint, theirs);
        Some(ours)
    })
}

/// A worker on the current thread, which must run a `LocalRuntime`.
pub struct MemoryWorker(Alone);

impl MemoryWorker {
    /// `upstream` gets the far end of each connection to an endpoint.
    pub fn start(
        snapshot: Snapshot,
        upstream: impl Fn(&EndpointSpec, DuplexStream) + 'static,
    ) -> io::Result<Self> {
        CONNECTOR.set(Some(Box::new(upstream)));
        Ok(Self(Alone::start(snapshot)?))
    }

    /// A client's connection to the first listener by name, in clear text.
    pub fn connect(&self, is_h2: bool) -> io::Result<DuplexStream> {
        let view = self.0.worker.view();
        let listener = view.snapshot.listeners.first();
        let listener = Arc::clone(listener.ok_or(io::ErrorKind::NotFound)?);
        let permit = self.permit(&listener)?;
        let peer = (Ipv4Addr::LOCALHOST, 1).into();
        let accepted = Accepted::new(&self.0.worker, &listener, peer, permit);
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let opened = Opened {
            stream: Stream::Memory(theirs),
            is_h2,
            tls: None,
        };
        let worker = Rc::clone(&self.0.worker);
        tokio::task::spawn_local(connection::serve_opened(worker, listener, accepted, opened));
        Ok(ours)
    }

    /// Serves a client's connection over a socket to the listener of this name, from its first
    /// byte on: with what stands in front of HTTP.
    pub fn accept(&self, listener: &str, stream: TcpStream) -> io::Result<()> {
        let view = self.0.worker.view();
        let mut listeners = view.snapshot.listeners.iter();
        let listener = listeners.find(|other| other.name.as_str() == listener);
        let listener = Arc::clone(listener.ok_or(io::ErrorKind::NotFound)?);
        let permit = self.permit(&listener)?;
        let peer = stream.peer_addr()?;
        let worker = Rc::clone(&self.0.worker);
        tokio::task::spawn_local(connection::serve(worker, listener, stream, peer, permit));
        Ok(())
    }

    fn permit(&self, listener: &Listener) -> io::Result<Permit> {
        let limit = listener.spec.limits.connections;
        let limits = &self.0.worker.view().snapshot.config.limits;
        let permit = Permit::acquire(&listener.socket, limit, &self.0.worker.share, limits);
        permit.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    /// Connections of clients that are open.
    pub fn connections(&self) -> usize {
        self.0.worker.connections.count()
    }

    /// Connections that a panic has ended.
    pub fn panics(&self) -> u64 {
        self.0.worker.stats.panics.value()
    }
}

/// A line of the access log that holds these values, in JSON or as text.
pub fn access_line(is_json: bool, values: &[(&str, &[u8])]) -> Vec<u8> {
    let format = if is_json {
        AccessLogFormat::Json
    } else {
        AccessLogFormat::Text
    };
    access_log::line_of(format, values)
}
