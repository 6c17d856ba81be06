//! What a CA looks for, and who has to show it.

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use postern_core::config::issuer::ChallengeKind;
use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::KeyPair;

use crate::clock::Seconds;
use crate::document::ChallengeDocument;

/// A challenge that the gateway answers itself, at a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    pub kind: ChallengeKind,
    /// In lower case.
    pub host: String,
    pub token: String,
    /// What the token is answered with.
    pub authorization: String,
}

impl Challenge {
    /// What a TLS-ALPN-01 certificate holds (RFC 8737, 3), and, encoded, a TXT record (RFC 8555,
    /// 8.4).
    pub fn digest(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, self.authorization.as_bytes());
        // SHA-256 is as long.
        digest.as_ref().try_into().unwrap_or_default()
    }

    /// The certificate that a TLS-ALPN-01 handshake shows (RFC 8737, 3), DER, and its key, PKCS#8. Of
    /// no use to anybody else, so each replica makes its own.
    pub fn certificate(&self) -> Result<(Vec<u8>, Vec<u8>), ProofError> {
        let failed = |_| ProofError;
        let mut params = CertificateParams::new([self.host.clone()]).map_err(failed)?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&self.digest())];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }
}

/// A challenge as it is kept; `None` of one that is over, or that nobody asks a gateway for.
pub fn kept(bytes: &[u8], now: Seconds) -> Option<Challenge> {
    let kept: ChallengeDocument = serde_json::from_slice(bytes).ok()?;
    (kept.expires >= now).then(|| of_document(kept)).flatten()
}

pub(crate) fn of_document(kept: ChallengeDocument) -> Option<Challenge> {
    let kinds = [ChallengeKind::Http01, ChallengeKind::TlsAlpn01];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == kept.kind)?;
    Some(Challenge {
        kind,
        host: kept.host,
        token: kept.token,
        authorization: kept.authorization,
    })
}

/// A challenge has no certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the certificate of the challenge cannot be made")]
pub struct ProofError;

/// Every gateway that a CA may happen to ask.
pub trait Replicas: Send + Sync {
    /// Returns once all of them show it. An error names those that do not, after a while; the CA is
    /// told all the same, since it may ask another.
    fn show<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<(), String>>;

    /// This process alone shows it from now on: one that an earlier process began.
    fn show_here<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<(), String>> {
        self.show(challenge)
    }

    /// It may be forgotten.
    fn hide<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()>;
}
