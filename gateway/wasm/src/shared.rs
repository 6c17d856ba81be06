//! State that the instances of one plugin share, in all workers: bounded, and old things go first.
//!
//! Split into parts, each with a lock of its own that is held for one look-up: workers meet only
//! when they touch keys of the same part. No two locks are held at once, and what is to go is found
//! without any.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// More parts than machines have workers that call the same plugin at the same moment.
const PARTS: usize = 16;
/// What an entry costs beside its key and value, about: two map nodes and two counted pointers.
const ENTRY_BYTES: u64 = 192;

/// The store of one plugin.
#[derive(Debug)]
pub(crate) struct SharedState {
    limit: u64,
    bytes: AtomicU64,
    /// Counts uses, so that the least recent can be told over all parts.
    clock: AtomicU64,
    parts: [Mutex<Part>; PARTS],
    /// The least recent use in each part, and `u64::MAX` of an empty one.
    oldest: [AtomicU64; PARTS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Part {
    index: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// By last use.
    order: BTreeMap<u64, Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    used: u64,
    expires: Option<Instant>,
}

#[derive(Debug)]
enum Value {
    Bytes(Vec<u8>),
    Counter(i64),
    Bucket(Bucket),
}

/// A token bucket. Its level is in tokens times the nanoseconds of its period, so that it fills by
/// whole numbers.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u128,
    period: u128,
    filled: Instant,
}

/// How a token bucket works: `rate` tokens each `period`, at most `burst`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketRule {
    pub(crate) rate: u32,
    pub(crate) period: Duration,
    pub(crate) burst: u32,
}

/// What a token bucket answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Quota {
    pub(crate) is_allowed: bool,
    pub(crate) remaining: u64,
    pub(crate) retry_after_ms: u64,
}

impl SharedState {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            parts: std::array::from_fn(|index| {
                Mutex::new(Part {
                    index,
                    ..Part::default()
                })
            }),
            oldest: std::array::from_fn(|_| AtomicU64::new(u64::MAX)),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are kept, with what keeping them costs.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let used = self.tick();
        self.part(key)
            .live(key, used, self)
            .map(|value| value.to_bytes())
    }

    /// Answers whether it was small enough to be kept.
    pub(crate) fn set(&self, key: &str, value: Vec<u8>, ttl: Option<Duration>) -> bool {
        if !self.can_hold(key, &value) {
            return false;
        }
        let used = self.tick();
        self.part(key)
            .insert(key, Value::Bytes(value), expiry(ttl), used, self);
        self.shrink();
        true
    }

    pub(crate) fn remove(&self, key: &str) {
        self.part(key).remove(key, self);
    }

    /// Answers whether the key held what was expected, and holds `value` now.
    pub(crate) fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> bool {
        if !self.can_hold(key, &value) {
            return false;
        }
        let used = self.tick();
        let mut part = self.part(key);
        let held = part.live(key, used, self).map(|value| value.to_bytes());
        if held.as_deref() != expected {
            return false;
        }
        part.insert(key, Value::Bytes(value), expiry(ttl), used, self);
        drop(part);
        self.shrink();
        true
    }

    pub(crate) fn increment(&self, key: &str, delta: i64, ttl: Option<Duration>) -> i64 {
        let used = self.tick();
        let mut part = self.part(key);
        if let Some(Value::Counter(sum)) = part.live(key, used, self) {
            *sum = sum.wrapping_add(delta);
            return *sum;
        }
        part.insert(key, Value::Counter(delta), expiry(ttl), used, self);
        drop(part);
        self.shrink();
        delta
    }

    /// Takes tokens, or none.
    pub(crate) fn take(&self, key: &str, tokens: u32, rule: BucketRule) -> Quota {
        let used = self.tick();
        let now = Instant::now();
        let mut part = self.part(key);
        if let Some(Value::Bucket(bucket)) = part.live(key, used, self) {
            return bucket.take(tokens, rule, now);
        }
        let mut bucket = Bucket::full(rule, now);
        let quota = bucket.take(tokens, rule, now);
        part.insert(key, Value::Bucket(bucket), None, used, self);
        drop(part);
        self.shrink();
        quota
    }

    fn can_hold(&self, key: &str, value: &[u8]) -> bool {
        size(key, value.len()) <= self.limit
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn part(&self, key: &str) -> MutexGuard<'_, Part> {
        let index = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[index])
    }

    /// Removes what was not used for longest until everything fits.
    fn shrink(&self) {
        while self.bytes() > self.limit {
            let oldest = self.oldest.iter().map(|used| used.load(Ordering::Relaxed));
            let oldest = oldest.zip(&self.parts).min_by_key(|(used, _)| *used);
            let Some((used, part)) = oldest.filter(|(used, _)| *used != u64::MAX) else {
                return;
            };
            let mut part = lock(part);
            // Somebody may have used it meanwhile; then the next round finds another.
            if let Some(key) = part.order.get(&used).cloned() {
                part.remove(&key, self);
            }
        }
    }
}

