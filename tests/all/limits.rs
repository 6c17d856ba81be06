//! Each limit on what a message may hold: one of exactly that size passes, one more does not.
//!
//! Where the others are:
//!
//! | limit | test |
//! |---|---|
//! | request line | [`a_request_line_has_a_length`] |
//! | request head, HTTP/1; HTTP/2 | [`a_request_head_has_a_size`]; `http2::budgets::a_field_section_has_a_size` |
//! | fields of a request, HTTP/1; HTTP/2 with cookie crumbs | [`fields_of_a_request_are_counted`]; `http2::budgets::fields_are_counted_crumb_by_crumb` |
//! | trailers | [`trailers_have_a_count_and_a_size`], `body::pace` in the proxy |
//! | chunk extensions | [`chunk_extensions_have_a_size`] |
//! | response head; its fields; interim responses | [`a_response_head_has_a_size_and_a_count`]; `responses` R22, R22a |
//! | connections of a listener; of the process | [`connections_of_a_listener_are_counted`]; `overload` in the proxy |
//! | memory steps | `overload::share` in the proxy, and `make exhaustion` |
//! | requests of a connection | `http2::budgets::requests_of_a_connection_are_counted`, `..._of_an_http1_connection_...` |
//! | streams | [`streams_of_a_connection_are_counted`] |
//! | HTTP/2 frames and resets, each kind | `http2::budgets`, `guard::tests` in the proxy |
//! | PROXY header: 107 bytes, 4 KiB, its time | `proxy_protocol::tests` in core, `proxy_protocol` here |
//! | handshake, head, first byte, body, write, keep-alive | `slow`, `timeouts`, `http2::stalls` |
//! | body rate and its grace | `slow`, `body::pace` in the proxy |
//! | upstream: connect, first byte, idle, keep-alive; connections, pending, requests | `timeouts`, `upstream_faults`, `upstream_http2`; `upstream_limits` |
//! | retries and their budget | `retries` |
//! | drain | `drain`, and `takeover-under-load` |
//! | what a plugin may take | `limits`, `worker` and `host` in the Wasm crate; `plugins`, `plugin_refusals` |

use std::net::SocketAddr;
use std::time::Duration;

use postern_tests::client::Client;
use postern_tests::client::frames;
use postern_tests::client::frames::Connection;
use postern_tests::client::frames::END_HEADERS;
use postern_tests::client::frames::END_STREAM;
use postern_tests::client::raw;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::recorder::Recorder;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::upstream_table;

async fn gateway(app: SocketAddr, settings: &str) -> Running {
    let config = format!(
        "[listeners.http]\nbind = \"127.0.0.1:0\"\n{settings}\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app)
    );
    SetUp::new().start(&config).await
}

/// The only answer to these bytes; the connection closes after it.
async fn status(gateway: &Running, bytes: &[u8]) -> u16 {
    let got = raw::exchange(gateway.addr("http"), bytes).await;
    let answers = raw::answers(&got);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    answer.status
}

