//! One worker's share of what the process may take, and what its requests are about to take.
//!
//! Memory is looked at every now and then, and a burst of requests takes it in between: thousands
//! begin within a millisecond, when nothing of what they will hold is in use yet. So each is
//! reckoned with [`REQUEST_KIB`] while it is young, beside what is in use: for one to two periods,
//! in which it has taken what it takes. After that it is reckoned with [`GROWTH_KIB`].
//!
//! A worker writes down its own numbers, and reads those of others only if memory would be short
//! were all workers as busy as itself: no request waits for a cache line of another worker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use postern_core::config::LimitsSpec;
use postern_core::config::MemorySteps;

use super::Overload;
use super::Place;
use super::memory::Usage;

/// What a request takes from its begin to the first piece of its answer: with a connection to an
/// upstream of its own some 60 KiB were measured.
const REQUEST_KIB: u32 = 64;
/// What a request in flight may take beside what it has taken: a piece of a body in each direction
/// that nobody fetches.
const GROWTH_KIB: u32 = 16;
/// What a connection takes before its first request, TLS and HTTP/2 included.
const CONNECTION_KIB: u32 = 48;

/// What the last look saw, and what workers have taken on.
pub(super) struct Book {
    /// Bytes: in use, and what those in flight may come to.
    committed: AtomicU64,
    /// Zero where there is no limit.
    limit: AtomicU64,
    /// Counts the periods.
    period: AtomicU32,
    workers: Box<[Page]>,
}

/// One worker's numbers, on a cache line of their own.
#[derive(Default)]
#[repr(align(128))]
struct Page {
    in_flight: AtomicU32,
    /// KiB of what is young, with the period in which that was so in the upper half.
    young: AtomicU64,
}

impl Book {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            committed: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            period: AtomicU32::new(0),
            workers: (0..workers.max(1)).map(|_| Page::default()).collect(),
        }
    }

    pub(super) fn looked(&self, usage: Usage) {
        let in_flight = self.workers.iter().map(|page| page.in_flight.load(Relaxed));
        let growth = in_flight.map(|count| kib(count.saturating_mul(GROWTH_KIB)));
        let committed = usage.used.saturating_add(growth.sum());
        self.committed.store(committed, Relaxed);
        self.limit.store(usage.limit, Relaxed);
    }

    /// What was begun before the last period is no longer young.
    pub(super) fn age(&self) {
        self.period.fetch_add(1, Relaxed);
    }

    /// What is young, of all workers.
    fn young(&self, period: u32) -> u64 {
        let numbers = self.workers.iter().map(|page| page.young.load(Relaxed));
        // A worker that does nothing does not write either.
        let is_current = |number: &u64| period.wrapping_sub((number >> 32) as u32) <= 1;
        let current = numbers.filter(is_current);
        current.map(|number| kib(number as u32)).sum()
    }
}

fn kib(kib: u32) -> u64 {
    u64::from(kib) << 10
}

/// One worker's share.
pub(crate) struct Share {
    overload: Arc<Overload>,
    index: usize,
    in_flight: Cell<u32>,
    /// The period that `young` is of.
    period: Cell<u32>,
    /// KiB of what began in this period and in the one before.
    young: Cell<[u32; 2]>,
}

impl Share {
    pub(crate) fn new(overload: &Arc<Overload>, index: usize) -> Rc<Self> {
        Rc::new(Self {
            overload: Arc::clone(overload),
            index: index % overload.book.workers.len(),
            in_flight: Cell::new(0),
            period: Cell::new(0),
            young: Cell::new([0; 2]),
        })
    }

    /// A place among the open connections, if there is one.
    pub(crate) fn admit(self: &Rc<Self>, spec: &LimitsSpec) -> Option<Place> {
        if self.is_at(spec.memory.stop) {
            return None;
        }
        let most = spec.connections.unwrap_or(self.overload.most_connections);
        let before = self.overload.connections.fetch_add(1, Relaxed);
        let place = Place {
            overload: Arc::clone(&self.overload),
            _reserved: self.reserve(CONNECTION_KIB),
        };
        // Dropping the place takes the count back.
        (before < most).then_some(place)
    }

