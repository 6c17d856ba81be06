//! One worker's connections to an upstream.
//!
//! HTTP/1 connections are used by one request at a time and kept, the last one used first, so that
//! those not needed grow old together. An HTTP/2 connection is shared by every request of the
//! worker.
//!
//! Where connections are limited, the limit holds for all workers together. A request that finds
//! none free waits its turn; a worker that has more than it needs closes one when another worker
//! waits.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use postern_core::config::upstream::EndpointSpec;
use postern_core::config::upstream::UpstreamProtocol;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Addresses;
use super::Ask;
use super::ConnectError;
use super::Upstream;
use super::choose::Turn;
use super::connect::connect;
use super::connect::connect_bare;
use super::endpoint::Endpoint;
use super::http1::Http1;
use super::http2::Http2;
use super::io::Io;
use super::io::Open;
use crate::clock::Clock;
use crate::error::ProxyError;
use crate::worker::LocalExecutor;

/// Bytes of an HTTP/2 response that may wait for a slow client, one stream.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of one connection.
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
/// How long nothing may come over an HTTP/2 connection with open streams before it is asked whether
/// it is alive. Servers of gRPC take PINGs less than five minutes apart for a flood and close; that
/// is also why an unused connection is asked nothing.
const H2_PING: Duration = Duration::from_secs(330);
/// How long the answer may take.
const H2_PONG: Duration = Duration::from_secs(20);
/// Bytes of a response head.
const MAX_RESPONSE_HEAD: usize = 64 << 10;
/// Retries that a worker has in reserve: with little traffic a share of it would be none at all.
const RETRY_RESERVE: u32 = 10;
/// What one retry costs, when a request brings in as much as the budget's percentage.
const RETRY_COST: u32 = 100;
/// Retries that come back into the reserve each time that the pool is looked over.
const RETRY_REFILL: u32 = 1;

/// One worker's connections to an upstream.
pub(crate) struct Pool {
    pub(crate) upstream: Arc<Upstream>,
    endpoints: Vec<EndpointPool>,
    /// For the access log.
    endpoint_names: Vec<String>,
    turn: Turn,
    /// What may be spent on retries.
    budget: Cell<u32>,
}

#[derive(Default)]
struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    h2: RefCell<Option<Http2>>,
    /// Held while the one HTTP/2 connection is being made, so that a burst makes one.
    connecting: tokio::sync::Mutex<()>,
    /// Requests of this worker that wait for a connection.
    waiting: Cell<u32>,
    /// A connection was put back while somebody waited.
    returned: Notify,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// A connection for one request.
pub(crate) enum Sender {
    Http1(Http1),
    Http2(Http2),
}

/// The use of one endpoint by one request; ends the count in flight when dropped.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    endpoint: usize,
    /// The endpoint that the client's cookie names.
    named: Option<usize>,
}

