//! Keys that are given to the gateway: shown to nobody, and read again when they are used, so that
//! one that is replaced is used at once.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::PathBuf;

/// Largest file with a secret.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Clone, Eq, PartialEq)]
pub enum Secret {
    Text(String),
    File(PathBuf),
}

/// Why a secret is not known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} cannot be read: {}", path.display(), io::Error::from(*kind))]
pub struct SecretError {
    pub path: PathBuf,
    pub kind: io::ErrorKind,
}

impl Secret {
    /// Without the white space around it. Reads a small local file.
    pub(super) fn load(&self) -> Result<String, SecretError> {
        let path = match self {
            Self::Text(text) => return Ok(text.trim().to_owned()),
            Self::File(path) => path,
        };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        read.map_err(|error| SecretError {
            path: path.clone(),
            kind: error.kind(),
        })?;
        Ok(text.trim().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
