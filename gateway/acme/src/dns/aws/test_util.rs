//! A service in this process, which answers as a test says and remembers what it was asked.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A request, as `METHOD /path?query`.
#[derive(Clone, Debug)]
pub(in crate::dns) struct Asked {
    pub(in crate::dns) line: String,
    pub(in crate::dns) headers: HeaderMap,
    pub(in crate::dns) body: String,
}

/// Ends when dropped.
pub(in crate::dns) struct TestService {
    pub(in crate::dns) addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: AbortHandle,
}

impl TestService {
    pub(in crate::dns) async fn start(
        mut answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        // One connection after the other: each of ours carries one request.
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (requests, mut incoming) = tokio::sync::mpsc::channel(1);
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let requests = requests.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let asked = Asked {
                            line: format!("{} {}", parts.method, parts.uri),
                            headers: parts.headers,
                            body: String::from_utf8(body.to_vec()).unwrap(),
                        };
                        let (reply, answered) = tokio::sync::oneshot::channel();
                        requests.send((asked, reply)).await.unwrap();
                        let (status, body): (u16, String) = answered.await.unwrap();
                        let response = Response::builder().status(status);
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                    }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let answering = async {
                    while let Some((asked, reply)) = incoming.recv().await {
                        let reply: tokio::sync::oneshot::Sender<(u16, String)> = reply;
                        let answer = answer(&asked);
                        kept.lock().unwrap().push(asked);
                        let _ = reply.send(answer);
                    }
                };
                let _ = futures_util::join!(connection, answering);
            }
        });
        Self {
            addr,
            asked,
            task: task.abort_handle(),
        }
    }

    pub(in crate::dns) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(in crate::dns) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.task.abort();
    }
}
