//! Policies that answer in the upstream's place, or add to what it answers.

use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use ipnet::IpNet;

/// How long a browser may remember a preflight, unless a policy says otherwise.
pub const DEFAULT_CORS_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a browser insists on TLS, unless a policy says otherwise.
pub const DEFAULT_HSTS_MAX_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Which pages of other origins may use a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CorsSpec {
    pub origins: Vec<OriginMatch>,
    pub methods: Vec<Method>,
    /// `None`: whatever a preflight asks for.
    pub headers: Option<Vec<HeaderName>>,
    pub expose: Vec<HeaderName>,
    pub credentials: bool,
    pub max_age: Duration,
}

/// An origin, as in an `Origin` field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OriginMatch {
    Any,
    /// In lower case.
    Exact(String),
    /// `https://*.example.com`: one label more than what follows `*.`.
    Subdomain {
        /// With `://`.
        scheme: String,
        /// With the dot before it, and the port if there is one.
        suffix: String,
    },
}

impl std::fmt::Display for OriginMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Subdomain { scheme, suffix } => write!(f, "{scheme}*{suffix}"),
        }
    }
}

/// An answer to everybody while something is repaired.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MaintenanceSpec {
    pub is_on: bool,
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub content_type: HeaderValue,
    /// `None`: the page that says the status.
    pub body: Option<String>,
    /// Who is served as ever.
    pub allow: Vec<IpNet>,
}

/// An id that goes with a request through every log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestIdSpec {
    pub header: HeaderName,
    /// Whether an id that a client sends is kept.
    pub keeps: bool,
}

/// Fields by which a browser protects its user.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecurityHeadersSpec {
    pub hsts: Option<HstsSpec>,
    /// `x-content-type-options: nosniff`.
    pub is_nosniff: bool,
    pub frame_options: Option<HeaderValue>,
    pub referrer_policy: Option<HeaderValue>,
    pub content_security_policy: Option<HeaderValue>,
    pub permissions_policy: Option<HeaderValue>,
    /// Whether fields that the upstream sent are replaced.
    pub overwrites: bool,
}

/// RFC 6797.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HstsSpec {
    pub max_age: Duration,
    pub subdomains: bool,
    pub preload: bool,
}

impl HstsSpec {
    pub fn value(&self) -> String {
        let mut value = format!("max-age={}", self.max_age.as_secs());
        if self.subdomains {
            value.push_str("; includeSubDomains");
        }
        if self.preload {
            value.push_str("; preload");
        }
        value
    }
}
