//! What can go wrong with one request, and what that means to client, log and metrics.

use std::io;
use std::time::Duration;

use http::StatusCode;
use postern_core::config::upstream::EndpointSpec;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::request::RequestError;
use postern_core::route::RewriteError;
use postern_wasm::PluginError;

/// `Display` speaks of this level only and never goes to the client; causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the request is refused")]
    Request(#[source] RequestError),
    #[error("the connection is not for the host that was asked for")]
    Misdirected,
    #[error("no route accepts the request")]
    NoRoute,
    #[error("the target cannot be rewritten")]
    Rewrite(#[source] RewriteError),
    #[error("plugin {plugin} failed")]
    Plugin {
        plugin: PolicyName,
        status: StatusCode,
        source: PluginError,
    },
    #[error("plugin {plugin} asked to end the connection")]
    Aborted { plugin: PolicyName },
    #[error("plugin {plugin} named an upstream that is not there")]
    UnknownUpstream { plugin: PolicyName },
    #[error("connecting to {endpoint} of {upstream} failed")]
    Connect {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: io::Error,
    },
    #[error("connecting to {endpoint} of {upstream} took longer than {limit:?}")]
    ConnectTimeout {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        limit: Duration,
    },
    #[error("no response from {endpoint} of {upstream} within {limit:?}")]
    FirstByteTimeout {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        limit: Duration,
    },
    #[error("TLS with {endpoint} of {upstream} failed")]
    UpstreamTls {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: io::Error,
    },
    #[error("no file descriptor is left to connect to {endpoint} of {upstream}")]
    NoSockets {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: io::Error,
    },
    #[error("no endpoint of {upstream} can take requests")]
    NoEndpoint { upstream: UpstreamName },
    #[error("{upstream} has as much to do as it may have")]
    Overloaded { upstream: UpstreamName },
    #[error("{endpoint} of {upstream} closed the connection before it answered")]
    UpstreamReset {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: hyper::Error,
    },
    #[error("{endpoint} of {upstream} sent no valid response")]
    Exchange {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: hyper::Error,
    },
    #[error("{endpoint} of {upstream} sent a response whose length is in doubt")]
    Framing {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
    },
    #[error("{endpoint} of {upstream} switched protocols unasked")]
    UnaskedUpgrade {
        upstream: UpstreamName,
        endpoint: EndpointSpec,
    },
    #[error("the request body could not be read")]
    RequestBody,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Downstream,
    Upstream,
    Gateway,
    Plugin,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::Plugin => "plugin",
        }
    }
}

/// The errors of a process, and of a system, that has too many files open.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

impl ProxyError {
    /// A connection that could not be made: by the endpoint's fault, or by our own lack of sockets.
    pub(crate) fn of_connect(
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: io::Error,
    ) -> Self {
        if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)) {
            return Self::NoSockets {
                upstream,
                endpoint,
                source,
            };
        }
        Self::Connect {
            upstream,
            endpoint,
            source,
        }
    }

    /// The one place that turns an error into a status code.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Request(error) => error.status(),
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Rewrite(_) | Self::RequestBody => StatusCode::BAD_REQUEST,
            Self::Plugin { status, .. } => *status,
            Self::Aborted { .. } => StatusCode::FORBIDDEN,
            Self::UnknownUpstream { .. }
            | Self::NoSockets { .. }
            | Self::NoEndpoint { .. }
            | Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect { .. }
            | Self::UpstreamTls { .. }
            | Self::UpstreamReset { .. }
            | Self::Exchange { .. }
            | Self::Framing { .. }
            | Self::UnaskedUpgrade { .. } => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout { .. } | Self::FirstByteTimeout { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// The stable label of access log and metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Request(error) => error.reason(),
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no-route",
            Self::Rewrite(_) => "bad-rewrite",
            Self::Plugin { source, .. } => source.reason(),
            Self::Aborted { .. } => "plugin-abort",
            Self::UnknownUpstream { .. } => "plugin-upstream",
            Self::Connect { .. } => "upstream-connect",
            Self::UpstreamTls { .. } => "upstream-tls",
            Self::NoSockets { .. } => "no-sockets",
            Self::NoEndpoint { .. } => "upstream-unavailable",
            Self::Overloaded { .. } => "upstream-overloaded",
            Self::UpstreamReset { .. } => "upstream-reset",
            Self::ConnectTimeout { .. } => "upstream-connect-timeout",
            Self::FirstByteTimeout { .. } => "upstream-timeout",
            Self::Exchange { .. } | Self::Framing { .. } | Self::UnaskedUpgrade { .. } => {
                "upstream-protocol"
            }
            Self::RequestBody => "request-body",
        }
    }

    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Request(_) | Self::Misdirected | Self::NoRoute | Self::RequestBody => {
                Side::Downstream
            }
            Self::Rewrite(_) | Self::NoSockets { .. } => Side::Gateway,
            Self::Plugin { .. } | Self::Aborted { .. } | Self::UnknownUpstream { .. } => {
                Side::Plugin
            }
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::UpstreamTls { .. }
            | Self::NoEndpoint { .. }
            | Self::Overloaded { .. }
            | Self::UpstreamReset { .. }
            | Self::FirstByteTimeout { .. }
            | Self::Exchange { .. }
            | Self::Framing { .. }
            | Self::UnaskedUpgrade { .. } => Side::Upstream,
        }
    }

    /// Whether the client's connection ends with the answer: after anything that puts the next
    /// request boundary in doubt.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Self::Request(_) | Self::RequestBody | Self::Aborted { .. } => true,
            Self::Misdirected
            | Self::NoRoute
            | Self::Rewrite(_)
            | Self::Plugin { .. }
            | Self::UnknownUpstream { .. }
            | Self::Connect { .. }
            | Self::UpstreamTls { .. }
            | Self::NoSockets { .. }
            | Self::NoEndpoint { .. }
            | Self::Overloaded { .. }
            | Self::UpstreamReset { .. }
            | Self::ConnectTimeout { .. }
            | Self::FirstByteTimeout { .. }
            | Self::Exchange { .. }
            | Self::Framing { .. }
            | Self::UnaskedUpgrade { .. } => false,
        }
    }
}
