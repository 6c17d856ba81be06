//! One HTTP/2 connection to an endpoint, which every request of a worker shares: what ends with a
//! request, and what with the connection.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::frames::CANCEL;
use postern_tests::client::frames::Connection;
use postern_tests::client::frames::DATA;
use postern_tests::client::frames::END_HEADERS;
use postern_tests::client::frames::END_STREAM;
use postern_tests::client::frames::HEADERS;
use postern_tests::client::frames::RST_STREAM;
use postern_tests::client::frames::block;
use postern_tests::client::frames::frame;
use postern_tests::client::frames::get;
use postern_tests::client::frames::headers;
use postern_tests::client::frames::request;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use tokio::task::JoinSet;

use crate::support::several;
use crate::support::until;

/// RFC 9113, 7.
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;

/// How long what would otherwise take much longer may take.
const SOON: Duration = Duration::from_secs(10);

const HTTP2: &str = "protocol = \"http2\"";

/// Answers each request with what `answer` makes of its stream: bytes of frames.
async fn scripted(answer: fn(u32) -> Vec<u8>) -> Upstream {
    Upstream::accept(move |stream| async move {
        let mut connection = Connection::accepted(stream).await;
        while let Some(stream) = connection.asked().await {
            connection.send(&answer(stream)).await;
        }
    })
    .await
}

/// Answers one request of its first connection, and every one of those that follow.
async fn falls_silent() -> Upstream {
    let made = AtomicUsize::new(0);
    Upstream::accept(move |stream| {
        let is_first = made.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let mut connection = Connection::accepted(stream).await;
            while let Some(stream) = connection.asked().await {
                if !is_first || stream == 1 {
                    connection.send(&head(stream, END_STREAM)).await;
                }
            }
        }
    })
    .await
}

