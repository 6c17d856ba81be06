//! Wall-clock time, which is what authorities, certificates and documents speak of.

use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Seconds of Unix time.
pub type Seconds = u64;

pub const MINUTE: Seconds = 60;
pub const HOUR: Seconds = 60 * MINUTE;
pub const DAY: Seconds = 24 * HOUR;

/// What time it is. An argument, so that a test can let ten days pass.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Seconds + Send + Sync>);

impl Clock {
    pub fn system() -> Self {
        Self::new(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            // Before 1970 everything is equally old.
            now.map_or(0, |now| now.as_secs())
        })
    }

    pub fn new(now: impl Fn() -> Seconds + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub fn now(&self) -> Seconds {
        (self.0)()
    }
}

/// As people and programs read it: RFC 3339, in UTC.
pub fn shown(at: Seconds) -> String {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(at).map_or_else(|_| "never".to_owned(), |at| at.to_string())
}
