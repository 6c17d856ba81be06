//! What may be declared, valid by construction, whatever source it came from.
//!
//! A [`Config`] is plain and comparable: the control loop skips one that equals the last. Where
//! each part was declared is kept beside it, in [`Origins`], so that moving a line in a file
//! changes nothing that runs.
//!
//! Files reach it in two steps: [`raw`] is what an operator may write (the only serde here, and
//! what the JSON Schema is generated from), [`parse`] turns texts into a [`Config`] or into every
//! [`Problem`] in them.

pub mod dns;
mod held;
pub mod issuer;
pub mod kubernetes;
pub mod listener;
pub mod parse;
pub mod plugin;
pub mod policy;
pub mod problem;
mod raw;
pub mod route;
mod shape;
pub mod source;
pub mod upstream;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

pub use dns::DnsSolverSpec;
pub use dns::DnsSpec;
pub use held::Held;
pub use held::HeldFiles;
pub use issuer::IssuerSpec;
pub use issuer::ManagedSpec;
pub use kubernetes::KubernetesSpec;
pub use listener::CertificateSpec;
pub use listener::ListenerSpec;
pub use plugin::PluginSpec;
pub use policy::PolicySpec;
pub use problem::Origins;
pub use problem::Problem;
pub use route::RouteSpec;
pub use upstream::UpstreamSpec;

use crate::name::CertificateName;
use crate::name::DnsSolverName;
use crate::name::IssuerName;
use crate::name::ListenerName;
use crate::name::PolicyName;
use crate::name::UpstreamName;

/// Where the admin listener is found unless the configuration says otherwise.
pub const DEFAULT_ADMIN_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Everything the gateway runs on.
///
/// What there are thousands of is shared: of two configurations of which one was made of the other,
/// copying, comparing and dropping cost what differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub runtime: RuntimeSpec,
    pub access_log: AccessLogSpec,
    pub admin: AdminSpec,
    pub limits: LimitsSpec,
    /// What is taken from a cluster, where one is a source.
    pub kubernetes: Option<KubernetesSpec>,
    pub listeners: BTreeMap<ListenerName, ListenerSpec>,
    pub certificates: BTreeMap<CertificateName, CertificateSpec>,
    /// Whom the gateway asks about names.
    pub dns: DnsSpec,
    /// Where it may write records that prove names.
    pub dns_solvers: BTreeMap<DnsSolverName, DnsSolverSpec>,
    /// Who certificates are had from.
    pub issuers: BTreeMap<IssuerName, IssuerSpec>,
    /// Certificates that the gateway gets for itself. Once it has one, that is among
    /// `certificates`, by the same name.
    pub managed: BTreeMap<CertificateName, ManagedSpec>,
    pub upstreams: BTreeMap<UpstreamName, Arc<UpstreamSpec>>,
    pub policies: BTreeMap<PolicyName, PolicySpec>,
    /// In source order, which is the last tie-break between rules.
    pub routes: Vec<Arc<RouteSpec>>,
    /// What the paths above name that are no files.
    pub held: HeldFiles,
    /// Policies that cost only themselves if they cannot be built: who declared them is not who
    /// declared the rest.
    pub expendable: BTreeSet<PolicyName>,
}

/// What is fixed for the life of the process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuntimeSpec {
    /// Worker threads; one a processor if absent.
    pub workers: Option<NonZeroUsize>,
    /// Where compiled and fetched plugins are kept; `None` keeps them in memory alone.
    pub cache_dir: Option<PathBuf>,
    /// Where accounts, keys and certificates that the gateway gets for itself are kept.
    pub state_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccessLogSpec {
    pub format: AccessLogFormat,
    /// The file that lines are appended to; standard output if absent.
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One `key=value` line.
    Text,
    Off,
}

/// The listener for people and probes: health, metrics, the configuration that runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminSpec {
    pub bind: SocketAddr,
}

impl Default for AdminSpec {
    fn default() -> Self {
        Self {
            bind: DEFAULT_ADMIN_BIND,
        }
    }
}

/// What the process may take of the machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LimitsSpec {
    /// Open client connections, all listeners together. If absent, what the limit on file
    /// descriptors leaves, but no more than [`DEFAULT_CONNECTIONS`].
    pub connections: Option<u32>,
    pub memory: MemorySteps,
}

/// Open client connections where file descriptors are not scarce: 20,000, of which a tenth is kept
/// for upstreams and the admin listener.
pub const DEFAULT_CONNECTIONS: u32 = 18_000;

/// Percent of the memory that the control group allows, from which on a step is taken. They rise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemorySteps {
    /// Answers close their connection.
    pub close: u8,
    /// New requests are answered 503.
    pub refuse: u8,
    /// New connections are closed at once.
    pub stop: u8,
}

impl Default for MemorySteps {
    fn default() -> Self {
        Self {
            close: 90,
            refuse: 95,
            stop: 98,
        }
    }
}

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema() -> &'static serde_json::Value {
    // Each policy of a cluster is read by it.
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(raw::RawFile).to_value())
}
