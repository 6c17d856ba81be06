//! Small upstreams, each on a port that the kernel chose, each gone when it is dropped.

pub mod grpc;
pub mod recorder;
pub mod websocket;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::channel::Channel;
use http_body_util::channel::Sender;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A loopback port of the kernel's choice.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Any body that a test server or client sends.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server of a test.
pub struct Upstream {
    pub addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Serves HTTP/1 with `answer`.
    pub async fn http1<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::http1_at(ANY, answer).await.unwrap()
    }

    /// The same at an address that a person expects it at.
    pub async fn http1_at<F>(
        addr: SocketAddr,
        answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::accept_at(addr, move |stream| {
            let answer = Arc::clone(&answer);
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A gateway that leaves is no failure of the upstream.
                let _ = served.with_upgrades().await;
            }
        })
        .await
    }

    /// Serves HTTP/2 in clear text, with prior knowledge (h2c).
    pub async fn http2<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::accept(move |stream| {
            let answer = Arc::clone(&answer);
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = http2::Builder::new(TokioExecutor::new());
                // As above.
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await
    }

    /// Answers every request with what it got: see [`echo`].
    pub async fn echo(name: &'static str) -> Self {
        Self::http1(move |request| echo(name, request)).await
    }

    /// Answers every request with these bytes, whatever they are, and closes.
    pub async fn bytes(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::accept(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read_buf(&mut head).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
                if stream.write_all(&answer).await.is_ok() {
                    let _ = stream.shutdown().await;
                }
                // Until the gateway closes: bytes that arrive later would otherwise reset what was
                // sent.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        })
        .await
    }

    /// Accepts, reads, and never answers.
    pub async fn silent() -> Self {
        Self::accept(|mut stream| async move {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        })
        .await
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Serves each connection with `serve`.
    pub async fn accept<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::accept_at(ANY, serve).await.unwrap()
    }

    /// The same at an address of the caller's choice.
    pub async fn accept_at<F>(
        addr: SocketAddr,
        serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // Its connections end with it.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
                while serving.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            addr,
            connections,
            task,
        })
    }
}

/// A request that arrived at a held upstream and waits for its answer.
pub struct Held {
    pub request: Request<()>,
    release: oneshot::Sender<Response<Body>>,
}

impl Held {
    /// Answers; `false` if nobody waits any more.
    pub fn release(self, body: &'static str) -> bool {
        self.release.send(Response::new(full(body))).is_ok()
    }

    /// Answers with a body that is sent piece by piece.
    pub fn stream(self) -> Sender<Bytes> {
        let (pieces, body) = channel();
        let _ = self.release.send(Response::new(body));
        pieces
    }

    /// Completes once the gateway has given the request up.
    pub async fn cancelled(mut self) {
        self.release.closed().await;
    }
}

/// An upstream that answers when the test says so, and the requests that have arrived at it.
pub async fn held() -> (Upstream, mpsc::UnboundedReceiver<Held>) {
    let (arrived, requests) = mpsc::unbounded_channel();
    let upstream = Upstream::http1(move |request| {
        let arrived = arrived.clone();
        async move {
            let (release, released) = oneshot::channel();
            let (parts, mut body) = request.into_parts();
            let request = Request::from_parts(parts, ());
            let _ = arrived.send(Held { request, release });
            // The body is read, so that a client that leaves within it is noticed.
            while let Some(Ok(_)) = body.frame().await {}
            released
                .await
                .unwrap_or_else(|_| Response::new(full("gone")))
        }
    })
    .await;
    (upstream, requests)
}

/// Answers with lines: the name, method and target, each field, an empty line, the body.
/// Trailers of the request follow as `trailer NAME: VALUE`.
pub async fn echo(name: &'static str, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut text = format!("{name}\n{} {}\n", parts.method, parts.uri);
    for (field, value) in &parts.headers {
        let _ = writeln!(
            text,
            "{field}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    text.push('\n');
    let Ok(body) = body.collect().await else {
        let mut response = Response::new(full("the body was cut short"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let trailers = body.trailers().cloned().unwrap_or_default();
    text.push_str(&String::from_utf8_lossy(&body.to_bytes()));
    for (field, value) in &trailers {
        let _ = writeln!(text, "trailer {field}: {value:?}");
    }
    let mut response = Response::new(full(text));
    let value = http::HeaderValue::from_static(name);
    response.headers_mut().insert("x-upstream", value);
    response
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body whose pieces are sent one by one, and which ends when the sender is dropped.
pub fn channel() -> (Sender<Bytes>, Body) {
    let (pieces, body) = Channel::<Bytes, Infallible>::new(8);
    (pieces, body.boxed_unsync())
}

/// A body of one piece with trailers.
pub fn with_trailers(text: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    Full::new(text.into())
        .with_trailers(std::future::ready(Some(Ok(trailers))))
        .boxed_unsync()
}
