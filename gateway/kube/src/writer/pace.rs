//! So many a second, and no more at once than a burst.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    a_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(a_second: f64, burst: f64) -> Self {
        Self {
            a_second,
            burst,
            tokens: burst,
            at: Instant::now(),
        }
    }

    /// Completes when one more may happen.
    pub(super) async fn take(&mut self) {
        while !self.try_take() {
            let missing = (1.0 - self.tokens).max(0.0) / self.a_second;
            sleep(Duration::from_secs_f64(missing)).await;
        }
    }

    pub(super) fn try_take(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.a_second).min(self.burst);
        self.at = now;
        // What the arithmetic of fractions loses is no token.
        let has_one = self.tokens > 1.0 - 1e-6;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_followed_by_a_pace() {
        let mut pace = Pace::new(10.0, 3.0);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(pace.try_take());
        }
        assert!(!pace.try_take());
        for _ in 0..20 {
            pace.take().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(1_999), "{took:?}");
        assert!(took < Duration::from_millis(2_300), "{took:?}");
    }
}
