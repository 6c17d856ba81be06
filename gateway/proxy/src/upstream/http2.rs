//! The right to send requests over an HTTP/2 connection to an endpoint, which all requests of a
//! worker share.
//!
//! A connection whose other end is gone without a word looks like one whose answers take their time.
//! Where a request was given up and nothing at all came while it waited, no other is sent over the
//! same connection; those that are on their way may still be answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use super::io::Received;
use crate::body::RequestBody;

/// How long a request that is given up has to have waited for its connection to be left. Clients
/// that leave sooner, as people do who look elsewhere, would cost a connection each.
const SILENCE: Duration = Duration::from_secs(1);

/// The right to send requests over an HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: SendRequest<RequestBody>,
    shared: Rc<Shared>,
}

/// What the requests of one connection know of it.
struct Shared {
    /// When a request took it last.
    used: Cell<Instant>,
    received: Received,
    is_silent: Cell<bool>,
}

impl Http2 {
    pub(super) fn new(sender: SendRequest<RequestBody>, received: Received) -> Self {
        let shared = Shared {
            used: Cell::new(Instant::now()),
            received,
            is_silent: Cell::new(false),
        };
        Self {
            sender,
            shared: Rc::new(shared),
        }
    }

    /// For a request, if it can take one.
    pub(super) fn take(&self) -> Option<Self> {
        if self.sender.is_closed() || self.shared.is_silent.get() {
            return None;
        }
        self.shared.used.set(Instant::now());
        Some(self.clone())
    }

    pub(super) fn used(&self) -> Instant {
        self.shared.used.get()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut waiting = Waiting {
            shared: &self.shared,
            since: Instant::now(),
            received: self.shared.received.bytes(),
            is_over: false,
        };
        let sent = self.sender.try_send_request(request).await;
        waiting.is_over = true;
        sent
    }
}

/// A request that waits for its response, or is given up when this is dropped.
struct Waiting<'s> {
    shared: &'s Shared,
    since: Instant,
    /// Bytes that had come before.
    received: u64,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let came_nothing = self.shared.received.bytes() == self.received;
        if !self.is_over && came_nothing && self.since.elapsed() >= SILENCE {
            self.shared.is_silent.set(true);
        }
    }
}
