//! Issuers, and the certificates that the gateway gets from them.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::hostname::Hostname;
use crate::hostname::MAX_HOSTNAME_LEN;
use crate::name::IssuerName;

/// Directories that have a name of their own in configurations.
pub const PRESETS: [(&str, &str); 3] = [
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
    ),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ),
    ("incommon", "https://acme.sectigo.com/v2/InCommonRSAOV"),
];
/// New certificates that Let's Encrypt allows in seven days for one registered domain.
pub const LETSENCRYPT_A_WEEK: u32 = 50;
/// Most names of one certificate; Let's Encrypt takes as many in its default profile.
pub const MAX_HOSTS: usize = 100;

/// A certificate authority that speaks ACME.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuerSpec {
    /// The URL of its directory.
    pub directory: String,
    pub contact: Vec<String>,
    /// PEM; the system's roots if absent.
    pub ca_file: Option<PathBuf>,
    pub external_account: Option<ExternalAccountSpec>,
    /// The preferred first. Never empty.
    pub challenges: Vec<ChallengeKind>,
    pub key_type: KeyType,
    pub profile: Option<String>,
    /// `None`: every name.
    pub allowed: Option<Vec<Hostname>>,
    /// Whose Ingresses may name it; `None`: those of every namespace.
    pub namespaces: Option<Vec<String>>,
    pub fallback: Option<IssuerName>,
    /// New certificates in seven days for one registered domain; `None`: no limit.
    pub certificates_a_week: Option<u32>,
    /// `None`: names are not looked at before an order.
    pub reach: Option<ReachSpec>,
}

impl IssuerSpec {
    /// Whether it may be asked for this name: it is one of the allowed domains, or below one.
    pub fn allows(&self, host: &Hostname) -> bool {
        let (Hostname::Exact(name) | Hostname::Wildcard(name)) = host;
        let is_in = |domain: &Hostname| {
            let (Hostname::Exact(domain) | Hostname::Wildcard(domain)) = domain;
            name.strip_suffix(&**domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(is_in))
    }

    /// Whether an Ingress of this namespace may name it.
    pub fn serves(&self, namespace: &str) -> bool {
        let namespaces = self.namespaces.as_ref();
        namespaces.is_none_or(|known| known.iter().any(|known| known == namespace))
    }
}

/// A customer of a certificate authority (RFC 8555, 7.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalAccountSpec {
    pub key_id: String,
    pub key_file: PathBuf,
}

/// How a name is validated.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ChallengeKind {
    /// RFC 8555, 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555, 8.4.
    Dns01,
    /// draft-ietf-acme-dns-persist: one record that stays.
    DnsPersist01,
}

impl ChallengeKind {
    /// As in ACME, in files and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyType {
    #[default]
    EcdsaP256,
    Rsa2048,
}

impl KeyType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}

/// What leads to this gateway. `record` or `addresses` is given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReachSpec {
    pub record: Option<Hostname>,
    pub addresses: Vec<IpAddr>,
    /// Empty: those of the system.
    pub resolvers: Vec<SocketAddr>,
}

/// One certificate that the gateway gets for itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManagedSpec {
    pub issuer: IssuerName,
    /// What it is for: 1 to [`MAX_HOSTS`], sorted, none twice.
    pub hosts: Vec<Hostname>,
}

/// The directory that a word of a file means: a preset, or an https URL.
pub(super) fn directory(text: &str) -> Result<String, &'static str> {
    if let Some((_, url)) = PRESETS.iter().find(|(name, _)| *name == text) {
        return Ok((*url).to_owned());
    }
    let uri: http::Uri = text
        .parse()
        .map_err(|_| "write an https URL, or one of letsencrypt, letsencrypt-staging, incommon")?;
    if uri.scheme_str() != Some("https") {
        return Err(
            "write a URL that begins with https://, or one of letsencrypt, letsencrypt-staging, incommon",
        );
    }
    let authority = uri.authority().ok_or("it names no server")?;
    if authority.as_str().contains('@') {
        return Err("it may hold no user and no password");
    }
    if authority.host().is_empty() || authority.host().len() > MAX_HOSTNAME_LEN {
        return Err("it names no server");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_held_to_its_domains() {
        let allowed = ["example.edu", "x.test"].map(|text| Hostname::parse(text).unwrap());
        let mut spec = IssuerSpec {
            directory: String::new(),
            contact: Vec::new(),
            ca_file: None,
            external_account: None,
            challenges: vec![ChallengeKind::Http01],
            key_type: KeyType::default(),
            profile: None,
            allowed: Some(allowed.to_vec()),
            namespaces: None,
            fallback: None,
            certificates_a_week: None,
            reach: None,
        };
        let cases = [
            ("example.edu", true),
            ("a.b.example.edu", true),
            ("*.example.edu", true),
            ("badexample.edu", false),
            ("edu", false),
            ("*.edu", false),
            ("x.test", true),
            ("x.test.evil", false),
        ];
        for (host, want) in cases {
            assert_eq!(spec.allows(&Hostname::parse(host).unwrap()), want, "{host}");
        }
        spec.allowed = None;
        assert!(spec.allows(&Hostname::parse("any.test").unwrap()));
    }

    #[test]
    fn a_directory_is_a_preset_or_an_https_url() {
        assert!(
            directory("letsencrypt")
                .unwrap()
                .contains("letsencrypt.org")
        );
        let url = "https://localhost:14000/dir";
        assert_eq!(directory(url).unwrap(), url);
        for bad in [
            "letsencrypted",
            "http://a.test/dir",
            "https://",
            "https://u:p@a.test/",
            "",
        ] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }
}
