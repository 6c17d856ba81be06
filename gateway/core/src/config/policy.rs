//! Policies: one variant each, whatever source declared it.

pub mod access;
pub mod answer;
pub mod body;
pub mod limit;
pub mod traffic;

use std::path::Path;

use http::HeaderName;
use http::HeaderValue;

use self::access::BasicAuthSpec;
use self::access::ForwardAuthSpec;
use self::access::IpAccessSpec;
use self::answer::CorsSpec;
use self::answer::MaintenanceSpec;
use self::answer::RequestIdSpec;
use self::answer::SecurityHeadersSpec;
use self::body::CompressionSpec;
use self::limit::BodySizeSpec;
use self::limit::ConcurrencySpec;
use self::limit::RateLimitSpec;
use self::traffic::CanarySpec;
use self::traffic::ErrorPagesSpec;
use self::traffic::MirrorSpec;
use self::traffic::PageSpec;
use super::plugin::PluginSpec;
use super::route::RedirectSpec;

/// One step on request and response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicySpec {
    BasicAuth(BasicAuthSpec),
    BodySize(BodySizeSpec),
    Canary(CanarySpec),
    Compression(CompressionSpec),
    Concurrency(ConcurrencySpec),
    Cors(CorsSpec),
    ErrorPages(ErrorPagesSpec),
    /// Boxed, being three times as large as the others.
    ForwardAuth(Box<ForwardAuthSpec>),
    Headers(HeadersSpec),
    IpAccess(IpAccessSpec),
    Maintenance(MaintenanceSpec),
    Mirror(MirrorSpec),
    RateLimit(RateLimitSpec),
    Redirect(RedirectSpec),
    RequestId(RequestIdSpec),
    SecurityHeaders(SecurityHeadersSpec),
    Plugin(PluginSpec),
}

impl PolicySpec {
    /// The word for it in configuration, `explain` and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BasicAuth(_) => "basic-auth",
            Self::BodySize(_) => "body-size",
            Self::Canary(_) => "canary",
            Self::Compression(_) => "compression",
            Self::Concurrency(_) => "concurrency",
            Self::Cors(_) => "cors",
            Self::ErrorPages(_) => "error-pages",
            Self::ForwardAuth(_) => "forward-auth",
            Self::Headers(_) => "headers",
            Self::IpAccess(_) => "ip-access",
            Self::Maintenance(_) => "maintenance",
            Self::Mirror(_) => "mirror",
            Self::RateLimit(_) => "rate-limit",
            Self::Redirect(_) => "redirect",
            Self::RequestId(_) => "request-id",
            Self::SecurityHeaders(_) => "security-headers",
            Self::Plugin(_) => "plugin",
        }
    }

    /// The file that a built-in policy reads, and the key that names it.
    pub fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::BasicAuth(spec) => Some(("users-file", &spec.users_file)),
            Self::ErrorPages(spec) => match &spec.page {
                PageSpec::File(path) => Some(("file", path)),
                PageSpec::Body(_) => None,
            },
            _ => None,
        }
    }

    /// The component, if the policy is one in WebAssembly.
    pub fn plugin(&self) -> Option<&PluginSpec> {
        match self {
            Self::Plugin(spec) => Some(spec),
            _ => None,
        }
    }
}

/// Field edits in both directions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeadersSpec {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
}

/// Applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}
