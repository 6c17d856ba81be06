//! Whether an order would succeed, as far as the DNS decides it: asked before a CA is, as often as
//! it takes, since hostmasters take days and a CA counts failures.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::DnsSolver;
use super::caa;
use super::client::DnsClient;
use super::name;
use super::place::reason_of;
use super::reach::Reach;
use crate::reason::Reason;

/// Judges names before they are ordered.
pub trait Preflight: Send + Sync {
    /// `host` may be a wildcard. Costs a CA nothing.
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict>;
}

/// What the DNS says of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may be ordered.
    Ready { message: String },
    /// It may not, until somebody changes something.
    Waits {
        reason: Reason,
        message: String,
        /// What the hostmaster must add, as a zone file has it; may be several lines.
        record: Option<String>,
    },
}

impl Verdict {
    pub(super) fn waits(reason: Reason, message: String) -> Self {
        Self::Waits {
            reason,
            message,
            record: None,
        }
    }

    /// What is there, that no order is placed, and the record to ask for.
    pub(super) fn wanting(reason: Reason, seen: String, record: Option<String>) -> Self {
        let message = match &record {
            Some(record) => {
                let record = record.replace('\n', ", ");
                format!("{seen}; no order placed; ask the DNS team for: {record}")
            }
            None => format!("{seen}; no order placed"),
        };
        Self::Waits {
            reason,
            message,
            record,
        }
    }
}

/// How a name will be proved, which decides what the DNS has to say.
enum Proof {
    /// By an answer of the gateway (HTTP-01, TLS-ALPN-01): the name has to lead here.
    Answer { reach: Reach, method: &'static str },
    /// By a record (DNS-01): its place has to be one that is written to.
    Record(Arc<dyn DnsSolver>),
    /// The CA knows the name already: nothing stops an order, but clients should find the gateway.
    Known(Reach),
}

/// The preflight that asks the DNS.
pub struct DnsPreflight {
    client: DnsClient,
    proof: Proof,
    /// The names by which the CA's directory says that CAA records may call it.
    caa_identities: Vec<String>,
}

impl DnsPreflight {
    /// For HTTP-01.
    pub fn http(client: DnsClient, reach: Reach) -> Self {
        let method = "http-01";
        Self::new(client, Proof::Answer { reach, method })
    }

    /// For TLS-ALPN-01.
    pub fn tls_alpn(client: DnsClient, reach: Reach) -> Self {
        let method = "tls-alpn-01";
        Self::new(client, Proof::Answer { reach, method })
    }

    /// For DNS-01.
    pub fn dns(client: DnsClient, solver: Arc<dyn DnsSolver>) -> Self {
        Self::new(client, Proof::Record(solver))
    }

    /// For a CA that asks for no proof: what is wrong is said, and never waited for.
    pub fn advice(client: DnsClient, reach: Reach) -> Self {
        Self::new(client, Proof::Known(reach))
    }

    /// Looks at CAA records as well; without identities, nothing can be said of them.
    #[must_use]
    pub fn with_caa(mut self, identities: Vec<String>) -> Self {
        self.caa_identities = identities;
        self
    }

    fn new(client: DnsClient, proof: Proof) -> Self {
        Self {
            client,
            proof,
            caa_identities: Vec::new(),
        }
    }

    async fn judge(&self, host: &str) -> Verdict {
        let (verdict, method) = match &self.proof {
            Proof::Answer { reach, method } => (reach.check(&self.client, host).await, *method),
            Proof::Record(solver) => (solver.check(host).await, "dns-01"),
            Proof::Known(reach) => (reach.check(&self.client, host).await, ""),
        };
        let verdict = match verdict {
            Verdict::Ready { message } => self.judge_caa(host, method, message).await,
            verdict => verdict,
        };
        match (&self.proof, verdict) {
            (
                Proof::Known(_),
                Verdict::Waits {
                    reason, message, ..
                },
            ) => Verdict::Ready {
                message: format!("advice: {reason}: {message}"),
            },
            (_, verdict) => verdict,
        }
    }

    async fn judge_caa(&self, host: &str, method: &str, message: String) -> Verdict {
        if self.caa_identities.is_empty() {
            return Verdict::Ready { message };
        }
        let identities = &self.caa_identities;
        match caa::forbidden(&self.client, host, identities, method).await {
            Ok(None) => Verdict::Ready { message },
            Ok(Some(forbidden)) => {
                let owner = name::shown(&forbidden.owner);
                let ours = identities.join(" or ");
                let seen = format!("{owner} CAA allows {}, not {ours}", forbidden.allows);
                Verdict::wanting(Reason::CaaForbids, seen, forbidden.record(identities))
            }
            // A CA that gets no answer to this has to refuse (RFC 8659, 3).
            Err(error) => Verdict::waits(
                reason_of(&error),
                format!("CAA records of {host} cannot be looked up: {error}"),
            ),
        }
    }
}

impl Preflight for DnsPreflight {
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict> {
        Box::pin(self.judge(host))
    }
}

#[cfg(test)]
mod tests;
