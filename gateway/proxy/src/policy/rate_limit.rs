//! Bounds how often clients may ask.
//!
//! All workers count in one table, so that the limit holds however connections are spread.

use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::quality::RandomState;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use postern_core::config::policy::limit::RateLimitSpec;
use postern_core::name::PolicyName;
use postern_core::policy::rate_limit::RateDecision;
use postern_core::policy::rate_limit::RateTable;
use tokio::time::Instant;

use super::native::Reply;
use super::native::Turn;
use crate::response;

const REASON: &str = "rate-limit";
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) struct RateLimit {
    spec: RateLimitSpec,
    table: RateTable,
    /// Seeded, so that nobody can choose keys that share a place.
    hasher: RandomState,
    epoch: Instant,
    name: PolicyName,
    /// The value of `ratelimit-policy`: the same for every response.
    policy: Option<HeaderValue>,
}

impl RateLimit {
    pub(super) fn new(name: &PolicyName, spec: RateLimitSpec) -> Self {
        let (count, window) = (spec.rate.count, spec.rate.period.as_secs());
        let policy = HeaderValue::try_from(format!("\"{name}\";q={count};w={window}"));
        Self {
            table: RateTable::new(spec.rate, spec.burst, spec.keys),
            hasher: RandomState::default(),
            epoch: Instant::now(),
            name: name.clone(),
            policy: policy.ok().filter(|_| spec.headers),
            spec,
        }
    }

    pub(super) fn on_request(&self, turn: &mut Turn<'_>) -> Option<Reply> {
        let headers = &turn.exchange.request.headers;
        let key = self.spec.key.of(headers, turn.client);
        let hash = self.hasher.hash_one(key);
        let decision = self.table.take(hash, self.epoch.elapsed());
        if let Some(policy) = &self.policy {
            turn.set_on_response(RATELIMIT_POLICY, policy.clone());
            if let Some(left) = self.left(&decision) {
                turn.set_on_response(RATELIMIT, left);
            }
        }
        if decision.is_allowed {
            return None;
        }
        let mut page = response::page(self.spec.status, turn.exchange.id);
        let wait = HeaderValue::from(whole_seconds(decision.retry_after));
        page.headers.insert(header::RETRY_AFTER, wait);
        Some((page, Some(REASON)))
    }

    /// The fields of the IETF draft on rate limits: what is left, and when all of it is back.
    fn left(&self, decision: &RateDecision) -> Option<HeaderValue> {
        let (name, remaining) = (&self.name, decision.remaining);
        let reset = whole_seconds(decision.reset);
        HeaderValue::try_from(format!("\"{name}\";r={remaining};t={reset}")).ok()
    }
}

/// Rounded up: a client that comes back early is refused again.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
