//! What certificate authorities look for, as far as the gateway itself answers it.
//!
//! Beside the snapshot, not in it: a challenge lives for seconds and changes nothing that is
//! served. Reading costs one atomic load, and only for requests and handshakes that look like a
//! challenge; without an entry, both go on as if this did not exist.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

/// The protocol that a handshake of TLS-ALPN-01 asks for (RFC 8737, 4).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Challenges at once: far more than orders can be on their way.
const MAX_CHALLENGES: usize = 10_000;

#[derive(Default)]
pub struct Challenges {
    table: ArcSwap<Table>,
    /// One change at a time.
    changing: Mutex<()>,
}

#[derive(Clone, Default)]
struct Table {
    /// By token (RFC 8555, 8.3).
    tokens: HashMap<Box<str>, Bytes>,
    /// By server name, in lower case (RFC 8737).
    names: HashMap<Box<str>, Proof>,
}

#[derive(Clone)]
struct Proof {
    token: Box<str>,
    key: Arc<CertifiedKey>,
}

/// A challenge cannot be shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChallengeError {
    #[error("more than {MAX_CHALLENGES} challenges are shown at once")]
    TooMany,
    #[error("the certificate of the challenge cannot be used")]
    Certificate,
}

impl Challenges {
    /// Answers requests for this token from now on, by any listener.
    pub fn show_token(&self, token: &str, authorization: &str) -> Result<(), ChallengeError> {
        self.change(|table| {
            let answer = Bytes::copy_from_slice(authorization.as_bytes());
            table.tokens.insert(token.into(), answer);
        })
    }

    /// Shows a certificate (DER, with its key in PKCS#8) to who asks for this name by `acme-tls/1`.
    pub fn show_certificate(
        &self,
        token: &str,
        name: &str,
        certificate: Vec<u8>,
        key: Vec<u8>,
    ) -> Result<(), ChallengeError> {
        let key = PrivateKeyDer::Pkcs8(key.into());
        let chain = vec![CertificateDer::from(certificate)];
        let key = crate::tls::provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| ChallengeError::Certificate)?;
        // Not held against each other: the certificate has an extension that is critical and that
        // nobody but authorities knows, so it counts as malformed.
        let key = Arc::new(CertifiedKey::new(chain, key));
        let token: Box<str> = token.into();
        self.change(|table| {
            table.names.insert(name.into(), Proof { token, key });
        })
    }

    pub fn hide(&self, token: &str) {
        // Taking away is never too much.
        let _ = self.change(|table| {
            table.tokens.remove(token);
            table.names.retain(|_, proof| *proof.token != *token);
        });
    }

    pub(crate) fn answer(&self, token: &str) -> Option<Bytes> {
        self.table.load().tokens.get(token).cloned()
    }

    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        table.names.get(name).map(|proof| Arc::clone(&proof.key))
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), ChallengeError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        if table.tokens.len() + table.names.len() > MAX_CHALLENGES {
            return Err(ChallengeError::TooMany);
        }
        self.table.store(Arc::new(table));
        Ok(())
    }
}

/// Keys must not reach a log by way of a `{:?}`.
impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        write!(f, "Challenges({})", table.tokens.len() + table.names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_until_it_is_hidden() {
        let challenges = Challenges::default();
        assert_eq!(challenges.answer("t"), None);
        challenges.show_token("t", "t.key").unwrap();
        challenges.show_token("u", "u.key").unwrap();
        assert_eq!(challenges.answer("t").unwrap(), "t.key");
        challenges.hide("t");
        assert_eq!(challenges.answer("t"), None);
        assert_eq!(challenges.answer("u").unwrap(), "u.key");
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let challenges = Challenges::default();
        let mut table = Table::default();
        for index in 0..MAX_CHALLENGES {
            table.tokens.insert(index.to_string().into(), Bytes::new());
        }
        challenges.table.store(Arc::new(table));
        assert_eq!(
            challenges.show_token("t", "x"),
            Err(ChallengeError::TooMany)
        );
        challenges.hide("0");
        assert_eq!(challenges.show_token("t", "x"), Ok(()));
    }
}
