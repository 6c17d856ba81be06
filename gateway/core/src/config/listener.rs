//! Listeners and the certificates they serve.

pub mod http2;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::http2::Http2Limits;
use crate::header::TrustedProxies;
use crate::hostname::Hostname;
use crate::name::CertificateName;
use crate::name::UpstreamName;
use crate::path::EncodedSlash;

/// From accept to the end of a PROXY protocol header.
pub const DEFAULT_PROXY_HEADER: Duration = Duration::from_secs(5);
/// From accept to the end of the TLS handshake.
pub const DEFAULT_HANDSHAKE: Duration = Duration::from_secs(10);
/// From accept, or from the first byte of a later request, to the end of the request head.
pub const DEFAULT_REQUEST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a request body may stand still.
pub const DEFAULT_BODY_IDLE: Duration = Duration::from_secs(30);
/// How long a client may take nothing of a response that waits for it.
pub const DEFAULT_WRITE_IDLE: Duration = Duration::from_secs(30);
/// How long a request body may be slower than `DEFAULT_BODY_RATE`.
pub const DEFAULT_BODY_GRACE: Duration = Duration::from_secs(10);
/// Open connections of one listener, all workers together.
pub const DEFAULT_CONNECTIONS: u32 = 20_000;
/// Bytes of a request head: request line and fields (HTTP/1), decoded fields (HTTP/2).
pub const DEFAULT_HEAD_BYTES: u32 = 64 << 10;
/// Bytes of a request line.
pub const DEFAULT_REQUEST_LINE: u32 = 8 << 10;
/// Fields of a request.
pub const DEFAULT_HEAD_FIELDS: u32 = 100;
/// Streams that one HTTP/2 connection may have open at once.
pub const DEFAULT_STREAMS: u32 = 100;
/// Requests of one connection; then the client is asked to open another.
pub const DEFAULT_REQUESTS: u32 = 10_000;
/// Bytes a second that a client has to send of a request body, once the grace is over.
pub const DEFAULT_BODY_RATE: u32 = 500;

/// An address that accepts connections, and what it accepts there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerSpec {
    pub bind: SocketAddr,
    /// `None`: clear text.
    pub tls: Option<TlsSpec>,
    pub trusted_proxies: TrustedProxies,
    /// `None`: no header of the PROXY protocol is looked for.
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    pub encoded_slash: EncodedSlash,
    pub timeouts: ListenerTimeouts,
    pub limits: ListenerLimits,
    pub http2: Http2Limits,
}

/// A load balancer that says who the client is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyProtocolSpec {
    /// Whether a connection without header is closed.
    pub is_required: bool,
    /// Who may send one.
    pub from: TrustedProxies,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsSpec {
    pub min_version: TlsVersion,
    /// Those that this listener serves; all of them if empty.
    pub certificates: Vec<CertificateName>,
    /// Served to a client whose server name none covers, or that sends none. If absent, the first
    /// of `certificates` by name.
    pub default_certificate: Option<CertificateName>,
    /// Secrets of session tickets: the first encrypts, all of them decrypt. Empty: those of this
    /// process, which nobody else has.
    pub ticket_keys: Vec<PathBuf>,
    /// Server names whose connections are passed on as they are. No host is in two of them.
    pub passthrough: Vec<PassthroughSpec>,
    /// Hosts whose clients show certificates. No host is in two of them.
    pub client_auth: Vec<ClientAuthSpec>,
}

/// Connections that are not for this gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassthroughSpec {
    pub hosts: Vec<Hostname>,
    pub upstream: UpstreamName,
}

/// Hosts whose clients show a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientAuthSpec {
    /// Empty: those that no other names.
    pub hosts: Vec<Hostname>,
    /// PEM: who may have signed it.
    pub ca_file: PathBuf,
    /// Whether a client without one is refused.
    pub is_required: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenerTimeouts {
    pub proxy_header: Duration,
    pub handshake: Duration,
    pub request_head: Duration,
    pub keep_alive: Duration,
    pub body_idle: Duration,
    pub write_idle: Duration,
    /// Before `ListenerLimits::body_rate` counts.
    pub body_grace: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            proxy_header: DEFAULT_PROXY_HEADER,
            handshake: DEFAULT_HANDSHAKE,
            request_head: DEFAULT_REQUEST_HEAD,
            keep_alive: DEFAULT_KEEP_ALIVE,
            body_idle: DEFAULT_BODY_IDLE,
            write_idle: DEFAULT_WRITE_IDLE,
            body_grace: DEFAULT_BODY_GRACE,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenerLimits {
    pub connections: u32,
    pub head_bytes: u32,
    pub request_line: u32,
    pub head_fields: u32,
    pub streams: u32,
    pub requests: u32,
    /// Bytes a second; zero: a body may be as slow as `body_idle` lets it.
    pub body_rate: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: DEFAULT_CONNECTIONS,
            head_bytes: DEFAULT_HEAD_BYTES,
            request_line: DEFAULT_REQUEST_LINE,
            head_fields: DEFAULT_HEAD_FIELDS,
            streams: DEFAULT_STREAMS,
            requests: DEFAULT_REQUESTS,
            body_rate: DEFAULT_BODY_RATE,
        }
    }
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateSpec {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// The names that it serves; those that it holds if absent. Where several parties bring
    /// certificates, one that holds a name of another party must not be shown for it.
    pub hosts: Option<Vec<Hostname>>,
}
