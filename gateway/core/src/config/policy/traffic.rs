//! Policies that decide where a request goes, and what a failure looks like.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use super::limit::LimitKey;
use crate::name::UpstreamName;

/// A share of the requests for another upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CanarySpec {
    pub upstream: UpstreamName,
    /// Percent of what neither field nor cookie decides.
    pub weight: u8,
    /// `always` and `never` decide; with a value, that value alone does.
    pub header: Option<(HeaderName, Option<HeaderValue>)>,
    /// `always` and `never` decide.
    pub cookie: Option<String>,
    /// What stays on its side; `All` lets each request choose for itself.
    pub by: LimitKey,
}

/// Percent of the requests that are copied.
pub const DEFAULT_MIRROR_PERCENT: u8 = 100;
/// Largest body that is copied.
pub const DEFAULT_MIRROR_BODY: u64 = 64 << 10;
/// Copies that are made and sent at a time.
pub const DEFAULT_MIRROR_REQUESTS: u32 = 100;
/// How long a copy may take.
pub const DEFAULT_MIRROR_TIMEOUT: Duration = Duration::from_secs(10);

/// A copy of each request for another upstream, whose answer nobody sees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MirrorSpec {
    pub upstream: UpstreamName,
    pub percent: u8,
    pub body: u64,
    /// All workers together.
    pub requests: u32,
    pub timeout: Duration,
}

/// A page in place of a failure's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErrorPagesSpec {
    /// First and last of each range.
    pub statuses: Vec<(u16, u16)>,
    pub page: PageSpec,
    pub content_type: HeaderValue,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PageSpec {
    File(PathBuf),
    Body(Bytes),
}
