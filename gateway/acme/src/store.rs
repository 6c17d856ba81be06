//! Where state is kept: small documents, by kind and name.
//!
//! A document is written whole or not at all, and is there after a power failure once the write
//! has returned. One party writes at a time; any may read.

pub mod directory;

use futures_util::future::BoxFuture;

/// What a document is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A key, and the account that it belongs to.
    Account,
    /// A certificate that was verified, and its key.
    Certificate,
    /// An order on its way.
    Order,
    /// What a CA may look for now.
    Challenge,
    /// What was asked of an issuer lately.
    Ledger,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Account,
        Self::Certificate,
        Self::Order,
        Self::Challenge,
        Self::Ledger,
    ];

    /// As in names of folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Certificate => "certificate",
            Self::Order => "order",
            Self::Challenge => "challenge",
            Self::Ledger => "ledger",
        }
    }
}

/// State can be neither kept nor read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{place}: {error}")]
pub struct StoreError {
    pub place: String,
    pub error: String,
}

pub trait Store: Send + Sync {
    /// `None` if there is none.
    fn load<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Puts it in the place of the one that is there, in one step.
    fn save<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// One that is not there is gone.
    fn delete<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The names of all of one kind, sorted.
    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Who else provides the certificate of this name, in which case it is never written; `None`:
    /// nobody does.
    fn provider<'a>(
        &'a self,
        _certificate: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}
