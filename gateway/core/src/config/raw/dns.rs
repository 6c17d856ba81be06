//! What a file may say about the DNS.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;
use super::Text;

/// Whom the gateway asks about names before it orders certificates for them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawDns {
    /// Servers that answer for every name, each an address and a port; at most 4. They are asked
    /// whose a name is; the answer itself comes from the servers of its zone, if they can be
    /// reached. Default: those of /etc/resolv.conf.
    pub resolvers: Option<At<Vec<Text>>>,
    /// The port of the servers of zones. Default: 53.
    pub authority_port: Option<At<i64>>,
}

/// A way to write TXT records, for challenges of kind dns-01; `kind` says which.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "read by the schema generator alone"
)]
pub(in crate::config) enum RawDnsSolver {
    /// Updates (RFC 2136) to a server, signed by a key that it shares with the gateway (TSIG,
    /// RFC 8945). BIND allows them by `update-policy { grant KEY zonesub TXT; };`.
    Rfc2136(RawUpdateSolver),
    /// Amazon Route 53. Needs `route53:ListHostedZonesByName` (or, with `hosted-zone-id`,
    /// `route53:GetHostedZone`), `route53:ListResourceRecordSets`,
    /// `route53:ChangeResourceRecordSets` and `route53:GetChange`.
    Route53(RawRoute53Solver),
    /// A plugin that exports `dns-solver`.
    Plugin(RawPluginSolver),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawUpdateSolver {
    /// The primary server of the zone: an address or a name, with a port if it is not 53.
    pub server: Text,
    /// The name of the key, as the server has it.
    pub key_name: Text,
    /// "hmac-sha256", "hmac-sha384" or "hmac-sha512". Default: "hmac-sha256".
    pub algorithm: Option<RawTsigAlgorithm>,
    /// A file with the secret of the key in base64. Read at each update.
    pub secret_file: Text,
    /// Domains that this solver is for: "example.edu" means itself and everything below it. The
    /// longest that fits decides. Default: those that no other solver is for.
    pub hosts: Option<At<Vec<Text>>>,
    /// A zone that it writes to. Where a challenge falls into a zone of others, they are asked for
    /// an alias: `_acme-challenge.HOST CNAME HOST.DELEGATION`. Default: none.
    pub delegation: Option<Text>,
    /// How long a record may take to be shown by every server of its zone. Default: "2m".
    pub propagation: Option<Text>,
    /// Waits this long instead of asking those servers, where they cannot be reached. Default: none.
    pub delay: Option<Text>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::config) enum RawTsigAlgorithm {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawRoute53Solver {
    /// The id of the hosted zone. Default: the public one that has the name of the zone.
    pub hosted_zone_id: Option<Text>,
    /// Where a role is taken, and whether the account is one of China. Default: AWS_REGION, then
    /// "us-east-1".
    pub region: Option<Text>,
    /// The id of an access key. Default: what AWS lends the gateway: keys in the environment, a web
    /// identity, a container's or an instance's.
    pub access_key_id: Option<Text>,
    /// A file with the secret of that key. Read at each call.
    pub secret_key_file: Option<Text>,
    /// A role that is taken with these credentials. Default: none.
    pub role_arn: Option<Text>,
    /// What that role may ask for. Default: none.
    pub external_id: Option<Text>,
    /// Another address of Route 53. Default: AWS's.
    pub endpoint: Option<Text>,
    /// Another address of the service that hands out roles. Default: AWS's, of the region.
    pub sts_endpoint: Option<Text>,
    /// PEM roots to trust those addresses by. Default: the system's.
    pub ca_file: Option<Text>,
    /// Domains that this solver is for: "example.edu" means itself and everything below it. The
    /// longest that fits decides. Default: those that no other solver is for.
    pub hosts: Option<At<Vec<Text>>>,
    /// A zone that it writes to. Where a challenge falls into a zone of others, they are asked for
    /// an alias: `_acme-challenge.HOST CNAME HOST.DELEGATION`. Default: none.
    pub delegation: Option<Text>,
    /// How long a record may take to be shown by every server of its zone. Default: "2m".
    pub propagation: Option<Text>,
    /// Waits this long instead of asking those servers, where they cannot be reached. Default: none.
    pub delay: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawPluginSolver {
    /// The name of the plugin. What it has to reach is in its `grants`.
    pub plugin: Text,
    /// Domains that this solver is for: "example.edu" means itself and everything below it. The
    /// longest that fits decides. Default: those that no other solver is for.
    pub hosts: Option<At<Vec<Text>>>,
    /// A zone that it writes to. Where a challenge falls into a zone of others, they are asked for
    /// an alias: `_acme-challenge.HOST CNAME HOST.DELEGATION`. Default: none.
    pub delegation: Option<Text>,
    /// How long a record may take to be shown by every server of its zone. Default: "2m".
    pub propagation: Option<Text>,
    /// Waits this long instead of asking those servers, where they cannot be reached. Default: none.
    pub delay: Option<Text>,
}