impl Part {
    /// The value of a key, if it has not expired. It counts as used.
    fn live(&mut self, key: &str, used: u64, state: &SharedState) -> Option<&mut Value> {
        let expires = self.entries.get(key)?.expires;
        if expires.is_some_and(|expires| expires <= Instant::now()) {
            self.remove(key, state);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(used, key);
        }
        entry.used = used;
        self.note_oldest(state);
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    fn insert(
        &mut self,
        key: &str,
        value: Value,
        expires: Option<Instant>,
        used: u64,
        state: &SharedState,
    ) {
        self.remove(key, state);
        let key: Arc<str> = key.into();
        let bytes = size(&key, value.len());
        state.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.order.insert(used, Arc::clone(&key));
        let entry = Entry {
            value,
            used,
            expires,
        };
        self.entries.insert(key, entry);
        self.note_oldest(state);
    }

    fn remove(&mut self, key: &str, state: &SharedState) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            let bytes = size(key, entry.value.len());
            state.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.note_oldest(state);
        }
    }

    fn note_oldest(&self, state: &SharedState) {
        let oldest = self.order.first_key_value();
        let oldest = oldest.map_or(u64::MAX, |(used, _)| *used);
        state.oldest[self.index].store(oldest, Ordering::Relaxed);
    }
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counter(_) | Self::Bucket(_) => 0,
        }
    }

    /// A counter reads as its eight bytes, little-endian; a bucket as no bytes.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Counter(sum) => sum.to_le_bytes().to_vec(),
            Self::Bucket(_) => Vec::new(),
        }
    }
}

impl Bucket {
    fn full(rule: BucketRule, now: Instant) -> Self {
        let period = rule.period.as_nanos();
        Self {
            level: u128::from(rule.burst) * period,
            period,
            filled: now,
        }
    }

    fn take(&mut self, tokens: u32, rule: BucketRule, now: Instant) -> Quota {
        let period = rule.period.as_nanos();
        if period != self.period {
            // Another rule than before: the same tokens in its measure.
            self.level = self.level / self.period * period;
            self.period = period;
        }
        let rate = u128::from(rule.rate);
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let capacity = u128::from(rule.burst) * period;
        self.level = (self.level + elapsed * rate).min(capacity);
        self.filled = now;
        let wanted = u128::from(tokens) * period;
        let is_allowed = wanted <= self.level;
        if is_allowed {
            self.level -= wanted;
        }
        let missing = wanted.saturating_sub(self.level);
        let retry_after_ms = if is_allowed {
            0
        } else if rate == 0 || tokens > rule.burst {
            // There will never be as many.
            u64::MAX
        } else {
            let nanos = missing.div_ceil(rate);
            u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
        };
        Quota {
            is_allowed,
            remaining: u64::try_from(self.level / period).unwrap_or(u64::MAX),
            retry_after_ms,
        }
    }
}

