//! Certificates, and which of them a client is shown.
//!
//! The choice is total and does not depend on the order of files: exact name, then the wildcard
//! above it, then the default; between two for one name, the one that is valid now, then the one
//! that became valid later, then the first by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use foldhash::fast::RandomState;
use postern_core::hostname::Hostname;
use postern_core::hostname::parent_of;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::challenges::ACME_TLS;
use crate::challenges::Challenges;

/// A certificate that can be served.
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// Those that it serves.
    names: Vec<Hostname>,
    is_limited: bool,
    /// Unix time in seconds.
    not_before: i64,
    not_after: i64,
    /// What it was parsed from, to tell whether that changed.
    chain_pem: Arc<[u8]>,
    key_pem: Arc<[u8]>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the file holds no PEM certificate")]
    NoCertificate,
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the certificate names no host")]
    NoNames,
    #[error("the file holds no PEM private key")]
    NoKey,
    #[error("the private key is encrypted; the gateway cannot ask for its password")]
    EncryptedKey,
    #[error("the private key is of a kind that is not served")]
    Key(#[source] rustls::Error),
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

impl CertificateError {
    /// The key of the configuration that names the file at fault.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::NoCertificate | Self::Malformed | Self::NoNames => "cert-file",
            Self::NoKey | Self::EncryptedKey | Self::Key(_) | Self::Mismatch => "key-file",
        }
    }
}

impl Certificate {
    /// Serves the names that it holds, or `hosts` instead.
    pub(crate) fn parse(
        chain_pem: Arc<[u8]>,
        key_pem: Arc<[u8]>,
        hosts: Option<&[Hostname]>,
    ) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|_| CertificateError::Malformed)?;
        let names = names(&parsed);
        if names.is_empty() {
            return Err(CertificateError::NoNames);
        }
        let not_before = parsed.validity().not_before.timestamp();
        let not_after = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| {
            const ENCRYPTED: &[u8] = b"ENCRYPTED";
            let is_encrypted = key_pem.windows(ENCRYPTED.len()).any(|w| w == ENCRYPTED);
            if is_encrypted {
                CertificateError::EncryptedKey
            } else {
                CertificateError::NoKey
            }
        })?;
        let provider = super::provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            other => CertificateError::Key(other),
        })?;
        Ok(Self {
            key: Arc::new(key),
            names: hosts.map_or(names, <[Hostname]>::to_vec),
            is_limited: hosts.is_some(),
            not_before,
            not_after,
            chain_pem,
            key_pem,
        })
    }

    pub(crate) fn is_from(
        &self,
        chain_pem: &Arc<[u8]>,
        key_pem: &Arc<[u8]>,
        hosts: Option<&[Hostname]>,
    ) -> bool {
        let is_same = |a: &Arc<[u8]>, b: &Arc<[u8]>| Arc::ptr_eq(a, b) || a == b;
        let serves = self.is_limited.then_some(self.names.as_slice());
        is_same(&self.chain_pem, chain_pem) && is_same(&self.key_pem, key_pem) && serves == hosts
    }

    pub(crate) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.matches(host))
    }

    /// Unix time in seconds.
    pub(crate) fn not_after(&self) -> i64 {
        self.not_after
    }

    pub(crate) fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Those that it serves.
    pub(crate) fn names(&self) -> &[Hostname] {
        &self.names
    }

    fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// The key must not reach a log by way of a `{:?}`.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Hostname> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Hostname::parse(name).ok(),
            GeneralName::IPAddress(bytes) => {
                let text = match *bytes {
                    [a, b, c, d] => std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string(),
                    bytes => {
                        let bytes: [u8; 16] = bytes.try_into().ok()?;
                        format!("[{}]", std::net::Ipv6Addr::from(bytes))
                    }
                };
                Hostname::parse(&text).ok()
            }
            _ => None,
        })
        .collect()
}

/// What one listener serves.
#[derive(Debug)]
pub(crate) struct CertificateChoice {
    exact: HashMap<Box<str>, Arc<Certificate>, RandomState>,
    wildcard: HashMap<Box<str>, Arc<Certificate>, RandomState>,
    /// `None`: a client whose server name nothing covers is refused.
    default: Option<Arc<Certificate>>,
    /// For authorities, beside what clients are shown.
    challenges: Arc<Challenges>,
}

