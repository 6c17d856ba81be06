//! Why a component could not be fetched.

use std::io;
use std::path::PathBuf;

use http::StatusCode;
use postern_core::config::source::Digest;

/// `Display` is for an operator. Addresses in it have neither query nor user: both hold secrets,
/// as in the signed addresses that registries redirect to.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url} is no address that can be fetched from")]
    Address { url: String },
    #[error("{url} would be fetched in clear text; allow it with plain-http if that is meant")]
    PlainHttp { url: String },
    #[error("the roots in {} cannot be read", path.display())]
    RootsFile { path: PathBuf, source: io::Error },
    #[error("there are no root certificates to trust; set ca-file")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("connecting to {host} failed")]
    Connect { host: String, source: io::Error },
    #[error("{host} did not answer in time")]
    Timeout { host: String },
    #[error("the exchange with {host} failed")]
    Exchange { host: String, source: hyper::Error },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} wants a login that it then does not take: {status}")]
    Login { url: String, status: StatusCode },
    #[error("{url} asks for a kind of login that is not known")]
    Challenge { url: String },
    #[error("{url} redirects more than {limit} times, or nowhere")]
    Redirect { url: String, limit: usize },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: usize },
    #[error("{what} has the digest {got}, not {want}")]
    Digest {
        what: String,
        want: Digest,
        got: Digest,
    },
    #[error("the password in {} cannot be read", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("{} is no file that `docker login` wrote: {what}", path.display())]
    DockerConfig { path: PathBuf, what: &'static str },
    #[error("the manifest cannot be used: {what}")]
    Manifest { what: &'static str },
    #[error("the artifact has no layer that holds a component; its layers are {found}")]
    NoLayer { found: String },
    #[error("the layer cannot be unpacked: {what}")]
    Layer { what: &'static str },
    #[error("the task that fetched it failed: the gateway has a fault")]
    Fault,
}

impl FetchError {
    /// Whether the server said so, or the content: then the next try will find the same, unless
    /// somebody changes something. The network and a busy server are worth a quick one.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Exchange { .. } | Self::Fault => {
                false
            }
            Self::Status { status, .. } => {
                !status.is_server_error()
                    && !matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            Self::Address { .. }
            | Self::PlainHttp { .. }
            | Self::RootsFile { .. }
            | Self::NoRoots
            | Self::Tls(_)
            | Self::Login { .. }
            | Self::Challenge { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Password { .. }
            | Self::DockerConfig { .. }
            | Self::Manifest { .. }
            | Self::NoLayer { .. }
            | Self::Layer { .. } => true,
        }
    }
}
