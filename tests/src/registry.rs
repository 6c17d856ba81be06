//! Servers that components are fetched from: one that serves what a test puts there, with or without
//! TLS and a login, and a registry that is not ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::certs::Leaf;
use crate::process;
use crate::upstream::Body;
use crate::upstream::full;

/// What a path answers.
#[derive(Clone, Debug)]
pub enum Content {
    Bytes(Bytes),
    Redirect(String),
    /// A status, and nothing.
    Status(u16),
    /// Bytes, for who shows this `Authorization`; others are asked for it with this challenge.
    Guarded {
        bytes: Bytes,
        authorization: String,
        challenge: String,
    },
}

/// One request that was answered.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
}

#[derive(Default)]
struct Shelf {
    contents: BTreeMap<String, Content>,
    asked: Vec<Asked>,
}

/// A server of what is put there. Gone when it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn http() -> Self {
        Self::start(None).await
    }

    pub async fn https(leaf: &Leaf) -> Self {
        let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let served = Arc::clone(&shelf);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, shelf) = (tls.clone(), Arc::clone(&served));
                tokio::spawn(connection(stream, tls, shelf));
            }
        });
        Self { addr, shelf, task }
    }

    pub fn put(&self, path: impl Into<String>, content: Content) {
        let mut shelf = self.shelf.lock().unwrap();
        shelf.contents.insert(path.into(), content);
    }

    pub fn put_bytes(&self, path: impl Into<String>, bytes: impl Into<Bytes>) {
        self.put(path, Content::Bytes(bytes.into()));
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shelf.lock().unwrap().asked.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shelf: Arc<Mutex<Shelf>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &mut shelf.lock().unwrap());
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    // Who leaves, or does not trust us, is no failure of the server.
    match tls {
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = served.await;
            }
        }
        None => {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = served.await;
        }
    }
}

fn answer(request: &Request<Incoming>, shelf: &mut Shelf) -> Response<Body> {
    let path = request.uri().path().to_owned();
    shelf.asked.push(Asked {
        path: path.clone(),
        headers: request.headers().clone(),
    });
    let respond = |status: StatusCode, body: Bytes| {
        let mut response = Response::new(full(body));
        *response.status_mut() = status;
        response
    };
    let shown = request.headers().get(header::AUTHORIZATION);
    match shelf.contents.get(&path).cloned() {
        None => respond(StatusCode::NOT_FOUND, Bytes::new()),
        Some(Content::Bytes(bytes)) => respond(StatusCode::OK, bytes),
        Some(Content::Status(status)) => {
            respond(StatusCode::from_u16(status).unwrap(), Bytes::new())
        }
        Some(Content::Redirect(to)) => {
            let mut response = respond(StatusCode::TEMPORARY_REDIRECT, Bytes::new());
            let to = to.parse().unwrap();
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
        Some(Content::Guarded {
            bytes,
            authorization,
            challenge,
        }) => {
            if shown.is_some_and(|shown| *shown == *authorization) {
                return respond(StatusCode::OK, bytes);
            }
            let mut response = respond(StatusCode::UNAUTHORIZED, Bytes::new());
            let challenge = challenge.parse().unwrap();
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
    }
}

/// A registry of the go-containerregistry project, which keeps everything in memory.
pub struct GoRegistry {
    pub addr: SocketAddr,
    child: Child,
}

impl GoRegistry {
    /// Starts it, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_at(process::free_addr()).await
    }

    pub async fn start_at(addr: SocketAddr) -> Self {
        let program = tool("registry");
        let child = Command::new(&program)
            .args(["--port", &addr.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                let program = program.display();
                panic!("{program}: {error}; make setup-tests installs it")
            });
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(addr).await.is_err() {
            assert!(
                Instant::now() < end,
                "the registry does not listen on {addr}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        Self { addr, child }
    }

    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A program that `tests/setup.sh` has installed.
fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(".cache/tests-bin").join(name)
}
