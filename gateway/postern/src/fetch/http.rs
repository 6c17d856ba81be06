//! The few requests that fetching needs: HTTP/1.1, over TLS, one connection each.
//!
//! Invariants:
//! - Clear text goes to this machine alone, unless it was asked for; a redirect is held to the same.
//! - A login goes to the origin that it is for, and not where that redirects to.
//! - What is read is bounded in bytes and in time, whatever the server does.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use postern_core::config::source::FetchSpec;
use postern_core::config::source::is_loopback;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::FetchError;
use crate::source::file::read_small;

/// Redirects that one request follows. Registries need one, to where their layers are kept.
const MAX_REDIRECTS: usize = 5;
/// Name, TCP and TLS.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// To the head of the answer, and between two pieces of it.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Largest file of root certificates.
const MAX_ROOTS_BYTES: u64 = 4 << 20;

/// How requests for one source are made.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    plain_http: bool,
}

pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Most bytes of an answer, and what they are, for who reads the error.
    pub(super) limit: usize,
    pub(super) what: &'a str,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: &'a str, limit: usize, what: &'a str) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            limit,
            what,
        }
    }
}

impl Client {
    /// Reads the roots. Blocks.
    pub(super) fn new(spec: &FetchSpec) -> Result<Self, FetchError> {
        let roots = match &spec.ca_file {
            Some(path) => roots_of(path)?,
            None => {
                let mut roots = RootCertStore::empty();
                let system = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(system);
                roots
            }
        };
        if roots.is_empty() && !spec.plain_http {
            return Err(FetchError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(FetchError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            plain_http: spec.plain_http,
        })
    }

    /// Follows redirects of what only asks.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<Answer, FetchError> {
        let mut url: Uri = ask.url.parse().map_err(|_| address(ask.url))?;
        let mut headers = ask.headers.clone();
        let follows = matches!(ask.method, Method::GET | Method::HEAD);
        for _ in 0..=MAX_REDIRECTS {
            let (answer, _connection) = self.once(&ask, &url, headers.clone()).await?;
            let location = answer.headers().get(header::LOCATION);
            let location = location.filter(|_| follows && answer.status().is_redirection());
            let Some(location) = location.cloned() else {
                return read(answer, &ask, &url).await;
            };
            let next = resolve(&url, &location).ok_or_else(|| redirect(&url))?;
            if next.scheme() != url.scheme() || next.authority() != url.authority() {
                headers.remove(header::AUTHORIZATION);
            }
            url = next;
        }
        Err(redirect(&url))
    }

    async fn once(
        &self,
        ask: &Ask<'_>,
        url: &Uri,
        mut headers: HeaderMap,
    ) -> Result<(Response<Incoming>, Connection), FetchError> {
        let authority = url.authority().ok_or_else(|| address(&shown(url)))?;
        let host = authority.host();
        let is_tls = url.scheme_str() == Some("https");
        if !is_tls && !self.plain_http && !is_loopback(host) {
            return Err(FetchError::PlainHttp { url: shown(url) });
        }
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| address(&shown(url)))?;
        headers.insert(header::HOST, value);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = target.parse().map_err(|_| address(&shown(url)))?;
        *request.headers_mut() = headers;

        let late = |_| FetchError::Timeout {
            host: authority.to_string(),
        };
        let failed = |source| FetchError::Connect {
            host: authority.to_string(),
            source,
        };
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        let connecting = timeout(CONNECT_TIME, self.connect(host, port, is_tls));
        let stream = connecting.await.map_err(late)?.map_err(failed)?;
        let broken = |source| FetchError::Exchange {
            host: authority.to_string(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the answer, or with the guard that is returned beside it.
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let guard = Connection(task.abort_handle());
        let sending = timeout(IDLE_TIME, sender.send_request(request));
        let answer = sending.await.map_err(late)?.map_err(broken)?;
        Ok((answer, guard))
    }

    async fn connect(&self, host: &str, port: u16, is_tls: bool) -> io::Result<Stream> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((literal, port)).await?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(literal.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
type Stream = Box<dyn Io>;

/// The task that drives a connection; ends it when dropped.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(answer: Response<Incoming>, ask: &Ask<'_>, url: &Uri) -> Result<Answer, FetchError> {
    let host = || url.authority().map(ToString::to_string).unwrap_or_default();
    let too_large = || FetchError::TooLarge {
        what: ask.what.to_owned(),
        limit: ask.limit,
    };
    let (parts, mut body) = answer.into_parts();
    // What is announced is believed where it is too much, so that nothing is read in vain.
    let limit = u64::try_from(ask.limit).unwrap_or(u64::MAX);
    if ask.method != Method::HEAD && body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    loop {
        let frame = timeout(IDLE_TIME, body.frame()).await;
        let frame = frame.map_err(|_| FetchError::Timeout { host: host() })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|source| FetchError::Exchange {
            host: host(),
            source,
        })?;
        if let Ok(data) = frame.into_data() {
            if data.len() > ask.limit - bytes.len() {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: bytes.freeze(),
    })
}

fn roots_of(path: &Path) -> Result<RootCertStore, FetchError> {
    let pem = read_small(path, MAX_ROOTS_BYTES).map_err(|source| FetchError::RootsFile {
        path: path.to_owned(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it holds no PEM certificate");
        return Err(FetchError::RootsFile {
            path: path.to_owned(),
            source,
        });
    }
    Ok(roots)
}

/// Where a redirect leads: a whole address, or a path on the same server.
pub(super) fn resolve(url: &Uri, location: &HeaderValue) -> Option<Uri> {
    let text = location.to_str().ok()?;
    let text = text.split('#').next().unwrap_or_default();
    let (scheme, authority) = (url.scheme_str()?, url.authority()?);
    let whole = if text.starts_with("http://") || text.starts_with("https://") {
        text.to_owned()
    } else if let Some(rest) = text.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if text.starts_with('/') {
        format!("{scheme}://{authority}{text}")
    } else {
        let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{text}")
    };
    let next: Uri = whole.parse().ok()?;
    let authority = next.authority()?;
    (!authority.as_str().contains('@')).then_some(next)
}

/// An address without what may be secret in it.
pub(super) fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("http");
    let host = url.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", url.path())
}

fn address(url: &str) -> FetchError {
    let url = url.split('?').next().unwrap_or_default();
    FetchError::Address {
        url: url.to_owned(),
    }
}

fn redirect(url: &Uri) -> FetchError {
    FetchError::Redirect {
        url: shown(url),
        limit: MAX_REDIRECTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_an_address_or_a_path() {
        let cases = [
            ("https://b.test/x?sig=1", Some("https://b.test/x?sig=1")),
            ("//b.test/x", Some("https://b.test/x")),
            ("/x#part", Some("https://a.test:8443/x")),
            ("y", Some("https://a.test:8443/v2/y")),
            ("https://me:secret@b.test/x", None),
            ("https://", None),
            ("/a b", None),
        ];
        let url: Uri = "https://a.test:8443/v2/x".parse().unwrap();
        for (location, want) in cases {
            let value = HeaderValue::from_static(location);
            let got = resolve(&url, &value).map(|url| url.to_string());
            assert_eq!(got.as_deref(), want, "{location}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url: Uri = "https://me:pw@a.test/layer?X-Amz-Signature=1"
            .parse()
            .unwrap();
        assert_eq!(shown(&url), "https://a.test/layer");
    }
}