    /// Reckons with a request until the returned value is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> Begun {
        self.set_in_flight(self.in_flight.get() + 1);
        Begun(self.reserve(REQUEST_KIB))
    }

    /// Whether answers are to close their connection.
    pub(crate) fn closes(&self, steps: &MemorySteps) -> bool {
        self.is_at(steps.close)
    }

    /// Whether requests are to be refused.
    pub(crate) fn refuses(&self, steps: &MemorySteps) -> bool {
        self.is_at(steps.refuse)
    }

    fn is_at(&self, step: u8) -> bool {
        let book = &self.overload.book;
        let limit = book.limit.load(Relaxed);
        if limit == 0 {
            return false;
        }
        let committed = book.committed.load(Relaxed);
        let is_at = |young: u64| {
            let bytes = committed.saturating_add(young);
            bytes.saturating_mul(100) >= limit.saturating_mul(u64::from(step))
        };
        let [this, last] = self.young();
        let workers = book.workers.len() as u64;
        is_at(kib(this.saturating_add(last)).saturating_mul(workers))
            && is_at(book.young(self.period.get()))
    }

    fn reserve(self: &Rc<Self>, kib: u32) -> Reserved {
        let [this, last] = self.young();
        self.set_young([this.saturating_add(kib), last]);
        Reserved {
            share: Rc::clone(self),
            period: self.period.get(),
            kib,
        }
    }

    /// As of now.
    fn young(&self) -> [u32; 2] {
        let period = self.overload.book.period.load(Relaxed);
        let [this, last] = self.young.get();
        let young = match period.wrapping_sub(self.period.replace(period)) {
            0 => return [this, last],
            1 => [0, this],
            _ => [0, 0],
        };
        self.set_young(young);
        young
    }

    fn set_young(&self, young: [u32; 2]) {
        self.young.set(young);
        let sum = young[0].saturating_add(young[1]);
        let number = u64::from(self.period.get()) << 32 | u64::from(sum);
        self.page().young.store(number, Relaxed);
    }

    fn set_in_flight(&self, count: u32) {
        self.in_flight.set(count);
        self.page().in_flight.store(count, Relaxed);
    }

    fn page(&self) -> &Page {
        &self.overload.book.workers[self.index]
    }
}

/// Memory that something young is reckoned with.
pub(super) struct Reserved {
    share: Rc<Share>,
    /// In which it began.
    period: u32,
    kib: u32,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let share = &self.share;
        let [this, last] = share.young();
        let left = match share.period.get().wrapping_sub(self.period) {
            0 => [this.saturating_sub(self.kib), last],
            1 => [this, last.saturating_sub(self.kib)],
            _ => return,
        };
        share.set_young(left);
    }
}

/// A request that is reckoned with.
pub(crate) struct Begun(Reserved);

impl Drop for Begun {
    fn drop(&mut self) {
        let share = &self.0.share;
        share.set_in_flight(share.in_flight.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100 << 20;

    fn usage(percent: u64) -> Usage {
        Usage {
            used: LIMIT / 100 * percent,
            limit: LIMIT,
        }
    }

    #[test]
    fn memory_takes_its_steps_one_after_the_other() {
        let spec = LimitsSpec::default();
        for (percent, want) in [
            (89, [false, false, false]),
            (90, [true, false, false]),
            (95, [true, true, false]),
            (98, [true, true, true]),
        ] {
            let overload = Overload::with(9, 1);
            let share = Share::new(&overload, 0);
            overload.book.looked(usage(percent));
            let steps = &spec.memory;
            let got = [
                share.closes(steps),
                share.refuses(steps),
                share.admit(&spec).is_none(),
            ];
            assert_eq!(got, want, "{percent}");
        }
    }

    #[test]
    fn a_burst_is_refused_before_any_look_has_seen_it() {
        let steps = MemorySteps::default();
        let overload = Overload::with(9, 2);
        overload.book.looked(usage(50));
        let share = Share::new(&overload, 0);
        // 45 % are left, of which each takes 64 KiB.
        let begun: Vec<_> = (0..45 * 16).map(|_| share.begin()).collect();
        assert!(share.refuses(&steps));
        let mut fewer = begun;
        fewer.pop();
        assert!(!share.refuses(&steps), "{} begun", fewer.len());

        // The other worker's burst counts as well, once it matters.
        let other = Share::new(&overload, 1);
        let _own: Vec<_> = (0..45 * 8).map(|_| other.begin()).collect();
        assert!(other.refuses(&steps));
        drop(fewer);
        assert!(!other.refuses(&steps));
    }

    #[test]
    fn what_is_old_has_taken_its_memory_and_may_grow_a_little() {
        let steps = MemorySteps::default();
        let overload = Overload::with(9, 1);
        overload.book.looked(usage(50));
        let share = Share::new(&overload, 0);
        let begun: Vec<_> = (0..45 * 16).map(|_| share.begin()).collect();
        for want in [true, false] {
            overload.book.age();
            assert_eq!(share.refuses(&steps), want);
        }
        // A quarter of the 45 % may still come.
        for (percent, want) in [(83, false), (84, true)] {
            overload.book.looked(usage(percent));
            assert_eq!(share.refuses(&steps), want, "{percent}");
        }
        drop(begun);
        assert!(share.refuses(&steps), "the look was before they ended");
        overload.book.looked(usage(84));
        assert!(!share.refuses(&steps));
    }

    #[test]
    fn what_ends_young_is_forgotten_in_its_period_and_in_the_next() {
        let steps = MemorySteps::default();
        let overload = Overload::with(9, 1);
        overload.book.looked(usage(50));
        let share = Share::new(&overload, 0);
        for ages in 0..3 {
            let begun: Vec<_> = (0..45 * 16).map(|_| share.begin()).collect();
            assert!(share.refuses(&steps));
            (0..ages).for_each(|_| overload.book.age());
            drop(begun);
            assert_eq!(share.young(), [0, 0]);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let overload = Overload::with(9, 1);
        let share = Share::new(&overload, 0);
        let unlimited = Usage {
            used: u64::MAX,
            limit: 0,
        };
        overload.book.looked(unlimited);
        let _begun: Vec<_> = (0..10_000).map(|_| share.begin()).collect();
        assert!(!share.refuses(&MemorySteps::default()));
    }
}
