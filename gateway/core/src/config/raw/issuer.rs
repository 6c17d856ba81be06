//! What a file may say about issuers of certificates.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;
use super::Text;

/// A certificate authority that speaks ACME. By using one, its terms of service are agreed to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawIssuer {
    /// The URL of its directory, or "letsencrypt", "letsencrypt-staging" or "incommon".
    pub directory: Text,
    /// Whom it may write to, as in "mailto:platform@example.edu". Default: nobody.
    #[serde(default)]
    pub contact: Vec<Text>,
    /// PEM roots to trust its servers by. Default: the system's.
    pub ca_file: Option<Text>,
    /// Binds the account to a customer of the authority.
    pub external_account: Option<At<RawExternalAccount>>,
    /// How names are validated, the preferred way first: "http-01" (a listener in clear text, which
    /// the authority reaches at port 80), "tls-alpn-01" (a listener that speaks TLS, which it reaches
    /// at port 443), "dns-01" (a TXT record that one of `dns-solvers` writes), "dns-persist-01" (a TXT
    /// record that the hostmaster adds once for this gateway's account, and that stays; to be the
    /// first, so that it is looked for before an order). Wildcards want one of the last two. Default:
    /// the first two, in this order. Where the authority has validated names by
    /// other means, none is used.
    pub challenges: Option<At<Vec<At<RawChallengeKind>>>>,
    /// "ecdsa-p256" or "rsa-2048". Default: "ecdsa-p256".
    pub key_type: Option<RawKeyType>,
    /// One of the authority's own profiles, as in "shortlived". Default: what it does by itself.
    pub profile: Option<Text>,
    /// Domains that names have to be in: "example.edu" allows itself and everything below it.
    /// Default: every name.
    pub allowed: Option<At<Vec<Text>>>,
    /// Namespaces of a cluster whose Ingresses may name this issuer. Default: every one.
    pub namespaces: Option<At<Vec<Text>>>,
    /// The name of the issuer that is asked when this one has failed for a day and less than a
    /// sixth of a certificate's life is left. Default: none.
    pub fallback: Option<Text>,
    /// Most new certificates in seven days for names of one registered domain. What an authority
    /// allows may have to be shared with others; renewals that it does not count are let through.
    /// Default: 50 for "letsencrypt", no limit for others.
    pub certificates_a_week: Option<At<i64>>,
    /// How names are seen to lead here before an order is placed. Default: orders are placed
    /// without looking, which suits authorities that have validated names by other means.
    pub reach: Option<At<RawReach>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawExternalAccount {
    /// The key identifier that the authority gave.
    pub key_id: Text,
    /// A file with the MAC key that belongs to it, in base64 or base64url, read when an account is
    /// made and not needed afterwards.
    pub key_file: Text,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawChallengeKind {
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    #[serde(rename = "dns-01")]
    Dns01,
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawKeyType {
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// `record`, `addresses`, or both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawReach {
    /// The name that leads to this gateway, of which others are aliases.
    pub record: Option<Text>,
    /// Addresses that lead to this gateway.
    #[serde(default)]
    pub addresses: Vec<Text>,
    /// DNS servers to ask, with their ports. Default: those of `dns`.
    #[serde(default)]
    pub resolvers: Vec<Text>,
}
