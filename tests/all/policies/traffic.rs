//! Where requests go, and what a failure looks like.

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use super::with_policies;
use crate::support::upstream_table;

#[tokio::test]
async fn a_share_of_the_requests_tries_the_new_version() {
    let (app, new) = (Upstream::echo("app").await, Upstream::echo("new").await);
    let config = |settings: &str| {
        let policy = format!(
            "policies.try = {{ kind = \"canary\", upstream = \"new\", {settings} }}\n{}",
            upstream_table("new", new.addr)
        );
        with_policies(app.addr, &policy, r#"["try"]"#)
    };
    let count = async |settings: &str, fields: &[(&'static str, &'static str)]| {
        let gateway = SetUp::new().start(&config(settings)).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let mut chosen = 0;
        for _ in 0..100 {
            let mut request = client.request("GET", "a.test", "/");
            for (name, value) in fields {
                let value = HeaderValue::from_static(value);
                request.headers_mut().insert(*name, value);
            }
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.status, 200);
            chosen += u32::from(reply.header("x-upstream") == "new");
        }
        chosen
    };
    assert_eq!(count(r#"weight = 20, by = "request""#, &[]).await, 20);
    // One visitor is on one side.
    assert!([0, 100].contains(&count("weight = 50", &[]).await));
    let by_header = r#"header = "x-new", cookie = "new""#;
    assert_eq!(count(by_header, &[]).await, 0);
    assert_eq!(count(by_header, &[("x-new", "always")]).await, 100);
    assert_eq!(
        count(by_header, &[("cookie", "a=b; new=always")]).await,
        100
    );
    let never = [("x-new", "never"), ("cookie", "new=always")];
    assert_eq!(count(by_header, &never).await, 0);
    let by_value = r#"header = "x-new", header-value = "blue""#;
    assert_eq!(count(by_value, &[("x-new", "blue")]).await, 100);
    assert_eq!(count(by_value, &[("x-new", "always")]).await, 0);
}

#[tokio::test]
async fn failures_show_the_operators_page() {
    let app = Upstream::http1(|request| async move {
        let mut response = Response::new(upstream::full("the application's own"));
        let headers = response.headers_mut();
        headers.insert("etag", HeaderValue::from_static("\"e\""));
        headers.insert("x-kept", HeaderValue::from_static("1"));
        *response.status_mut() = match request.uri().path() {
            "/404" => StatusCode::NOT_FOUND,
            "/500" => StatusCode::INTERNAL_SERVER_ERROR,
            "/410" => StatusCode::GONE,
            _ => StatusCode::OK,
        };
        response
    })
    .await;
    let policies = r#"policies.pages = { kind = "error-pages", statuses = ["404", "500-599"], file = "oops.html" }
policies.who = { kind = "ip-access", deny = ["127.0.0.1"] }
policies.no = { kind = "error-pages", statuses = ["403"], body = "no", content-type = "text/plain" }"#;
    let set_up = SetUp::new().file("oops.html", "<b>oops</b>");
    let config = with_policies(app.addr, policies, r#"["pages"]"#);
    let mut gateway = set_up.start(&config).await;
    let addr = gateway.addr("http");
    for (path, want, body) in [
        ("/404", 404, "<b>oops</b>"),
        ("/500", 500, "<b>oops</b>"),
        ("/410", 410, "the application's own"),
        ("/", 200, "the application's own"),
    ] {
        let reply = client::get(addr, "a.test", path).await;
        assert_eq!(
            (reply.status.as_u16(), &*reply.text()),
            (want, body),
            "{path}"
        );
        assert_eq!(reply.header("x-kept"), "1");
        let is_page = body == "<b>oops</b>";
        assert_eq!(reply.header("etag").is_empty(), is_page, "{path}");
        if is_page {
            assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
            assert_eq!(reply.header("content-length"), "11");
        }
    }
    // The gateway's own failures, and another policy's refusals.
    gateway.set_up = gateway.set_up.file("oops.html", "changed");
    let gone = Upstream::echo("gone").await.addr;
    let config = with_policies(gone, policies, r#"["pages"]"#);
    gateway.reload(&config).await.unwrap();
    let reply = client::get(addr, "a.test", "/").await;
    assert_eq!((reply.status.as_u16(), &*reply.text()), (502, "changed"));
    let config = with_policies(gone, policies, r#"["no", "who"]"#);
    gateway.reload(&config).await.unwrap();
    let reply = client::get(addr, "a.test", "/").await;
    assert_eq!((reply.status.as_u16(), &*reply.text()), (403, "no"));
    let lines = gateway.finish().await;
    assert_eq!(lines[5]["policy"], "who");
    assert_eq!(lines[5]["outcome"], "ip-access");
}

#[tokio::test]
async fn a_copy_of_each_request_goes_elsewhere_and_nobody_waits_for_it() {
    let app = Upstream::echo("app").await;
    let (shadow, mut copies) = upstream::held().await;
    let policies = format!(
        "policies.copy = {{ kind = \"mirror\", upstream = \"shadow\", body = \"8B\", requests = 3 }}\n\
         policies.mark = {{ kind = \"headers\", request-headers = {{ set = {{ x-mark = \"1\" }} }} }}\n{}",
        upstream_table("shadow", shadow.addr)
    );
    let config = with_policies(app.addr, &policies, r#"["copy", "mark"]"#);
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut send = async |body: &'static str| {
        let request = client.request("POST", "a.test", "/x?y=1");
        let request = request.map(|_| upstream::full(body));
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, 200);
        assert!(reply.text().ends_with(body), "{}", reply.text());
    };
    // None of the copies is answered, and none of the requests waits.
    for body in ["12345678", "", "1"] {
        send(body).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        let copy = copies.recv().await.unwrap();
        assert_eq!(copy.request.uri(), "/x?y=1");
        assert_eq!(copy.request.headers()["x-mark"], "1");
        assert_eq!(copy.request.headers()["host"], "a.test");
        held.push(copy);
    }
    // Too many at a time; and then one that is too large.
    send("2").await;
    for copy in held {
        copy.release("nobody sees this");
    }
    let sent = |gateway: &postern_tests::gateway::Running| {
        gateway.metrics().contains("postern_mirrors_sent_total 3")
    };
    crate::support::until("the copies are over", || sent(&gateway)).await;
    send("123456789").await;
    let dropped = "postern_mirrors_dropped_total 2";
    crate::support::until("both are counted", || gateway.metrics().contains(dropped)).await;
    assert!(copies.try_recv().is_err(), "and were not sent");
}

#[tokio::test]
async fn a_copy_carries_the_body_however_it_came() {
    let app = Upstream::echo("app").await;
    let shadow = upstream::recorder::Recorder::start().await;
    let policies = format!(
        "policies.copy = {{ kind = \"mirror\", upstream = \"shadow\" }}\n{}",
        upstream_table("shadow", shadow.addr)
    );
    let config = with_policies(app.addr, &policies, r#"["copy"]"#);
    let gateway = SetUp::new().start(&config).await;
    let request = b"POST /1 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n\
                    POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nworld\
                    GET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let got = client::raw::exchange(gateway.addr("http"), request).await;
    assert_eq!(client::raw::answers(&got).len(), 3);
    let sent = "postern_mirrors_sent_total 3";
    crate::support::until("the copies are sent", || gateway.metrics().contains(sent)).await;
    let (mut requests, violations) = shadow.seen();
    assert!(violations.is_empty(), "{violations:?}");
    requests.sort_by(|a, b| a.line.cmp(&b.line));
    let bodies: Vec<&[u8]> = requests.iter().map(|r| r.body.as_slice()).collect();
    // By method: the GET first.
    assert_eq!(bodies, [&b""[..], b"hello!", b"world"]);
}
