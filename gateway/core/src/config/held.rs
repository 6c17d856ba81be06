//! Bytes that a source has in memory, where a file names a path.
//!
//! A certificate in a Secret has no file. It is given a name that reads like one
//! (`secret:shop/tls/tls.crt`), which stands wherever a path may stand, and its bytes travel with
//! the configuration, in [`Config::held`](super::Config::held).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// The bytes of things that are no files, by the paths that name them.
pub type HeldFiles = BTreeMap<PathBuf, Held>;

/// Bytes in memory. Equal to others that are the same bytes.
#[derive(Clone, Eq, Ord, PartialOrd)]
pub struct Held(Arc<[u8]>);

impl Held {
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        // Of ten thousand certificates nearly all are the very bytes that they were before.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl From<Vec<u8>> for Held {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A key must not reach a log by way of a `{:?}`.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} bytes)", self.0.len())
    }
}
