//! Slow clients of every kind, at once: each is gone within its limit, and nobody else waits.

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use postern_tests::client;
use postern_tests::client::frames;
use postern_tests::client::frames::Connection;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use crate::support::upstream_table;

/// Every limit of the listener.
const LIMIT: Duration = Duration::from_millis(400);
/// When a client that sends bytes one by one sends the next.
const DRIP: Duration = Duration::from_millis(40);
/// Beyond its limit, how long a client may be open. The sheet says 2 s.
const MARGIN: Duration = Duration::from_secs(2);
/// More than sockets hold on a loopback connection.
const LARGE: usize = 64 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Silent,
    Head,
    Body,
    BodyStop,
    Idle,
    Reader,
    DripReader,
    Handshake,
    Preface,
    Window,
}

use Kind::*;

const KINDS: [Kind; 10] = [
    Silent, Head, Body, BodyStop, Idle, Reader, DripReader, Handshake, Preface, Window,
];

fn config(app: SocketAddr) -> String {
    let timeouts = "timeouts = { handshake = \"400ms\", request-head = \"400ms\", keep-alive = \
                    \"400ms\", body-idle = \"400ms\", write-idle = \"400ms\", body-grace = \"400ms\" }";
    format!(
        "[listeners.http]\nbind = \"127.0.0.1:0\"\n{timeouts}\n\
         [listeners.https]\nbind = \"127.0.0.1:0\"\ntls = {{}}\n{timeouts}\n\
         [certificates.one]\ncert-file = \"one.pem\"\nkey-file = \"one.key\"\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app)
    )
}

#[tokio::test]
async fn slow_clients_of_every_kind_are_gone_within_their_limit() {
    let app = Upstream::http1(|request| async move {
        let length = if request.uri().path() == "/large" {
            LARGE
        } else {
            2
        };
        // Read to its end, as an application does.
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        Response::new(upstream::full("x".repeat(length)))
    })
    .await;
    let set_up = SetUp::new().certificate("one", &["one.test"]);
    let gateway = set_up.start_with(&config(app.addr), 2).await;
    let (http, https) = (gateway.addr("http"), gateway.addr("https"));
    let clients = KINDS.map(|kind| tokio::spawn(slow(kind, http, https)));
    // Beside them, others are served.
    for _ in 0..20 {
        assert_eq!(client::get(http, "a.test", "/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (kind, client) in KINDS.into_iter().zip(clients) {
        let (took, said) = client.await.unwrap();
        // A stream is reset first, and its connection gets the time of a head to go.
        let limits = if kind == Window { 2 } else { 1 };
        assert!(took < LIMIT * limits + MARGIN, "{kind:?} {took:?}");
        let statuses: Vec<u16> = raw::answers(&said).iter().map(|a| a.status).collect();
        match kind {
            Head | Body | BodyStop => assert_eq!(statuses, [408], "{kind:?}"),
            Silent | Handshake => assert!(said.is_empty(), "{kind:?}"),
            _ => {}
        }
    }
    let metrics = gateway.metrics();
    for listener in ["http", "https"] {
        let none = format!("postern_connections_open{{listener=\"{listener}\"}} 0");
        assert!(metrics.contains(&none), "{metrics}");
    }
}

/// How long the client was connected, and what it was told.
async fn slow(kind: Kind, http: SocketAddr, https: SocketAddr) -> (Duration, Vec<u8>) {
    let began = tokio::time::Instant::now();
    let mut said = Vec::new();
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let large = "GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let body = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n";
    match kind {
        Window => {
            let mut connection = Connection::with_settings(http, &[(4, 0)]).await;
            connection.send(&frames::get(1, "/large")).await;
            connection.rest().await;
            return (began.elapsed(), said);
        }
        Reader | DripReader => {
            // Small, so that the kernel does not take the response for the client.
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(http).await.unwrap();
            stream.write_all(large.as_bytes()).await.unwrap();
            while kind == DripReader && began.elapsed() < LIMIT + MARGIN {
                match stream.read_u8().await {
                    Ok(_) => tokio::time::sleep(DRIP).await,
                    Err(_) => return (began.elapsed(), said),
                }
            }
            return (until_reset(&mut stream).await, said);
        }
        _ => {}
    }
    let addr = if kind == Handshake { https } else { http };
    let (mut reader, mut writer) = TcpStream::connect(addr).await.unwrap().into_split();
    let (at_once, drip) = match kind {
        Head => ("", head),
        Body => (body, "x"),
        BodyStop => (body, ""),
        Idle => (head, ""),
        Preface => ("PRI * HTTP/2.0\r\n\r\nSM", ""),
        _ => ("", ""),
    };
    let sending = async {
        let _ = writer.write_all(at_once.as_bytes()).await;
        for byte in drip.bytes().cycle().take(1000 * drip.len().min(1)) {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(DRIP).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = reader.read_to_end(&mut said) => {}
        () = sending => {}
    }
    (began.elapsed(), said)
}

/// Waits for the end of a connection that nobody reads from.
async fn until_reset(stream: &mut TcpStream) -> Duration {
    let began = tokio::time::Instant::now();
    while stream.write_all(b"x").await.is_ok() && began.elapsed() < LIMIT + MARGIN {
        tokio::time::sleep(DRIP).await;
    }
    began.elapsed()
}
