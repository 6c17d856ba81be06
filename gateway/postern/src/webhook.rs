//! The admission webhook: TLS, HTTP and bounds around [`postern_kube::admission`].
//!
//! Who asks is not asked who it is: the answer tells nothing but what is wrong with what was sent.
//! What comes is data, compared and measured; nothing of it is run, fetched or written.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use postern_kube::Settings;
use postern_kube::admission::review;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::source::file::read_small;

/// Where the API server asks.
const PATH: &str = "/validate";
/// Where probes do.
const HEALTH: &str = "/healthz";
/// Connections at once. The API server keeps one, or a few.
const MAX_CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the head of a request may take, and an unused connection stays.
const HEAD: Duration = Duration::from_secs(60);
/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(5);
/// Largest request, in bytes: an object as it is and as it was, of which the API server takes 3 MiB
/// each at the most.
const MAX_BYTES: usize = 8 << 20;
/// Largest file of a certificate or key, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A certificate and its key, as they are in files that may change.
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    bytes: (Vec<u8>, Vec<u8>),
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl Files {
    /// Reads them.
    pub fn new(cert: PathBuf, key: PathBuf) -> anyhow::Result<Self> {
        let bytes = read(&cert, &key)?;
        let config = server_config(&bytes)?;
        Ok(Self {
            cert,
            key,
            bytes,
            config: Arc::new(Mutex::new(Arc::new(config))),
        })
    }

    /// Takes them as they are now. Those that cannot be used change nothing.
    fn look(&mut self) {
        let look = || -> anyhow::Result<_> {
            let bytes = read(&self.cert, &self.key)?;
            if bytes == self.bytes {
                return Ok(None);
            }
            let config = server_config(&bytes)?;
            Ok(Some((bytes, config)))
        };
        match look() {
            Ok(None) => {}
            Ok(Some((bytes, config))) => {
                *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                self.bytes = bytes;
                tracing::info!("certificate read again");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &*error;
                tracing::warn!(error, "the certificate cannot be read again");
            }
        }
    }
}

fn read(cert: &std::path::Path, key: &std::path::Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let read = |path: &std::path::Path| {
        read_small(path, MAX_FILE).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok((read(cert)?, read(key)?))
}

fn server_config((cert, key): &(Vec<u8>, Vec<u8>)) -> anyhow::Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .context("the certificate is no PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("the key is no PEM")?;
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("there is no version of TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key cannot be used")
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, mut files: Files, settings: Settings) {
    let settings = Arc::new(settings);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let config = Arc::clone(&files.config);
    let look = async {
        loop {
            sleep(LOOK).await;
            files.look();
        }
    };
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let config = config.lock().unwrap_or_else(PoisonError::into_inner);
                    let acceptor = TlsAcceptor::from(Arc::clone(&config));
                    let settings = Arc::clone(&settings);
                    // Ends by itself: each of its steps has a deadline.
                    tokio::spawn(async move {
                        connection(stream, acceptor, settings).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = look => {}
        () = accept => {}
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, settings: Arc<Settings>) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(|request| {
        let settings = Arc::clone(&settings);
        async move { Ok::<_, Infallible>(answer(request, &settings).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "connection failed");
    }
}

async fn answer(request: Request<Incoming>, settings: &Settings) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, HEALTH) => return text(StatusCode::OK, "ok\n"),
        (&Method::POST, PATH) => {}
        (_, PATH) => return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is served here\n"),
        _ => return text(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
    let body = Limited::new(body, MAX_BYTES).collect();
    let bytes = match timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the request takes too long\n"),
    };
    let answer = serde_json::from_slice(&bytes).ok();
    let answer = answer.and_then(|asked| review(&asked, settings));
    let Some(answer) = answer else {
        return text(StatusCode::BAD_REQUEST, "this is no AdmissionReview\n");
    };
    let mut response = Response::new(Full::from(answer.to_string()));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
