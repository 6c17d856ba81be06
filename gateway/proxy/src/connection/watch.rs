//! The deadlines of one connection, and whether it has to go.

use std::cell::Cell;
use std::cell::RefCell;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use postern_core::config::listener::ListenerTimeouts;

use super::signals::Signals;
use crate::clock::Clock;
use crate::clock::Timer;
use crate::guard::Abuse;
use crate::guard::Wire;
use crate::overload::Begun;

/// How long the answer to a request that came too slowly may take to be written.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// What a client has to take of a response's rest, in the time of `write-idle`, while no request
/// of its connection is served.
pub(crate) const REST_BYTES: u64 = 16 << 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
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
    /// Requests that may still come.
    left: Cell<u32>,
    draining: Cell<bool>,
    /// The client stopped taking a response.
    has_stalled: Cell<bool>,
    /// A request head came too slowly and was told so.
    has_expired: Cell<bool>,
    pub(super) signals: Arc<Signals>,
    /// Of HTTP/2.
    pub(super) wire: Rc<Wire>,
    /// `wire.data_sent` when it was last looked at.
    seen_sent: Cell<u64>,
    timer: Timer,
    /// Runs while the client does not take what is written.
    writes: Timer,
    is_write_timed: Cell<bool>,
    timeouts: ListenerTimeouts,
}

/// What a connection's deadline does to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AtDeadline {
    Close,
    /// First GOAWAY, then one more idle time for the client to go; then it is closed.
    GoAway,
}

impl Watch {
    pub(super) fn new(
        clock: &Clock,
        timeouts: ListenerTimeouts,
        requests: u32,
        is_draining: bool,
    ) -> Self {
        Self {
            phase: Cell::new(Phase::Head),
            active: Cell::new(0),
            left: Cell::new(requests),
            draining: Cell::new(is_draining),
            has_stalled: Cell::new(false),
            has_expired: Cell::new(false),
            signals: Arc::default(),
            wire: Rc::default(),
            seen_sent: Cell::new(0),
            timer: clock.timer(),
            writes: clock.timer(),
            is_write_timed: Cell::new(false),
            timeouts,
        }
    }

    /// From now on, a whole request head has to come in time.
    pub(super) fn start(&self) {
        self.timer.arm(self.timeouts.request_head);
    }

    /// Counts a request as in flight until the returned value is dropped. `is_last` if no other is
    /// wanted after it.
    pub(super) fn begin(self: &Rc<Self>, is_last: bool, begun: Begun) -> InFlight {
        self.active.set(self.active.get() + 1);
        self.phase.set(Phase::Serving);
        // The head of the next may have begun before this one was taken up.
        if !self.wire.is_head_open.get() {
            self.timer.disarm();
        }
        self.left.set(self.left.get().saturating_sub(1));
        if is_last || self.left.get() == 0 {
            self.drain();
        }
        InFlight {
            watch: Rc::clone(self),
            _begun: begun,
        }
    }

    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.timer.fire();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(super) fn stalled(&self) {
        self.has_stalled.set(true);
    }

    pub(super) fn has_stalled(&self) -> bool {
        self.has_stalled.get()
    }

    pub(super) fn has_expired(&self) -> bool {
        self.has_expired.get()
    }

