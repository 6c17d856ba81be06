//! WebSockets: a tunnel where both sides agreed to one, and nowhere else.

use std::net::SocketAddr;

use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::recorder::Recorder;
use postern_tests::websocket;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::plain;
use crate::support::until;

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn messages_pass_in_both_directions_and_are_counted() {
    let app = Upstream::websocket().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut stream = TcpStream::connect(gateway.addr("http")).await.unwrap();
    let handshake = websocket::handshake("a.test", "/chat?room=1");
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase().contains("connection: upgrade"),
        "{head}"
    );
    assert!(
        head.to_lowercase().contains("sec-websocket-accept: "),
        "{head}"
    );
    for text in ["one", "two", "three"] {
        websocket::send(&mut stream, text).await.unwrap();
        assert_eq!(websocket::receive(&mut stream).await.unwrap(), text);
    }
    // The upstream sees the end, and so does the access log.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["status"], 101);
    assert_eq!(lines[0]["outcome"], "ok");
    assert_eq!(lines[0]["request.bytes"], 6 * 3 + 11);
    assert_eq!(lines[0]["response.bytes"], 2 * 3 + 11);
}

/// Of the sockets of this machine with these ends, as the kernel lists them: whether they ask their
/// peer now and then whether it is still there.
fn asks_its_peer(is_it: impl Fn(SocketAddr, SocketAddr) -> bool) -> Vec<bool> {
    let addr = |text: &str| {
        let (ip, port) = text.split_once(':').unwrap();
        let ip = u32::from_str_radix(ip, 16).unwrap().to_le_bytes();
        SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()))
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().skip(1);
    let sockets = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets
        // Field 3 is the state, 01 if it is open; 5 the timer that runs, 02 if it is for that.
        .filter(|fields| fields[3] == "01" && is_it(addr(fields[1]), addr(fields[2])))
        .map(|fields| fields[5].starts_with("02:"))
        .collect()
}

#[tokio::test]
async fn both_sides_of_a_tunnel_are_asked_whether_they_are_still_there() {
    let app = Upstream::websocket().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let addr = gateway.addr("http");
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let handshake = websocket::handshake("a.test", "/");
    stream.write_all(handshake.as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    let client = stream.local_addr().unwrap();
    // Another timer runs while something is not acknowledged.
    until("the client is asked", || {
        asks_its_peer(|from, to| (from, to) == (addr, client)) == [true]
    })
    .await;
    until("the upstream is asked", || {
        asks_its_peer(|_, to| to == app.addr) == [true]
    })
    .await;
}

#[tokio::test]
async fn a_refused_upgrade_opens_no_tunnel() {
    let recorder = Recorder::start().await;
    let gateway = SetUp::new().start(&plain(recorder.addr)).await;
    let mut bytes = websocket::handshake("a.test", "/ws").into_bytes();
    bytes.extend(b"GET /second HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let answers = raw::answers(&raw::exchange(gateway.addr("http"), &bytes).await);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200], "{answers:?}");
    let (requests, violations) = recorder.seen();
    assert!(violations.is_empty(), "{violations:?}");
    let targets: Vec<&str> = requests.iter().map(|request| request.target()).collect();
    assert_eq!(targets, ["/ws", "/second"]);
    assert_eq!(requests[1].values("upgrade"), [""; 0]);
}

#[tokio::test]
async fn other_protocols_are_not_offered_to_the_upstream() {
    let recorder = Recorder::start().await;
    let gateway = SetUp::new().start(&plain(recorder.addr)).await;
    for upgrade in ["h2c", "foo", "websocket, h2c", "TLS/1.0"] {
        let bytes = format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close, Upgrade, HTTP2-Settings\r\n\
             Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let answer = raw::exchange(gateway.addr("http"), bytes.as_bytes()).await;
        assert_eq!(raw::answers(&answer)[0].status, 200, "{upgrade}");
    }
    let (requests, _) = recorder.seen();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!(request.values("upgrade"), [""; 0], "{request:?}");
        assert_eq!(request.values("http2-settings"), [""; 0], "{request:?}");
    }
}
