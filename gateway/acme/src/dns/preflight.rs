//! Whether a name leads here, before a CA is asked for anything.

use futures_util::future::BoxFuture;

use crate::reason::Reason;

pub trait Preflight: Send + Sync {
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict>;
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Ready {
        message: String,
    },
    Waits {
        reason: Reason,
        message: String,
        /// What the hostmaster has to add.
        record: Option<String>,
    },
}
