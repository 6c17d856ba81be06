//! One line a request, whatever became of it.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use crate::support::plain;
use crate::support::with_rules;

#[tokio::test]
async fn a_served_request_has_a_line_without_its_query() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/p?token=secret").await;
    assert_eq!(reply.status, 200);
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    for (field, want) in [
        ("listener", "http"),
        ("client.addr", "127.0.0.1"),
        ("method", "GET"),
        ("host", "a.test"),
        ("path", "/p"),
        ("version", "1.1"),
        ("outcome", "ok"),
        ("route", "default"),
        ("upstream", "app"),
    ] {
        assert_eq!(line[field], want, "{field}: {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["endpoint"], app.addr.to_string());
    assert_eq!(line["response.bytes"], reply.body.len());
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[tokio::test]
async fn a_refused_request_has_a_line_with_the_reason() {
    let app = Upstream::echo("app").await;
    let rules = "{ path = { prefix = \"/app\" }, upstream = \"app\" }";
    let gateway = SetUp::new().start(&with_rules(app.addr, rules)).await;
    let addr = gateway.addr("http");
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 404, "no-route"),
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            400,
            "bad-host",
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            405,
            "bad-method",
        ),
        ("GET /%00 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "bad-path"),
        ("GET / HTTP/1.1\r\nHost a.test\r\n\r\n", 400, "bad-request"),
    ];
    for (bytes, status, _) in cases {
        let bytes = bytes.replace(
            "Host: a.test\r\n\r\n",
            "Host: a.test\r\nConnection: close\r\n\r\n",
        );
        let answers = raw::answers(&raw::exchange(addr, bytes.as_bytes()).await);
        assert_eq!(answers[0].status, status, "{bytes}");
    }
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), cases.len(), "{lines:#?}");
    for ((bytes, status, outcome), line) in cases.iter().zip(&lines) {
        assert_eq!(line["outcome"], *outcome, "{bytes}");
        assert_eq!(line["status"], *status, "{bytes}");
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_cancelled_request_has_a_line() {
    let (app, mut arrived) = upstream::held().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let request = client.request("GET", "a.test", "/slow");
    let waiting = tokio::spawn(async move { client.send(request).await.map(|_| ()) });
    let held = arrived.recv().await.unwrap();
    waiting.abort();
    // The upstream learns that nobody waits any more.
    held.cancelled().await;
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["path"], "/slow");
    assert_eq!(lines[0]["outcome"], "client-closed");
}

#[tokio::test]
async fn what_a_client_sends_cannot_forge_a_line() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let path = "/a\"b\\c%0A{\"status\":200}";
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    raw::exchange(gateway.addr("http"), bytes.as_bytes()).await;
    client.get("a.test", "/after").await;
    drop(client);
    // Reading them as JSON is part of `finish`.
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), 2, "{lines:#?}");
}
