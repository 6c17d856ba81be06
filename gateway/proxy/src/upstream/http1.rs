//! One HTTP/1 connection to an endpoint, driven by the request that uses it.
//!
//! A connection in a task of its own costs each request several wake-ups: the request hands its
//! head over and sleeps, the connection's task writes it and sleeps, and so on back and forth for
//! every piece of the body. Here the request that waits for the connection polls it, and between
//! two requests nobody does; that the endpoint closed it is seen when it is used again, or by the
//! pool's reaper.
//!
//! One thing cannot wait for the request to be polled: a request body has to flow whether or not
//! the client takes the response. While there is one, and for good once the connection is a
//! tunnel, a task drives the connection.

use std::cell::Cell;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use http::Request;
use http::Response;
use http_body::Frame;
use hyper::body::Body as _;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::io::Io;
use super::io::Received;
use crate::body::Progress;
use crate::body::RequestBody;

/// Bytes of a response head.
const MAX_RESPONSE_HEAD: usize = 64 << 10;
/// Fields of a response head. More than of a request: an application may set many cookies.
const MAX_RESPONSE_FIELDS: usize = 256;

/// hyper's connection; its type cannot be named.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection, and the right to send the next request over it. Dropping it closes the
/// connection, unless a task still sends a request body.
pub(crate) struct Http1 {
    sender: SendRequest<RequestBody>,
    /// The next response has not been looked at.
    is_next: Arc<AtomicBool>,
    driver: Rc<Driver>,
    received: Received,
    /// Bytes received when the current request began.
    received_before: u64,
    has_served: bool,
}

struct Driver {
    /// `None` once it has ended.
    connection: RefCell<Option<Connection>>,
    /// A task drives it.
    is_tasked: Cell<bool>,
    /// Who goes on driving when the task ends.
    next: RefCell<Option<Waker>>,
}

impl Http1 {
    pub(super) async fn handshake(mut stream: Io) -> hyper::Result<Self> {
        let received = stream.received();
        let is_next = Arc::<AtomicBool>::default();
        stream.bound_interim(Arc::clone(&is_next));
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_RESPONSE_FIELDS)
            .max_header_size(MAX_RESPONSE_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = Driver {
            connection: RefCell::new(Some(Box::pin(connection.with_upgrades()))),
            is_tasked: Cell::new(false),
            next: RefCell::default(),
        };
        let this = Self {
            sender,
            is_next,
            driver: Rc::new(driver),
            received,
            received_before: 0,
            has_served: false,
        };
        // A connection has to be polled once before it takes a request.
        this.driver.poll_idle();
        Ok(this)
    }

    /// Whether another request can be sent now: not closed, and the last request is all sent.
    pub(super) fn is_idle(&self) -> bool {
        !self.driver.is_tasked.get() && self.driver.poll_idle() && self.sender.is_ready()
    }

    /// Whether it has carried a request before the current one.
    pub(crate) fn was_reused(&self) -> bool {
        self.has_served
    }

    /// Whether anything has come back since the current request began.
    pub(crate) fn has_answered(&self) -> bool {
        self.received.bytes() != self.received_before
    }

    /// The current request is over, and another may follow.
    pub(super) fn served(&mut self) {
        self.has_served = true;
    }

    /// Sends a request and waits for the head of its response. `upload` tells of the request's
    /// body.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        upload: &Progress,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.received_before = self.received.bytes();
        self.is_next.store(true, Ordering::Relaxed);
        let sending = self.sender.try_send_request(request);
        if !upload.is_over() {
            Driver::spawn(&self.driver, Some(upload.clone()));
        }
        let mut sending = std::pin::pin!(sending);
        let driver = &self.driver;
        std::future::poll_fn(|cx| driver.poll_with(cx, |cx| sending.as_mut().poll(cx))).await
    }

    /// The next piece of the response's body.
    pub(crate) fn poll_body(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.driver
            .poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    /// Gives the connection up to whoever holds what it becomes after a 101.
    pub(crate) fn upgrade(self, response: &mut Response<Incoming>) -> OnUpgrade {
        if !self.driver.is_tasked.get() {
            Driver::spawn(&self.driver, None);
        }
        hyper::upgrade::on(response)
    }
}

impl Driver {
    /// Lets the connection work, then polls what waits for it.
    fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut wait: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.is_tasked.get() {
            let polled = wait(cx);
            if polled.is_pending() {
                *self.next.borrow_mut() = Some(cx.waker().clone());
            }
            return polled;
        }
        let _ = self.poll(cx);
        // All progress comes from the line above, so nobody has to be woken when this can go on:
        // the connection would otherwise wake the very task that polls it.
        wait(&mut Context::from_waker(Waker::noop()))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.connection.borrow_mut();
        let Some(running) = connection.as_mut() else {
            return Poll::Ready(());
        };
        // An error of it reaches the request that it belongs to.
        let polled = running.as_mut().poll(cx).map(drop);
        if polled.is_ready() {
            *connection = None;
        }
        polled
    }

    /// Ends the last exchange's business; false if the connection has ended.
    fn poll_idle(&self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Drives the connection in a task until `upload` is over, or until the connection ends.
    fn spawn(driver: &Rc<Self>, upload: Option<Progress>) {
        driver.is_tasked.set(true);
        let driver = Rc::clone(driver);
        // Ends with the upload, which has a deadline, or with the connection.
        tokio::task::spawn_local(async move {
            let is_over = || upload.as_ref().is_some_and(Progress::is_over);
            std::future::poll_fn(|cx| match driver.poll(cx) {
                Poll::Pending if !is_over() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            driver.is_tasked.set(false);
            if let Some(next) = driver.next.take() {
                next.wake();
            }
        });
    }
}
