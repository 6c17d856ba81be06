//! Clients: HTTP/1 and HTTP/2 by hyper, over clear text or TLS; raw bytes in [`raw`], raw HTTP/2
//! frames in [`frames`].

pub mod frames;
pub mod raw;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certs::Authority;
use crate::certs::Leaf;
use crate::upstream::Body;
use crate::upstream::empty;

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Reply {
    pub async fn of(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a response field, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The values that an echo upstream got for a field, in the order it got them.
    pub fn echoed(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let head = text.split("\n\n").next().unwrap_or_default();
        head.lines()
            .skip(2)
            .filter_map(|line| line.split_once(": "))
            .filter(|(n, _)| *n == name)
            .map(|(_, value)| value.to_owned())
            .collect()
    }

    /// Method and target that an echo upstream got.
    pub fn echoed_line(&self) -> String {
        self.text().lines().nth(1).unwrap_or_default().to_owned()
    }
}

/// One connection to the gateway.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub async fn http1(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        Self::over_http1(stream).await.unwrap()
    }

    /// HTTP/2 with prior knowledge.
    pub async fn http2(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        Self::over_http2(stream).await.unwrap()
    }

    /// HTTP/1 or HTTP/2 over TLS, as the gateway chooses from what is offered.
    pub async fn tls(addr: SocketAddr, tls: &Tls<'_>) -> Self {
        let stream = tls.connect(addr).await.unwrap();
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Self::over_http2(stream).await.unwrap(),
            _ => Self::over_http1(stream).await.unwrap(),
        }
    }

    pub async fn over_http1(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    pub async fn over_http2(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, hyper::Error> {
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }

    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Sends a request and gives the response when its head is there.
    pub async fn open(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Reply, hyper::Error> {
        Reply::of(self.open(request).await?).await
    }

    /// GET of `path` at `host`; fails the test if there is no response.
    pub async fn get(&mut self, host: &str, path: &str) -> Reply {
        let request = self.request("GET", host, path);
        self.send(request).await.unwrap()
    }

    /// A request without body, in the form of the connection's protocol.
    pub fn request(&self, method: &str, host: &str, path: &str) -> Request<Body> {
        let request = Request::builder().method(method);
        let request = match self {
            Self::Http1(_) => request.uri(path).header(header::HOST, host),
            Self::Http2(_) => request.uri(format!("https://{host}{path}")),
        };
        request.body(empty()).unwrap()
    }
}

/// GET of `path` at `host` over a connection of its own.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> Reply {
    Client::http1(addr).await.get(host, path).await
}

/// What a client says in a TLS handshake.
pub struct Tls<'t> {
    pub authority: &'t Authority,
    /// The server name, which is verified too; an address sends none.
    pub name: &'t str,
    pub alpn: &'t [&'t str],
    pub versions: &'static [&'static rustls::SupportedProtocolVersion],
    /// The certificate that the client shows if it is asked for one.
    pub identity: Option<&'t Leaf>,
}

impl<'t> Tls<'t> {
    /// Everything that is on offer.
    pub fn to(authority: &'t Authority, name: &'t str) -> Self {
        Self {
            authority,
            name,
            alpn: &["h2", "http/1.1"],
            versions: rustls::ALL_VERSIONS,
            identity: None,
        }
    }

    pub async fn connect(&self, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(addr).await?).await
    }

    /// The same over a connection that is there.
    pub async fn over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(self.config()));
        connector.connect(name, stream).await
    }

    /// For tests that connect more than once with the same sessions.
    pub fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }
}
