//! Keys: that of an account, which signs requests, and those of certificates.
//!
//! No key is ever shown: `Debug` says that there is one.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use postern_core::config::issuer::KeyType;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::KeyPair;
use rcgen::RsaKeySize;
use serde_json::Value;
use serde_json::json;

/// Shortest MAC key of a binding in bytes: what HS256 asks for (RFC 7518, 3.2) is 32, and some
/// authorities give less.
const MIN_MAC: usize = 16;
/// Longest file of a MAC key.
pub(crate) const MAX_MAC_FILE: u64 = 4 << 10;

/// A key cannot be made or used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the stored key is not one that this version makes")]
    Malformed,
    #[error("a key cannot be made")]
    Generate,
    #[error("a request cannot be signed")]
    Sign,
    #[error("the key of the external account is no base64")]
    MacEncoding,
    #[error("the key of the external account is too short: {MIN_MAC} bytes at least")]
    MacLength,
}

/// The key of an account: ECDSA on P-256, which every authority takes.
pub(crate) struct AccountKey {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl AccountKey {
    /// A new one, as it is stored.
    pub(crate) fn generate() -> Result<String, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let pkcs8 = pkcs8.map_err(|_| KeyError::Generate)?;
        Ok(encode(pkcs8.as_ref()))
    }

    /// One that was stored.
    pub(crate) fn parse(stored: &str) -> Result<Self, KeyError> {
        let pkcs8 = BASE64_URL_SAFE_NO_PAD.decode(stored);
        let pkcs8 = pkcs8.map_err(|_| KeyError::Malformed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
        Ok(Self {
            pair: pair.map_err(|_| KeyError::Malformed)?,
            pkcs8,
            random: SystemRandom::new(),
        })
    }

    /// DER (RFC 5958).
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        self.pkcs8.clone()
    }

    /// The public half (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        // 4, then x and y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) })
    }

    /// RFC 7638. The members stand in their order, as `serde_json` writes them.
    pub(crate) fn thumbprint(&self) -> String {
        let jwk = self.jwk().to_string();
        encode(digest::digest(&digest::SHA256, jwk.as_bytes()).as_ref())
    }

    /// What a token is answered with (RFC 8555, 8.1).
    pub(crate) fn authorize(&self, token: &str) -> String {
        format!("{token}.{}", self.thumbprint())
    }

    /// A signed request of a key without an account (RFC 8555, 6.2).
    pub(crate) fn sign(&self, url: &str, nonce: &str, payload: &str) -> Result<String, KeyError> {
        let header = json!({ "alg": "ES256", "nonce": nonce, "url": url, "jwk": self.jwk() });
        self.sign_with(&header, payload)
    }

    /// The same of the key of an account.
    pub(crate) fn sign_as(
        &self,
        account: &str,
        url: &str,
        nonce: &str,
        payload: &str,
    ) -> Result<String, KeyError> {
        let header = json!({ "alg": "ES256", "nonce": nonce, "url": url, "kid": account });
        self.sign_with(&header, payload)
    }

    fn sign_with(&self, header: &Value, payload: &str) -> Result<String, KeyError> {
        let (protected, payload) = (encode(header.to_string()), encode(payload));
        let message = format!("{protected}.{payload}");
        let signature = self.pair.sign(&self.random, message.as_bytes());
        let signature = encode(signature.map_err(|_| KeyError::Sign)?.as_ref());
        Ok(flat(&protected, &payload, &signature))
    }

    /// The proof that a customer of the authority wants this key for an account (RFC 8555, 7.3.4).
    pub(crate) fn bind(&self, url: &str, key_id: &str, mac: &hmac::Key) -> Value {
        let header = json!({ "alg": "HS256", "kid": key_id, "url": url });
        let (protected, payload) = (encode(header.to_string()), encode(self.jwk().to_string()));
        let tag = hmac::sign(mac, format!("{protected}.{payload}").as_bytes());
        json!({ "protected": protected, "payload": payload, "signature": encode(tag.as_ref()) })
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

fn flat(protected: &str, payload: &str, signature: &str) -> String {
    json!({ "protected": protected, "payload": payload, "signature": signature }).to_string()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The MAC key of a binding as authorities hand it out: base64 or base64url, padded or not, with a
/// line end behind it.
pub(crate) fn mac(text: &str) -> Result<hmac::Key, KeyError> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    let text = text.trim().replace('+', "-").replace('/', "_");
    let bytes = engine.decode(text).map_err(|_| KeyError::MacEncoding)?;
    if bytes.len() < MIN_MAC {
        return Err(KeyError::MacLength);
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// A new key for a certificate, PEM.
pub(crate) fn certificate_key(kind: KeyType) -> Result<String, KeyError> {
    let pair = match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
    };
    Ok(pair.map_err(|_| KeyError::Generate)?.serialize_pem())
}

/// The request for a certificate (RFC 2986), DER.
pub(crate) fn request(key: &str, hosts: &[String]) -> Result<Vec<u8>, KeyError> {
    let pair = KeyPair::from_pem(key).map_err(|_| KeyError::Malformed)?;
    let params = CertificateParams::new(hosts.to_vec());
    let mut params = params.map_err(|_| KeyError::Malformed)?;
    // The names stand in the extension; a common name is held to 64 characters.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&pair);
    Ok(request.map_err(|_| KeyError::Sign)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_key_is_read_as_authorities_write_it() {
        let plain = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
        let forms = [
            plain.to_owned(),
            format!("{plain}\n"),
            "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+w==".to_owned(),
            "-_-_-_-_-_-_-_-_-_-_-_-_-_-_-w".to_owned(),
        ];
        for form in forms {
            assert!(mac(&form).is_ok(), "{form}");
        }
        assert_eq!(mac("not base64!").unwrap_err(), KeyError::MacEncoding);
        assert_eq!(mac("c2hvcnQ").unwrap_err(), KeyError::MacLength);
    }

    #[test]
    fn an_account_key_is_read_back_and_not_shown() {
        let stored = AccountKey::generate().unwrap();
        let key = AccountKey::parse(&stored).unwrap();
        assert_eq!(key.jwk(), AccountKey::parse(&stored).unwrap().jwk());
        assert_eq!(key.thumbprint().len(), 43);
        assert_eq!(format!("{key:?}"), "AccountKey(..)");
        assert!(AccountKey::parse("junk").is_err());
    }

    #[test]
    fn a_request_names_its_hosts_and_nothing_else() {
        for kind in [KeyType::EcdsaP256, KeyType::Rsa2048] {
            let key = certificate_key(kind).unwrap();
            let der = request(&key, &["a.test".to_owned(), "*.b.test".to_owned()]).unwrap();
            let holds = |text: &str| der.windows(text.len()).any(|w| w == text.as_bytes());
            assert!(holds("a.test") && holds("*.b.test"));
            assert!(!holds("rcgen"));
        }
    }
}