    /// Polls a connection to its end, and ends it at its deadline or when the worker drains.
    pub(super) async fn serve<C>(
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
                if self.poll_blocked(cx).is_ready() {
                    self.has_stalled.set(true);
                    self.signals.abort();
                    return Poll::Ready(Ok(()));
                }
                if self.timer.poll_due(cx).is_pending() {
                    return Poll::Pending;
                }
                // Woken to close, which the next turn begins.
                if self.draining.get() && !is_closing {
                    continue;
                }
                match at_deadline {
                    AtDeadline::Close if self.may_stay_http1() => {}
                    AtDeadline::GoAway if self.may_stay_http2() => {}
                    AtDeadline::GoAway if !is_closing && self.wire.is_greeted.get() => {
                        self.draining.set(true);
                    }
                    _ => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }

    /// Between requests, the first byte of the next one changes which deadline holds; a head that
    /// has begun beside other requests has one too.
    fn note_head(&self) {
        match self.phase.get() {
            Phase::Idle if self.signals.has_read() || self.wire.is_head_open.get() => {
                self.phase.set(Phase::Head);
                self.timer.arm(self.timeouts.request_head);
            }
            // HTTP/1 has no other: the head of the next is read when this one is over.
            Phase::Serving if self.wire.is_head_open.get() => {
                self.timer.arm_if_disarmed(self.timeouts.request_head);
            }
            Phase::Serving if self.wire.is_greeted.get() && !self.draining.get() => {
                self.timer.disarm();
            }
            _ => {}
        }
    }

    /// Ready if the client took nothing for too long.
    fn poll_blocked(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.signals.is_blocked() {
            if self.is_write_timed.replace(false) {
                self.writes.disarm();
            }
            return Poll::Pending;
        }
        if self.signals.take_written() || !self.is_write_timed.replace(true) {
            self.writes.arm(self.timeouts.write_idle);
        }
        self.writes.poll_due(cx)
    }

    /// The deadline is over; whether something is still to be done before the end.
    fn may_stay_http1(&self) -> bool {
        match self.phase.get() {
            // The rest of a response is on its way; how slowly, the other timer watches.
            Phase::Idle if self.signals.is_blocked() => {
                self.timer.arm(self.timeouts.keep_alive);
                true
            }
            Phase::Head if self.signals.has_read() && !self.has_expired.get() => {
                self.has_expired.set(true);
                self.signals.expire();
                self.timer.arm(LAST_ANSWER);
                true
            }
            _ => false,
        }
    }

    fn may_stay_http2(&self) -> bool {
        if self.wire.is_head_open.get() {
            self.wire.blame(Abuse::SlowHead);
            return false;
        }
        if self.phase.get() != Phase::Idle || self.wire.unfinished.get() == 0 {
            return false;
        }
        // What is left of responses whose end has been handed over: windows may hold it back.
        let sent = self.wire.data_sent.get();
        let before = self.seen_sent.replace(sent);
        if sent - before < REST_BYTES {
            self.has_stalled.set(true);
            return false;
        }
        self.timer.arm(self.timeouts.write_idle);
        true
    }

    /// The timer that woke the connection to close was no deadline: one begins now, or none while
    /// a request is served.
    fn note_closing(&self) {
        match self.phase.get() {
            Phase::Serving => self.timer.disarm(),
            Phase::Head | Phase::Idle => self.timer.arm(self.timeouts.request_head),
        }
    }
}

/// A request in flight on its connection.
pub(crate) struct InFlight {
    watch: Rc<Watch>,
    _begun: Begun,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let watch = &self.watch;
        watch.active.set(watch.active.get() - 1);
        if watch.active.get() > 0 {
            return;
        }
        watch.phase.set(Phase::Idle);
        watch.signals.forget_read();
        watch.seen_sent.set(watch.wire.data_sent.get());
        if watch.draining.get() {
            watch.timer.arm(watch.timeouts.request_head);
        } else if watch.has_stalled.get() {
            // Nothing but stalled streams was left.
            watch.drain();
        } else if watch.wire.unfinished.get() > 0 {
            watch
                .timer
                .arm(watch.timeouts.keep_alive.min(watch.timeouts.write_idle));
        } else {
            watch.timer.arm(watch.timeouts.keep_alive);
        }
    }
}

/// A response that waits for its client to take the next piece. HTTP/2 holds back single streams,
/// which the connection's bytes do not show.
pub(crate) struct Stall {
    timer: Timer,
    limit: Duration,
}

impl Stall {
    pub(super) fn new(clock: &Clock, limit: Duration) -> Self {
        Self {
            timer: clock.timer(),
            limit,
        }
    }

    /// The client is waited for.
    pub(crate) fn begin(&self) {
        self.timer.arm(self.limit);
    }

    /// The client is not waited for.
    pub(crate) fn end(&self) {
        self.timer.disarm();
    }

    pub(super) fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        self.timer.poll_due(cx)
    }
}

/// Every open connection of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Option<Rc<Watch>>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
}

impl Connections {
    pub(super) fn insert(self: &Rc<Self>, watch: Rc<Watch>) -> Registered {
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
            watch.drain();
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
