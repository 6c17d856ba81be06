//! One worker's connections to an upstream.
//!
//! HTTP/1 connections are used by one request at a time and kept, the last one used first, so that
//! those not needed grow old together. An HTTP/2 connection is shared by every request of the
//! worker.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use postern_core::config::upstream::Balance;
use postern_core::config::upstream::EndpointSpec;
use postern_core::config::upstream::UpstreamProtocol;
use tokio::time::Instant;

use super::ConnectError;
use super::Upstream;
use super::connect::connect;
use super::http1::Http1;
use crate::body::RequestBody;
use crate::clock::Clock;
use crate::error::ProxyError;
use crate::worker::LocalExecutor;

/// Bytes of an HTTP/2 response that may wait for a slow client, one stream.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of one connection.
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of a response head.
const MAX_RESPONSE_HEAD: usize = 64 << 10;

/// One worker's connections to an upstream.
pub(crate) struct Pool {
    pub(crate) upstream: Arc<Upstream>,
    endpoints: Vec<EndpointPool>,
    /// For the access log.
    endpoint_names: Vec<String>,
    /// Turn of round robin.
    next: Cell<usize>,
}

#[derive(Default)]
struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    h2: RefCell<Option<http2::SendRequest<RequestBody>>>,
    /// Held while the one HTTP/2 connection is being made, so that a burst makes one.
    connecting: tokio::sync::Mutex<()>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// A connection for one request.
pub(crate) enum Sender {
    Http1(Http1),
    Http2(http2::SendRequest<RequestBody>),
}

/// The use of one endpoint by one request; ends the count in flight when dropped.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    endpoint: usize,
}

impl Pool {
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        let endpoints = &upstream.spec.endpoints;
        Self {
            endpoints: endpoints.iter().map(|_| EndpointPool::default()).collect(),
            endpoint_names: endpoints.iter().map(ToString::to_string).collect(),
            next: Cell::new(0),
            upstream,
        }
    }

    /// Chooses an endpoint.
    pub(crate) fn lease(self: &Rc<Self>) -> Lease {
        let endpoint = self.choose();
        self.upstream.in_flight[endpoint].fetch_add(1, Ordering::Relaxed);
        Lease {
            pool: Rc::clone(self),
            endpoint,
        }
    }

    fn choose(&self) -> usize {
        let count = self.endpoints.len();
        if count == 1 {
            return 0;
        }
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        match self.upstream.spec.balance {
            Balance::RoundRobin => turn % count,
            // Begun at the turn, so that among equals the choice goes round.
            Balance::LeastRequests => (turn..turn + count)
                .map(|index| index % count)
                .min_by_key(|&index| self.upstream.in_flight[index].load(Ordering::Relaxed))
                .unwrap_or(0),
        }
    }

    /// Closes connections that nobody used for the upstream's keep-alive time.
    pub(crate) fn reap(&self, now: Instant) {
        let keep_alive = self.upstream.spec.timeouts.keep_alive;
        for endpoint in &self.endpoints {
            endpoint.idle.borrow_mut().retain(|idle| {
                now.duration_since(idle.since) < keep_alive && idle.connection.is_idle()
            });
        }
    }

    pub(crate) fn endpoint_name(&self, endpoint: usize) -> &str {
        &self.endpoint_names[endpoint]
    }
}

impl Lease {
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.pool.upstream
    }

    pub(crate) fn endpoint(&self) -> &EndpointSpec {
        &self.pool.upstream.spec.endpoints[self.endpoint]
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Position of the endpoint in its upstream.
    pub(crate) fn endpoint_index(&self) -> usize {
        self.endpoint
    }

    fn slot(&self) -> &EndpointPool {
        &self.pool.endpoints[self.endpoint]
    }

    /// A connection that can take a request now.
    pub(crate) async fn connection(&self, clock: &Clock) -> Result<Sender, ProxyError> {
        match self.upstream().spec.protocol {
            UpstreamProtocol::Http1 => match self.idle_connection() {
                Some(connection) => Ok(Sender::Http1(connection)),
                // Boxed because it is large, and a request that finds a connection would move it.
                None => Box::pin(self.connect_http1(clock)).await.map(Sender::Http1),
            },
            UpstreamProtocol::Http2 => match self.open_http2() {
                Some(sender) => Ok(Sender::Http2(sender)),
                None => Box::pin(self.connect_http2(clock)).await.map(Sender::Http2),
            },
        }
    }

    /// A connection that was not used before, for a request that an idle one refused.
    pub(crate) async fn fresh_connection(&self, clock: &Clock) -> Result<Sender, ProxyError> {
        match self.upstream().spec.protocol {
            UpstreamProtocol::Http1 => Box::pin(self.connect_http1(clock)).await.map(Sender::Http1),
            UpstreamProtocol::Http2 => {
                *self.slot().h2.borrow_mut() = None;
                Box::pin(self.connect_http2(clock)).await.map(Sender::Http2)
            }
        }
    }

    /// The connection used last. Should the endpoint have closed it, the request comes back unsent.
    fn idle_connection(&self) -> Option<Http1> {
        let idle = self.slot().idle.borrow_mut().pop();
        idle.map(|idle| idle.connection)
    }

    async fn connect_http1(&self, clock: &Clock) -> Result<Http1, ProxyError> {
        let stream = self.connect(clock).await?;
        let connection = Http1::handshake(stream).await;
        connection.map_err(|source| self.exchange_error(source))
    }

    /// The HTTP/2 connection that is there.
    fn open_http2(&self) -> Option<http2::SendRequest<RequestBody>> {
        let current = self.slot().h2.borrow();
        current.as_ref().filter(|s| !s.is_closed()).cloned()
    }

    async fn connect_http2(
        &self,
        clock: &Clock,
    ) -> Result<http2::SendRequest<RequestBody>, ProxyError> {
        let slot = self.slot();
        let _connecting = slot.connecting.lock().await;
        if let Some(sender) = self.open_http2() {
            return Ok(sender);
        }
        let stream = self.connect(clock).await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(MAX_RESPONSE_HEAD as u32)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.exchange_error(source))?;
        // Ends when every sender is dropped or the endpoint closes; an error of it reaches the
        // requests that it belongs to.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        *slot.h2.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self, clock: &Clock) -> Result<crate::stream::Stream, ProxyError> {
        let upstream = self.upstream();
        connect(upstream, self.endpoint(), clock)
            .await
            .map_err(|error| match error {
                ConnectError::Failed(source) => ProxyError::Connect {
                    upstream: upstream.name.clone(),
                    endpoint: self.endpoint().clone(),
                    source,
                },
                ConnectError::TimedOut => ProxyError::ConnectTimeout {
                    upstream: upstream.name.clone(),
                    endpoint: self.endpoint().clone(),
                    limit: upstream.spec.timeouts.connect,
                },
            })
    }

    pub(crate) fn exchange_error(&self, source: hyper::Error) -> ProxyError {
        ProxyError::Exchange {
            upstream: self.upstream().name.clone(),
            endpoint: self.endpoint().clone(),
            source,
        }
    }

    /// Takes back a connection whose response is complete. One whose request is still being sent
    /// is not waited for.
    pub(crate) fn put_back(&self, connection: Http1) {
        if !connection.is_idle() {
            return;
        }
        let mut idle = self.slot().idle.borrow_mut();
        if idle.len() < self.upstream().spec.idle_connections as usize {
            let since = Instant::now();
            idle.push(Idle { connection, since });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.upstream.in_flight[self.endpoint].fetch_sub(1, Ordering::Relaxed);
    }
}
