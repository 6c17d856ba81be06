//! Requests to AWS and to what hands out credentials: HTTP/1.1, one connection each, bounded.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http::whole;

/// Largest answer: a hundred sets of records take a tenth of it.
const MAX_ANSWER: usize = 512 << 10;
/// Where instances and pods of AWS get credentials, in clear text by design: ECS, EKS, EC2.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Why a call came to nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AwsError {
    #[error("'{url}' is no URL of a service: https, or http on this machine")]
    Url { url: String },
    #[error("no connection to {host}: {error}")]
    Connect { host: String, error: String },
    #[error("{host} did not answer: {error}")]
    Exchange { host: String, error: String },
    #[error("{host} did not answer in time")]
    Late { host: String },
    #[error("the answer of {host} is larger than {} KiB", MAX_ANSWER >> 10)]
    TooLarge { host: String },
    #[error("{host} answered what is no answer")]
    Malformed { host: String },
    #[error("{host} answered {status} {code}: {message}")]
    Refused {
        host: String,
        status: StatusCode,
        code: String,
        message: String,
    },
    #[error("there are no root certificates to trust {host} by")]
    NoRoots { host: String },
    #[error("the roots for AWS hold no certificate")]
    Roots,
    #[error("there are no AWS credentials: {tried}")]
    NoCredentials { tried: String },
    #[error("{what} cannot be read: {kind}")]
    File { what: String, kind: io::ErrorKind },
    #[error("the AWS credentials hold what no request can carry")]
    Credentials,
}

impl AwsError {
    /// Whether the same call may do later.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                let busy = [
                    "Throttling",
                    "ThrottlingException",
                    "PriorRequestNotComplete",
                    "RequestLimitExceeded",
                    "IDPCommunicationError",
                ];
                status.is_server_error() || busy.contains(&code.as_str())
            }
            Self::Connect { .. } | Self::Exchange { .. } | Self::Late { .. } => true,
            Self::Url { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::NoRoots { .. }
            | Self::Roots
            | Self::NoCredentials { .. }
            | Self::File { .. }
            | Self::Credentials => false,
        }
    }
}

pub(in crate::dns) struct Answer {
    pub(in crate::dns) status: StatusCode,
    pub(in crate::dns) body: Bytes,
}

pub(in crate::dns) struct Http {
    /// None: nothing is trusted.
    tls: Option<TlsConnector>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Http {
    /// Trusts these roots (PEM), or those of the system. Reads files.
    pub(in crate::dns) fn new(roots: Option<&[u8]>) -> Result<Self, AwsError> {
        let mut store = RootCertStore::empty();
        let certificates: Vec<CertificateDer<'static>> = match roots {
            Some(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
            None => rustls_native_certs::load_native_certs().certs,
        };
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            // A machine without any may still talk to what is on it.
            return match roots {
                Some(_) => Err(AwsError::Roots),
                None => Ok(Self { tls: None }),
            };
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| AwsError::Roots)?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Some(TlsConnector::from(Arc::new(tls))),
        })
    }

    pub(in crate::dns) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer, AwsError> {
        let exchange = self.exchange(method, url, headers, body);
        match timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(AwsError::Late {
                host: host_of(url)?,
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, AwsError> {
        let host = host_of(url)?;
        let uri: Uri = url.parse().map_err(|_| no_url(url))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| no_url(url))?;
        request.headers_mut().extend(headers);
        let value = HeaderValue::from_str(&host).map_err(|_| no_url(url))?;
        request.headers_mut().insert(header::HOST, value);

        let stream = self.connect(&uri, &host).await?;
        let failed = |error: hyper::Error| AwsError::Exchange {
            host: host.clone(),
            error: error.to_string(),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        // Ends with the sender, which this call owns.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = sender.send_request(request).await.map_err(failed)?;
        let (parts, body) = answer.into_parts();
        let body = whole(body, MAX_ANSWER).await.map_err(failed)?;
        let body = body.ok_or(AwsError::TooLarge { host })?;
        let status = parts.status;
        Ok(Answer { status, body })
    }

    async fn connect(&self, uri: &Uri, host: &str) -> Result<Box<dyn Io>, AwsError> {
        let failed = |error: io::Error| AwsError::Connect {
            host: host.to_owned(),
            error: error.to_string(),
        };
        let is_tls = uri.scheme_str() == Some("https");
        let literal = literal(uri);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((literal, port)).await.map_err(failed)?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let tls = self.tls.as_ref().ok_or_else(|| AwsError::NoRoots {
            host: host.to_owned(),
        })?;
        let name = ServerName::try_from(literal.to_owned()).map_err(|_| no_url(host))?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(failed)?))
    }
}

/// The authority of a URL that may be called: with TLS, or in clear text where nobody listens in.
pub(super) fn host_of(url: &str) -> Result<String, AwsError> {
    let uri: Uri = url.parse().map_err(|_| no_url(url))?;
    let authority = uri.authority().ok_or_else(|| no_url(url))?.as_str();
    let is_near = || {
        let literal = literal(&uri);
        literal == "localhost"
            || literal
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback() || METADATA.contains(&ip))
    };
    let may_be_called = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_near(),
        _ => false,
    };
    if !may_be_called || authority.contains('@') {
        return Err(no_url(url));
    }
    Ok(authority.to_owned())
}

fn literal(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Without what may be secret in it.
fn no_url(url: &str) -> AwsError {
    let url = url.split('?').next().unwrap_or_default();
    let url = url.rsplit('@').next().unwrap_or_default();
    AwsError::Url {
        url: url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_the_machine() {
        let cases = [
            ("https://route53.amazonaws.com/x", true),
            ("http://127.0.0.1:5005/x", true),
            ("http://[::1]:5005/x", true),
            ("http://localhost/x", true),
            ("http://169.254.169.254/latest", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://route53.amazonaws.com/x", false),
            ("http://169.254.169.253/x", false),
            ("http://127.0.0.1.evil.test/x", false),
            ("https://user:password@a.test/x", false),
            ("ftp://127.0.0.1/x", false),
            ("route53", false),
        ];
        for (url, want) in cases {
            let got = host_of(url);
            assert_eq!(got.is_ok(), want, "{url}: {got:?}");
            let shown = format!("{got:?}");
            assert!(!shown.contains("password"), "{shown}");
        }
    }
}
