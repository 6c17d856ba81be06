//! Whether a request that got no answer from an endpoint may be sent again.
//!
//! Two questions decide. May the endpoint have acted on it? Then only a method that may be repeated
//! is (RFC 9110, 9.2.2). Is what would be sent again still there? A body that is gone cannot be.

use http::Method;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection closed before the request was written to it.
    Unsent,
    /// HTTP/2: the endpoint is leaving and says that it has not looked at the request.
    GoneAway,
    /// HTTP/2: the endpoint refused the request without looking at it (RFC 9113, 8.7).
    Refused,
    /// The connection ended before the first byte of a response.
    Reset { was_reused: bool },
    /// No response within the time of one attempt.
    Slow,
    /// A status that is configured to be as good as no response.
    Status,
    /// Anything else: a response has begun, or the client is at fault.
    Final,
}

/// The state of a request after an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    pub fault: Fault,
    pub method: &'a Method,
    /// There was no body, or all that was sent of it is kept.
    pub has_body: bool,
    /// An endpoint is left that was not tried.
    pub has_other: bool,
    /// Configured retries that are left.
    pub retries_left: u32,
    /// Whether retries are configured at all.
    pub is_on: bool,
    /// Connections that may still turn out to be closed.
    pub stale_left: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    GiveUp,
    /// Over a connection that is known to be open. No load to speak of: the endpoint has not
    /// worked for the first attempt.
    Reconnect,
    /// To another endpoint if there is one, if the budget allows.
    Retry,
}

/// Whether a second copy of the request does no harm. TRACE is idempotent, but is never proxied.
pub fn may_repeat(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

pub fn decide(attempted: &Attempted<'_>) -> Decision {
    let &Attempted {
        fault,
        method,
        has_body,
        has_other,
        retries_left,
        is_on,
        stale_left,
    } = attempted;
    if !has_body {
        return Decision::GiveUp;
    }
    let reconnects = match fault {
        Fault::Unsent => true,
        Fault::GoneAway => is_on,
        Fault::Reset { was_reused } => is_on && was_reused && may_repeat(method),
        Fault::Connect | Fault::Refused | Fault::Slow | Fault::Status | Fault::Final => false,
    };
    let retries = match fault {
        // The same endpoint would hardly take a connection that it refused a moment ago.
        Fault::Connect => has_other,
        Fault::Refused => true,
        Fault::Slow | Fault::Status => may_repeat(method),
        Fault::Unsent | Fault::GoneAway | Fault::Reset { .. } | Fault::Final => false,
    };
    if reconnects && stale_left > 0 {
        Decision::Reconnect
    } else if retries && retries_left > 0 {
        Decision::Retry
    } else {
        Decision::GiveUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 8] = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
        Method::POST,
        Method::PATCH,
        Method::TRACE,
    ];

    fn attempted(fault: Fault, method: &Method) -> Attempted<'_> {
        Attempted {
            fault,
            method,
            has_body: true,
            has_other: true,
            retries_left: 1,
            is_on: true,
            stale_left: 1,
        }
    }

    #[test]
    fn what_an_endpoint_may_have_acted_on_is_repeated_by_method_alone() {
        use Decision::GiveUp;
        use Decision::Reconnect;
        use Decision::Retry;
        // (fault, decision for methods that may be repeated, decision for the others)
        let cases = [
            (Fault::Connect, Retry, Retry),
            (Fault::Unsent, Reconnect, Reconnect),
            (Fault::GoneAway, Reconnect, Reconnect),
            (Fault::Refused, Retry, Retry),
            (Fault::Reset { was_reused: true }, Reconnect, GiveUp),
            (Fault::Reset { was_reused: false }, GiveUp, GiveUp),
            (Fault::Slow, Retry, GiveUp),
            (Fault::Status, Retry, GiveUp),
            (Fault::Final, GiveUp, GiveUp),
        ];
        for (fault, repeatable, others) in cases {
            for method in &METHODS {
                let is_repeatable = !["POST", "PATCH", "TRACE"].contains(&method.as_str());
                let want = if is_repeatable { repeatable } else { others };
                assert_eq!(
                    decide(&attempted(fault, method)),
                    want,
                    "{method} {fault:?}"
                );
            }
        }
    }

    #[test]
    fn no_state_repeats_what_may_have_been_acted_on() {
        let faults = [
            Fault::Connect,
            Fault::Unsent,
            Fault::GoneAway,
            Fault::Refused,
            Fault::Reset { was_reused: true },
            Fault::Reset { was_reused: false },
            Fault::Slow,
            Fault::Status,
            Fault::Final,
        ];
        for fault in faults {
            // RFC 9110, 9.2.2, and what the fault says of the bytes that were sent.
            let is_untouched = matches!(
                fault,
                Fault::Connect | Fault::Unsent | Fault::GoneAway | Fault::Refused
            );
            for method in &METHODS {
                for bits in 0..64_u32 {
                    let bit = |at: u32| bits >> at & 1 == 1;
                    let state = Attempted {
                        fault,
                        method,
                        has_body: bit(0),
                        has_other: bit(1),
                        retries_left: bits >> 2 & 1,
                        is_on: bit(3),
                        stale_left: bits >> 4 & 3,
                    };
                    let decision = decide(&state);
                    let goes_on = decision != Decision::GiveUp;
                    assert!(!goes_on || state.has_body, "{state:?}");
                    assert!(!goes_on || is_untouched || may_repeat(method), "{state:?}");
                    assert!(
                        decision != Decision::Retry || state.retries_left > 0,
                        "{state:?}"
                    );
                    assert!(
                        decision != Decision::Reconnect || state.stale_left > 0,
                        "{state:?}"
                    );
                    let is_off = !state.is_on && state.retries_left == 0;
                    assert!(!goes_on || !is_off || fault == Fault::Unsent, "{state:?}");
                }
            }
        }
    }

    #[test]
    fn limits_end_every_kind_of_retry() {
        let faults = [
            Fault::Connect,
            Fault::Unsent,
            Fault::GoneAway,
            Fault::Refused,
            Fault::Reset { was_reused: true },
            Fault::Slow,
            Fault::Status,
        ];
        for fault in faults {
            let full = attempted(fault, &Method::GET);
            let gone = Attempted {
                has_body: false,
                ..full
            };
            assert_eq!(decide(&gone), Decision::GiveUp, "{fault:?}");
            let spent = Attempted {
                retries_left: 0,
                stale_left: 0,
                ..full
            };
            assert_eq!(decide(&spent), Decision::GiveUp, "{fault:?}");
            let off = Attempted {
                retries_left: 0,
                is_on: false,
                ..full
            };
            // Nothing was sent: that is no retry.
            let want = match fault {
                Fault::Unsent => Decision::Reconnect,
                _ => Decision::GiveUp,
            };
            assert_eq!(decide(&off), want, "{fault:?}");
        }
        let alone = Attempted {
            has_other: false,
            ..attempted(Fault::Connect, &Method::GET)
        };
        assert_eq!(decide(&alone), Decision::GiveUp);
    }
}
