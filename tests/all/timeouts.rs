//! Every wait has an end.
//!
//! The times are real and small; what is asserted is the outcome, never how long it took.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::frames::Connection;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::plain;
use crate::support::until;
use crate::support::upstream_table;

fn with_listener_timeouts(app: &Upstream, timeouts: &str) -> String {
    format!(
        "listeners.http = {{ bind = \"127.0.0.1:0\", timeouts = {timeouts} }}\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app.addr)
    )
}

#[tokio::test]
async fn a_silent_upstream_is_a_gateway_timeout() {
    let app = Upstream::silent().await;
    let config = plain(app.addr).replace(
        "[[routes]]",
        "timeouts = { first-byte = \"100ms\" }\n[[routes]]",
    );
    let gateway = SetUp::new().start(&config).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(reply.status, 504);
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "upstream-timeout");
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_a_gateway_timeout() {
    let http1 = Upstream::accept(|mut stream| async move {
        let mut some = vec![0; 1 << 20];
        let _ = stream.read_exact(&mut some).await;
        // Open, and not read.
        std::future::pending::<()>().await;
    })
    .await;
    // One that opens no window for what it is sent.
    let http2 = Upstream::accept(|stream| async move {
        let _connection = Connection::accepted(stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    for (app, protocol) in [(http1, "http1"), (http2, "http2")] {
        let keys = format!(
            "protocol = \"{protocol}\"\ntimeouts = {{ first-byte = \"200ms\" }}\n[[routes]]"
        );
        let config = plain(app.addr).replace("[[routes]]", &keys);
        let gateway = SetUp::new().start(&config).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let mut request = client.request("PUT", "a.test", "/");
        *request.body_mut() = upstream::full(vec![0; 50 << 20]);
        let sending = tokio::spawn(async move { client.send(request).await });
        until("it is given up", || {
            let metrics = gateway.metrics();
            metrics.contains("reason=\"upstream-timeout\"} 1")
        })
        .await;
        sending.abort();
        let lines = gateway.finish().await;
        assert_eq!(lines[0]["outcome"], "upstream-timeout", "{protocol}");
    }
}

#[tokio::test]
async fn a_rule_may_wait_less_than_its_upstream() {
    let app = Upstream::silent().await;
    let config = plain(app.addr).replace(
        "upstream = \"app\" }",
        "upstream = \"app\", timeouts = { first-byte = \"100ms\" } }",
    );
    let gateway = SetUp::new().start(&config).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(reply.status, 504);
}

#[tokio::test]
async fn a_response_that_stands_still_is_cut() {
    let (app, mut arrived) = upstream::held().await;
    let config = plain(app.addr).replace(
        "[[routes]]",
        "timeouts = { body-idle = \"100ms\" }\n[[routes]]",
    );
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let request = client.request("GET", "a.test", "/");
    let open = tokio::spawn(async move { client.send(request).await });
    let mut pieces = arrived.recv().await.unwrap().stream();
    pieces.send_data("first".into()).await.unwrap();
    assert!(
        open.await.unwrap().is_err(),
        "and not a short whole response"
    );
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "response-idle");
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_closed() {
    let app = Upstream::echo("app").await;
    let config =
        with_listener_timeouts(&app, "{ request-head = \"100ms\", keep-alive = \"100ms\" }");
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    // Nothing, half a head, and nothing after a request: each connection ends.
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HT",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let answer = raw::exchange(addr, bytes).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("stayed open"), "{text}");
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed() {
    let app = Upstream::echo("app").await;
    let config = format!(
        "listeners.https = {{ bind = \"127.0.0.1:0\", tls = {{}}, timeouts = {{ handshake = \
         \"100ms\" }} }}\n\
         certificates.one = {{ cert-file = \"one.pem\", key-file = \"one.key\" }}\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().certificate("one", &["one.test"]);
    let gateway = set_up.start(&config).await;
    let mut stream = TcpStream::connect(gateway.addr("https")).await.unwrap();
    let mut answer = Vec::new();
    // Ends when the gateway closes.
    let _ = stream.read_to_end(&mut answer).await;
}

#[tokio::test]
async fn a_request_body_that_stands_still_ends_the_request() {
    let app = Upstream::echo("app").await;
    let config = with_listener_timeouts(&app, "{ body-idle = \"100ms\" }");
    let gateway = SetUp::new().start(&config).await;
    let bytes = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello";
    let answer = raw::exchange(gateway.addr("http"), bytes).await;
    let answers = raw::answers(&answer);
    let status = answers.first().map_or(0, |answer| answer.status);
    assert!((400..500).contains(&status), "{answers:?}");
}
