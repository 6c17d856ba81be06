//! The thread that advances the epoch, by which the processor time of guests is measured.
//!
//! It ticks while calls run and for a little longer, then sleeps until the next call: an idle
//! gateway has no timer. What a call pays for that is two stores to memory of its own worker, a
//! fence, and a load of a flag that hardly ever changes.
//!
//! It is in time only while the kernel has a processor for it. Where guests burn all of them, their
//! turns are ended by timers of the workers themselves ([`alarm`](super::alarm)).
//!
//! Why no call is missed: the worker writes "running" and then reads "parked", the thread writes
//! "parked" and then reads "running", with a sequentially consistent fence between in both. So at
//! least one of the two sees the other, and either the thread does not park or it is woken.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::thread;
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

use super::turns;

/// Longest epoch: a guest is suspended for the first time after this at most.
pub(crate) const TICK: Duration = Duration::from_millis(2);
/// An epoch while guests burn processor time. Others in their worker wait as long each time that
/// they wait for a socket.
pub(crate) const SLICE: Duration = Duration::from_micros(125);
/// Epochs without a suspended guest that burns, after which they are long again.
const CALM_TICKS: u32 = 80;
/// Ticks without a call before the thread sleeps. Waking it costs a system call in a worker, so it
/// stays awake between the requests of a busy gateway.
const IDLE_TICKS: u32 = 50;

/// Whether epochs are short now. For all engines of the process: there is one, but in tests.
static IS_SHORT: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_short() -> bool {
    IS_SHORT.load(Ordering::Relaxed)
}

/// How long an epoch is now.
pub(crate) fn epoch() -> Duration {
    match is_short() {
        true => SLICE,
        false => TICK,
    }
}

/// Guests burn processor time.
pub(crate) fn shorten() {
    IS_SHORT.store(true, Ordering::Relaxed);
}

/// The thread, seen from the engine. Ends it when dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    is_parked: AtomicBool,
    is_stopped: AtomicBool,
    cells: Mutex<Vec<Arc<Cell>>>,
}

/// Written by one worker, read by the thread. On a cache line of its own, or workers would slow
/// each other down.
#[repr(align(128))]
#[derive(Default)]
struct Cell {
    entered: AtomicU64,
    left: AtomicU64,
}

/// One worker's way to say that a call runs. Used by one thread at a time.
pub(crate) struct Activity {
    cell: Arc<Cell>,
    shared: Arc<Shared>,
    thread: Thread,
}

/// A call runs as long as this lives.
pub(crate) struct Running<'a>(&'a Activity);

impl Ticker {
    pub(crate) fn start(engine: EngineWeak) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            is_parked: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            cells: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("plugin-epoch".into())
            .spawn(move || of_thread.run(&engine))?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    pub(crate) fn activity(&self) -> Activity {
        let cell = Arc::new(Cell::default());
        let mut cells = self.shared.cells.lock();
        let cells = cells
            .as_mut()
            .map_or_else(|e| &mut **e.get_mut(), |c| &mut **c);
        cells.push(Arc::clone(&cell));
        Activity {
            cell,
            shared: Arc::clone(&self.shared),
            thread: self.thread.clone(),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let mut last_entered = 0;
        let mut idle_ticks = 0;
        let mut pauses = turns::pauses();
        let mut calm_ticks = CALM_TICKS;
        while !self.is_stopped.load(Ordering::SeqCst) {
            // Not a sleep: dropping the engine ends it at once.
            let epoch = match calm_ticks >= CALM_TICKS {
                true => TICK,
                false => SLICE,
            };
            IS_SHORT.store(epoch == SLICE, Ordering::Relaxed);
            thread::park_timeout(epoch);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            engine.increment_epoch();
            drop(engine);
            let last_pauses = std::mem::replace(&mut pauses, turns::pauses());
            calm_ticks = match pauses == last_pauses {
                true => calm_ticks.saturating_add(1),
                false => 0,
            };

            let (entered, running) = self.survey();
            if running == 0 && entered == last_entered {
                idle_ticks += 1;
            } else {
                idle_ticks = 0;
            }
            last_entered = entered;
            if idle_ticks == IDLE_TICKS {
                self.park();
                idle_ticks = 0;
            }
        }
    }

    fn park(&self) {
        self.is_parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.is_parked.load(Ordering::SeqCst)
            && !self.is_stopped.load(Ordering::SeqCst)
            && self.survey().1 == 0
        {
            thread::park();
        }
        self.is_parked.store(false, Ordering::SeqCst);
    }

    /// How many calls were entered so far, and how many run now.
    fn survey(&self) -> (u64, u64) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|cell| Arc::strong_count(cell) > 1);
        cells.iter().fold((0, 0), |(entered, running), cell| {
            // `left` first: read the other way round, a call that ends between would be negative.
            let left = cell.left.load(Ordering::Acquire);
            let now = cell.entered.load(Ordering::Acquire);
            (entered + now, running + now.saturating_sub(left))
        })
    }
}

impl Activity {
    pub(crate) fn enter(&self) -> Running<'_> {
        increment(&self.cell.entered);
        fence(Ordering::SeqCst);
        if self.shared.is_parked.load(Ordering::Relaxed) {
            self.shared.is_parked.store(false, Ordering::SeqCst);
            self.thread.unpark();
        }
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        increment(&self.0.cell.left);
    }
}

/// One writer, so a load and a store do what an atomic addition would do for ten times the cost.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if is_so() {
                return;
            }
            thread::park_timeout(TICK);
        }
        panic!("{what} did not happen");
    }

    #[test]
    fn the_thread_parks_when_nothing_runs_and_wakes_for_a_call() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let activity = ticker.activity();
        let is_parked = || ticker.shared.is_parked.load(Ordering::SeqCst);

        wait_until("parking", is_parked);
        let running = activity.enter();
        wait_until("waking", || !is_parked());
        assert_eq!(ticker.shared.survey().1, 1);
        drop(running);
        wait_until("parking again", is_parked);
        assert_eq!(ticker.shared.survey().1, 0);
    }

    #[test]
    fn the_thread_ends_with_the_engine() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker);
        wait_until("the end of the thread", || shared.strong_count() == 0);
    }
}
