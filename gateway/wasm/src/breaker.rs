//! The crash-loop breaker of a plugin: what fails each time is left alone for a while.
//!
//! It opens after [`FAULTS`] and one more failures of a phase within [`WINDOW`] with no success of
//! that phase between them. A plugin that some requests can crash goes on serving the others; one
//! that crashes whatever it is given stops costing an instance a request.
//!
//! A call that goes well pays for two loads.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::component::Phase;

/// Failures in a row that are borne.
const FAULTS: u32 = 5;
/// How far apart the first and the last of them may be.
const WINDOW: Duration = Duration::from_secs(10);
/// How long it is open at first; twice as long each time that the first call after it fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Shared by all workers of a plugin. It has two: what fails beside requests leaves requests alone.
#[derive(Debug)]
pub(crate) struct Breaker {
    started: Instant,
    /// Milliseconds since `started` at which calls may go again, and 0 while nothing is wrong.
    open_until: AtomicU64,
    /// Failures in a row, by phase.
    failed: [AtomicU32; Phase::ALL.len()],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    pause: Duration,
    /// The phase whose failures opened it; its success closes it.
    cause: Option<Phase>,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        Self {
            started,
            open_until: AtomicU64::new(0),
            failed: Default::default(),
            state: Mutex::new(State {
                since: started,
                pause: FIRST_PAUSE,
                cause: None,
            }),
        }
    }

    /// Whether calls are to fail without being made.
    pub(crate) fn is_open(&self) -> bool {
        let until = self.open_until.load(Ordering::Relaxed);
        until != 0 && self.now() < until
    }

    pub(crate) fn succeeded(&self, phase: Phase) {
        let failed = &self.failed[phase as usize];
        // A call that ends while it is open began before that: it says nothing about now, and the
        // failures must stay counted for the first success after the pause to close it.
        if failed.load(Ordering::Relaxed) == 0 || self.is_open() {
            return;
        }
        failed.store(0, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.cause == Some(phase) {
            state.cause = None;
            state.pause = FIRST_PAUSE;
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, phase: Phase) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_open() {
            // Was under way when it opened.
            return;
        }
        let failed = &self.failed[phase as usize];
        let now = Instant::now();
        if state.cause == Some(phase) {
            // The first call after a pause.
            state.pause = (state.pause * 2).min(LONGEST_PAUSE);
        } else {
            let count = failed.load(Ordering::Relaxed);
            let is_first = count == 0 || now.duration_since(state.since) > WINDOW;
            if is_first {
                state.since = now;
            }
            let count = if is_first { 1 } else { count + 1 };
            failed.store(count, Ordering::Relaxed);
            if count <= FAULTS {
                return;
            }
            state.cause = Some(phase);
        }
        let until = self.now() + u64::try_from(state.pause.as_millis()).unwrap_or(u64::MAX);
        self.open_until.store(until, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.failed(Phase::Request);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_longer_each_time() {
        let breaker = Breaker::new();
        fail(&breaker, FAULTS);
        assert!(!breaker.is_open());
        fail(&breaker, 1);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(breaker.is_open());
            tokio::time::advance(Duration::from_millis(pause * 1000 - 1)).await;
            assert!(breaker.is_open(), "{pause}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!breaker.is_open(), "{pause}");
            fail(&breaker, 1);
        }
        tokio::time::advance(LONGEST_PAUSE).await;
        breaker.succeeded(Phase::Request);
        fail(&breaker, FAULTS);
        assert!(!breaker.is_open());
        fail(&breaker, 1);
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_from_before_it_opened_does_not_keep_it_from_closing() {
        let breaker = Breaker::new();
        fail(&breaker, FAULTS + 1);
        // A slow call that was under way.
        breaker.succeeded(Phase::Request);
        assert!(breaker.is_open());
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.succeeded(Phase::Request);
        for _ in 0..10 {
            fail(&breaker, FAULTS);
            assert!(!breaker.is_open());
            breaker.succeeded(Phase::Request);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_between_successes_or_far_apart_are_borne() {
        let breaker = Breaker::new();
        for _ in 0..100 {
            fail(&breaker, FAULTS);
            breaker.succeeded(Phase::Request);
        }
        for _ in 0..100 {
            fail(&breaker, FAULTS);
            tokio::time::advance(WINDOW + Duration::from_millis(1)).await;
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn success_in_another_phase_does_not_count() {
        let breaker = Breaker::new();
        for _ in 0..=FAULTS {
            breaker.succeeded(Phase::Response);
            fail(&breaker, 1);
        }
        assert!(breaker.is_open());
    }
}
