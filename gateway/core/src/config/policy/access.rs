//! Policies that decide who may pass.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::config::plugin::OnError;
use crate::hostname::Authority;
use crate::name::UpstreamName;
use crate::path::RequestPath;

/// How long an authorization service may take, unless a policy says otherwise.
pub const DEFAULT_FORWARD_AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// The query parameter that tells a sign-in page where to send the client back.
pub const DEFAULT_SIGNIN_PARAMETER: &str = "rd";

/// What a browser shows when it asks for a password, unless a policy says otherwise.
pub const DEFAULT_REALM: &str = "restricted";

/// Clients by address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IpAccessSpec {
    /// Empty: everybody who is not denied.
    pub allow: Vec<IpNet>,
    /// Wins over `allow`.
    pub deny: Vec<IpNet>,
}

/// Clients by name and password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BasicAuthSpec {
    /// `user:hash` lines.
    pub users_file: PathBuf,
    pub realm: String,
    /// The request field that tells the upstream who it is.
    pub user_header: Option<HeaderName>,
    /// Whether the upstream sees name and password.
    pub keeps_credentials: bool,
}

/// Another service that decides who may pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardAuthSpec {
    pub upstream: UpstreamName,
    /// What is asked for there.
    pub path: RequestPath,
    /// The host that is asked; the request's own if absent.
    pub host: Option<Authority>,
    /// Fields of the request that the service sees; `None`: all.
    pub request_headers: Option<Vec<HeaderName>>,
    /// Fields of its answer that the upstream sees, in place of what the client sent.
    pub upstream_headers: Vec<HeaderName>,
    /// Fields of its answer that the client sees when it may pass.
    pub client_headers: Vec<HeaderName>,
    /// Where a client is sent that the service does not know.
    pub signin: Option<String>,
    pub signin_parameter: String,
    pub timeout: Duration,
    /// When the service gives no answer that is one.
    pub on_unavailable: OnError,
    /// How long an answer that lets a request pass is remembered; `None`: not at all.
    pub cache: Option<Duration>,
    /// Fields that tell clients apart in that memory; `None`: all that the service sees.
    pub cache_key: Option<Vec<HeaderName>>,
}