impl CertificateChoice {
    /// `served` is in the order of names. Without a default it is the first of those that may be
    /// shown to anybody.
    pub(crate) fn new(
        served: impl Iterator<Item = Arc<Certificate>>,
        default: Option<Arc<Certificate>>,
        challenges: Arc<Challenges>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 makes every certificate equally invalid.
        let now = now.map_or(0, |now| now.as_secs().try_into().unwrap_or(i64::MAX));
        let mut served: Vec<Arc<Certificate>> = served.collect();
        let first = served.iter().find(|c| !c.is_limited).cloned();
        // Stable, so that the order of names is the last tie-break.
        served.sort_by_key(|c| std::cmp::Reverse((c.is_valid_at(now), c.not_before)));
        let mut choice = Self {
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            default: default.or(first),
            challenges,
        };
        for certificate in served {
            for name in &certificate.names {
                let (map, key) = match name {
                    Hostname::Exact(name) => (&mut choice.exact, name),
                    Hostname::Wildcard(parent) => (&mut choice.wildcard, parent),
                };
                map.entry(key.clone())
                    .or_insert_with(|| Arc::clone(&certificate));
            }
        }
        choice
    }

    /// `sni` is in lower case.
    pub(crate) fn choose(&self, sni: Option<&str>) -> Option<Arc<Certificate>> {
        let found = sni.and_then(|sni| {
            let wildcard = || self.wildcard.get(parent_of(sni)?);
            self.exact.get(sni).or_else(wildcard)
        });
        found.or(self.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has checked the name and put it into lower case.
        let sni = hello.server_name().map(|name| name.trim_end_matches('.'));
        if is_challenge(&hello) {
            // Whoever has no challenge here is shown nothing else either.
            return self.challenges.certificate(sni?);
        }
        Some(Arc::clone(&self.choose(sni)?.key))
    }
}

/// Whether an authority looks for the answer to its challenge: it offers that protocol and no other
/// (RFC 8737, 3).
pub(super) fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let Some(mut protocols) = hello.alpn() else {
        return false;
    };
    protocols.next() == Some(ACME_TLS) && protocols.next().is_none()
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::date_time_ymd;

    use super::*;

    fn certificate(names: &[&str], from: i32, to: i32) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let chain = certificate.pem().into_bytes().into();
        let key = key.serialize_pem().into_bytes().into();
        Arc::new(Certificate::parse(chain, key, None).unwrap())
    }

    #[test]
    fn a_name_gets_the_narrowest_certificate_that_is_valid() {
        let wildcard = certificate(&["*.a.test"], 2020, 2060);
        let expired = certificate(&["b.a.test"], 2010, 2015);
        let old = certificate(&["b.a.test"], 2020, 2060);
        let new = certificate(&["b.a.test", "c.test"], 2024, 2060);
        let all = [&wildcard, &expired, &old, &new].map(Arc::clone);
        let choice = CertificateChoice::new(all.into_iter(), None, Arc::default());
        let cases = [
            (Some("b.a.test"), &new, "valid, and the newest"),
            (Some("x.a.test"), &wildcard, "one label below the wildcard"),
            (
                Some("x.b.a.test"),
                &wildcard,
                "nothing covers it: the default, first by name",
            ),
            (Some("c.test"), &new, "the second name of a certificate"),
            (None, &wildcard, "no server name: the default"),
        ];
        for (sni, want, why) in cases {
            assert!(
                Arc::ptr_eq(&choice.choose(sni).unwrap(), want),
                "{sni:?}: {why}"
            );
        }
        let choice = CertificateChoice::new(
            [Arc::clone(&old)].into_iter(),
            Some(Arc::clone(&expired)),
            Arc::default(),
        );
        assert!(Arc::ptr_eq(&choice.choose(None).unwrap(), &expired));
    }

    #[test]
    fn a_key_has_to_belong_to_its_certificate() {
        let one = certificate(&["a.test"], 2020, 2060);
        let two = certificate(&["a.test"], 2020, 2060);
        let junk: Arc<[u8]> = Arc::from(&b"junk"[..]);
        let parse = |chain: &Arc<[u8]>, key: &Arc<[u8]>| {
            let error = Certificate::parse(Arc::clone(chain), Arc::clone(key), None).unwrap_err();
            (error.field(), error.to_string())
        };
        let (field, text) = parse(&one.chain_pem, &two.key_pem);
        assert_eq!(
            (field, text.contains("does not belong")),
            ("key-file", true),
            "{text}"
        );
        let (field, text) = parse(&junk, &one.key_pem);
        assert_eq!(
            (field, text.contains("no PEM certificate")),
            ("cert-file", true),
            "{text}"
        );
        let (field, text) = parse(&one.chain_pem, &junk);
        assert_eq!(
            (field, text.contains("no PEM private key")),
            ("key-file", true),
            "{text}"
        );
    }
}
