//! When a certificate is renewed: the same moment for everybody who asks, today and tomorrow.

use aws_lc_rs::digest;

use crate::clock::DAY;
use crate::clock::HOUR;
use crate::clock::MINUTE;
use crate::clock::Seconds;
use crate::document::CertificateDocument;
use crate::verify::Facts;

/// Lives below this are renewed at their half: a third of them is too little to mend anything in.
const SHORT_LIFE: Seconds = 10 * DAY;
/// A certificate is not replaced before this age, or an eighth of its life.
const LEAST_AGE: Seconds = HOUR;
/// How often an authority is asked when to renew, whatever it says of that (RFC 9773, 4.3).
const LEAST_POLL: Seconds = MINUTE;
const MOST_POLL: Seconds = DAY;
/// Where it does not say.
const DEFAULT_POLL: Seconds = 6 * HOUR;
/// Of short lives, where it does not say.
const SHORT_POLL: Seconds = HOUR;

/// The moment to renew at: in the window of the authority if it gave one (at once if that is over),
/// else by the life of the certificate.
pub(crate) fn renew_at(document: &CertificateDocument, facts: &Facts) -> Seconds {
    let point = point(&document.chain);
    let window = document.window.as_ref();
    // Of the life that we have seen: where our clock is ahead, a new certificate is old already, and
    // would be replaced by another such one for ever.
    let start = facts
        .not_before
        .max(document.issued_at)
        .min(facts.not_after);
    let life = facts.not_after - start;
    if let Some(window) = window.filter(|window| window.end > window.start) {
        let at = window.start + scale(window.end - window.start, point);
        // A window in the past must not make a certificate of a minute ago be replaced for ever, nor
        // one that is late let a certificate end.
        let latest = start + life / 6 * 5;
        return at
            .min(latest)
            .max(document.issued_at + (life / 8).min(LEAST_AGE));
    }
    let latest = match life < SHORT_LIFE {
        true => life / 2,
        false => life / 3 * 2,
    };
    start + latest - scale(life / 12, point)
}

/// When the authority is asked for its window again.
pub(crate) fn ask_at(now: Seconds, facts: &Facts, retry_at: Option<Seconds>) -> Seconds {
    let life = facts.not_after.saturating_sub(facts.not_before);
    let default = match life < SHORT_LIFE {
        true => SHORT_POLL,
        false => DEFAULT_POLL,
    };
    let wanted = retry_at.map_or(default, |at| at.saturating_sub(now));
    now + wanted.clamp(LEAST_POLL, MOST_POLL)
}

/// From 0 to 2^32, spread over certificates.
fn point(chain: &str) -> u32 {
    let digest = digest::digest(&digest::SHA256, chain.as_bytes());
    let first = digest.as_ref().first_chunk();
    u32::from_be_bytes(first.copied().unwrap_or_default())
}

fn scale(length: Seconds, point: u32) -> Seconds {
    let scaled = (u128::from(length) * u128::from(point)) >> 32;
    Seconds::try_from(scaled).unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::WindowDocument;

    fn document(chain: &str, window: Option<WindowDocument>) -> CertificateDocument {
        CertificateDocument {
            chain: chain.to_owned(),
            window,
            ..CertificateDocument::default()
        }
    }

    #[test]
    fn a_certificate_is_renewed_while_there_is_time_to_mend_what_fails() {
        for (life, from, to) in [(90 * DAY, 52, 60), (365 * DAY, 212, 244), (6 * DAY, 2, 3)] {
            let facts = Facts {
                hosts: Vec::new(),
                not_before: DAY,
                not_after: DAY + life,
                id: None,
            };
            for chain in ["one", "two", "three", "four"] {
                let document = document(chain, None);
                let at = renew_at(&document, &facts);
                assert_eq!(at, renew_at(&document, &facts));
                let day = (at - DAY) / DAY;
                assert!((from..=to).contains(&day), "{life} {chain}: day {day}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_renew_for_ever() {
        let facts = Facts {
            hosts: Vec::new(),
            not_before: 0,
            not_after: 90 * DAY,
            id: None,
        };
        let issued_at = 80 * DAY;
        let late = CertificateDocument {
            issued_at,
            ..document("x", None)
        };
        let at = renew_at(&late, &facts);
        assert!(
            (issued_at + 5 * DAY..issued_at + 7 * DAY).contains(&at),
            "{at}"
        );
    }

    #[test]
    fn the_window_of_the_authority_comes_first() {
        let facts = Facts {
            hosts: Vec::new(),
            not_before: 0,
            not_after: 90 * DAY,
            id: None,
        };
        let renew = |start, end| {
            let window = WindowDocument {
                start,
                end,
                explanation: None,
            };
            renew_at(&document("x", Some(window)), &facts)
        };
        let at = renew(DAY, 2 * DAY);
        assert!((DAY..=2 * DAY).contains(&at), "{at}");
        // Over, and beyond the end.
        assert_eq!(renew(0, 1), HOUR);
        let at = renew(100 * DAY, 101 * DAY);
        assert_eq!(at, 75 * DAY);
        // One that makes no sense is no window.
        let at = renew(2 * DAY, DAY);
        assert!(at > 50 * DAY, "{at}");
        assert_eq!(ask_at(0, &facts, Some(1)), MINUTE);
        assert_eq!(ask_at(0, &facts, Some(10 * DAY)), DAY);
        assert_eq!(ask_at(0, &facts, None), DEFAULT_POLL);
    }
}
