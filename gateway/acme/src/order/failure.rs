//! Why an attempt failed, and when the next one is worth it.

use crate::client::CaError;
use crate::clock::DAY;
use crate::clock::HOUR;
use crate::clock::MINUTE;
use crate::clock::Seconds;
use crate::document::OrderDocument;
use crate::document::Trouble;
use crate::key::KeyError;
use crate::reason::Reason;
use crate::store::StoreError;

/// After failures at the authority. Three in the first hour: Let's Encrypt lets a name fail five
/// times an hour, and somebody may be trying by hand.
const LADDER: [Seconds; 7] = [
    MINUTE,
    10 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
];
/// After looks at the DNS, which cost the authority nothing: the first, those of an hour in which
/// somebody may be at work on it, and those of the days that hostmasters take.
const DNS_FIRST: Seconds = 30;
const DNS_SOON: Seconds = MINUTE;
const DNS_LATER: Seconds = 10 * MINUTE;
/// How many of them are soon.
const DNS_LOOKS: u32 = 60;
/// After failures of our own storage, where nothing was asked for.
const STORAGE_PAUSE: Seconds = MINUTE;

/// Why there is no certificate yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// The authority's own words.
    pub(crate) problem: Option<String>,
    /// What the hostmaster has to add.
    pub(crate) record: Option<String>,
    /// The earliest that another attempt is worth it.
    pub(crate) retry_at: Option<Seconds>,
    /// Nothing was asked of the authority.
    pub(crate) is_wait: bool,
    /// The authority knows no such account.
    pub(crate) is_account_lost: bool,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            problem: None,
            record: None,
            retry_at: None,
            is_wait: false,
            is_account_lost: false,
        }
    }

    pub(crate) fn until(self, at: Seconds) -> Self {
        Self {
            retry_at: Some(at),
            is_wait: true,
            ..self
        }
    }

    pub(crate) fn of(error: &CaError, reason: Reason) -> Self {
        let problem = error.problem().map(ToString::to_string);
        let message = match (&problem, reason) {
            (None, _) => error.to_string(),
            (Some(_), Reason::RateLimited) => "the authority asks for a pause".to_owned(),
            (Some(_), Reason::AccountPaused) => {
                "the authority wants something done by a person first".to_owned()
            }
            (Some(_), Reason::EabRequired) => {
                "the authority makes accounts for its customers alone".to_owned()
            }
            (Some(_), Reason::EabRefused) => {
                "the authority refuses the external account".to_owned()
            }
            (Some(_), _) => "the authority refuses".to_owned(),
        };
        Self {
            problem,
            retry_at: error.retry_at(),
            is_account_lost: error.is("accountDoesNotExist"),
            ..Self::new(reason, message)
        }
    }

    pub(crate) fn reason_of(error: &CaError) -> Reason {
        let Some(problem) = error.problem() else {
            return match error {
                CaError::Key(_) => Reason::StorageFailed,
                CaError::Http(_)
                | CaError::Foreign { .. }
                | CaError::Lacks { .. }
                | CaError::Refused { .. }
                | CaError::Problem { .. } => Reason::IssuerUnreachable,
            };
        };
        let detail = problem.detail.to_ascii_lowercase();
        if problem.is("userActionRequired") || detail.contains("paused") {
            return Reason::AccountPaused;
        }
        if problem.is("rateLimited") {
            return Reason::RateLimited;
        }
        if problem.is("caa") {
            return Reason::CaaForbids;
        }
        if problem.is("externalAccountRequired") {
            return Reason::EabRequired;
        }
        if problem.is("serverInternal") || problem.is("badNonce") {
            return Reason::IssuerUnreachable;
        }
        Reason::OrderRefused
    }

    /// Notes the failure, and when to try again.
    pub(crate) fn note(&self, kept: &mut OrderDocument, now: Seconds) {
        let pause = if self.reason == Reason::StorageFailed {
            STORAGE_PAUSE
        } else if self.is_wait {
            let pause = match kept.waits {
                0 => DNS_FIRST,
                1..DNS_LOOKS => DNS_SOON,
                _ => DNS_LATER,
            };
            kept.waits = kept.waits.saturating_add(1);
            pause
        } else {
            let step = LADDER.get(kept.failures as usize);
            kept.failures = kept.failures.saturating_add(1);
            kept.waits = 0;
            kept.first_failed_at.get_or_insert(now);
            step.copied().unwrap_or(LADDER[LADDER.len() - 1])
        };
        kept.next_try = match self.retry_at {
            Some(at) if self.is_wait => at,
            Some(at) => at.max(now + pause),
            None => now + pause,
        };
        kept.trouble = Some(self.trouble(now));
    }

    pub(crate) fn trouble(&self, now: Seconds) -> Trouble {
        Trouble {
            reason: self.reason.to_string(),
            message: self.message.clone(),
            problem: self.problem.clone(),
            record: self.record.clone(),
            at: now,
        }
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        Self::of(&error, Self::reason_of(&error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Reason::StorageFailed, error.to_string())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::new(Reason::StorageFailed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_fails_more_than_three_times_in_an_hour() {
        let mut kept = OrderDocument::default();
        let failure = Failure::new(Reason::ValidationFailed, "x");
        let (mut now, mut tries) = (1_000_000, 0);
        while now < 1_000_000 + HOUR {
            failure.note(&mut kept, now);
            tries += 1;
            now = kept.next_try;
        }
        assert_eq!(tries, 3);
        for _ in 0..20 {
            failure.note(&mut kept, now);
        }
        assert_eq!(kept.next_try, now + DAY);
        assert_eq!(kept.first_failed_at, Some(1_000_000));
    }

    #[test]
    fn a_pause_that_the_authority_asked_for_is_kept() {
        let mut kept = OrderDocument::default();
        let failure = Failure {
            retry_at: Some(5000),
            ..Failure::new(Reason::RateLimited, "x")
        };
        failure.note(&mut kept, 1000);
        assert_eq!(kept.next_try, 5000);
        // Soon is not sooner than ours.
        failure.note(&mut kept, 4999);
        assert_eq!(kept.next_try, 4999 + 10 * MINUTE);
    }

    #[test]
    fn the_dns_is_looked_at_for_ever_each_minute_for_an_hour() {
        let mut kept = OrderDocument::default();
        let failure = Failure {
            is_wait: true,
            ..Failure::new(Reason::DnsElsewhere, "x")
        };
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..62 {
            failure.note(&mut kept, now);
            pauses.push(kept.next_try - now);
            now = kept.next_try;
        }
        assert_eq!(pauses[..3], [30, 60, 60]);
        assert_eq!(pauses[59..], [60, 600, 600]);
        assert_eq!(kept.failures, 0);
        // Nothing has failed: no fallback takes it for a day of failures.
        assert_eq!(kept.first_failed_at, None);
    }
}