const REST: &str = "Host: a.test\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_line_has_a_length() {
    let app = Upstream::echo("app").await;
    for (settings, limit) in [("", 8 << 10), ("limits.request-line = \"2KiB\"", 2 << 10)] {
        let gateway = gateway(app.addr, settings).await;
        let rest = limit - "GET / HTTP/1.1".len();
        for (length, want) in [(rest, 200), (rest + 1, 414)] {
            let path = format!("/{}", "a".repeat(length));
            let request = format!("GET {path} HTTP/1.1\r\n{REST}");
            assert_eq!(status(&gateway, request.as_bytes()).await, want, "{length}");
            let query = path.replace("/a", "/?");
            let request = format!("GET {query} HTTP/1.1\r\n{REST}");
            assert_eq!(status(&gateway, request.as_bytes()).await, want, "{length}");

            let mut connection = Connection::open(gateway.addr("http")).await;
            let mut fields = frames::request("GET", &path);
            // The line would name the host as well.
            let origin = "http://a.test".len();
            let shorter = &path[..path.len() - origin];
            fields[3].1 = shorter.as_bytes();
            let bytes = frames::headers(1, END_STREAM | END_HEADERS, &fields);
            connection.send(&bytes).await;
            let outcome = connection.outcome(1).await;
            assert_eq!(outcome.status, Some(want), "{length}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_holds_wherever_the_bytes_are_cut() {
    let app = Upstream::echo("app").await;
    let settings = "limits = { request-line = \"1KiB\", head = \"8KiB\", head-fields = 5 }";
    let gateway = gateway(app.addr, settings).await;
    let line = |length: usize| {
        let rest = length - "GET  HTTP/1.1".len() - 1;
        format!("GET /{} HTTP/1.1\r\n{REST}", "a".repeat(rest))
    };
    let fields = |count: usize| {
        let fields = "x-a: b\r\n".repeat(count - 2);
        format!("GET / HTTP/1.1\r\n{fields}{REST}")
    };
    for (request, want) in [
        (line(1024), 200),
        (line(1025), 414),
        (fields(5), 200),
        (fields(6), 431),
    ] {
        let bytes = request.as_bytes();
        for cut in [
            1,
            3,
            15,
            16,
            100,
            1023,
            1024,
            1025,
            bytes.len() - 4,
            bytes.len() - 1,
        ] {
            let Some((first, second)) = bytes.split_at_checked(cut) else {
                continue;
            };
            let mut stream = TcpStream::connect(gateway.addr("http")).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(first).await.unwrap();
            // The gateway may read the first piece alone, or both: either way it says the same.
            tokio::task::yield_now().await;
            let _ = stream.write_all(second).await;
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got).await;
            let answers = raw::answers(&got);
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [want], "cut after {cut} of {}", bytes.len());
        }
    }
}

#[tokio::test]
async fn a_request_head_has_a_size() {
    let app = Upstream::echo("app").await;
    for (settings, limit) in [("", 64 << 10), ("limits.head = \"16KiB\"", 16 << 10)] {
        let gateway = gateway(app.addr, settings).await;
        let head = |value: usize| {
            format!(
                "GET / HTTP/1.1\r\nX-A: {}\r\nX-B: {}\r\n{REST}",
                "a".repeat(value / 2),
                "a".repeat(value - value / 2)
            )
        };
        let rest = limit - head(0).len();
        for (length, want) in [(rest, 200), (rest + 1, 431)] {
            let request = head(length);
            assert_eq!(
                status(&gateway, request.as_bytes()).await,
                want,
                "{}",
                request.len()
            );
        }
    }
}

#[tokio::test]
async fn fields_of_a_request_are_counted() {
    let app = Recorder::start().await;
    for (settings, limit) in [("", 100), ("limits.head-fields = 10", 10)] {
        let gateway = gateway(app.addr, settings).await;
        for (count, want) in [(limit, 200), (limit + 1, 431)] {
            // Two are in the rest.
            let fields = "x-a: b\r\n".repeat(count - 2);
            let request = format!("GET / HTTP/1.1\r\n{fields}{REST}");
            assert_eq!(status(&gateway, request.as_bytes()).await, want, "{count}");
        }
    }
}

#[tokio::test]
async fn trailers_have_a_count_and_a_size() {
    for (fields, is_served) in [
        ("x-a: b\r\n".repeat(32), true),
        ("x-a: b\r\n".repeat(33), false),
        (format!("x-a: {}\r\n", "b".repeat((16 << 10) - 3)), true),
        (format!("x-a: {}\r\n", "b".repeat((16 << 10) - 2)), false),
    ] {
        let app = Recorder::start().await;
        let gateway = gateway(app.addr, "").await;
        let request = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{REST}5\r\nhello\r\n0\r\n{fields}\r\n"
        );
        let status = status(&gateway, request.as_bytes()).await;
        let whole = app.seen().0.iter().filter(|r| r.is_complete).count();
        assert_eq!(status == 200, is_served, "{status}, {} bytes", fields.len());
        assert!(is_served || (400..500).contains(&status), "{status}");
        assert_eq!(whole, usize::from(is_served), "{}", fields.len());
    }
}

