//! Requests that a plugin makes: what this crate asks of whoever embeds it.
//!
//! A guest's call is checked against the grants and made a valid request here; sending it is the
//! embedder's. The future belongs to the call: it is dropped when the call ends early.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::uri::PathAndQuery;
use postern_core::name::UpstreamName;

/// Sends the requests of plugins. Called in the thread of the plugin's worker.
pub trait Callouts: Send + Sync {
    fn send(&self, callout: Callout) -> CalloutFuture;
}

/// The way to an answer.
pub type CalloutFuture = Pin<Box<dyn Future<Output = Result<Reply, CalloutError>> + Send>>;

/// One request, which the plugin may make.
#[derive(Clone, Debug)]
pub struct Callout {
    pub upstream: UpstreamName,
    pub method: Method,
    /// In origin form.
    pub target: PathAndQuery,
    /// None: the endpoint.
    pub host: Option<HeaderValue>,
    /// End-to-end fields without `host`.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the plugin asked for, or what is left of its call if that is less.
    pub timeout: Duration,
    /// Largest body of the answer, in bytes.
    pub max_response: usize,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CalloutError {
    #[error("the plugin may not make this call")]
    Denied,
    #[error("no connection to the upstream")]
    Connect,
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the answer is larger than was asked for")]
    TooLarge,
    #[error("the answer was not HTTP, or ended early")]
    Protocol,
    #[error("more calls than the plugin may make")]
    Overloaded,
}
