//! Requests to an authority: HTTP/1.1 over TLS, bounded in bytes and in time.
//!
//! One connection is kept between requests. What is no JSON where JSON should be, and what does not
//! answer, are errors of their own: a proxy's page must not pass for the authority's word.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Name, TCP and TLS.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A whole request. Authorities that sign while one waits were seen to take twenty seconds.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Largest answer: a chain of certificates takes less than a tenth of it.
const MAX_ANSWER: usize = 256 << 10;
const AGENT: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));

/// Nothing came back that is an answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("'{url}' is no https URL")]
    Url { url: String },
    #[error("no connection to {host}: {error}")]
    Connect { host: String, error: String },
    #[error("{host} did not answer: {error}")]
    Exchange { host: String, error: String },
    #[error("{host} did not answer within {} s", REQUEST_TIME.as_secs())]
    Late { host: String },
    #[error("the answer of {host} is larger than {} KiB", MAX_ANSWER >> 10)]
    TooLarge { host: String },
    #[error("the roots that are to be trusted cannot be used: {error}")]
    Roots { error: String },
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct Http {
    tls: TlsConnector,
    idle: Mutex<Option<Idle>>,
}

/// A connection that waits for the next request.
struct Idle {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Http {
    /// Trusts these roots (PEM), or those of the system.
    pub(crate) fn new(roots: Option<&[u8]>) -> Result<Self, HttpError> {
        let unusable = |error: String| HttpError::Roots { error };
        let mut store = RootCertStore::empty();
        let roots: Vec<CertificateDer<'static>> = match roots {
            Some(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
            None => rustls_native_certs::load_native_certs().certs,
        };
        store.add_parsable_certificates(roots);
        if store.is_empty() {
            return Err(unusable("there is no certificate among them".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            idle: Mutex::new(None),
        })
    }

    /// `kind`: of the body, if there is one.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        kind: Option<&'static str>,
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let no_url = || HttpError::Url {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let authority = uri
            .authority()
            .filter(|_| uri.scheme_str() == Some("https"));
        let authority = authority.ok_or_else(no_url)?.clone();
        let host = authority.to_string();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| no_url())?;
        let headers = request.headers_mut();
        let value = HeaderValue::from_str(&host).map_err(|_| no_url())?;
        headers.insert(header::HOST, value);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let exchange = self.exchange(&authority, request);
        match timeout(REQUEST_TIME, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Late { host }),
        }
    }

    async fn exchange(
        &self,
        authority: &http::uri::Authority,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, HttpError> {
        let host = authority.to_string();
        let kept = self.idle.lock().await.take();
        let kept = kept.filter(|idle| idle.authority == host && idle.sender.is_ready());
        if let Some(mut idle) = kept {
            // The server may have closed it meanwhile; what it has not taken is sent again.
            match idle.sender.try_send_request(request.clone()).await {
                Ok(answer) => return self.read(answer, idle.sender, host).await,
                Err(error) if error.message().is_none() => {
                    let error = error.into_error().to_string();
                    return Err(HttpError::Exchange { host, error });
                }
                Err(_) => {}
            }
        }
        let connecting = timeout(CONNECT_TIME, self.connect(authority)).await;
        let connecting = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connecting.map_err(|error| HttpError::Connect {
            host: host.clone(),
            error: error.to_string(),
        })?;
        let failed = |error: hyper::Error| HttpError::Exchange {
            host: host.clone(),
            error: error.to_string(),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        // Ends with the sender, or with the server.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = sender.send_request(request).await.map_err(failed)?;
        self.read(answer, sender, host).await
    }

    async fn connect(
        &self,
        authority: &http::uri::Authority,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let literal = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((literal, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(literal.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.tls.connect(name, stream).await
    }

    async fn read(
        &self,
        answer: http::Response<Incoming>,
        sender: SendRequest<Full<Bytes>>,
        host: String,
    ) -> Result<Answer, HttpError> {
        let (parts, body) = answer.into_parts();
        let body = match whole(body, MAX_ANSWER).await {
            Ok(Some(body)) => body,
            Ok(None) => return Err(HttpError::TooLarge { host }),
            Err(error) => {
                let error = error.to_string();
                return Err(HttpError::Exchange { host, error });
            }
        };
        *self.idle.lock().await = Some(Idle {
            authority: host,
            sender,
        });
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

/// All bytes of a body; `None` if there are more than `most`.
pub(crate) async fn whole(mut body: Incoming, most: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if data.len() > most - bytes.len() {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes.freeze()))
}
