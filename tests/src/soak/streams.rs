//! Streams that stay open while everything else changes, and are used all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::client::Client;
use crate::upstream;
use crate::websocket;

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(20);
/// A message that is not answered by then is lost.
const ANSWER: Duration = Duration::from_secs(5);

/// A stream and the task that talks over it.
pub(super) struct Stream {
    name: &'static str,
    ends: Arc<AtomicBool>,
    task: JoinHandle<(u32, Option<String>)>,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Ended {
    pub name: &'static str,
    pub messages: u32,
    pub failure: Option<String>,
}

impl Stream {
    pub(super) async fn websocket(addr: SocketAddr) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the WebSocket cannot be opened: {error}");
        let mut stream = TcpStream::connect(addr).await.map_err(failed)?;
        let handshake = websocket::handshake("load.test", "/ws");
        stream
            .write_all(handshake.as_bytes())
            .await
            .map_err(failed)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(failed)?);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&head)));
        }
        let ends = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&ends);
        let task = tokio::spawn(async move {
            let mut messages = 0;
            while !is_over.load(Ordering::Relaxed) {
                let text = messages.to_string();
                let talk = async {
                    websocket::send(&mut stream, &text).await?;
                    websocket::receive(&mut stream).await
                };
                match timeout(ANSWER, talk).await {
                    Ok(Ok(echo)) if echo == text => messages += 1,
                    other => return (messages, Some(format!("{other:?}"))),
                }
                sleep(PAUSE).await;
            }
            (messages, None)
        });
        Ok(Self {
            name: "WebSocket",
            ends,
            task,
        })
    }

    pub(super) async fn grpc(addr: SocketAddr) -> Result<Self, String> {
        let mut client = Client::http2(addr).await;
        let (mut pieces, body) = upstream::channel();
        let request = Request::post("http://load.test/echo.Echo/Chat")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(body)
            .map_err(|error| error.to_string())?;
        let response = client.open(request).await;
        let mut response = response.map_err(|error| format!("no gRPC stream: {error}"))?;
        let ends = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&ends);
        let task = tokio::spawn(async move {
            // The connection lives as long as its client.
            let _client = client;
            let mut messages: u32 = 0;
            while !is_over.load(Ordering::Relaxed) {
                let piece = Bytes::from(messages.to_be_bytes().to_vec());
                let talk = async {
                    pieces.send_data(piece.clone()).await.ok()?;
                    let frame = response.body_mut().frame().await?.ok()?;
                    frame.into_data().ok()
                };
                match timeout(ANSWER, talk).await {
                    Ok(Some(echo)) if echo == piece => messages += 1,
                    other => return (messages, Some(format!("{other:?}"))),
                }
                sleep(PAUSE).await;
            }
            drop(pieces);
            let trailers = async {
                response
                    .body_mut()
                    .frame()
                    .await?
                    .ok()?
                    .into_trailers()
                    .ok()
            };
            match timeout(ANSWER, trailers).await {
                Ok(Some(trailers)) if trailers.contains_key("grpc-status") => (messages, None),
                other => (messages, Some(format!("no trailers: {other:?}"))),
            }
        });
        Ok(Self {
            name: "gRPC stream",
            ends,
            task,
        })
    }

    pub(super) async fn end(self) -> Ended {
        self.ends.store(true, Ordering::Relaxed);
        let (messages, failure) = match self.task.await {
            Ok(ended) => ended,
            Err(error) => (0, Some(error.to_string())),
        };
        Ended {
            name: self.name,
            messages,
            failure,
        }
    }
}
