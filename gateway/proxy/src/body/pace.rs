//! How slow a body may be, and how large its trailers.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::clock::Timer;
use crate::clock::time;
use crate::connection::Connection;

/// Most fields of trailers.
const TRAILER_FIELDS: usize = 32;
/// Most bytes of their names and values.
const TRAILER_BYTES: usize = 16 << 10;

pub(super) fn is_small(trailers: &HeaderMap) -> bool {
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    trailers.len() <= TRAILER_FIELDS && trailers.iter().map(bytes).sum::<usize>() <= TRAILER_BYTES
}

/// How slow a body may be. Only the time counts for which its sender is waited for: a slow reader
/// on the other side is not this one's fault.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long it may stand still.
    idle: Duration,
    /// Bytes a second after `grace`; zero: any.
    rate: u32,
    grace: Duration,
    /// Ticks for which the sender was waited for so far, and since when it is.
    waited: u64,
    since: Option<u64>,
}

impl Pace {
    /// Of the body of a request with these fields.
    pub(crate) fn new(connection: &Connection, headers: &HeaderMap) -> Self {
        let spec = &connection.listener.spec;
        // A gRPC stream is no upload: it is quiet until there is something to say.
        let is_grpc = connection.is_h2
            && headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        Self {
            rate: if is_grpc { 0 } else { spec.limits.body_rate },
            grace: spec.timeouts.body_grace,
            ..Self::idle(spec.timeouts.body_idle)
        }
    }

    /// Any rate, as long as it does not stand still.
    pub(super) fn idle(idle: Duration) -> Self {
        Self {
            idle,
            rate: 0,
            grace: Duration::ZERO,
            waited: 0,
            since: None,
        }
    }

    /// The sender is waited for; `bytes` have come.
    pub(super) fn waits(&mut self, timer: &Timer, bytes: u64) {
        if self.since.is_none() {
            self.since = Some(timer.now());
            timer.arm(self.limit(bytes));
        }
    }

    /// Something came.
    pub(super) fn moved(&mut self, timer: &Timer) {
        if let Some(since) = self.since.take() {
            self.waited += timer.now().saturating_sub(since);
            timer.disarm();
        }
    }

    /// Lets the sender be quiet for as long once more.
    pub(super) fn begin_again(&mut self) {
        *self = Self::idle(self.idle);
    }

    /// How long the sender may be waited for now, after `bytes`.
    fn limit(&self, bytes: u64) -> Duration {
        if self.rate == 0 {
            return self.idle;
        }
        // Each byte buys time.
        let bought = Duration::from_millis(bytes.saturating_mul(1000) / u64::from(self.rate));
        let left = self.grace.saturating_add(bought);
        left.saturating_sub(time(self.waited)).min(self.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time_and_waiting_spends_it() {
        let seconds = Duration::from_secs;
        let pace = |waited| Pace {
            rate: 500,
            grace: seconds(10),
            waited,
            ..Pace::idle(seconds(30))
        };
        // A tick is 20 ms.
        for (waited, bytes, want) in [
            (0, 0, seconds(10)),
            (50 * 4, 0, seconds(6)),
            (50 * 10, 0, seconds(0)),
            (50 * 10, 500, seconds(1)),
            (50 * 20, 5000, seconds(0)),
            (50 * 20, 1 << 30, seconds(30)),
        ] {
            assert_eq!(pace(waited).limit(bytes), want, "{waited} {bytes}");
        }
        assert_eq!(Pace::idle(seconds(30)).limit(0), seconds(30));
    }

    #[test]
    fn trailers_have_a_count_and_a_size() {
        let fields = |count: usize, length: usize| {
            let mut map = HeaderMap::new();
            for index in 0..count {
                let name = HeaderName::try_from(format!("x-{index:03}")).unwrap();
                map.insert(name, HeaderValue::try_from("a".repeat(length)).unwrap());
            }
            map
        };
        assert!(is_small(&fields(32, 10)));
        assert!(!is_small(&fields(33, 10)));
        assert!(is_small(&fields(1, (16 << 10) - 5)));
        assert!(!is_small(&fields(1, (16 << 10) - 4)));
    }
}