impl Pool {
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        let endpoints = &upstream.spec.endpoints;
        Self {
            endpoints: endpoints.iter().map(|_| EndpointPool::default()).collect(),
            endpoint_names: endpoints.iter().map(ToString::to_string).collect(),
            turn: Turn::default(),
            budget: Cell::new(RETRY_RESERVE * RETRY_COST),
            upstream,
        }
    }

    /// Chooses an endpoint for a request.
    pub(crate) fn lease(self: &Rc<Self>, ask: &Ask<'_>) -> Result<Lease, ProxyError> {
        let upstream = &*self.upstream;
        let named = upstream.named(ask);
        let Some(endpoint) = upstream.choose(ask, &self.turn, named) else {
            return Err(ProxyError::NoEndpoint {
                upstream: upstream.name.clone(),
            });
        };
        if let Some(most) = upstream.spec.limits.requests {
            let in_flight = upstream.requests.fetch_add(1, Relaxed);
            if in_flight >= most {
                upstream.requests.fetch_sub(1, Relaxed);
                return Err(ProxyError::Overloaded {
                    upstream: upstream.name.clone(),
                });
            }
        }
        upstream.endpoints[endpoint].in_flight.fetch_add(1, Relaxed);
        let earned = upstream.spec.retries.budget_percent;
        self.earn(earned);
        Ok(Lease {
            pool: Rc::clone(self),
            endpoint,
            named,
        })
    }

    fn earn(&self, earned: u32) {
        let budget = self.budget.get() + earned;
        self.budget.set(budget.min(RETRY_RESERVE * RETRY_COST));
    }

    /// Takes one retry out of the budget, if there is one.
    pub(crate) fn spend_retry(&self) -> bool {
        let left = self.budget.get().checked_sub(RETRY_COST);
        if let Some(left) = left {
            self.budget.set(left);
        }
        left.is_some()
    }

    /// Closes connections that nobody used for the upstream's keep-alive time.
    pub(crate) fn reap(&self, now: Instant) {
        let keep_alive = self.upstream.spec.timeouts.keep_alive;
        for endpoint in &self.endpoints {
            endpoint.idle.borrow_mut().retain(|idle| {
                now.duration_since(idle.since) < keep_alive && idle.connection.is_idle()
            });
            // Streams that are still open keep it until they end.
            let mut h2 = endpoint.h2.borrow_mut();
            let is_unused = |h2: &mut Http2| now.duration_since(h2.used()) >= keep_alive;
            drop(h2.take_if(is_unused));
        }
        if self.upstream.spec.retries.budget_percent > 0 {
            self.earn(RETRY_REFILL * RETRY_COST);
        }
    }

    /// Closes an unused connection to each endpoint at whose limit another worker waits.
    pub(crate) fn make_room(&self) {
        if self.upstream.spec.limits.connections.is_none() {
            return;
        }
        for (slot, endpoint) in self.endpoints.iter().zip(&self.upstream.endpoints) {
            if endpoint.waiting.load(Relaxed) > 0 && !slot.idle.borrow().is_empty() {
                let oldest = slot.idle.borrow_mut().remove(0);
                drop(oldest);
            }
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

    fn state(&self) -> &Arc<Endpoint> {
        &self.pool.upstream.endpoints[self.endpoint]
    }

    /// Goes on with an endpoint that is not among the tried ones, if there is one.
    pub(crate) fn move_on(&mut self, tried: &[usize]) {
        let upstream = &self.pool.upstream;
        if let Some(next) = upstream.choose_other(&self.pool.turn, tried) {
            upstream.endpoints[next].in_flight.fetch_add(1, Relaxed);
            upstream.endpoints[self.endpoint]
                .in_flight
                .fetch_sub(1, Relaxed);
            self.endpoint = next;
        }
    }

    /// The endpoint has answered, with whatever status.
    pub(crate) fn succeeded(&self) {
        self.upstream().succeeded(self.endpoint);
    }

    /// The endpoint has failed the request.
    pub(crate) fn failed(&self) {
        self.upstream().failed(self.endpoint);
    }

    /// The field that keeps the client at this endpoint, unless its cookie does so already.
    pub(crate) fn set_cookie(&self, is_tls: bool) -> Option<&HeaderValue> {
        let sticky = self.upstream().sticky.as_ref()?;
        let is_there = self.named == Some(self.endpoint);
        (!is_there).then(|| sticky.set_cookie(self.endpoint, is_tls))
    }

    pub(crate) fn count_retry(&self) {
        self.upstream().retries_total.fetch_add(1, Relaxed);
    }

    /// A connection that can take a request now.
    pub(crate) async fn connection(
        &self,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<Sender, ProxyError> {
        match self.upstream().spec.protocol {
            UpstreamProtocol::Http1 => match self.idle_connection() {
                Some(connection) => Ok(Sender::Http1(connection)),
                // Boxed because it is large, and a request that finds a connection would move it.
                None => Box::pin(self.connect_http1(addresses, clock)).await,
            },
            UpstreamProtocol::Http2 => match self.open_http2() {
                Some(sender) => Ok(Sender::Http2(sender)),
                None => Box::pin(self.connect_http2(addresses, clock)).await,
            },
        }
    }

    /// Makes the next connection a new one: those that are there may be as dead as the one that has
    /// just turned out to be.
    fn forget(&self, dead: Option<&Http2>) {
        self.slot().idle.borrow_mut().clear();
        let mut current = self.slot().h2.borrow_mut();
        let is_current = |current: &Http2| dead.is_some_and(|dead| dead.is_same(current));
        if current.as_ref().is_some_and(is_current) {
            *current = None;
        }
    }

    /// The same, knowing which one it was.
    pub(crate) fn forget_of(&self, dead: &Sender) {
        self.forget(match dead {
            Sender::Http1(_) => None,
            Sender::Http2(dead) => Some(dead),
        });
    }

    /// The connection used last. Should the endpoint have closed it, the request comes back unsent.
    fn idle_connection(&self) -> Option<Http1> {
        let idle = self.slot().idle.borrow_mut().pop();
        idle.map(|idle| idle.connection)
    }

    async fn connect_http1(
        &self,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<Sender, ProxyError> {
        let most = self.upstream().spec.limits.connections;
        let open = match Open::new(self.state(), most) {
            Some(open) => open,
            None => match self.wait_for_connection(clock).await? {
                Room::Idle(connection) => return Ok(Sender::Http1(connection)),
                Room::ForOne(open) => open,
            },
        };
        let stream = self.connect(addresses, clock).await?;
        let connection = Http1::handshake(Io::new(stream, open)).await;
        let connection = connection.map_err(|source| self.exchange_error(source))?;
        Ok(Sender::Http1(connection))
    }

    /// Waits until this worker has a connection free, or until another one may be opened.
    async fn wait_for_connection(&self, clock: &Clock) -> Result<Room, ProxyError> {
        let overloaded = || ProxyError::Overloaded {
            upstream: self.upstream().name.clone(),
        };
        let upstream = self.upstream();
        let pending = Counted::new(&upstream.pending);
        if pending.before >= upstream.spec.limits.pending {
            return Err(overloaded());
        }
        let _waiting = Counted::new(&self.state().waiting);
        let slot = self.slot();
        let _here = Here::new(&slot.waiting);
        let room = async {
            loop {
                // Before looking, so that nothing that happens in between is missed. Enabled, because
                // of several notices that find nobody waiting only one is kept.
                let mut freed = std::pin::pin!(self.state().freed.notified());
                let mut returned = std::pin::pin!(slot.returned.notified());
                freed.as_mut().enable();
                returned.as_mut().enable();
                if let Some(connection) = self.idle_connection() {
                    return Room::Idle(connection);
                }
                if let Some(open) = Open::new(self.state(), upstream.spec.limits.connections) {
                    return Room::ForOne(open);
                }
                tokio::select! {
                    () = freed => {}
                    () = returned => {}
                }
            }
        };
        let limit = upstream.spec.timeouts.connect;
        clock.timeout(limit, room).await.ok_or_else(overloaded)
    }

    /// The HTTP/2 connection that is there.
    fn open_http2(&self) -> Option<Http2> {
        self.slot().h2.borrow().as_ref()?.take()
    }

    /// The connection of this worker, within the connect timeout. The wait for another request
    /// that makes it counts: where connecting hangs, those that wait would otherwise try one after
    /// the other.
    async fn connect_http2(
        &self,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<Sender, ProxyError> {
        let limit = self.upstream().spec.timeouts.connect;
        let making = self.make_http2(addresses, clock);
        let made = clock.timeout(limit, making).await;
        made.unwrap_or_else(|| Err(self.connect_error(ConnectError::TimedOut)))
    }

    async fn make_http2(&self, addresses: Addresses, clock: &Clock) -> Result<Sender, ProxyError> {
        let slot = self.slot();
        let _connecting = slot.connecting.lock().await;
        if let Some(sender) = self.open_http2() {
            return Ok(Sender::Http2(sender));
        }
        // Not limited: there is one a worker, and all of its requests share it.
        let Some(open) = Open::new(self.state(), None) else {
            return Err(ProxyError::Overloaded {
                upstream: self.upstream().name.clone(),
            });
        };
        let stream = Io::new(self.connect(addresses, clock).await?, open);
        let received = stream.received();
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(MAX_RESPONSE_HEAD as u32)
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PONG)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.exchange_error(source))?;
        // Ends when every sender is dropped or the endpoint closes; an error of it reaches the
        // requests that it belongs to.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let h2 = Http2::new(sender, received);
        *slot.h2.borrow_mut() = Some(h2.clone());
        Ok(Sender::Http2(h2))
    }

    async fn connect(
        &self,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<crate::stream::Stream, ProxyError> {
        let connecting = connect(self.upstream(), self.endpoint(), addresses, clock);
        connecting.await.map_err(|error| self.connect_error(error))
    }

    /// A connection outside the pool, without TLS.
    pub(crate) async fn bare(
        &self,
        addresses: Addresses,
        clock: &Clock,
    ) -> Result<crate::stream::Stream, ProxyError> {
        let connecting = connect_bare(self.upstream(), self.endpoint(), addresses, clock);
        connecting.await.map_err(|error| self.connect_error(error))
    }

    fn connect_error(&self, error: ConnectError) -> ProxyError {
        let upstream = self.upstream();
        let (name, endpoint) = (upstream.name.clone(), self.endpoint().clone());
        match error {
            ConnectError::Failed(source) => ProxyError::of_connect(name, endpoint, source),
            ConnectError::Tls(source) => ProxyError::UpstreamTls {
                upstream: name,
                endpoint,
                source,
            },
            ConnectError::TimedOut => ProxyError::ConnectTimeout {
                upstream: name,
                endpoint,
                limit: upstream.spec.timeouts.connect,
            },
        }
    }

    pub(crate) fn exchange_error(&self, source: hyper::Error) -> ProxyError {
        let upstream = self.upstream().name.clone();
        let endpoint = self.endpoint().clone();
        if source.is_parse() || source.is_user() {
            ProxyError::Exchange {
                upstream,
                endpoint,
                source,
            }
        } else {
            ProxyError::UpstreamReset {
                upstream,
                endpoint,
                source,
            }
        }
    }

    /// Takes back a connection whose response is complete. One whose request is still being sent
    /// is not waited for.
    pub(crate) fn put_back(&self, mut connection: Http1) {
        let spec = &self.upstream().spec;
        // A PROXY header speaks of one client, so its connection is for no other.
        if spec.proxy_protocol.is_some() || !connection.is_idle() {
            return;
        }
        let slot = self.slot();
        let is_wanted_here = slot.waiting.get() > 0;
        if !is_wanted_here
            && spec.limits.connections.is_some()
            && self.state().waiting.load(Relaxed) > 0
        {
            // Closing it lets another worker open one.
            return;
        }
        connection.served();
        let mut idle = slot.idle.borrow_mut();
        if idle.len() < spec.idle_connections as usize {
            let since = Instant::now();
            idle.push(Idle { connection, since });
        }
        if is_wanted_here {
            slot.returned.notify_one();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let upstream = &self.pool.upstream;
        self.state().in_flight.fetch_sub(1, Relaxed);
        if upstream.spec.limits.requests.is_some() {
            upstream.requests.fetch_sub(1, Relaxed);
        }
    }
}

/// What a request has waited for.
enum Room {
    Idle(Http1),
    ForOne(Open),
}

/// One more, until it is dropped.
struct Counted<'c> {
    count: &'c AtomicU32,
    before: u32,
}

impl<'c> Counted<'c> {
    fn new(count: &'c AtomicU32) -> Self {
        // Before the look at what is waited for: see `Open::new`.
        let before = count.fetch_add(1, SeqCst);
        Self { count, before }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// The same, of one worker.
struct Here<'c>(&'c Cell<u32>);

impl<'c> Here<'c> {
    fn new(count: &'c Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
