//! What can go wrong with one request, and what that means to client, log and metrics.

use std::io;
use std::time::Duration;

use http::StatusCode;
use postern_core::config::route::Refusal;
use postern_core::config::upstream::EndpointSpec;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::request::RequestError;
use postern_core::route::RewriteError;
use postern_wasm::PluginError;

use crate::body::BodyError;

/// `Display` speaks of this level only and never goes to the client; causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the request is refused")]
    Request(#[source] RequestError),
    #[error("the connection is not for the host that was asked for")]
    Misdirected,
    #[error("no route accepts the request")]
    NoRoute,
    #[error("the rule that accepts the request refuses it")]
    Refused { why: Refusal },
    #[error("the target cannot be rewritten")]
    Rewrite(#[source] RewriteError),
    #[error("plugin {plugin} failed")]
    Plugin {
        plugin: PolicyName,
        status: StatusCode,
        source: PluginError,
    },
    #[error("plugin {plugin} is not there: it could not be fetched, or cannot be used")]
    PluginAbsent { plugin: PolicyName },
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
    #[error("the request body is larger than policy {policy} allows")]
    BodyTooLarge { policy: PolicyName },
    #[error("the request body came too slowly")]
    RequestBodySlow,
    #[error("the gateway is short of memory")]
    MemoryShort,
    #[error("the request body is longer than plugin {plugin} takes")]
    RequestBodySize { plugin: PolicyName },
    #[error("the response body could not be read for plugin {plugin}")]
    ResponseBody { plugin: PolicyName },
    #[error("the response body is longer than plugin {plugin} takes")]
    ResponseBodySize { plugin: PolicyName },
    /// The cause was logged where it was seen: it passed through an error of hyper.
    #[error("plugin {plugin} ended the request body")]
    BodyPlugin {
        plugin: PolicyName,
        status: StatusCode,
        reason: &'static str,
    },
}

impl ProxyError {
    /// The plugin that it is about, for the access record.
    pub(crate) fn plugin(&self) -> Option<&PolicyName> {
        match self {
            Self::Plugin { plugin, .. }
            | Self::PluginAbsent { plugin }
            | Self::Aborted { plugin }
            | Self::UnknownUpstream { plugin }
            | Self::RequestBodySize { plugin }
            | Self::ResponseBody { plugin }
            | Self::ResponseBodySize { plugin }
            | Self::BodyPlugin { plugin, .. } => Some(plugin),
            Self::Request(_)
            | Self::Misdirected
            | Self::NoRoute
            | Self::Refused { .. }
            | Self::Rewrite(_)
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::UpstreamTls { .. }
            | Self::NoSockets { .. }
            | Self::NoEndpoint { .. }
            | Self::Overloaded { .. }
            | Self::UpstreamReset { .. }
            | Self::FirstByteTimeout { .. }
            | Self::Exchange { .. }
            | Self::Framing { .. }
            | Self::UnaskedUpgrade { .. }
            | Self::RequestBody
            | Self::BodyTooLarge { .. }
            | Self::RequestBodySlow
            | Self::MemoryShort => None,
        }
    }
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

impl ProxyError {
    /// A connection that could not be made: by the endpoint's fault, or by our own lack of sockets.
    pub(crate) fn of_connect(
        upstream: UpstreamName,
        endpoint: EndpointSpec,
        source: io::Error,
    ) -> Self {
        // Of a process, and of a system, that has too many files open.
        if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
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
            Self::Refused { why } => why.status(),
            Self::Rewrite(_) | Self::RequestBody => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Plugin { status, .. } | Self::BodyPlugin { status, .. } => *status,
            Self::RequestBodySize { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ResponseBody { .. } | Self::ResponseBodySize { .. } => StatusCode::BAD_GATEWAY,
            Self::Aborted { .. } => StatusCode::FORBIDDEN,
            Self::PluginAbsent { .. }
            | Self::UnknownUpstream { .. }
            | Self::NoSockets { .. }
            | Self::NoEndpoint { .. }
            | Self::Overloaded { .. }
            | Self::MemoryShort => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestBodySlow => StatusCode::REQUEST_TIMEOUT,
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
            Self::Refused { why } => why.reason(),
            Self::Rewrite(_) => "bad-rewrite",
            Self::Plugin { source, .. } => source.reason(),
            Self::PluginAbsent { .. } => "plugin-absent",
            Self::Aborted { .. } => "plugin-abort",
            Self::UnknownUpstream { .. } => "plugin-upstream",
            Self::Connect { .. } => "upstream-connect",
            Self::UpstreamTls { .. } => "upstream-tls",
            Self::NoSockets { .. } => "out-of-files",
            Self::NoEndpoint { .. } => "upstream-unavailable",
            Self::Overloaded { .. } => "upstream-overloaded",
            Self::UpstreamReset { .. } => "upstream-reset",
            Self::ConnectTimeout { .. } => "upstream-connect-timeout",
            Self::FirstByteTimeout { .. } => "upstream-timeout",
            Self::Exchange { .. } | Self::Framing { .. } | Self::UnaskedUpgrade { .. } => {
                "upstream-protocol"
            }
            Self::RequestBody => "request-body",
            Self::BodyTooLarge { .. } => "body-size",
            Self::RequestBodySlow => "request-body-slow",
            Self::MemoryShort => "overloaded",
            Self::RequestBodySize { .. } => "request-body-size",
            Self::ResponseBody { .. } => "response-cut",
            Self::ResponseBodySize { .. } => "response-body-size",
            Self::BodyPlugin { reason, .. } => reason,
        }
    }

    /// Whether it counts against the endpoint: our own limits and lack of sockets do not.
    pub(crate) fn blames_endpoint(&self) -> bool {
        self.side() == Side::Upstream && !matches!(self, Self::Overloaded { .. })
    }

    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Request(_)
            | Self::Misdirected
            | Self::NoRoute
            | Self::RequestBody
            | Self::RequestBodySlow
            | Self::RequestBodySize { .. }
            | Self::BodyTooLarge { .. } => Side::Downstream,
            Self::Rewrite(_)
            | Self::Refused { .. }
            | Self::NoSockets { .. }
            | Self::MemoryShort => Side::Gateway,
            Self::Plugin { .. }
            | Self::PluginAbsent { .. }
            | Self::Aborted { .. }
            | Self::UnknownUpstream { .. }
            | Self::BodyPlugin { .. } => Side::Plugin,
            Self::ResponseBody { .. } | Self::ResponseBodySize { .. } => Side::Upstream,
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

    /// What the request's body failed with.
    pub(crate) fn of_body(error: &BodyError) -> Self {
        match error {
            BodyError::Idle => Self::RequestBodySlow,
            // The policy whose limit it was is known to the chain.
            BodyError::Cut(_)
            | BodyError::TooLarge
            | BodyError::Trailers
            | BodyError::Coding(_) => Self::RequestBody,
            BodyError::Plugin {
                plugin,
                status,
                reason,
            } => Self::BodyPlugin {
                plugin: plugin.clone(),
                status: *status,
                reason,
            },
            BodyError::Aborted { plugin } => Self::Aborted {
                plugin: plugin.clone(),
            },
        }
    }

    /// Whether the client's connection ends with the answer: after anything that puts the next
    /// request boundary in doubt.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Self::Request(_)
            | Self::RequestBody
            | Self::BodyTooLarge { .. }
            | Self::RequestBodySlow
            | Self::MemoryShort
            | Self::RequestBodySize { .. }
            | Self::BodyPlugin { .. }
            | Self::Aborted { .. } => true,
            Self::Misdirected
            | Self::NoRoute
            | Self::Refused { .. }
            | Self::Rewrite(_)
            | Self::Plugin { .. }
            | Self::PluginAbsent { .. }
            | Self::UnknownUpstream { .. }
            | Self::ResponseBody { .. }
            | Self::ResponseBodySize { .. }
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
