//! What the engine tells: what can be served, and how each certificate does.

use std::collections::BTreeMap;
use std::fmt;

use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;

use crate::clock::Seconds;
use crate::document::Trouble;

/// Everything that can be served.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Issued(pub BTreeMap<CertificateName, IssuedCertificate>);

/// A chain and its key, PEM. Verified.
#[derive(Clone, Eq, PartialEq)]
pub struct IssuedCertificate {
    pub chain: String,
    pub key: String,
}

/// A key must not reach a log by way of a `{:?}`.
impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedCertificate({} bytes)", self.chain.len())
    }
}

/// How everything does.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// By name.
    pub certificates: Vec<CertificateStatus>,
    /// Attempts that ended since the start, by issuer, outcome and reason.
    pub orders: BTreeMap<(String, &'static str, String), u64>,
}

/// How one certificate does.
#[derive(Clone, Debug)]
pub struct CertificateStatus {
    pub name: CertificateName,
    pub hosts: Vec<Hostname>,
    pub issuer: IssuerName,
    /// `None`: there is none yet.
    pub served: Option<Served>,
    pub action: Action,
    /// When the action is taken.
    pub at: Seconds,
    /// Whether an attempt is on its way.
    pub is_running: bool,
    /// In a row.
    pub failures: u32,
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
pub struct Served {
    /// Who issued it, which may be a fallback.
    pub issuer: String,
    pub not_before: Seconds,
    pub not_after: Seconds,
    /// Where the CA says why it wants it renewed early.
    pub explanation: Option<String>,
}

/// What is done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Order,
    /// At this time.
    Renew(Seconds),
    /// The issuer is not known.
    Nothing,
    /// Whatever it is, another replica does it.
    Elsewhere,
}
