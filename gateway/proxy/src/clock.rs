//! Coarse timers of one worker.
//!
//! A proxy arms a timer or two for every request and lets nearly all of them be forgotten, so what
//! counts is the cost of arming. Here that is two stores into a slab: one task a worker looks over
//! the slab once a tick and wakes what is due. Precision is one tick, which no timeout of a gateway
//! notices.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

/// How often due timers are looked for.
const TICK: Duration = Duration::from_millis(20);

/// The timers of one worker. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Clock(Rc<Shared>);

#[derive(Default)]
struct Shared {
    /// Ticks since the worker started, as far as anyone was waiting.
    now: Cell<u64>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    /// Slots in use; no tick happens while it is zero.
    used: Cell<usize>,
    wanted: Notify,
}

#[derive(Default)]
struct Slot {
    /// The tick at which it is due; `None`: disarmed.
    due: Option<u64>,
    waker: Option<Waker>,
}

impl Clock {
    /// Runs until the worker ends.
    pub(crate) async fn run(self) {
        loop {
            while self.0.used.get() == 0 {
                self.0.wanted.notified().await;
            }
            let mut ticks = tokio::time::interval(TICK);
            // A worker that was held up must not fire a burst of ticks at once: that would end
            // timers early that were armed during the delay.
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks.tick().await;
            while self.0.used.get() > 0 {
                ticks.tick().await;
                self.tick();
            }
        }
    }

    fn tick(&self) {
        let now = self.0.now.get() + 1;
        self.0.now.set(now);
        let mut due = Vec::new();
        for slot in self.0.slots.borrow_mut().iter_mut() {
            if slot.due.is_some_and(|at| at <= now)
                && let Some(waker) = slot.waker.take()
            {
                due.push(waker);
            }
        }
        // Outside the borrow: waking may drop a timer.
        for waker in due {
            waker.wake();
        }
    }

    /// Ticks since the worker started, as far as any timer was in use.
    pub(crate) fn now(&self) -> u64 {
        self.0.now.get()
    }

    /// A timer that is not armed yet.
    pub(crate) fn timer(&self) -> Timer {
        let index = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.0.slots.borrow_mut();
            slots.push(Slot::default());
            slots.len() - 1
        });
        let used = self.0.used.get();
        self.0.used.set(used + 1);
        if used == 0 {
            self.0.wanted.notify_one();
        }
        Timer {
            clock: self.clone(),
            index,
        }
    }

    /// Waits for `future`, but no longer than `limit`.
    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let timer = self.timer();
        timer.arm(limit);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            timer.poll_due(cx).map(|()| None)
        })
        .await
    }
}

/// How many whole ticks make up a time, rounded up.
pub(crate) fn ticks(time: Duration) -> u64 {
    // Configured times end at a day.
    time.as_millis().div_ceil(TICK.as_millis()) as u64
}

/// How long a number of ticks is.
pub(crate) fn time(ticks: u64) -> Duration {
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// One deadline, which can be moved.
pub(crate) struct Timer {
    clock: Clock,
    index: usize,
}

impl Timer {
    /// Due after `limit`, at the earliest.
    pub(crate) fn arm(&self, limit: Duration) {
        // The current tick is partly over already, hence the one more.
        let due = self.clock.now() + ticks(limit) + 1;
        self.clock.0.slots.borrow_mut()[self.index].due = Some(due);
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Leaves a deadline that is already running alone.
    pub(crate) fn arm_if_disarmed(&self, limit: Duration) {
        if self.clock.0.slots.borrow()[self.index].due.is_none() {
            self.arm(limit);
        }
    }

    /// Makes it due now, and wakes who waits for it.
    pub(crate) fn fire(&self) {
        let waker = {
            let slot = &mut self.clock.0.slots.borrow_mut()[self.index];
            slot.due = Some(0);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn disarm(&self) {
        self.clock.0.slots.borrow_mut()[self.index].due = None;
    }

    /// Ready once it is due. Keeps the waker of the last caller.
    pub(crate) fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        let now = self.clock.0.now.get();
        let mut slots = self.clock.0.slots.borrow_mut();
        let slot = &mut slots[self.index];
        if slot.due.is_some_and(|at| at <= now) {
            return Poll::Ready(());
        }
        let is_known = slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if !is_known {
            let before = slot.waker.replace(cx.waker().clone());
            // Outside the borrow: dropping the last handle of a task drops its timers.
            drop(slots);
            drop(before);
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let shared = &self.clock.0;
        let waker = std::mem::take(&mut shared.slots.borrow_mut()[self.index]).waker;
        // Outside the borrow: dropping the last handle of a task drops what it holds.
        drop(waker);
        shared.free.borrow_mut().push(self.index);
        shared.used.set(shared.used.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks, counted, until the timer is due.
    fn ticks_until_due(clock: &Clock, timer: &Timer) -> Option<u64> {
        let cx = Context::from_waker(Waker::noop());
        (0..10_000).find(|_| {
            let is_due = timer.poll_due(&cx).is_ready();
            clock.tick();
            is_due
        })
    }

    #[test]
    fn a_timer_is_due_within_two_ticks_and_never_early() {
        let clock = Clock::default();
        let timer = clock.timer();
        for milliseconds in [1, 20, 30, 1000] {
            timer.arm(Duration::from_millis(milliseconds));
            let whole = milliseconds.div_ceil(20);
            assert_eq!(
                ticks_until_due(&clock, &timer),
                Some(whole + 1),
                "{milliseconds}"
            );
        }
    }

    #[test]
    fn a_timer_can_be_moved_disarmed_and_fired() {
        let clock = Clock::default();
        let timer = clock.timer();
        timer.arm(Duration::from_secs(1));
        timer.arm(Duration::from_secs(10));
        timer.arm_if_disarmed(Duration::from_secs(2));
        assert_eq!(ticks_until_due(&clock, &timer), Some(501));
        timer.disarm();
        assert_eq!(ticks_until_due(&clock, &timer), None);
        timer.fire();
        assert_eq!(ticks_until_due(&clock, &timer), Some(0));
    }

    #[test]
    fn slots_are_used_again() {
        let clock = Clock::default();
        for _ in 0..100 {
            drop((clock.timer(), clock.timer()));
        }
        assert_eq!(clock.0.slots.borrow().len(), 2);
        assert_eq!(clock.0.used.get(), 0);
    }
}
