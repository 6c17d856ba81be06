//! One endpoint as all workers see it: how it does, and what is under way to it.
//!
//! Everything is an atomic. A worker that chooses an endpoint reads one byte of it; only where that
//! byte is not zero is there more to think about. Failures in a row eject it: it is left alone for a
//! while, then one request tries it, and what becomes of that request decides. Health checks, where
//! there are any, decide apart from that; an endpoint serves if neither is against it.
//!
//! The state outlives changes of the configuration as long as what it is about stays equal.

use std::ops::Deref;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use postern_core::config::upstream::EjectionSpec;
use postern_core::config::upstream::EndpointSpec;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Health checks say that it is down.
const DOWN: u8 = 1;
/// It failed too often in a row.
const EJECTED: u8 = 2;
/// It has just come (back) and gets a part of its share.
const WARMING: u8 = 4;

/// Doublings of the time of ejection, at most; the configured longest time ends them before.
const MAX_DOUBLINGS: u32 = 16;
/// The part of its share, in percent, that an endpoint begins with.
const FIRST_PERCENT: u64 = 10;

pub(crate) struct Endpoint {
    pub(crate) spec: EndpointSpec,
    state: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// Until when it is left alone, in milliseconds of [`now`].
    ejected_until: AtomicU64,
    /// Since when its share grows, in milliseconds of [`now`].
    warming_since: AtomicU64,
    /// Health checks have found something.
    is_checked: AtomicBool,
    /// Ejections ever.
    pub(crate) ejections_total: AtomicU64,
    /// Requests in flight, all workers together.
    pub(crate) in_flight: Apart<AtomicU32>,
    /// Open connections, all workers together.
    pub(crate) connections: AtomicU32,
    /// Requests that wait for a connection, all workers together.
    pub(crate) waiting: AtomicU32,
    /// A connection has ended while somebody waited.
    pub(crate) freed: Notify,
}

/// On a cache line of its own. Every request writes it, and would otherwise take away from the other
/// workers the line of what they only read.
#[repr(align(64))]
pub(crate) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    Good,
    /// With this many percent of its share.
    Warming(u32),
    /// Ejected, and its time is over: the one who asks may try it.
    OnTrial,
    Bad,
}

