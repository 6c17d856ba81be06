//! Upstreams: where requests go, how an endpoint is chosen, how long it may take.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;

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
    /// Never empty in a file; a Service of the cluster may have none, and its requests are answered
    /// 503.
    pub endpoints: Vec<EndpointSpec>,
    /// Beside `endpoints`, one for each.
    pub shares: Vec<EndpointShare>,
    pub balance: Balance,
    /// Keeps a client at the endpoint that its cookie names.
    pub sticky: Option<StickySpec>,
    /// The share of an endpoint that has just come (back) grows over this time; zero: at once.
    pub slow_start: Duration,
    pub protocol: UpstreamProtocol,
    /// Sent in place of the host that the client asked for.
    pub host: Option<HeaderValue>,
    pub tls: Option<UpstreamTlsSpec>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub timeouts: UpstreamTimeouts,
    pub idle_connections: u32,
    pub limits: UpstreamLimits,
    pub retries: RetrySpec,
    pub health_check: Option<HealthCheckSpec>,
    pub ejection: EjectionSpec,
    /// Whether endpoints that are all known to be bad are tried all the same.
    pub fail_open: bool,
    /// Whether a name that leads to this machine, or to what is there for it alone, is not followed
    /// (see [`is_local`](crate::address::is_local)). For names that strangers may choose.
    pub refuses_local: bool,
}

/// How much of the traffic an endpoint gets, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointShare {
    /// From 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// Endpoints of the lowest number serve; others only when none of those can.
    pub priority: u32,
}

impl Default for EndpointShare {
    fn default() -> Self {
        Self {
            weight: 1,
            priority: 0,
        }
    }
}

/// Largest weight of an endpoint.
pub const MAX_WEIGHT: u32 = 1000;
/// Largest priority number of an endpoint.
pub const MAX_PRIORITY: u32 = 15;

/// A cookie that names an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StickySpec {
    /// A token of at most [`MAX_COOKIE_NAME`] bytes.
    pub cookie: String,
    /// Until the browser ends if absent.
    pub max_age: Option<Duration>,
    pub same_site: SameSite,
    /// Sent by browsers over TLS alone. By default where the client speaks TLS.
    pub secure: Option<bool>,
}

/// Longest name of a sticky cookie, in bytes.
pub const MAX_COOKIE_NAME: usize = 64;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    /// Needs `Secure`, or browsers refuse it.
    None,
}

/// A header that tells the endpoint who the client is, before the first byte of TLS or HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// What may be under way at once, all workers together. What is beyond is answered with 503.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpstreamLimits {
    /// HTTP/1 connections to one endpoint, unused ones included.
    pub connections: Option<u32>,
    /// Requests that wait for one of those connections.
    pub pending: u32,
    /// Requests in flight to all endpoints.
    pub requests: Option<u32>,
}

/// Requests that wait for a connection where connections are limited.
pub const DEFAULT_PENDING: u32 = 1024;

/// How often a request is sent again, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetrySpec {
    /// Attempts after the first one.
    pub count: u32,
    /// Retries for every hundred requests, beyond a small reserve.
    pub budget_percent: u32,
    /// How long one attempt that is not the last may wait for the response.
    pub per_try: Option<Duration>,
    /// Statuses that are as good as no response; for requests that may be repeated.
    pub on_status: Vec<StatusCode>,
}

pub const DEFAULT_RETRIES: u32 = 1;
/// Most attempts after the first one: each may take the whole connect timeout.
pub const MAX_RETRIES: u32 = 5;
pub const DEFAULT_RETRY_BUDGET: u32 = 20;

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            count: DEFAULT_RETRIES,
            budget_percent: DEFAULT_RETRY_BUDGET,
            per_try: None,
            on_status: Vec::new(),
        }
    }
}

/// What is asked of endpoints that have no request to show their health with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheckSpec {
    /// Without one, a connection that opens is enough.
    pub path: Option<String>,
    pub host: Option<HeaderValue>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Good answers in a row that bring an endpoint back.
    pub healthy: u32,
    /// Bad answers in a row that take it out.
    pub unhealthy: u32,
    pub status: RangeInclusive<u16>,
}

pub const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
pub const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
pub const DEFAULT_HEALTHY: u32 = 2;
pub const DEFAULT_UNHEALTHY: u32 = 3;
pub const DEFAULT_CHECK_STATUS: RangeInclusive<u16> = 200..=399;

impl Default for HealthCheckSpec {
    fn default() -> Self {
        Self {
            path: None,
            host: None,
            interval: DEFAULT_CHECK_INTERVAL,
            timeout: DEFAULT_CHECK_TIMEOUT,
            healthy: DEFAULT_HEALTHY,
            unhealthy: DEFAULT_UNHEALTHY,
            status: DEFAULT_CHECK_STATUS,
        }
    }
}

/// When an endpoint that fails requests is left alone for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EjectionSpec {
    /// Failures in a row; 0 ejects nobody. A failure is a connection that cannot be made, a
    /// response that does not come in time or is none; a status is not.
    pub failures: u32,
    /// How long the first time; doubled each time that the endpoint fails again at once.
    pub time: Duration,
    pub max_time: Duration,
    /// How many of a hundred endpoints may be out at once.
    pub max_percent: u32,
}

pub const DEFAULT_EJECT_FAILURES: u32 = 5;
pub const DEFAULT_EJECT_TIME: Duration = Duration::from_secs(1);
pub const DEFAULT_EJECT_MAX_TIME: Duration = Duration::from_secs(8);
pub const DEFAULT_EJECT_PERCENT: u32 = 50;

impl Default for EjectionSpec {
    fn default() -> Self {
        Self {
            failures: DEFAULT_EJECT_FAILURES,
            time: DEFAULT_EJECT_TIME,
            max_time: DEFAULT_EJECT_MAX_TIME,
            max_percent: DEFAULT_EJECT_PERCENT,
        }
    }
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

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Balance {
    #[default]
    RoundRobin,
    /// Of two endpoints by chance, the one with fewer requests in flight for its weight.
    LeastRequests,
    /// Always the same endpoint for the same key. Requests without one go round.
    Hash(HashKey),
}

/// What a consistent hash is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashKey {
    /// The client's address.
    Source,
    Header(HeaderName),
    Cookie(String),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// Over TLS by ALPN, in clear text with prior knowledge (h2c).
    Http2,
}

/// TLS towards the endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpstreamTlsSpec {
    /// The name that is asked for and verified; the endpoint's host if absent.
    pub server_name: Option<String>,
    /// PEM roots; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// PEM: certificate with chain, and key, that are shown to endpoints which ask.
    pub client: Option<ClientCertificateSpec>,
    /// Takes any certificate.
    pub is_insecure: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificateSpec {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
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
