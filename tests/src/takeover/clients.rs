//! Clients that send at a steady pace, and what became of each request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

use super::ledger::EVENTS;
use super::ledger::FIELD;
use super::ledger::Ledger;
use super::ledger::PACE;
use super::ledger::digest;
use crate::client::Client;
use crate::upstream;
use crate::upstream::Body;
use crate::websocket;

/// A request that is not whole by then has failed.
const WHOLE: Duration = Duration::from_secs(15);
/// Between two short requests of one client.
const SHORT: Duration = Duration::from_millis(15);
/// How often a request that nobody has seen is sent again.
const RESENT: u32 = 3;
/// Until what a connection carried when it broke would have arrived.
const ARRIVAL: Duration = Duration::from_millis(100);
/// Pieces of an upload, and bytes of each.
const PIECES: u32 = 16;
const PIECE: usize = 16 << 10;

/// What a client does over and over.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// GET over a connection that is kept.
    Http1,
    /// GET over a connection of its own.
    Http1Once,
    Http2,
    /// POST of a body that comes slowly.
    Upload,
    /// A response that comes slowly.
    Events,
    WebSocket,
    Grpc,
}

impl Kind {
    const ALL: [(Self, usize); 7] = [
        (Self::Http1, 4),
        (Self::Http1Once, 4),
        (Self::Http2, 2),
        (Self::Upload, 2),
        (Self::Events, 2),
        (Self::WebSocket, 2),
        (Self::Grpc, 2),
    ];
}

/// What became of the requests of a kind.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answered, once and whole.
    pub answered: u64,
    /// Sent again because the connection closed before anybody saw them, as RFC 9110, 9.2.2 lets a
    /// client do.
    pub resent: u64,
    /// How each of the others failed.
    pub failures: Vec<String>,
}

pub(super) struct Clients {
    ends: Arc<AtomicBool>,
    tasks: JoinSet<(Kind, Outcome)>,
}

impl Clients {
    pub(super) fn start(addr: SocketAddr, ledger: &Arc<Ledger>) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        for (kind, count) in Kind::ALL {
            for _ in 0..count {
                let mut sender = Sender {
                    addr,
                    kind,
                    ledger: Arc::clone(ledger),
                    client: None,
                    outcome: Outcome::default(),
                };
                let ends = Arc::clone(&ends);
                tasks.spawn(async move {
                    while !ends.load(Ordering::Relaxed) {
                        sender.once().await;
                        sleep(SHORT).await;
                    }
                    (kind, sender.outcome)
                });
            }
        }
        Self { ends, tasks }
    }

    pub(super) async fn end(self) -> BTreeMap<Kind, Outcome> {
        self.ends.store(true, Ordering::Relaxed);
        let mut outcomes = BTreeMap::<Kind, Outcome>::new();
        for (kind, outcome) in self.tasks.join_all().await {
            let sum = outcomes.entry(kind).or_default();
            sum.answered += outcome.answered;
            sum.resent += outcome.resent;
            sum.failures.extend(outcome.failures);
        }
        outcomes
    }
}

struct Sender {
    addr: SocketAddr,
    kind: Kind,
    ledger: Arc<Ledger>,
    /// The connection that is kept.
    client: Option<Client>,
    outcome: Outcome,
}

