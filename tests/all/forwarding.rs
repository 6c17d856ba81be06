//! What reaches the upstream, and what comes back.

use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::full;
use postern_tests::upstream::with_trailers;

use crate::support::plain;
use crate::support::upstream_table;

#[tokio::test]
async fn the_upstream_learns_who_the_client_is_from_the_gateway_alone() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let addr = gateway.addr("http");
    let mut client = Client::http1(addr).await;
    let mut request = client.request("GET", "a.test:81", "/");
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "forwarded",
        "x_forwarded_for",
        "x-envoy-external-address",
        "true-client-ip",
    ] {
        let value = HeaderValue::from_static("9.9.9.9");
        request.headers_mut().insert(name, value);
    }
    let reply = client.send(request).await.unwrap();
    assert_eq!(reply.echoed("host"), ["a.test:81"]);
    assert_eq!(reply.echoed("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(reply.echoed("x-forwarded-proto"), ["http"]);
    assert_eq!(reply.echoed("x-forwarded-host"), ["a.test:81"]);
    assert_eq!(reply.echoed("x-forwarded-port"), [addr.port().to_string()]);
    assert_eq!(reply.echoed("x-real-ip"), ["127.0.0.1"]);
    assert!(!reply.text().contains("9.9.9.9"), "{}", reply.text());
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
    let app = Upstream::echo("app").await;
    let config = format!(
        r#"
        listeners.http = {{ bind = "127.0.0.1:0", trusted-proxies = ["127.0.0.0/8", "10.0.0.0/8"] }}
        {}
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut request = client.request("GET", "a.test", "/");
    let headers = request.headers_mut();
    let chain = HeaderValue::from_static("6.6.6.6, 203.0.113.7, 10.1.2.3");
    headers.insert("x-forwarded-for", chain);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert("x-real-ip", HeaderValue::from_static("6.6.6.6"));
    let reply = client.send(request).await.unwrap();
    assert_eq!(
        reply.echoed("x-forwarded-for"),
        ["6.6.6.6, 203.0.113.7, 10.1.2.3, 127.0.0.1"]
    );
    assert_eq!(reply.echoed("x-forwarded-proto"), ["https"]);
    assert_eq!(reply.echoed("x-real-ip"), ["203.0.113.7"]);
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["client.addr"], "203.0.113.7");
    assert_eq!(lines[0]["peer.addr"], "127.0.0.1");
}

#[tokio::test]
async fn fields_of_one_connection_stay_on_it_in_both_directions() {
    let app = Upstream::http1(|request| async move {
        let mut response = postern_tests::upstream::echo("app", request).await;
        let headers = response.headers_mut();
        headers.insert("connection", HeaderValue::from_static("x-secret"));
        headers.insert("x-secret", HeaderValue::from_static("s"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert("proxy-authenticate", HeaderValue::from_static("Basic"));
        headers.insert("x-kept", HeaderValue::from_static("k"));
        response
    })
    .await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut request = client.request("GET", "a.test", "/");
    let headers = request.headers_mut();
    headers.insert("connection", HeaderValue::from_static("x-custom"));
    for name in [
        "x-custom",
        "keep-alive",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy",
    ] {
        headers.insert(name, HeaderValue::from_static("v"));
    }
    headers.insert("authorization", HeaderValue::from_static("a"));
    let reply = client.send(request).await.unwrap();
    for name in [
        "x-custom",
        "keep-alive",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy",
    ] {
        assert_eq!(reply.echoed(name), [""; 0], "{name}");
    }
    assert_eq!(reply.echoed("authorization"), ["a"]);
    for name in ["x-secret", "keep-alive", "proxy-authenticate"] {
        assert_eq!(reply.header(name), "", "{name}");
    }
    assert_eq!(reply.header("x-kept"), "k");
}

#[tokio::test]
async fn responses_without_body_keep_their_fields_and_their_connection() {
    let app = Upstream::http1(|request| async move {
        let mut response = Response::new(full("twelve bytes"));
        match request.uri().path() {
            "/204" => *response.status_mut() = http::StatusCode::NO_CONTENT,
            "/304" => *response.status_mut() = http::StatusCode::NOT_MODIFIED,
            _ => {}
        }
        if response.status() != 200 {
            *response.body_mut() = full("");
        }
        let tag = HeaderValue::from_static("\"t\"");
        response.headers_mut().insert("etag", tag);
        response
    })
    .await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for (method, path, status, length) in [
        ("HEAD", "/", 200, "12"),
        ("GET", "/204", 204, ""),
        ("GET", "/304", 304, ""),
        ("GET", "/", 200, "12"),
    ] {
        let request = client.request(method, "a.test", path);
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("content-length"), length, "{method} {path}");
        assert_eq!(reply.header("etag"), "\"t\"", "{method} {path}");
        assert_eq!(
            reply.headers.get("transfer-encoding"),
            None,
            "{method} {path}"
        );
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_request_body_arrives_whole_with_its_harmless_trailers() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let bytes = b"POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: \
        close\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nAuthorization: no\r\n\r\n";
    let answers = raw::answers(&raw::exchange(gateway.addr("http"), bytes).await);
    let body = String::from_utf8_lossy(&answers[0].body).into_owned();
    assert_eq!(answers[0].status, 200, "{answers:?}");
    assert!(body.contains("hello world"), "{body}");
    assert!(!body.contains("authorization"), "{body}");
}

#[tokio::test]
async fn trailers_of_a_response_reach_an_http2_client() {
    let app = Upstream::http2(|_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
        Response::new(with_trailers("body", trailers))
    })
    .await;
    let config = plain(app.addr).replace("[[routes]]", "protocol = \"http2\"\n[[routes]]");
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http2(gateway.addr("http")).await;
    let reply = client.get("a.test", "/").await;
    assert_eq!(reply.text(), "body");
    assert_eq!(reply.trailers.get("x-sum").unwrap(), "7");
    assert_eq!(reply.trailers.get("set-cookie"), None);
}

#[tokio::test]
async fn an_upstream_over_tls_is_verified() {
    let app = Upstream::echo("app").await;
    // A gateway in front of the upstream gives it TLS.
    let inner = format!(
        r#"
        listeners.https = {{ bind = "127.0.0.1:0", tls = {{}} }}
        certificates.one = {{ cert-file = "one.pem", key-file = "one.key" }}
        {}
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    let inner = SetUp::new()
        .certificate("one", &["a.test"])
        .start(&inner)
        .await;
    let outer = |name: &str| {
        format!(
            "{}tls = {{ ca-file = \"ca.pem\", server-name = \"{name}\" }}\n\
             [[routes]]\nrules = [{{ upstream = \"app\" }}]\n\
             [listeners.http]\nbind = \"127.0.0.1:0\"\n",
            upstream_table("app", inner.addr("https"))
        )
    };
    let set_up = SetUp::new().file("ca.pem", inner.set_up.authority.pem());
    let gateway = set_up.start(&outer("a.test")).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-upstream")),
        (200, "app")
    );

    gateway.reload(&outer("b.test")).await.unwrap();
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(reply.status, 502, "the certificate is for another name");
}

#[tokio::test]
async fn a_malformed_response_never_reaches_the_client() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let cases = [
        ("two lengths", format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")),
        ("length and coding", format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        ("list of lengths", format!("{ok}Content-Length: 5, 5\r\n\r\nhello")),
        ("signed length", format!("{ok}Content-Length: +5\r\n\r\nhello")),
        ("length above 2^64", format!("{ok}Content-Length: 18446744073709551616\r\n\r\nhello")),
        ("unknown coding", format!("{ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("coding twice", format!("{ok}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("NUL in a value", format!("{ok}X-A: b\0c\r\nContent-Length: 0\r\n\r\n")),
        ("bare CR in a value", format!("{ok}X-A: b\rc\r\nContent-Length: 0\r\n\r\n")),
        ("folded line", format!("{ok}X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n")),
        ("space before colon", format!("{ok}Content-Length : 0\r\n\r\n")),
        ("status 99", "HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("status 1000", "HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nX".to_owned()),
        ("too many fields", format!("{ok}{}Content-Length: 0\r\n\r\n", "X-A: b\r\n".repeat(5000))),
        ("a large field", format!("{ok}X-A: {}\r\nContent-Length: 0\r\n\r\n", "b".repeat(1 << 20))),
        ("nothing", String::new()),
        ("half a line", "HTTP/1.1 20".to_owned()),
        ("garbage", "garbage\r\n\r\n".to_owned()),
        ("control character in the reason", "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (what, answer) in cases {
        let app = Upstream::bytes(answer).await;
        let gateway = SetUp::new().start(&plain(app.addr)).await;
        let bytes = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let got = raw::exchange(gateway.addr("http"), bytes).await;
        let answers = raw::answers(&got);
        if !(answers.len() == 1 && answers[0].status == 502) {
            wrong.push((what, String::from_utf8_lossy(&got).into_owned()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_response_cut_short_is_cut_short_for_the_client_too() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (what, answer) in [
        ("length", format!("{ok}Content-Length: 10\r\n\r\nhello")),
        (
            "chunk",
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        ),
        (
            "last chunk",
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ),
        (
            "chunk size",
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
        ),
    ] {
        let app = Upstream::bytes(answer).await;
        let gateway = SetUp::new().start(&plain(app.addr)).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let request = client.request("GET", "a.test", "/");
        let reply = client.send(request).await;
        assert!(reply.is_err(), "{what}: {reply:?}");
    }
}
