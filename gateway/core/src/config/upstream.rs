//! Upstreams: where requests go, how an endpoint is chosen, how long it may take.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub const DEFAULT_CONNECT: Duration = Duration::from_secs(3);
/// From the end of the request to the first byte of the response head.
pub const DEFAULT_FIRST_BYTE: Duration = Duration::from_secs(60);
/// How long a response body may stand still.
pub const DEFAULT_BODY_IDLE: Duration = Duration::from_secs(60);
/// How long an unused connection is kept.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Idle connections kept by one worker for one endpoint.
pub const DEFAULT_IDLE_CONNECTIONS: u32 = 128;

/// A named group of endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamSpec {
    /// Never empty.
    pub endpoints: Vec<EndpointSpec>,
    pub balance: Balance,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTlsSpec>,
    pub timeouts: UpstreamTimeouts,
    pub idle_connections: u32,
}

/// An address, or a name that is resolved at each new connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointSpec {
    /// An IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Balance {
    #[default]
    RoundRobin,
    /// The endpoint with the fewest requests in flight.
    LeastRequests,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// Over TLS by ALPN, in clear text with prior knowledge (h2c).
    Http2,
}

/// TLS towards the endpoints; certificates are always verified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpstreamTlsSpec {
    /// The name that is asked for and verified; the endpoint's host if absent.
    pub server_name: Option<String>,
    /// PEM roots; the system's if absent.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub body_idle: Duration,
    pub keep_alive: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: DEFAULT_CONNECT,
            first_byte: DEFAULT_FIRST_BYTE,
            body_idle: DEFAULT_BODY_IDLE,
            keep_alive: DEFAULT_KEEP_ALIVE,
        }
    }
}