impl Sender {
    async fn once(&mut self) {
        let done = match timeout(WHOLE, self.attempt()).await {
            Ok(done) => done,
            Err(_) => Err(format!("not whole in {WHOLE:?}")),
        };
        match done {
            Ok(()) => self.outcome.answered += 1,
            Err(failure) => {
                self.client = None;
                self.outcome.failures.push(failure);
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), String> {
        match self.kind {
            Kind::WebSocket => talk(self.addr).await,
            Kind::Grpc => self.chat().await,
            _ => self.request().await,
        }
    }

    async fn request(&mut self) -> Result<(), String> {
        let number = self.ledger.number();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.open(number).await {
                Ok(response) => return self.read(response).await,
                Err(error) => error,
            };
            self.client = None;
            sleep(ARRIVAL).await;
            if self.ledger.arrivals(number) > 0 || attempts > RESENT {
                return Err(format!("no response: {error:?}"));
            }
            self.outcome.resent += 1;
        }
    }

    /// Sends request `number` over the connection that is kept, or over a new one.
    async fn open(&mut self, number: u64) -> Result<Response<Incoming>, String> {
        let is_open = match &mut self.client {
            Some(Client::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Client::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            self.client = Some(self.connect().await?);
        }
        let client = self.client.as_mut().ok_or("no connection")?;
        let method = if self.kind == Kind::Upload {
            "POST"
        } else {
            "GET"
        };
        let path = if self.kind == Kind::Events {
            "/events"
        } else {
            "/"
        };
        let mut request = client.request(method, "load.test", path);
        request.headers_mut().insert(FIELD, number.into());
        if self.kind == Kind::Upload {
            *request.body_mut() = slowly();
        }
        client
            .open(request)
            .await
            .map_err(|error| format!("{error:?}"))
    }

    async fn connect(&self) -> Result<Client, String> {
        let stream = TcpStream::connect(self.addr).await;
        let stream = stream.map_err(|error| format!("connection refused: {error}"))?;
        let client = if self.kind == Kind::Http2 {
            Client::over_http2(stream).await
        } else {
            Client::over_http1(stream).await
        };
        client.map_err(|error| format!("no connection: {error}"))
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<(), String> {
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| format!("the response was cut: {error:?}"))?;
        let body = body.to_bytes();
        let wanted = match self.kind {
            Kind::Upload => digest(&vec![b'u'; PIECES as usize * PIECE]).into_bytes(),
            Kind::Events => (0..EVENTS)
                .flat_map(|event| format!("data: {event}\n\n").into_bytes())
                .collect(),
            _ => digest(b"").into_bytes(),
        };
        if self.kind == Kind::Http1Once {
            self.client = None;
        }
        if status != 200 || body != wanted {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{status}: {body:.100}"));
        }
        Ok(())
    }

    /// A gRPC stream of some messages, each of which comes back, and trailers at its end.
    async fn chat(&self) -> Result<(), String> {
        let stream = TcpStream::connect(self.addr).await;
        let stream = stream.map_err(|error| format!("connection refused: {error}"))?;
        let client = Client::over_http2(stream).await;
        let mut client = client.map_err(|error| format!("no connection: {error}"))?;
        let (mut pieces, body) = upstream::channel();
        let request = Request::post("http://load.test/echo.Echo/Chat")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(body)
            .map_err(|error| error.to_string())?;
        let response = client.open(request).await;
        let mut response = response.map_err(|error| format!("no stream: {error:?}"))?;
        for message in 0..EVENTS {
            let piece = Bytes::from(message.to_be_bytes().to_vec());
            let sent = pieces.send_data(piece.clone()).await;
            sent.map_err(|_| format!("message {message} was not sent"))?;
            let frame = response.body_mut().frame().await;
            match frame.map(|frame| frame.map(|frame| frame.into_data())) {
                Some(Ok(Ok(echo))) if echo == piece => {}
                other => return Err(format!("message {message}: {other:?}")),
            }
            sleep(PACE).await;
        }
        drop(pieces);
        match response.body_mut().frame().await {
            Some(Ok(frame)) if frame.trailers_ref().is_some() => Ok(()),
            other => Err(format!("no trailers: {other:?}")),
        }
    }
}

/// A body that takes most of a second.
fn slowly() -> Body {
    let (mut pieces, body) = upstream::channel();
    tokio::spawn(async move {
        for _ in 0..PIECES {
            let piece = Bytes::from(vec![b'u'; PIECE]);
            // A gateway that refuses the request says so in its response.
            if pieces.send_data(piece).await.is_err() {
                return;
            }
            sleep(PACE).await;
        }
    });
    body
}

/// A WebSocket that carries some messages, each of which comes back.
async fn talk(addr: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("no WebSocket: {error}");
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
    for message in 0..EVENTS {
        let text = message.to_string();
        let lost = |error: std::io::Error| format!("message {message}: {error}");
        websocket::send(&mut stream, &text).await.map_err(lost)?;
        let echo = websocket::receive(&mut stream).await.map_err(lost)?;
        if echo != text {
            return Err(format!("message {message}: {echo}"));
        }
        sleep(PACE).await;
    }
    Ok(())
}
