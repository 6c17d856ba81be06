//! Turns of the guests that burn processor time, in one worker.
//!
//! Such a guest is suspended at the end of each epoch. If all of them went on as soon as sockets
//! were polled, every other request of the worker would wait for as many epochs as there are of
//! them, each time that it waits for a socket. So one goes on after each poll, by turns.
//!
//! Who waited longest is next. But a call that nobody polls, because its client does not read,
//! must not keep the others waiting: a turn that nobody took is anybody's after the next poll.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wasmtime::Engine;

use super::alarm;
use super::thread_time::thread_time;
use super::ticker;
use super::ticker::SLICE;

/// Used by one thread; locked and atomic because what suspends a guest has to be `Send`.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// How often sockets were polled while guests waited. Everyone who waits comes here once
    /// after each poll; who comes again is the first after another one.
    round: AtomicU64,
    /// The round in which the last turn was taken.
    taken: AtomicU64,
    /// When that was, in nanoseconds of the thread's processor time.
    taken_at: AtomicU64,
    /// Who waits, the longest first. There are no more than there are instances.
    queue: Mutex<VecDeque<u64>>,
    tickets: AtomicU64,
}

thread_local! {
    static TURNS: Arc<Turns> = Arc::default();
}

/// How often a guest that burns was suspended, in the whole process.
static PAUSES: AtomicU64 = AtomicU64::new(0);

/// Suspends a guest of this engine until sockets have been polled and it is its turn.
///
/// `is_burning`: it has run for a whole epoch at least. A call that only met the end of one says
/// nothing: while plugins are busy, every epoch ends in some call.
pub(crate) fn pause(engine: Engine, is_burning: bool) -> impl Future<Output = ()> + Send + 'static {
    if is_burning {
        PAUSES.fetch_add(1, Ordering::Relaxed);
        ticker::shorten();
    }
    let is_short = ticker::is_short();
    // Other processes first, as the kernel would have it only every few milliseconds: the
    // upstreams of this machine, and its clients. Comes back at once if nobody wants to run.
    if is_short {
        std::thread::yield_now();
    }
    let turns = TURNS.with(Arc::clone);
    async move {
        turns.wait().await;
        // Also after the first time: whether it burns is known soon.
        alarm::set(&engine, SLICE);
    }
}

/// A call begins. While other guests burn, the end of its first slice must not wait for the kernel.
pub(crate) fn begin(engine: &Engine) {
    if ticker::is_short() {
        alarm::set(engine, SLICE);
    }
}

/// A guest goes on without a turn, after it has waited for something else: what the thread did
/// meanwhile is not charged to it.
pub(crate) fn resumed() {
    TURNS.with(|turns| turns.note_taken());
}

/// How often such a guest was suspended so far, in the whole process: it grows while guests burn
/// processor time.
pub(crate) fn pauses() -> u64 {
    PAUSES.load(Ordering::Relaxed)
}

/// Processor time of this thread since its last turn was taken.
pub(crate) fn since_last() -> Duration {
    let taken_at = TURNS.with(|turns| turns.taken_at.load(Ordering::Relaxed));
    thread_time().saturating_sub(Duration::from_nanos(taken_at))
}

impl Turns {
    async fn wait(&self) {
        let place = Place::new(self);
        let mut seen = self.round.load(Ordering::Relaxed);
        loop {
            // Through tokio and not by waking ourselves: tokio then polls its sockets before it
            // comes back here.
            tokio::task::yield_now().await;
            let round = self.round.load(Ordering::Relaxed);
            let round = if round == seen { round + 1 } else { round };
            self.round.store(round, Ordering::Relaxed);
            seen = round;
            let without_turn = round - self.taken.load(Ordering::Relaxed);
            if without_turn > 1 || (without_turn == 1 && place.is_first()) {
                self.taken.store(round, Ordering::Relaxed);
                self.note_taken();
                return;
            }
        }
    }

    fn note_taken(&self) {
        let now = u64::try_from(thread_time().as_nanos()).unwrap_or(u64::MAX);
        self.taken_at.store(now, Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest's place in the queue, given up also if its call is dropped.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn new(turns: &'a Turns) -> Self {
        let ticket = turns.tickets.fetch_add(1, Ordering::Relaxed);
        turns.queue().push_back(ticket);
        Self { turns, ticket }
    }

    fn is_first(&self) -> bool {
        self.turns.queue().front() == Some(&self.ticket)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.turns.queue();
        if let Some(position) = queue.iter().position(|ticket| *ticket == self.ticket) {
            queue.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::task::JoinSet;

    use super::*;

    const GUESTS: usize = 4;
    const ROUNDS: usize = 50;

    #[derive(Clone, Copy, Eq, PartialEq)]
    enum Event {
        Poll,
        Turn(usize),
    }

    /// What happens, in order, while guests take turns.
    async fn events() -> Vec<Event> {
        let engine = Engine::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut guests = JoinSet::new();
        for guest in 0..GUESTS {
            let (log, engine) = (Arc::clone(&log), engine.clone());
            guests.spawn(async move {
                for _ in 0..ROUNDS {
                    pause(engine.clone(), true).await;
                    log.lock().unwrap().push(Event::Turn(guest));
                }
            });
        }
        let polls = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                loop {
                    log.lock().unwrap().push(Event::Poll);
                    tokio::task::yield_now().await;
                }
            }
        });
        guests.join_all().await;
        polls.abort();
        log.lock().unwrap().clone()
    }

    fn turns_of(events: &[Event], guest: usize) -> usize {
        events.iter().filter(|e| **e == Event::Turn(guest)).count()
    }

    #[tokio::test]
    async fn one_guest_runs_after_each_poll_and_all_of_them_in_turn() {
        let events = events().await;
        for end in 0..events.len() {
            let so_far = &events[..end];
            let polls = so_far.iter().filter(|e| **e == Event::Poll).count();
            let each: Vec<_> = (0..GUESTS).map(|guest| turns_of(so_far, guest)).collect();
            assert!(each.iter().sum::<usize>() <= polls + 1, "{each:?}, {polls}");
            let (most, least) = (each.iter().max().unwrap(), each.iter().min().unwrap());
            assert!(most - least <= 2, "{each:?}");
        }
        // And no poll goes by without one, but where they begin and end.
        let polls = events.iter().filter(|e| **e == Event::Poll).count();
        assert!(polls <= GUESTS * (ROUNDS + 3), "{polls}");
    }

    #[tokio::test]
    async fn a_call_that_nobody_polls_keeps_nobody_waiting() {
        let mut left_alone = Box::pin(pause(Engine::default(), true));
        let is_pending =
            std::future::poll_fn(|cx| Poll::Ready(left_alone.as_mut().poll(cx).is_pending()));
        assert!(is_pending.await);
        let events = events().await;
        for guest in 0..GUESTS {
            assert_eq!(turns_of(&events, guest), ROUNDS);
        }
        drop(left_alone);
        assert!(TURNS.with(|turns| turns.queue().is_empty()));
    }
}
