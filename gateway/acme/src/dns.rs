//! What the gateway asks of the DNS, and what it writes there.
//!
//! In reading order: [`client`] asks, [`preflight`] judges names before they are ordered,
//! [`solver`] proves them by records, [`persist`] by one that stays. Below a solver is a [`DnsWriter`], which knows one way to
//! change a zone.

pub mod aws;
mod caa;
pub mod choice;
pub mod client;
mod name;
pub(crate) mod persist;
pub mod place;
pub mod preflight;
pub mod reach;
pub mod route53;
pub mod secret;
pub mod solver;
pub mod update;
mod visible;
mod wire;

#[cfg(test)]
mod test_util;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use choice::SolverChoice;
pub use client::DnsClient;
pub use client::DnsSpec;
pub use place::Place;
pub use preflight::DnsPreflight;
pub use preflight::Preflight;
pub use preflight::Verdict;
pub use reach::Reach;
pub use route53::Route53Spec;
pub use route53::Route53Writer;
pub use secret::Secret;
pub use solver::Solver;
pub use solver::SolverSpec;
pub use update::UpdateSpec;
pub use update::UpdateWriter;
pub use wire::DnsError;

use crate::reason::Reason;

/// A TXT record that a CA will look for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TxtRecord {
    /// Fully qualified, lower case, without the last dot; before aliases are followed.
    pub name: String,
    pub value: String,
}

/// Puts TXT records where a CA finds them.
pub trait DnsSolver: Send + Sync + fmt::Debug {
    /// Whether the proof of a host, which may be a wildcard, lands where this solver writes.
    /// Changes nothing.
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict>;

    /// Adds one value and returns once every server of the zone shows it. Idempotent; other values
    /// of the name stay.
    fn present<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Takes away that value alone. Idempotent: what is not there is gone.
    fn withdraw<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>>;
}

/// One way to change a zone. Aliases were followed, and calls for one name come one at a time.
pub trait DnsWriter: Send + Sync + fmt::Debug {
    /// Whether it may write there. Changes nothing.
    fn accepts<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Access, SolverError>>;

    /// Adds a value beside those that are there; one that is there already is no error.
    fn add<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>>;

    /// How far what [`add`](Self::add) began is by now.
    fn poll<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
        ticket: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>>;

    /// Removes that value alone; one that is not there is no error.
    fn remove<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), SolverError>>;
}

/// Whether a writer may write at a place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    Granted,
    /// Why not.
    Denied(String),
}

/// How far a value is on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The writer has done its part.
    Done,
    /// To be asked for again after a while.
    Pending { ticket: String, after: Duration },
}

/// Why a record was not written, for the person who may do something about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SolverError {
    pub reason: Reason,
    pub message: String,
}

impl SolverError {
    /// Writing failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::SolverFailed,
            message: message.into(),
        }
    }
}
