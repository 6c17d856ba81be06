//! Responses made smaller, and what must not become of them.

use std::io::Read as _;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use postern_tests::client::Client;
use postern_tests::client::Reply;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Body;
use postern_tests::upstream::Upstream;

use super::with_policies;

const POLICY: &str = "policies.small.kind = \"compression\"";

fn page() -> String {
    (0..5000)
        .map(|n| format!("<li>{}</li>", n * n % 977))
        .collect()
}

/// What the path asks for.
async fn site(request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(upstream::full(page()));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set("content-type", "text/html; charset=utf-8");
    set("etag", "\"v1\"");
    set("accept-ranges", "bytes");
    match request.uri().path() {
        "/image" => set("content-type", "image/png"),
        "/encoded" => set("content-encoding", "gzip"),
        "/kept" => set("cache-control", "public, no-transform"),
        "/part" => {
            set("content-range", "bytes 0-1023/90000");
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        "/unchanged" => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = upstream::empty();
        }
        "/small" => *response.body_mut() = upstream::full("x".repeat(1023)),
        "/missing" => *response.status_mut() = StatusCode::NOT_FOUND,
        _ => {}
    }
    response
}

fn decoded(reply: &Reply) -> String {
    let mut text = String::new();
    let read = match reply.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(&*reply.body, 4096).read_to_string(&mut text),
        "zstd" => zstd::Decoder::new(&*reply.body)
            .unwrap()
            .read_to_string(&mut text),
        _ => return reply.text(),
    };
    read.unwrap();
    text
}

async fn ask(client: &mut Client, method: &str, path: &str, accepted: &str) -> Reply {
    let mut request = client.request(method, "a.test", path);
    let accepted = HeaderValue::from_str(accepted).unwrap();
    request.headers_mut().insert("accept-encoding", accepted);
    client.send(request).await.unwrap()
}

#[tokio::test]
async fn each_client_gets_the_coding_that_it_takes() {
    let app = Upstream::http1(site).await;
    let config = with_policies(app.addr, POLICY, r#"["small"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    for mut client in [Client::http1(addr).await, Client::http2(addr).await] {
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, br", "br"),
            ("gzip", "gzip"),
            ("br;q=0.5, gzip", "gzip"),
            ("deflate", ""),
            ("gzip;q=0", ""),
        ] {
            let reply = ask(&mut client, "GET", "/", accepted).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("content-encoding"), coding, "{accepted}");
            assert_eq!(reply.header("vary"), "accept-encoding", "{accepted}");
            assert_eq!(decoded(&reply), page(), "{accepted}");
            let is_coded = !coding.is_empty();
            let (tag, ranges) = match is_coded {
                true => ("W/\"v1\"", ""),
                false => ("\"v1\"", "bytes"),
            };
            assert_eq!(reply.header("etag"), tag, "{accepted}");
            assert_eq!(reply.header("accept-ranges"), ranges, "{accepted}");
            let length = reply.header("content-length");
            assert_eq!(length.is_empty(), is_coded, "{accepted}: {length}");
            assert!(!is_coded || reply.body.len() * 2 < page().len());
        }
    }
}

#[tokio::test]
async fn what_may_not_be_changed_goes_as_it_is() {
    let app = Upstream::http1(site).await;
    let config = with_policies(app.addr, POLICY, r#"["small"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    for mut client in [Client::http1(addr).await, Client::http2(addr).await] {
        for path in ["/image", "/kept", "/part", "/unchanged", "/small"] {
            let reply = ask(&mut client, "GET", path, "gzip").await;
            assert_eq!(reply.header("content-encoding"), "", "{path}");
            assert_eq!(reply.header("vary"), "", "{path}");
            assert_eq!(reply.header("etag"), "\"v1\"", "{path}");
            assert_eq!(reply.header("accept-ranges"), "bytes", "{path}");
        }
        let reply = ask(&mut client, "GET", "/encoded", "gzip").await;
        assert_eq!(reply.text(), page(), "not once more");
        // As GET would be answered to a client that takes nothing.
        let reply = ask(&mut client, "HEAD", "/", "gzip").await;
        assert_eq!(reply.header("content-encoding"), "");
        assert_eq!(reply.header("content-length"), page().len().to_string());
        assert_eq!(reply.header("vary"), "accept-encoding");
        let reply = ask(&mut client, "GET", "/missing", "gzip").await;
        assert_eq!(reply.status, 404);
        assert_eq!(decoded(&reply), page());
    }
}

#[tokio::test]
async fn more_at_a_time_than_there_is_memory_for_go_as_they_are() {
    let (app, mut asked) = upstream::held().await;
    let policies = r#"
        policies.small = { kind = "compression", responses = 1 }
        policies.html = { kind = "headers", response-headers = { set = { content-type = "text/html" } } }
    "#;
    let config = with_policies(app.addr, policies, r#"["small", "html"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    let open = || {
        tokio::spawn(async move {
            let mut client = Client::http1(addr).await;
            let mut request = client.request("GET", "a.test", "/");
            let gzip = HeaderValue::from_static("gzip");
            request.headers_mut().insert("accept-encoding", gzip);
            (client.open(request).await.unwrap(), client)
        })
    };
    let first = open();
    let mut first_body = asked.recv().await.unwrap().stream();
    let (mut first, first_client) = first.await.unwrap();
    // A stream stays a stream.
    let event = bytes::Bytes::from_static(b"data: 1\n\n");
    first_body.send_data(event).await.unwrap();
    let arrives = async {
        let (mut got, mut text) = (Vec::new(), [0; 9]);
        // The coding's own header may come first.
        while flate2::read::GzDecoder::new(&*got)
            .read_exact(&mut text)
            .is_err()
        {
            let piece = first.body_mut().frame().await.unwrap().unwrap();
            got.extend_from_slice(&piece.into_data().unwrap());
        }
        assert_eq!(&text, b"data: 1\n\n");
    };
    let arrived = tokio::time::timeout(Duration::from_secs(20), arrives).await;
    arrived.expect("what was sent comes");
    let second = open();
    let second_body = asked.recv().await.unwrap().stream();
    let (second, second_client) = second.await.unwrap();
    let coding =
        |response: &Response<Incoming>| response.headers().contains_key("content-encoding");
    assert!(coding(&first) && !coding(&second));
    drop((
        first,
        first_client,
        first_body,
        second,
        second_client,
        second_body,
    ));
    let again = async {
        loop {
            let next = open();
            let _body = asked.recv().await.unwrap().stream();
            if coding(&next.await.unwrap().0) {
                return;
            }
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), again).await;
    came.expect("a place is free again");
}
