//! Budgets, and what it is called when one is spent.

/// What a client did that ended its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Abuse {
    #[error("too many requests were reset before their response")]
    Resets,
    #[error("too many resets of streams that were over")]
    LateResets,
    #[error("too many resets were provoked")]
    Faults,
    #[error("too many SETTINGS frames")]
    Settings,
    #[error("too many PING frames")]
    Pings,
    #[error("too many PRIORITY or unknown frames")]
    Priorities,
    #[error("too many WINDOW_UPDATE frames")]
    WindowUpdates,
    #[error("too many CONTINUATION frames")]
    Continuations,
    #[error("a request head of far too many fields")]
    Fields,
    #[error("too many empty DATA frames")]
    EmptyData,
    #[error("a request head did not end in time")]
    SlowHead,
    /// Found above, by the HTTP implementation: header bombs, small DATA frames, and the like.
    #[error("the client was too much for the HTTP implementation")]
    Calm,
    /// Found above: the protocol was broken.
    #[error("the client broke the protocol")]
    Protocol,
}

/// RFC 9113, 7.
const ENHANCE_YOUR_CALM: u32 = 11;

impl Abuse {
    /// The stable label of metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::LateResets => "late-resets",
            Self::Faults => "faults",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::Priorities => "priorities",
            Self::WindowUpdates => "window-updates",
            Self::Continuations => "continuations",
            Self::Fields => "fields",
            Self::EmptyData => "empty-data",
            Self::SlowHead => "slow-head",
            Self::Calm => "calm",
            Self::Protocol => "protocol",
        }
    }

    /// By the code of a GOAWAY that was sent above.
    pub(super) fn of_code(code: u32) -> Self {
        match code {
            ENHANCE_YOUR_CALM => Self::Calm,
            _ => Self::Protocol,
        }
    }

    /// The code of the GOAWAY that says so.
    pub(super) fn code(self) -> u32 {
        ENHANCE_YOUR_CALM
    }
}

/// How many there were lately.
///
/// Two counts instead of a list of times: the window before counts by the part of it that has not
/// passed yet. So no window of the same length, wherever it begins, holds many more than the limit,
/// and a burst of exactly the limit is let through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    began: u64,
    before: u32,
    count: u32,
}

impl Lately {
    /// Counts one at `now`; false if that is more than `limit` within `window`, in the same unit.
    pub(super) fn count(&mut self, now: u64, window: u64, limit: u32) -> bool {
        let passed = now.saturating_sub(self.began);
        if passed >= window {
            let is_next = passed < 2 * window;
            self.before = if is_next { self.count } else { 0 };
            self.count = 0;
            self.began = if is_next { self.began + window } else { now };
        }
        self.count = self.count.saturating_add(1);
        let left = window.saturating_sub(now.saturating_sub(self.began));
        let before = u64::from(self.before) * left / window.max(1);
        u64::from(self.count) + before <= u64::from(limit)
    }
}

/// What the gateway's own frames entitle the client to: answers that are no flood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit(u32);

/// Beyond, credit does not grow: it would outlive what it was earned with.
const MOST_CREDIT: u32 = 1 << 20;

impl Credit {
    pub(super) fn earn(&mut self, count: u32) {
        self.0 = self.0.saturating_add(count).min(MOST_CREDIT);
    }

    /// False if there was none.
    pub(super) fn spend(&mut self) -> bool {
        let had = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_limit_and_not_one_more() {
        let mut lately = Lately::default();
        assert!((0..100).all(|_| lately.count(1000, 500, 100)));
        assert!(!lately.count(1000, 500, 100));
    }

    #[test]
    fn a_burst_on_each_side_of_a_boundary_is_one_burst() {
        let mut lately = Lately::default();
        assert!((0..100).all(|_| lately.count(999, 500, 100)));
        // Windows begin at 500 and 1000; of the second, half has passed.
        let more = (0..100).take_while(|_| lately.count(1250, 500, 100));
        assert_eq!(more.count(), 50);
    }

    #[test]
    fn what_is_long_past_does_not_count() {
        let mut lately = Lately::default();
        for now in [0, 10_000, 20_000] {
            assert!((0..100).all(|_| lately.count(now, 500, 100)), "{now}");
        }
    }

    #[test]
    fn credit_is_spent_once() {
        let mut credit = Credit::default();
        credit.earn(2);
        assert!(credit.spend() && credit.spend() && !credit.spend());
    }
}