fn size(key: &str, value: usize) -> u64 {
    (key.len() + value) as u64 + ENTRY_BYTES
}

fn expiry(ttl: Option<Duration>) -> Option<Instant> {
    // So long that no clock reaches it is the same as never.
    ttl.and_then(|ttl| Instant::now().checked_add(ttl))
}

/// Nothing panics while it holds the lock; what it guards is whole in any case.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[tokio::test(start_paused = true)]
    async fn a_value_is_there_until_it_expires() {
        let state = SharedState::new(1 << 20);
        assert!(state.set("a", b"1".to_vec(), SECOND));
        assert!(state.set("b", b"2".to_vec(), None));
        assert_eq!(state.get("a").as_deref(), Some(&b"1"[..]));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(state.get("a"), None);
        assert_eq!(state.get("b").as_deref(), Some(&b"2"[..]));
        state.remove("b");
        assert_eq!((state.get("b"), state.bytes()), (None, 0));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let room_for_three = 3 * (ENTRY_BYTES + 110);
        let state = SharedState::new(room_for_three);
        for key in ["a", "b", "c"] {
            assert!(state.set(key, vec![0; 100], None));
        }
        assert!(state.get("a").is_some());
        assert!(state.set("d", vec![0; 100], None));
        assert_eq!(state.get("b"), None);
        for key in ["a", "c", "d"] {
            assert!(state.get(key).is_some(), "{key}");
        }
        assert!(state.bytes() <= room_for_three);
        assert!(!state.set("e", vec![0; room_for_three as usize], None));
        assert!(state.get("a").is_some());
    }

    #[test]
    fn compare_and_set_heeds_what_is_there() {
        let state = SharedState::new(1 << 20);
        assert!(!state.compare_and_set("a", Some(b"0"), b"1".to_vec(), None));
        assert!(state.compare_and_set("a", None, b"1".to_vec(), None));
        assert!(!state.compare_and_set("a", None, b"2".to_vec(), None));
        assert!(state.compare_and_set("a", Some(b"1"), b"2".to_vec(), None));
        assert_eq!(state.get("a").as_deref(), Some(&b"2"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_counter_counts_from_its_creation() {
        let state = SharedState::new(1 << 20);
        assert_eq!(state.increment("n", 2, SECOND), 2);
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(state.increment("n", 3, SECOND), 5);
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(state.increment("n", -1, SECOND), -1);
        assert!(state.set("n", b"text".to_vec(), None));
        assert_eq!(state.increment("n", 1, None), 1);
    }

    #[test]
    fn counters_of_all_threads_add_up() {
        let state = SharedState::new(1 << 20);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..1000 {
                        state.increment("n", 1, None);
                        state.set(&format!("k{}", n % 50), vec![0; 10], None);
                    }
                });
            }
        });
        assert_eq!(state.increment("n", 0, None), 4000);
        let kept: u64 = (0..50).map(|n| size(&format!("k{n}"), 10)).sum();
        assert_eq!(state.bytes(), kept + size("n", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_at_its_rate() {
        let state = SharedState::new(1 << 20);
        let rule = BucketRule {
            rate: 10,
            period: Duration::from_secs(1),
            burst: 3,
        };
        let take = |tokens| {
            let Quota {
                is_allowed,
                remaining,
                retry_after_ms,
            } = state.take("k", tokens, rule);
            (is_allowed, remaining, retry_after_ms)
        };
        assert_eq!(take(2), (true, 1, 0));
        assert_eq!(take(2), (false, 1, 100));
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(take(2), (false, 1, 1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(take(2), (true, 0, 0));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(take(4), (false, 3, u64::MAX));
        let slow = BucketRule {
            period: Duration::from_secs(10),
            ..rule
        };
        assert!(state.take("k", 3, slow).is_allowed);
        assert_eq!(state.take("k", 1, slow).retry_after_ms, 1000);
    }
}
