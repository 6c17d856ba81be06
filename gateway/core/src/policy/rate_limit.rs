//! Rate limits of many keys in a table of fixed size, exact whoever asks from whichever thread.
//!
//! The algorithm is GCRA: each key has a time at which its debt is paid; a request moves it on by
//! one interval, and is too many if it would come to lie more than a burst ahead of now. That is
//! one number a key, changed by one compare-and-swap, so no request waits for another and none is
//! counted twice or not at all. Only a key that is new takes a lock, to get one place and not two.
//!
//! A key has a set of eight places, one cache line. A new key takes the place whose debt is paid
//! first: nearly always one that is long paid and says nothing any more. Two keys of one set are
//! told apart by 24 bits of their hash: that they are not, and share a limit, happens to one pair
//! in two million.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::policy::limit::Rate;

/// Places of one set: eight words are a cache line.
const WAYS: usize = 8;
/// Bits of a place that hold the time; the others tell keys of one set apart.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Parts that an interval is counted in: rates are met to less than half a percent.
const PARTS: u64 = 256;
/// Shortest unit of time, in nanoseconds. With it, time goes round every five hours; see `debt`.
const LEAST_UNIT: u64 = 16;

/// Locks that new keys are spread over.
const ADDERS: usize = 64;

/// One cache line.
#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// The limits of every key of one policy.
pub struct RateTable {
    sets: Box<[Set]>,
    /// Nanoseconds.
    unit: u64,
    /// Units between two requests at the full rate.
    interval: u64,
    /// Units that a key may be ahead.
    burst: u64,
    /// Held while a key gets its place; never where the key has one.
    adding: [Mutex<()>; ADDERS],
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateDecision {
    pub is_allowed: bool,
    /// Requests that would be allowed right now.
    pub remaining: u64,
    /// Until the key has its whole burst again.
    pub reset: Duration,
    /// Until the next request is allowed; zero if one is.
    pub retry_after: Duration,
}

impl RateTable {
    pub fn new(rate: Rate, burst: u32, keys: u32) -> Self {
        let interval = nanoseconds(rate.period) / u64::from(rate.count.max(1));
        let unit = (interval / PARTS).max(LEAST_UNIT);
        let interval = (interval / unit).max(1);
        // A burst may fill a quarter of the time that can be told apart.
        let burst = (interval * u64::from(burst.max(1))).min(TIME_MASK / 4);
        let sets = (keys as usize).div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            unit,
            interval,
            burst,
            adding: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Takes one request of the key whose hash this is. `now` is on any clock that never goes
    /// back, and is the same clock each time.
    pub fn take(&self, hash: u64, now: Duration) -> RateDecision {
        // From 1, so that a place that was never used has its debt paid.
        let now = (nanoseconds(now) / self.unit + 1) & TIME_MASK;
        let set = &self.sets[hash as usize & (self.sets.len() - 1)];
        // The upper bits: the lower ones chose the set. Never zero, which is a place without key.
        let tag = (hash >> TIME_BITS).max(1) << TIME_BITS;
        loop {
            let words: [u64; WAYS] = std::array::from_fn(|way| set.0[way].load(Ordering::Relaxed));
            let own = words.iter().position(|word| word & !TIME_MASK == tag);
            // One new key of a set at a time, or two threads could each give it a place.
            let _adding = if own.is_none() {
                let lock = &self.adding[hash as usize % ADDERS];
                let lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
                if set
                    .0
                    .iter()
                    .any(|place| place.load(Ordering::Relaxed) & !TIME_MASK == tag)
                {
                    continue;
                }
                Some(lock)
            } else {
                None
            };
            let paid_first = |way: &usize| self.debt(words[*way], now);
            let (way, debt) = match own {
                Some(way) => (way, self.debt(words[way], now)),
                None => ((0..WAYS).min_by_key(paid_first).unwrap_or(0), 0),
            };
            let after = debt + self.interval;
            if after > self.burst {
                return self.decision(false, debt, after - self.burst);
            }
            let word = tag | ((now + after) & TIME_MASK);
            let swapped =
                set.0[way].compare_exchange(words[way], word, Ordering::Relaxed, Ordering::Relaxed);
            // Otherwise somebody else was first, with this key or with another for the same place.
            if swapped.is_ok() {
                return self.decision(true, after, 0);
            }
        }
    }

    /// Units until the debt is paid. Time goes round: what lies further ahead than any debt can be
    /// is long past.
    fn debt(&self, word: u64, now: u64) -> u64 {
        let ahead = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
        if ahead > self.burst { 0 } else { ahead }
    }

    fn decision(&self, is_allowed: bool, debt: u64, wait: u64) -> RateDecision {
        RateDecision {
            is_allowed,
            remaining: self.burst.saturating_sub(debt) / self.interval,
            reset: Duration::from_nanos(debt.saturating_mul(self.unit)),
            retry_after: Duration::from_nanos(wait.saturating_mul(self.unit)),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