fn head(stream: u32, flags: u8) -> Vec<u8> {
    headers(stream, END_HEADERS | flags, &[(":status", b"200")])
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn part_of_a_response(stream: u32, code: u32) -> Vec<u8> {
    let data = frame(DATA, 0, stream, b"part");
    [head(stream, 0), data, reset(stream, code)].concat()
}

#[tokio::test]
async fn a_response_whose_stream_is_reset_is_cut_whatever_the_reason() {
    let quietly = scripted(|stream| part_of_a_response(stream, NO_ERROR)).await;
    let cancelled = scripted(|stream| part_of_a_response(stream, CANCEL)).await;
    for app in [quietly, cancelled] {
        let gateway = SetUp::new().start(&several(&[app.addr], HTTP2)).await;
        let addr = gateway.addr("http");
        let asked = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let answer = raw::exchange(addr, asked).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("\r\n0\r\n"), "{text}");

        let mut connection = Connection::open(addr).await;
        connection.send(&get(1, "/")).await;
        let outcome = connection.outcome(1).await;
        assert!(outcome.reset.is_some(), "{outcome:?}");
        drop(connection);
        let lines = gateway.finish().await;
        assert!(
            lines.iter().all(|line| line["outcome"] == "response-cut"),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn a_response_that_is_whole_before_its_stream_is_reset_is_whole() {
    let data = scripted(|stream| {
        let data = frame(DATA, END_STREAM, stream, b"whole");
        [head(stream, 0), data, reset(stream, NO_ERROR)].concat()
    })
    .await;
    let trailers = scripted(|stream| {
        let data = frame(DATA, 0, stream, b"whole");
        let trailers = block(&[("x-checksum", b"1")]);
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers);
        [head(stream, 0), data, trailers, reset(stream, NO_ERROR)].concat()
    })
    .await;
    for app in [data, trailers] {
        let gateway = SetUp::new().start(&several(&[app.addr], HTTP2)).await;
        // Its request never ends.
        let mut connection = Connection::open(gateway.addr("http")).await;
        let upload = headers(1, END_HEADERS, &request("POST", "/"));
        connection.send(&upload).await;
        let outcome = connection.outcome(1).await;
        assert_eq!(outcome.status, Some(200), "{outcome:?}");
        assert_eq!(outcome.body, b"whole", "{outcome:?}");
        assert_eq!(outcome.reset, None, "{outcome:?}");
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.text(), "whole");
    }
}

#[tokio::test]
async fn a_request_body_that_stops_is_no_fault_of_the_endpoint() {
    let apps = [
        Upstream::http2(|request| upstream::echo("one", request)).await,
        Upstream::http2(|request| upstream::echo("two", request)).await,
    ];
    let addrs = apps.each_ref().map(|app| app.addr);
    let config = several(&addrs, HTTP2).replace(
        "[upstreams.app]",
        "timeouts = { body-idle = \"200ms\" }\n[upstreams.app]",
    );
    let gateway = SetUp::new().start(&config).await;
    // More than eject both.
    for _ in 0..12 {
        let mut connection = Connection::open(gateway.addr("http")).await;
        let upload = headers(1, END_HEADERS, &request("POST", "/"));
        let part = frame(DATA, 0, 1, b"some");
        connection.send(&[upload, part].concat()).await;
        let outcome = connection.outcome(1).await;
        assert_eq!(outcome.status, Some(408), "{outcome:?}");
    }
    let metrics = gateway.metrics();
    for addr in addrs {
        let up =
            format!("postern_upstream_endpoint_up{{upstream=\"app\",endpoint=\"{addr}\"}} 1\n");
        assert!(metrics.contains(&up), "{metrics}");
    }
    let lines = gateway.finish().await;
    assert!(
        lines
            .iter()
            .all(|line| line["outcome"] == "request-body-slow"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_costs_the_requests_that_wait_for_it_and_no_other() {
    let app = falls_silent().await;
    let keys = format!("{HTTP2}\ntimeouts.first-byte = \"300ms\"");
    let gateway = SetUp::new().start(&several(&[app.addr], &keys)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.get("a.test", "/").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 504, 200, 200]);
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn a_silent_connection_is_left_by_requests_that_are_given_up_before_their_time_too() {
    let app = falls_silent().await;
    let gateway = SetUp::new().start(&several(&[app.addr], HTTP2)).await;
    let addr = gateway.addr("http");
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
    // As a policy does whose own time is over, or a client that leaves.
    let waiting = client::get(addr, "a.test", "/");
    let given_up = tokio::time::timeout(Duration::from_millis(1500), waiting).await;
    assert!(given_up.is_err());
    let answered = tokio::time::timeout(SOON, client::get(addr, "a.test", "/")).await;
    assert_eq!(answered.expect("another connection").status, 200);
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_its_keep_alive_time() {
    let left = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&left);
    let app = Upstream::accept(move |stream| {
        let left = Arc::clone(&shared);
        async move {
            let mut connection = Connection::accepted(stream).await;
            while let Some(stream) = connection.asked().await {
                connection.send(&head(stream, END_STREAM)).await;
            }
            left.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let keys = format!("{HTTP2}\ntimeouts.keep-alive = \"100ms\"");
    let gateway = SetUp::new().start(&several(&[app.addr], &keys)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    assert_eq!(client.get("a.test", "/").await.status, 200);
    until("it is closed", || left.load(Ordering::SeqCst) == 1).await;
    assert_eq!(client.get("a.test", "/").await.status, 200);
}

#[tokio::test]
async fn requests_that_want_a_connection_wait_for_it_side_by_side() {
    // Accepts, and never ends the handshake.
    let app = Upstream::silent().await;
    let keys = format!("{HTTP2}\ntls = {{ insecure = true }}\ntimeouts.connect = \"500ms\"");
    let gateway = SetUp::new().start(&several(&[app.addr], &keys)).await;
    let addr = gateway.addr("http");
    let mut asking = JoinSet::new();
    // One after the other they would take twenty seconds.
    for _ in 0..40 {
        asking.spawn(async move { client::get(addr, "a.test", "/").await.status });
    }
    let statuses = tokio::time::timeout(SOON, asking.join_all()).await;
    let statuses = statuses.expect("they wait for no more than one connection");
    assert!(statuses.iter().all(|status| *status == 504), "{statuses:?}");
}

#[tokio::test]
async fn a_stream_that_is_reset_leaves_the_connection_to_the_others() {
    let app = scripted(|stream| match stream {
        3 => reset(stream, INTERNAL_ERROR),
        _ => head(stream, END_STREAM),
    })
    .await;
    let gateway = SetUp::new().start(&several(&[app.addr], HTTP2)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.get("a.test", "/").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 502, 200]);
    assert_eq!(app.connections(), 1);
}
