//! Counts of what is in flight, of many keys in a table of fixed size, exact over all threads.
//!
//! Like [`super::rate_limit`], with a count in place of a time: a place whose count is zero is
//! free. A new key that finds its eight places in use is not counted: to refuse it would let
//! strangers lock each other out.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

const WAYS: usize = 8;
const COUNT_MASK: u64 = u32::MAX as u64;
/// Locks that new keys are spread over.
const ADDERS: usize = 64;

/// One cache line.
#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

pub struct ConcurrencyTable {
    sets: Box<[Set]>,
    limit: u64,
    /// Held while a key gets its place.
    adding: [Mutex<()>; ADDERS],
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acquired {
    /// Counted, until it is released at this place.
    At(Place),
    /// The table has no room for its key.
    Uncounted,
    TooMany,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    set: usize,
    way: usize,
}

impl ConcurrencyTable {
    pub fn new(limit: u32, keys: u32) -> Self {
        let sets = (keys as usize).div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            limit: u64::from(limit),
            adding: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Counts one request of the key whose hash this is.
    pub fn acquire(&self, hash: u64) -> Acquired {
        let set = hash as usize & (self.sets.len() - 1);
        let places = &self.sets[set].0;
        let tag = hash & !COUNT_MASK;
        loop {
            let words: [u64; WAYS] = std::array::from_fn(|way| places[way].load(Ordering::Relaxed));
            let is_own = |word: &u64| word & !COUNT_MASK == tag && word & COUNT_MASK > 0;
            let own = words.iter().position(is_own);
            let _adding = if own.is_none() {
                let lock = &self.adding[hash as usize % ADDERS];
                let lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
                if places
                    .iter()
                    .any(|place| is_own(&place.load(Ordering::Relaxed)))
                {
                    continue;
                }
                Some(lock)
            } else {
                None
            };
            let is_free = |word: &u64| word & COUNT_MASK == 0;
            let (way, count) = match (own, words.iter().position(is_free)) {
                (Some(way), _) => (way, words[way] & COUNT_MASK),
                (None, Some(way)) => (way, 0),
                (None, None) => return Acquired::Uncounted,
            };
            if count >= self.limit {
                return Acquired::TooMany;
            }
            let word = tag | (count + 1);
            let swapped = places[way].compare_exchange(
                words[way],
                word,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                return Acquired::At(Place { set, way });
            }
        }
    }

    /// Once for each [`Acquired::At`].
    pub fn release(&self, place: Place) {
        self.sets[place.set].0[place.way].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn place(acquired: Acquired) -> Place {
        match acquired {
            Acquired::At(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_may_have_so_many_and_no_more() {
        let table = ConcurrencyTable::new(2, 8);
        let key = |n: u64| n << 32;
        let first = place(table.acquire(key(1)));
        let second = place(table.acquire(key(1)));
        assert_eq!(table.acquire(key(1)), Acquired::TooMany);
        assert!(matches!(table.acquire(key(2)), Acquired::At(_)));
        table.release(first);
        let third = place(table.acquire(key(1)));
        assert_eq!(table.acquire(key(1)), Acquired::TooMany);
        table.release(second);
        table.release(third);
        assert!(matches!(table.acquire(key(1)), Acquired::At(_)));
    }

    #[test]
    fn a_place_is_used_again_and_a_full_set_counts_no_more_keys() {
        let table = ConcurrencyTable::new(1, 8);
        for round in 0..3_u64 {
            let places: Vec<Place> = (1..=8_u64)
                .map(|n| place(table.acquire((round * 8 + n) << 32)))
                .collect();
            assert_eq!(table.acquire(1000 << 32), Acquired::Uncounted);
            places.into_iter().for_each(|place| table.release(place));
        }
    }

    #[test]
    fn threads_share_the_count() {
        let table = ConcurrencyTable::new(3, 64);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Acquired::At(place) = table.acquire(7 << 32) {
                            assert!(now.fetch_add(1, Ordering::SeqCst) < 3);
                            now.fetch_sub(1, Ordering::SeqCst);
                            table.release(place);
                        }
                    }
                });
            }
        });
        let places: Vec<_> = (0..3).map(|_| place(table.acquire(7 << 32))).collect();
        assert_eq!(places.len(), 3);
    }
}
