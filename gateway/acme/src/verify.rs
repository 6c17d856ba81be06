//! Whether what was delivered is what was asked for. Nothing else is ever served.

use std::sync::Arc;

use postern_core::hostname::Hostname;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;
use x509_parser::prelude::X509Certificate;

use crate::client::certificate_id;
use crate::clock::HOUR;
use crate::clock::Seconds;
use crate::clock::shown;

/// How far the clock of an authority may be ahead of ours.
const CLOCK_SKEW: Seconds = HOUR;

/// What a certificate says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    pub hosts: Vec<Hostname>,
    pub not_before: Seconds,
    pub not_after: Seconds,
    /// Its name in renewal information; `None` for one that names no issuer key.
    pub id: Option<String>,
}

/// Why a chain cannot be served.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    #[error("it does not name {0}")]
    LacksHost(String),
    #[error("it ended at {}", shown(*.0))]
    Ended(Seconds),
    #[error("it begins only at {}", shown(*.0))]
    NotYet(Seconds),
}

/// What the first certificate of a chain says.
pub fn facts(chain: &str) -> Result<Facts, Refusal> {
    let leaf = CertificateDer::pem_slice_iter(chain.as_bytes()).next();
    let leaf = leaf.and_then(Result::ok).ok_or(Refusal::NoCertificate)?;
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| Refusal::Malformed)?;
    let names = leaf.subject_alternative_name();
    let names = names.ok().flatten().map(|names| names.value);
    let names = names.iter().flat_map(|names| &names.general_names);
    let hosts = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Hostname::parse(name).ok(),
        _ => None,
    });
    let key_identifier =
        leaf.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                    identifier.key_identifier.as_ref().map(|id| id.0)
                }
                _ => None,
            });
    let seconds = |at: i64| Seconds::try_from(at).unwrap_or(0);
    Ok(Facts {
        hosts: hosts.collect(),
        not_before: seconds(leaf.validity().not_before.timestamp()),
        not_after: seconds(leaf.validity().not_after.timestamp()),
        id: key_identifier.map(|id| certificate_id(id, leaf.raw_serial())),
    })
}

/// Whether the chain can be served for all the hosts with this key, now.
pub fn verify(chain: &str, key: &str, hosts: &[Hostname], now: Seconds) -> Result<Facts, Refusal> {
    let facts = facts(chain)?;
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| Refusal::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let key = key.map_err(|_| Refusal::KeyMismatch)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    CertifiedKey::from_der(certificates, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Refusal::KeyMismatch,
        _ => Refusal::Malformed,
    })?;
    if let Some(host) = hosts.iter().find(|host| !facts.hosts.contains(host)) {
        return Err(Refusal::LacksHost(host.to_string()));
    }
    if facts.not_after <= now {
        return Err(Refusal::Ended(facts.not_after));
    }
    if facts.not_before > now + CLOCK_SKEW {
        return Err(Refusal::NotYet(facts.not_before));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::date_time_ymd;

    use super::*;

    fn certificate(from: i32, to: i32) -> (String, String) {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        (chain, key.serialize_pem())
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let now = 1_700_000_000; // 2023
        let (chain, key) = certificate(2020, 2040);
        let (_, other) = certificate(2020, 2040);
        let (old, old_key) = certificate(2010, 2015);
        let (new, new_key) = certificate(2030, 2040);
        let host = |text: &str| vec![Hostname::parse(text).unwrap()];
        let check =
            |chain: &str, key: &str, hosts: &str| verify(chain, key, &host(hosts), now).err();
        assert_eq!(check(&chain, &key, "a.test"), None);
        assert_eq!(check(&chain, &other, "a.test"), Some(Refusal::KeyMismatch));
        let lacks = Refusal::LacksHost("b.test".to_owned());
        assert_eq!(check(&chain, &key, "b.test"), Some(lacks));
        assert!(matches!(
            check(&old, &old_key, "a.test"),
            Some(Refusal::Ended(_))
        ));
        assert!(matches!(
            check(&new, &new_key, "a.test"),
            Some(Refusal::NotYet(_))
        ));
        assert_eq!(check("junk", &key, "a.test"), Some(Refusal::NoCertificate));
        let cut = &chain[..chain.len() / 2];
        assert_eq!(check(cut, &key, "a.test"), Some(Refusal::NoCertificate));
    }
}
