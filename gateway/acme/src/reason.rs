//! Why a certificate is not as it is wanted: one of a closed list.

use std::fmt;

/// Operators read it in messages, conditions, Events and labels of metrics: a name, once given,
/// stays.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The name, or what it is an alias of, does not exist; or the record by which a zone lets an
    /// account have it.
    DnsNotFound,
    /// The name leads to addresses that are not the gateway's.
    DnsElsewhere,
    /// Some addresses of the name are the gateway's and some are not: the CA may pick any.
    DnsMixed,
    /// The name is an alias of itself, or of too many others.
    DnsLoop,
    /// No name server answered, or those that did failed.
    DnsUnreachable,
    /// CAA records (RFC 8659) allow other CAs.
    CaaForbids,
    /// The configuration does not let this issuer have the name.
    PolicyDenied,
    /// The CA asked for a pause.
    RateLimited,
    /// One more certificate would exceed what the CA allows, by our own count.
    LedgerFull,
    /// The CA wants an account bound to one of its customers, and none is configured.
    EabRequired,
    /// The CA refused the binding: unknown, wrong or used up.
    EabRefused,
    /// The CA locked the account, or wants something done in a browser.
    AccountPaused,
    /// Publishing a challenge failed.
    SolverFailed,
    /// The CA looked for a challenge and did not find it.
    ValidationFailed,
    /// The CA is at work, or an order is.
    Processing,
    /// The CA refused the order for a reason of its own.
    OrderRefused,
    /// The CA does not answer, or not as one.
    IssuerUnreachable,
    /// What the CA delivered is not what was asked for.
    CertificateRefused,
    /// State can be neither kept nor read.
    StorageFailed,
    /// Somebody else provides the certificate; it is served and not renewed.
    ExternallyManaged,
    /// The private key does not belong to the certificate.
    KeyMismatch,
    /// The certificate ends soon or has ended, and nothing renews it.
    Expiring,
}

impl Reason {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::DnsNotFound,
        Self::DnsElsewhere,
        Self::DnsMixed,
        Self::DnsLoop,
        Self::DnsUnreachable,
        Self::CaaForbids,
        Self::PolicyDenied,
        Self::RateLimited,
        Self::LedgerFull,
        Self::EabRequired,
        Self::EabRefused,
        Self::AccountPaused,
        Self::SolverFailed,
        Self::ValidationFailed,
        Self::Processing,
        Self::OrderRefused,
        Self::IssuerUnreachable,
        Self::CertificateRefused,
        Self::StorageFailed,
        Self::ExternallyManaged,
        Self::KeyMismatch,
        Self::Expiring,
    ];

    /// As in messages, conditions and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DnsNotFound => "DnsNotFound",
            Self::DnsElsewhere => "DnsElsewhere",
            Self::DnsMixed => "DnsMixed",
            Self::DnsLoop => "DnsLoop",
            Self::DnsUnreachable => "DnsUnreachable",
            Self::CaaForbids => "CaaForbids",
            Self::PolicyDenied => "PolicyDenied",
            Self::RateLimited => "RateLimited",
            Self::LedgerFull => "LedgerFull",
            Self::EabRequired => "EabRequired",
            Self::EabRefused => "EabRefused",
            Self::AccountPaused => "AccountPaused",
            Self::SolverFailed => "SolverFailed",
            Self::ValidationFailed => "ValidationFailed",
            Self::Processing => "Processing",
            Self::OrderRefused => "OrderRefused",
            Self::IssuerUnreachable => "IssuerUnreachable",
            Self::CertificateRefused => "CertificateRefused",
            Self::StorageFailed => "StorageFailed",
            Self::ExternallyManaged => "ExternallyManaged",
            Self::KeyMismatch => "KeyMismatch",
            Self::Expiring => "Expiring",
        }
    }

    /// Who may do something about it, and what.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::DnsNotFound => {
                "ask whoever runs the DNS zone to add that record; it is noticed by itself, and the authority is asked nothing before"
            }
            Self::DnsElsewhere => {
                "ask whoever runs the DNS zone to put that record in the place of what is there; it is noticed by itself, and the authority is asked nothing before"
            }
            Self::DnsMixed => {
                "ask whoever runs the DNS zone to take the foreign addresses away; it is noticed by itself"
            }
            Self::DnsLoop => {
                "ask whoever runs the DNS zone to mend the aliases; it is noticed by itself"
            }
            Self::DnsUnreachable => {
                "see that the gateway reaches its DNS servers, and that those of the zone answer"
            }
            Self::CaaForbids => {
                "ask whoever runs the DNS zone to allow the authority by CAA, or choose another issuer"
            }
            Self::PolicyDenied => {
                "change the configuration as the message says; until then nothing is asked for"
            }
            Self::RateLimited => "nothing: it is tried again when the pause is over",
            Self::LedgerFull => "wait, or raise certificates-a-week if the authority allows more",
            Self::EabRequired => {
                "get a key identifier and a key from whoever is the authority's customer, and write both into external-account of the issuer"
            }
            Self::EabRefused => {
                "see that both are as they were given; if they are, get new ones: most can be used once"
            }
            Self::AccountPaused => {
                "do what the authority asks for, at the address in its words; then it goes on by itself"
            }
            Self::SolverFailed => {
                "see the message: it is the DNS server, its credentials, or a zone that is somebody else's"
            }
            Self::ValidationFailed => {
                "see that the authority reaches this gateway from outside: firewall, load balancer (port 80 or 443), addresses in the DNS"
            }
            Self::Processing => "nothing: it takes its time, days at some authorities",
            Self::OrderRefused => "see the words of the authority; change the hosts or the issuer",
            Self::IssuerUnreachable => {
                "see that the gateway reaches the authority: proxy, firewall, roots in ca-file"
            }
            Self::CertificateRefused => {
                "tell the authority; another is ordered by itself, and what was served before is served on"
            }
            Self::StorageFailed => {
                "see that the place in the message can be written and has room; nothing is ordered before"
            }
            Self::ExternallyManaged => "nothing here; whoever provides it renews it",
            Self::KeyMismatch => "provide the key that belongs to the certificate, or delete both",
            Self::Expiring => "see why whoever provides it has not renewed it",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
