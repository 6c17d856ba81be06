//! How much clients may ask for.

use std::time::Duration;

use bytes::Bytes;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use super::with_policies;

const BODY: &str = r#"policies.body = { kind = "body-size", limit = "1KiB" }"#;

#[tokio::test]
async fn a_body_of_known_length_is_refused_before_it_is_sent() {
    let app = Upstream::echo("app").await;
    let config = with_policies(app.addr, BODY, r#"["body"]"#);
    let gateway = SetUp::new().start(&config).await;
    for (is_h2, size, want) in [
        (false, 1024, 200),
        (false, 1025, 413),
        (true, 1024, 200),
        (true, 1025, 413),
    ] {
        let addr = gateway.addr("http");
        let mut client = if is_h2 {
            Client::http2(addr).await
        } else {
            Client::http1(addr).await
        };
        let mut request = client.request("POST", "a.test", "/");
        *request.body_mut() = upstream::full(vec![b'x'; size]);
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, want, "h2: {is_h2}, {size} bytes");
    }
    let lines = gateway.finish().await;
    let refused = lines.iter().find(|line| line["status"] == 413).unwrap();
    assert_eq!(refused["policy"], "body");
    assert_eq!(refused["outcome"], "body-size");
}

#[tokio::test]
async fn a_body_that_grows_is_cut_midway() {
    let app = Upstream::echo("app").await;
    let config = with_policies(app.addr, BODY, r#"["body"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    for (chunks, want) in [(4, 200), (5, 413)] {
        let mut bytes = b"POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n".to_vec();
        for _ in 0..chunks {
            bytes.extend(b"100\r\n");
            bytes.extend([b'x'; 256]);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        let answer = raw::exchange(addr, &bytes).await;
        let answers = raw::answers(&answer);
        assert_eq!(answers[0].status, want, "{}", answer.escape_ascii());
        assert_eq!(answers.len(), 1);
    }
    // The same without an end: what is too much is known before everything was sent.
    let mut client = Client::http2(addr).await;
    let (mut pieces, body) = upstream::channel();
    let mut request = client.request("POST", "a.test", "/");
    *request.body_mut() = body;
    let sending = tokio::spawn(async move {
        let reply = client.open(request).await.unwrap();
        reply.status()
    });
    for _ in 0..2 {
        let piece = Bytes::from(vec![b'x'; 800]);
        if pieces.send_data(piece).await.is_err() {
            break;
        }
    }
    assert_eq!(sending.await.unwrap(), 413);
}

#[tokio::test]
async fn the_smallest_of_several_limits_holds() {
    let app = Upstream::echo("app").await;
    let policies = format!("{BODY}\npolicies.more = {{ kind = \"body-size\", limit = \"1MiB\" }}");
    let config = with_policies(app.addr, &policies, r#"["body", "more"]"#);
    let gateway = SetUp::new().start(&config).await;
    let mut bytes =
        b"POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n800\r\n".to_vec();
    bytes.extend([b'x'; 2048]);
    bytes.extend(b"\r\n0\r\n\r\n");
    let answer = raw::exchange(gateway.addr("http"), &bytes).await;
    assert_eq!(raw::answers(&answer)[0].status, 413);
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["policy"], "body");
    assert_eq!(lines[0]["outcome"], "body-size");
}

#[tokio::test]
async fn a_request_in_flight_counts_until_its_body_ends() {
    let (app, mut arrived) = upstream::held().await;
    let policy = r#"policies.few = { kind = "concurrency", requests = 2 }"#;
    let config = with_policies(app.addr, policy, r#"["few"]"#);
    // Two workers: the count is one for both.
    let gateway = SetUp::new().start_with(&config, 2).await;
    let addr = gateway.addr("http");
    let get = || tokio::spawn(client::get(addr, "a.test", "/"));
    let first = get();
    let held = arrived.recv().await.unwrap();
    let _second = get();
    let other = arrived.recv().await.unwrap();
    let refused = client::get(addr, "a.test", "/").await;
    assert_eq!(refused.status, 503);

    // The head is answered; the body is not over.
    let mut pieces = held.stream();
    pieces.send_data(Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(client::get(addr, "a.test", "/").await.status, 503);
    drop(pieces);
    assert_eq!(first.await.unwrap().text(), "a");
    let third = get();
    let held = arrived.recv().await.unwrap();
    assert_eq!(client::get(addr, "a.test", "/").await.status, 503);

    // A client that leaves gives its place back.
    third.abort();
    held.cancelled().await;
    let fourth = get();
    let held = arrived.recv().await.unwrap();
    assert!(held.release("done"));
    assert_eq!(fourth.await.unwrap().text(), "done");
    assert!(other.release("other"));
}

#[tokio::test]
async fn a_count_is_kept_for_each_key() {
    let (app, mut arrived) = upstream::held().await;
    let policy = r#"policies.few = { kind = "concurrency", requests = 1, key = "header:x-key", status = 429 }"#;
    let config = with_policies(app.addr, policy, r#"["few"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    let open = |key: &'static str| async move {
        let mut client = Client::http1(addr).await;
        let mut request = client.request("GET", "a.test", "/");
        request.headers_mut().insert("x-key", key.parse().unwrap());
        client.send(request).await.unwrap()
    };
    let _one = tokio::spawn(open("a"));
    let _held = arrived.recv().await.unwrap();
    assert_eq!(open("a").await.status, 429);
    let two = tokio::spawn(open("b"));
    assert!(arrived.recv().await.unwrap().release("b"));
    let reply = tokio::time::timeout(Duration::from_secs(5), two).await;
    assert_eq!(reply.unwrap().unwrap().text(), "b");
}

#[tokio::test]
async fn a_refused_body_is_not_the_next_request() {
    let app = Upstream::echo("app").await;
    let config = with_policies(app.addr, BODY, r#"["body"]"#);
    let gateway = SetUp::new().start(&config).await;
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a.test\r\n\r\n".repeat(30);
    let last = "GET /last HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    let outer = format!(
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n{inner}{last}",
        inner.len()
    );
    assert!(inner.len() > 1024);
    let answer = raw::exchange(gateway.addr("http"), outer.as_bytes()).await;
    // The connection may end with the refusal, or go on behind the body.
    let answers = raw::answers(&answer);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert!(
        [&[413][..], &[413, 200]].contains(&&*statuses),
        "{statuses:?}"
    );
    let lines = gateway.finish().await;
    assert!(
        lines.iter().all(|line| line["path"] != "/smuggled"),
        "{lines:#?}"
    );
}