/// The HTTP implementation's bound, for all chunks of a body together. What separates extension and
/// size is not counted.
const EXTENSIONS: usize = (16 << 10) - 1;

#[tokio::test]
async fn chunk_extensions_have_a_size() {
    let app = Recorder::start().await;
    let gateway = gateway(app.addr, "").await;
    for (length, is_served) in [(EXTENSIONS, true), (EXTENSIONS + 1, false)] {
        for chunks in [1, 8] {
            let piece = length / chunks;
            let mut body = String::new();
            for chunk in 0..chunks {
                let more = if chunk == 0 { length % chunks } else { 0 };
                body.push_str(&format!("1;{}\r\nx\r\n", "e".repeat(piece + more)));
            }
            let request =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{REST}{body}0\r\n\r\n");
            let status = status(&gateway, request.as_bytes()).await;
            assert_eq!(status == 200, is_served, "{status}: {length} in {chunks}");
            assert!(is_served || (400..500).contains(&status), "{status}");
        }
    }
}

#[tokio::test]
async fn a_response_head_has_a_size_and_a_count() {
    let small = "Content-Length: 2\r\n";
    let sized = |total: usize| {
        let line = "HTTP/1.1 200 OK\r\n";
        let value = total - line.len() - small.len() - "X-A: \r\n\r\n".len();
        format!("{line}{small}X-A: {}\r\n\r\nok", "a".repeat(value))
    };
    let counted = |count: usize| {
        let fields = "X-A: b\r\n".repeat(count - 1);
        format!("HTTP/1.1 200 OK\r\n{small}{fields}\r\nok")
    };
    for (what, answer, want) in [
        ("64 KiB", sized(64 << 10), 200),
        ("one more byte", sized((64 << 10) + 1), 502),
        ("256 fields", counted(256), 200),
        ("one more field", counted(257), 502),
    ] {
        let app = Upstream::bytes(answer.into_bytes()).await;
        let gateway = gateway(app.addr, "").await;
        let request = format!("GET / HTTP/1.1\r\n{REST}");
        assert_eq!(status(&gateway, request.as_bytes()).await, want, "{what}");
    }
}

#[tokio::test]
async fn connections_of_a_listener_are_counted() {
    let app = Upstream::echo("app").await;
    let gateway = gateway(app.addr, "limits.connections = 3").await;
    let addr = gateway.addr("http");
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = Client::http1(addr).await;
        assert!(is_answered(&mut client).await);
        kept.push(client);
    }
    let mut more = Client::http1(addr).await;
    assert!(!is_answered(&mut more).await, "one more is closed");
    for client in &mut kept {
        assert!(is_answered(client).await, "those that are there go on");
    }
    kept.pop();
    let next = async { while !is_answered(&mut Client::http1(addr).await).await {} };
    let came = tokio::time::timeout(Duration::from_secs(20), next).await;
    came.expect("the place of one that left is free");
}

async fn is_answered(client: &mut Client) -> bool {
    let request = client.request("GET", "a.test", "/");
    client
        .send(request)
        .await
        .is_ok_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn streams_of_a_connection_are_counted() {
    let app = Upstream::silent().await;
    let gateway = gateway(app.addr, "limits.streams = 3").await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    let requests: Vec<u8> = (0..4).flat_map(|n| frames::get(2 * n + 1, "/")).collect();
    connection.send(&requests).await;
    let outcome = connection.outcome(7).await;
    assert_eq!(outcome.reset, Some(frames::REFUSED), "{outcome:?}");
}
