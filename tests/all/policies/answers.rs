//! What is answered in the upstream's place, and what is added to its answers.

use http::HeaderValue;
use http::Response;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::Reply;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use super::with_policies;

async fn send(client: &mut Client, method: &str, fields: &[(&'static str, &str)]) -> Reply {
    let mut request = client.request(method, "a.test", "/x?q=1");
    for (name, value) in fields {
        let value = value.parse().unwrap();
        request.headers_mut().insert(*name, value);
    }
    client.send(request).await.unwrap()
}

/// An upstream whose responses carry these fields.
async fn answering(fields: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::http1(move |_| async move {
        let mut response = Response::new(upstream::full("hello"));
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        response
    })
    .await
}

#[tokio::test]
async fn pages_of_allowed_origins_may_use_a_route() {
    let app = answering(&[("access-control-allow-origin", "https://evil.test")]).await;
    let policy = r#"policies.cors = { kind = "cors", origins = ["https://*.a.test"], credentials = true, expose = ["x-total"], max-age = "1h" }"#;
    let config = with_policies(app.addr, policy, r#"["cors"]"#);
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;

    let reply = send(&mut client, "GET", &[("origin", "https://x.a.test")]).await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://x.a.test"
    );
    assert_eq!(reply.header("access-control-allow-credentials"), "true");
    assert_eq!(reply.header("access-control-expose-headers"), "x-total");
    assert_eq!(reply.header("vary"), "origin");
    assert_eq!(reply.text(), "hello");

    for origin in ["https://evil.test", "https://a.test", "null"] {
        let reply = send(&mut client, "GET", &[("origin", origin)]).await;
        assert_eq!(reply.header("access-control-allow-origin"), "", "{origin}");
        assert_eq!(reply.header("vary"), "origin");
    }

    let asked = [
        ("origin", "https://x.a.test"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-one"),
    ];
    let before = app.connections();
    let reply = send(&mut client, "OPTIONS", &asked).await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("access-control-allow-methods").contains("PUT"));
    assert_eq!(reply.header("access-control-allow-headers"), "x-one");
    assert_eq!(reply.header("access-control-max-age"), "3600");
    assert_eq!(app.connections(), before);
    // No preflight: the application's own business.
    let reply = send(&mut client, "OPTIONS", &[("origin", "https://x.a.test")]).await;
    assert_eq!(reply.text(), "hello");
}

#[tokio::test]
async fn pages_may_read_why_a_request_failed() {
    // Nobody listens there.
    let gone = Upstream::echo("gone").await.addr;
    let policy = r#"policies.cors = { kind = "cors", origins = ["*"] }"#;
    let config = with_policies(gone, policy, r#"["cors"]"#);
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let reply = send(&mut client, "GET", &[("origin", "https://x.test")]).await;
    assert_eq!(reply.status, 502);
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "upstream-connect");
}

#[tokio::test]
async fn a_redirect_goes_where_the_client_is_not_yet() {
    let app = Upstream::echo("app").await;
    for (what, fields, want) in [
        (r#"scheme = "https""#, &[][..], "https://a.test/x?q=1"),
        (
            r#"scheme = "https""#,
            &[("x-forwarded-proto", "https")][..],
            "",
        ),
        (
            r#"scheme = "https""#,
            &[("x-forwarded-proto", "https, http")],
            "",
        ),
        (r#"scheme = "http""#, &[], ""),
        (r#"host = "www.a.test""#, &[], "http://www.a.test/x?q=1"),
        (
            r#"host = "www.a.test""#,
            &[("x-forwarded-proto", "https")],
            "https://www.a.test/x?q=1",
        ),
        (r#"host = "a.test""#, &[], ""),
        (r#"path = "/home""#, &[], "http://a.test/home?q=1"),
        (r#"path = "/x""#, &[], ""),
    ] {
        let policy = format!(r#"policies.go = {{ kind = "redirect", status = 301, {what} }}"#);
        let config = with_policies(app.addr, &policy, r#"["go"]"#);
        let trusting = format!("listeners.http.trusted-proxies = [\"127.0.0.1\"]\n{config}");
        let gateway = SetUp::new().start(&trusting).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let reply = send(&mut client, "GET", fields).await;
        assert_eq!(reply.header("location"), want, "{what} {fields:?}");
        let status = if want.is_empty() { 200 } else { 301 };
        assert_eq!(reply.status, status, "{what}");
    }
}

#[tokio::test]
async fn maintenance_answers_everybody_but_those_who_repair() {
    let app = Upstream::echo("app").await;
    for (settings, want) in [
        ("", 503),
        ("on = false", 200),
        (r#"allow = ["127.0.0.1"]"#, 200),
        (r#"allow = ["10.0.0.0/8"]"#, 503),
        (
            r#"status = 418, retry-after = "2m", body = "<b>soon</b>""#,
            418,
        ),
    ] {
        let comma = if settings.is_empty() { "" } else { ", " };
        let policy = format!(r#"policies.repair = {{ kind = "maintenance"{comma}{settings} }}"#);
        let config = with_policies(app.addr, &policy, r#"["repair"]"#);
        let gateway = SetUp::new().start(&config).await;
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.status, want, "{settings}");
        if want == 418 {
            assert_eq!(reply.header("retry-after"), "120");
            assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
            assert_eq!(reply.text(), "<b>soon</b>");
        }
        if want != 200 {
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test]
async fn each_request_has_an_id_of_its_own() {
    let app = Upstream::echo("app").await;
    for (settings, keeps) in [("", false), (", keep = true", true)] {
        let policy = format!(r#"policies.id = {{ kind = "request-id"{settings} }}"#);
        let config = with_policies(app.addr, &policy, r#"["id"]"#);
        let gateway = SetUp::new().start(&config).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let first = send(&mut client, "GET", &[]).await;
        let second = send(&mut client, "GET", &[]).await;
        assert_eq!(first.header("x-request-id").len(), 32);
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
        assert_eq!(first.echoed("x-request-id"), [first.header("x-request-id")]);
        let sent = send(&mut client, "GET", &[("x-request-id", "mine")]).await;
        assert_eq!(sent.header("x-request-id") == "mine", keeps);
        let odd = send(&mut client, "GET", &[("x-request-id", "two words")]).await;
        assert_eq!(odd.header("x-request-id").len(), 32);
    }
}

#[tokio::test]
async fn browsers_are_told_to_be_careful() {
    let app = answering(&[("x-frame-options", "SAMEORIGIN")]).await;
    for (overwrite, frame) in [("false", "SAMEORIGIN"), ("true", "DENY")] {
        let policy = format!(
            r#"policies.safe = {{ kind = "security-headers", hsts = {{ include-subdomains = true }}, frame-options = "DENY", referrer-policy = "no-referrer", overwrite = {overwrite} }}"#
        );
        let config = with_policies(app.addr, &policy, r#"["safe"]"#);
        let trusting = format!("listeners.http.trusted-proxies = [\"127.0.0.1\"]\n{config}");
        let gateway = SetUp::new().start(&trusting).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let clear = send(&mut client, "GET", &[]).await;
        assert_eq!(clear.header("x-frame-options"), frame);
        assert_eq!(clear.header("x-content-type-options"), "nosniff");
        assert_eq!(clear.header("referrer-policy"), "no-referrer");
        assert_eq!(clear.header("strict-transport-security"), "");
        let tls = send(&mut client, "GET", &[("x-forwarded-proto", "https")]).await;
        assert_eq!(
            tls.header("strict-transport-security"),
            "max-age=31536000; includeSubDomains"
        );
    }
}