/// Milliseconds since the program started.
pub(crate) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Endpoint {
    pub(crate) fn new(spec: EndpointSpec) -> Self {
        Self {
            spec,
            state: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            warming_since: AtomicU64::new(0),
            is_checked: AtomicBool::new(false),
            ejections_total: AtomicU64::new(0),
            in_flight: Apart(AtomicU32::new(0)),
            connections: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
        }
    }

    /// Nothing is to be said against it. All that the common path asks.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.state.load(Relaxed) == 0
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.state.load(Relaxed) & EJECTED != 0
    }

    /// For people and programs.
    pub(crate) fn label(&self) -> &'static str {
        let state = self.state.load(Relaxed);
        if state & DOWN != 0 {
            "down"
        } else if state & EJECTED != 0 {
            "ejected"
        } else {
            "up"
        }
    }

    pub(crate) fn standing(&self, now: u64, slow_start: Duration) -> Standing {
        let state = self.state.load(Relaxed);
        if state & DOWN != 0 {
            return Standing::Bad;
        }
        if state & EJECTED != 0 {
            return match self.ejected_until.load(Relaxed) <= now {
                true => Standing::OnTrial,
                false => Standing::Bad,
            };
        }
        if state & WARMING != 0 {
            let age = now.saturating_sub(self.warming_since.load(Relaxed));
            let percent = age * 100 / milliseconds(slow_start).max(1);
            if percent >= 100 {
                self.state.fetch_and(!WARMING, Relaxed);
                return Standing::Good;
            }
            return Standing::Warming(percent.max(FIRST_PERCENT) as u32);
        }
        Standing::Good
    }

    /// Takes the one trial after an ejection; others see it as bad until that is decided, or until
    /// the time has passed once more.
    pub(crate) fn take_trial(&self, now: u64, ejection: &EjectionSpec) -> bool {
        let until = self.ejected_until.load(Relaxed);
        let again = now.saturating_add(milliseconds(ejection.time));
        let swapped = self
            .ejected_until
            .compare_exchange(until, again, Relaxed, Relaxed);
        until <= now && swapped.is_ok()
    }

    /// It answered. `true` if that ends its ejection.
    #[inline]
    pub(crate) fn succeeded(&self, slow_start: Duration) -> bool {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        self.is_ejected() && self.end_ejection(slow_start)
    }

    /// It failed once more. `true` if it is to be ejected.
    pub(crate) fn failed(&self, ejection: &EjectionSpec) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if ejection.failures == 0 {
            return false;
        }
        // One on trial needs one failure, not as many as before.
        failures >= ejection.failures || self.is_ejected()
    }

    /// Leaves it alone, longer each time in a row. `true` if it was not ejected before.
    pub(crate) fn eject(&self, now: u64, ejection: &EjectionSpec) -> bool {
        if self.is_ejected() && self.ejected_until.load(Relaxed) > now + milliseconds(ejection.time)
        {
            // Failures of requests that were on their way: one event, not one each.
            return false;
        }
        let doublings = self.ejections.fetch_add(1, Relaxed).min(MAX_DOUBLINGS);
        let time = ejection.time.saturating_mul(1 << doublings);
        let time = milliseconds(time.min(ejection.max_time));
        self.ejected_until.store(now.saturating_add(time), Relaxed);
        self.ejections_total.fetch_add(1, Relaxed);
        self.failures.store(0, Relaxed);
        self.state.fetch_or(EJECTED, Relaxed) & EJECTED == 0
    }

    fn end_ejection(&self, slow_start: Duration) -> bool {
        let before = self.state.fetch_and(!EJECTED, Relaxed);
        self.ejections.store(0, Relaxed);
        if before & EJECTED == 0 {
            return false;
        }
        self.warm(slow_start);
        true
    }

    /// Lets its share grow from now on.
    pub(crate) fn warm(&self, slow_start: Duration) {
        if !slow_start.is_zero() {
            self.warming_since.store(now(), Relaxed);
            self.state.fetch_or(WARMING, Relaxed);
        }
    }

    /// What health checks have found last, if there were any.
    pub(crate) fn last_found(&self) -> Option<bool> {
        let is_up = self.state.load(Relaxed) & DOWN == 0;
        self.is_checked.load(Relaxed).then_some(is_up)
    }

    /// What health checks have found. `true` if that is news.
    pub(crate) fn found(&self, is_up: bool, slow_start: Duration) -> bool {
        self.is_checked.store(true, Relaxed);
        if !is_up {
            return self.state.fetch_or(DOWN, Relaxed) & DOWN == 0;
        }
        let before = self.state.fetch_and(!DOWN, Relaxed);
        if before & DOWN == 0 {
            return false;
        }
        // What it failed before it was down says nothing about now.
        self.failures.store(0, Relaxed);
        self.end_ejection(slow_start);
        self.warm(slow_start);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const EJECTION: EjectionSpec = EjectionSpec {
        failures: 3,
        time: Duration::from_millis(100),
        max_time: Duration::from_millis(350),
        max_percent: 50,
    };

    fn endpoint() -> Endpoint {
        Endpoint::new(EndpointSpec {
            host: "a.test".to_owned(),
            port: 80,
        })
    }

    #[test]
    fn what_every_request_writes_is_apart_from_what_every_worker_reads() {
        let line = |offset: usize| offset / align_of::<Apart<AtomicU32>>();
        let written = line(offset_of!(Endpoint, in_flight));
        assert_ne!(written, line(offset_of!(Endpoint, state)));
        assert_ne!(written, line(offset_of!(Endpoint, failures)));
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let endpoint = endpoint();
        assert!(!endpoint.failed(&EJECTION));
        assert!(!endpoint.failed(&EJECTION));
        endpoint.succeeded(Duration::ZERO);
        assert!(!endpoint.failed(&EJECTION));
        assert!(!endpoint.failed(&EJECTION));
        assert!(endpoint.failed(&EJECTION));
        let never = EjectionSpec {
            failures: 0,
            ..EJECTION
        };
        assert!(!endpoint.failed(&never));
    }

    #[test]
    fn one_request_tries_an_endpoint_and_its_time_doubles_up_to_the_longest() {
        let endpoint = endpoint();
        let mut now = 1_000;
        for time in [100, 200, 350, 350] {
            endpoint.eject(now, &EJECTION);
            let standing = |now| endpoint.standing(now, Duration::ZERO);
            assert_eq!(standing(now + time - 1), Standing::Bad, "{time}");
            assert_eq!(standing(now + time), Standing::OnTrial, "{time}");
            now += time;
            assert!(endpoint.take_trial(now, &EJECTION));
            assert!(!endpoint.take_trial(now, &EJECTION), "only one");
            assert!(endpoint.failed(&EJECTION), "one failure is enough");
        }
        assert!(endpoint.succeeded(Duration::ZERO));
        assert!(endpoint.is_plain());
        endpoint.eject(now, &EJECTION);
        assert_eq!(
            endpoint.standing(now + 100, Duration::ZERO),
            Standing::OnTrial,
            "the time starts over"
        );
    }

    #[test]
    fn health_checks_and_ejections_count_apart() {
        let endpoint = endpoint();
        assert!(endpoint.found(false, Duration::ZERO));
        assert!(!endpoint.found(false, Duration::ZERO), "no news");
        endpoint.succeeded(Duration::ZERO);
        assert_eq!(endpoint.label(), "down", "the check decides");
        endpoint.eject(0, &EJECTION);
        assert!(endpoint.found(true, Duration::ZERO));
        assert_eq!(endpoint.label(), "up");
    }

    #[test]
    fn a_share_grows_from_a_tenth_to_the_whole() {
        let endpoint = endpoint();
        let slow_start = Duration::from_secs(10);
        endpoint.warm(slow_start);
        let since = endpoint.warming_since.load(Relaxed);
        for (age, want) in [
            (0, Standing::Warming(10)),
            (5_000, Standing::Warming(50)),
            (10_000, Standing::Good),
        ] {
            assert_eq!(endpoint.standing(since + age, slow_start), want, "{age}");
        }
        assert!(endpoint.is_plain());
    }
}
