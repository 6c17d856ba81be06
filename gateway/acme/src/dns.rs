//! What the gateway asks of the DNS, and what it writes there.

pub mod preflight;

use std::fmt;

use futures_util::future::BoxFuture;

use crate::reason::Reason;

/// A TXT record that a CA will look for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TxtRecord {
    /// Fully qualified, lower case, without the last dot; before aliases are followed.
    pub name: String,
    pub value: String,
}

/// Writes TXT records where a CA finds them.
pub trait DnsSolver: Send + Sync + fmt::Debug {
    /// Adds one value and returns once every server of the zone shows it. Idempotent; other values
    /// of the name stay.
    fn present<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Takes away that value alone. Idempotent: what is not there is gone.
    fn withdraw<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>>;
}

/// Why a record was not written, for the person who may do something about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SolverError {
    pub reason: Reason,
    pub message: String,
}
