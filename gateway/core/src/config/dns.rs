//! Whom the gateway asks about names, and where it may write records that prove them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::hostname::Hostname;
use crate::name::PolicyName;

/// Where DNS servers listen.
pub const DNS_PORT: u16 = 53;
/// How long a record may take to be shown by every server of its zone.
pub const DEFAULT_PROPAGATION: Duration = Duration::from_secs(120);
/// Longest time that an order waits for a record. Providers take a minute.
pub const MAX_PROPAGATION: Duration = Duration::from_secs(3600);
/// DNS servers that can be named.
pub const MAX_RESOLVERS: usize = 4;

/// Whom to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSpec {
    /// Empty: those of the machine.
    pub resolvers: Vec<SocketAddr>,
    /// Where the servers of zones listen.
    pub authority_port: u16,
}

impl Default for DnsSpec {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            authority_port: DNS_PORT,
        }
    }
}

/// A way to write TXT records, for challenges of kind dns-01.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSolverSpec {
    /// The domains that it is for; `None`: those that no other solver is for.
    pub hosts: Option<Vec<Hostname>>,
    /// A zone that it writes to, into which others may point their challenges.
    pub delegation: Option<Hostname>,
    /// How long a record may take to be shown by every server of its zone.
    pub propagation: Duration,
    /// Waits this long instead of asking those servers.
    pub delay: Option<Duration>,
    pub provider: DnsProviderSpec,
}

/// What is written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DnsProviderSpec {
    /// A server that takes updates (RFC 2136) signed by a key (RFC 8945).
    Update {
        /// An address or a name, with a port if it is not 53.
        server: String,
        key_name: String,
        algorithm: TsigAlgorithm,
        secret_file: PathBuf,
    },
    Route53(Box<Route53Spec>),
    /// A plugin with a DNS solver.
    Plugin(PolicyName),
}

/// How an update is signed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TsigAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

impl TsigAlgorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Route53Spec {
    /// Looked for by the name of the zone if absent.
    pub hosted_zone_id: Option<String>,
    pub region: Option<String>,
    /// What the machine or the pod is lent, if absent.
    pub keys: Option<AwsKeysSpec>,
    pub role_arn: Option<String>,
    pub external_id: Option<String>,
    pub endpoint: Option<String>,
    pub sts_endpoint: Option<String>,
    /// PEM; the system's roots if absent.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AwsKeysSpec {
    pub id: String,
    pub secret_file: PathBuf,
}
