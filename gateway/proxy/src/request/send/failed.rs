//! An attempt that failed: why, whose fault that was, and what is left to try again with.

use std::rc::Rc;
use std::time::Duration;

use postern_core::retry::Fault;

use super::Answered;
use crate::body::Kept;
use crate::body::RequestBody;
use crate::error::ProxyError;
use crate::upstream::Lease;
use crate::upstream::Sender;

/// How often other tasks get a turn to let go of a body that is to be sent again.
const YIELDS: u32 = 4;

/// An attempt that did not lead to a response that counts.
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) error: ProxyError,
    pub(super) body: Rest,
    /// The connection, for the pool to forget it.
    pub(super) sender: Option<Sender>,
    /// A response whose status is as good as none, unless it has to do.
    pub(super) answer: Option<Answered>,
}

/// What is left of a request's body after an attempt.
pub(super) enum Rest {
    /// Boxed, being many times as large as the others, and rare.
    Untouched(Box<RequestBody>),
    Kept(Rc<Kept>),
    None,
    Gone,
}

impl Rest {
    /// The body for another attempt.
    pub(super) async fn body(self) -> Option<RequestBody> {
        match self {
            Self::Untouched(body) => Some(*body),
            Self::None => Some(RequestBody::empty()),
            Self::Gone => None,
            Self::Kept(kept) => {
                // The task that sent it may not have noticed yet that there is nobody to send to.
                for _ in 0..YIELDS {
                    if kept.is_back() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                RequestBody::again(&kept)
            }
        }
    }
}

impl Failed {
    pub(super) fn to_connect(error: ProxyError, body: RequestBody) -> Box<Self> {
        let fault = match &error {
            // Nothing is wrong with the endpoint, and another one would not help.
            ProxyError::Overloaded { .. } | ProxyError::NoSockets { .. } => Fault::Final,
            _ => Fault::Connect,
        };
        Box::new(Self {
            fault,
            error,
            body: Rest::Untouched(Box::new(body)),
            sender: None,
            answer: None,
        })
    }

    pub(super) fn untouched(body: Rest, sender: Sender, lease: &Lease) -> Box<Self> {
        Box::new(Self {
            fault: Fault::Unsent,
            error: ProxyError::Connect {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
                source: std::io::ErrorKind::ConnectionReset.into(),
            },
            body,
            sender: Some(sender),
            answer: None,
        })
    }

    pub(super) fn by_status(answer: Answered, body: Rest, lease: &Lease) -> Box<Self> {
        Box::new(Self {
            fault: Fault::Status,
            // Never seen: the answer is there.
            error: ProxyError::NoEndpoint {
                upstream: lease.upstream().name.clone(),
            },
            body,
            sender: None,
            answer: Some(answer),
        })
    }

    pub(super) fn by_time(
        limit: Duration,
        body: Rest,
        is_per_try: bool,
        sender: Sender,
        lease: &Lease,
    ) -> Box<Self> {
        Box::new(Self {
            fault: if is_per_try {
                Fault::Slow
            } else {
                Fault::Final
            },
            error: ProxyError::FirstByteTimeout {
                upstream: lease.upstream().name.clone(),
                endpoint: lease.endpoint().clone(),
                limit,
            },
            body,
            sender: Some(sender),
            answer: None,
        })
    }

    pub(super) fn in_exchange(
        error: hyper::Error,
        body: Rest,
        of_body: Option<ProxyError>,
        sender: Sender,
        lease: &Lease,
    ) -> Box<Self> {
        let fault = match &sender {
            _ if of_body.is_some() => Fault::Final,
            Sender::Http1(connection) if connection.has_answered() => Fault::Final,
            Sender::Http1(connection) => Fault::Reset {
                was_reused: connection.was_reused(),
            },
            Sender::Http2(_) => h2_fault(&error),
        };
        Box::new(Self {
            fault,
            error: of_body.unwrap_or_else(|| lease.exchange_error(error)),
            body,
            sender: Some(sender),
            answer: None,
        })
    }

    /// Counts against the endpoint what is the endpoint's fault. That it closed a connection
    /// between two requests is its right.
    pub(super) fn blame(&self, lease: &Lease) {
        let is_at_fault = match self.fault {
            Fault::Unsent | Fault::GoneAway | Fault::Refused | Fault::Status => false,
            Fault::Reset { was_reused } => !was_reused,
            Fault::Connect | Fault::Slow => true,
            Fault::Final => self.error.blames_endpoint(),
        };
        if is_at_fault {
            lease.failed();
        }
    }
}

/// What an endpoint says of a request that it has not answered over HTTP/2.
fn h2_fault(error: &hyper::Error) -> Fault {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return if error.is_go_away() && error.is_remote() {
                // Only of streams that it has not looked at; the others go on (RFC 9113, 6.8).
                Fault::GoneAway
            } else if error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_remote() {
                Fault::Refused
            } else if error.is_io() {
                Fault::Reset { was_reused: true }
            } else {
                Fault::Final
            };
        }
        cause = error.source();
    }
    if error.is_canceled() || error.is_closed() {
        Fault::Reset { was_reused: true }
    } else {
        Fault::Final
    }
}
