//! Policies that decide where a request goes, and what a failure looks like.

use std::path::PathBuf;

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
