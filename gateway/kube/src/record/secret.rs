//! Secrets: those that hold a certificate, and values that policies name.
//!
//! The API server checks of a TLS Secret only that both keys are there. Whether they hold a
//! certificate and its key is found out here, when the Secret arrives: a pair that does not fit is
//! refused, and the one before it stays.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_core::config::Held;
use postern_core::hostname::Hostname;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use super::Meta;
use super::service::CA_KEY;
use crate::read::At;
use crate::read::Findings;
use crate::secrets::MANAGED_BY;
use crate::secrets::OURS;

const TLS: &str = "kubernetes.io/tls";
pub(crate) const TLS_CERT: &str = "tls.crt";
pub(crate) const TLS_KEY: &str = "tls.key";

#[derive(Clone, Eq, PartialEq)]
pub struct Secret {
    pub meta: Meta,
    /// `type`.
    pub kind: Arc<str>,
    /// Whether the gateway itself keeps it.
    pub is_ours: bool,
    /// Absent if it is no TLS Secret.
    pub tls: Option<TlsPair>,
    /// Of a TLS Secret only `ca.crt`, which is no secret.
    pub values: BTreeMap<Arc<str>, Held>,
}

/// Values must not reach a log by way of a `{:?}`.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("kind", &self.kind)
            .field("tls", &self.tls)
            .field("keys", &self.values.keys())
            .finish()
    }
}

/// A certificate with its chain, and the key that belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsPair {
    /// PEM.
    pub chain: Held,
    /// PEM.
    pub key: Held,
    /// The names that it holds.
    pub names: Vec<Hostname>,
    /// Unix time in seconds.
    pub not_after: i64,
}

pub(super) fn read(object: &At<'_>, meta: Meta, findings: &mut Findings) -> Option<Secret> {
    let kind = object.key("type").arc(findings).unwrap_or_default();
    let is_ours = object.value()["metadata"]["labels"][MANAGED_BY].as_str() == Some(OURS);
    let data = object.key("data");
    let plain = object.key("stringData");
    let mut values: BTreeMap<Arc<str>, Held> = BTreeMap::new();
    for (key, text) in data.pairs(findings) {
        // `kubectl` and the API server write it without line ends; people who encode by hand, with.
        let text: String = text.split_ascii_whitespace().collect();
        match STANDARD.decode(text) {
            Ok(bytes) => {
                values.insert(key.into(), bytes.into());
            }
            Err(_) => {
                let at = data.key(key);
                at.malformed(findings, "it is not encoded in base64".to_owned());
            }
        }
    }
    // In manifests alone: the API server turns it into `data`.
    for (key, text) in plain.pairs(findings) {
        values.insert(key.into(), text.as_bytes().to_vec().into());
    }
    let has_pair = values.contains_key(TLS_CERT) && values.contains_key(TLS_KEY);
    let mut tls = None;
    if &*kind == TLS || has_pair {
        let mut take = |key: &str| {
            let value = values.remove(key);
            if value.is_none() {
                let at = data.key(key);
                at.malformed(findings, "it is missing".to_owned());
            }
            value
        };
        let (chain, key) = (take(TLS_CERT), take(TLS_KEY));
        tls = match pair(chain?, key?) {
            Ok(pair) => Some(pair),
            Err((key, message)) => {
                data.key(key).malformed(findings, message);
                None
            }
        };
        values.retain(|key, _| **key == *CA_KEY);
    }
    Some(Secret {
        meta,
        kind,
        is_ours,
        tls,
        values,
    })
}

fn pair(chain: Held, key: Held) -> Result<TlsPair, (&'static str, String)> {
    let cert = |message: &str| (TLS_CERT, message.to_owned());
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| cert("it is no PEM"))?;
    let leaf = certificates
        .first()
        .ok_or_else(|| cert("it holds no PEM certificate"))?;
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| cert("the certificate is malformed"))?;
    let names = names(&parsed);
    if names.is_empty() {
        return Err(cert("the certificate names no host"));
    }
    let not_after = parsed.validity().not_after.timestamp();
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        const ENCRYPTED: &[u8] = b"ENCRYPTED";
        let is_encrypted = key.windows(ENCRYPTED.len()).any(|w| w == ENCRYPTED);
        let message = match is_encrypted {
            true => "the private key is encrypted; the gateway cannot ask for its password",
            false => "it holds no PEM private key",
        };
        (TLS_KEY, message.to_owned())
    })?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, private, &provider).map_err(|error| {
        let message = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the private key does not belong to the certificate"
            }
            _ => "the private key is of a kind that is not served",
        };
        (TLS_KEY, message.to_owned())
    })?;
    Ok(TlsPair {
        chain,
        key,
        names,
        not_after,
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Hostname> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Hostname::parse(name).ok(),
            _ => None,
        })
        .collect()
}
