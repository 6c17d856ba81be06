//! Every phase beside the common two, with real messages: bodies, pieces, ends, challenges, ticks.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use postern_tests::client::Client;
use postern_tests::client::Reply;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Body;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::channel;
use postern_tests::upstream::full;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;

use crate::support::upstream_table;

/// `body`, `request.set`, `response.set` and a counter, for guests that use them.
const HOST: &str = r#"
  (import "postern:plugin/body@0.1.0" "read" (func $read (param i64 i32 i32)))
  (import "postern:plugin/body@0.1.0" "replace" (func $replace (param i32 i32 i32)))
  (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "postern:plugin/metrics@0.1.0" "counter"
    (func $counter (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "postern:plugin/metrics@0.1.0" "add" (func $add (param i32 f64 i32 i32)))
"#;

/// A `configure` that defines the counter `seen` and writes into its spec.
fn configure(spec: &str) -> String {
    format!(
        r#"(data (i32.const 0) "seen")
        (func (export "postern:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
          (drop (call $counter (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 4)
            (i32.const 0) (i32.const 0)))
          (memory.fill (i32.const 256) (i32.const 0) (i32.const 64))
          {spec}
          (i32.const 256))"#
    )
}

const COUNT: &str = "(call $add (i32.const 0) (f64.const 1) (i32.const 0) (i32.const 0))";

/// Asks for the body of the message, at most `limit` bytes, and puts it in brackets. A body that
/// is truncated cannot be replaced, and passes.
fn bracketing(message: &str, limit: u32, overflow: u32) -> Vec<u8> {
    let fields = format!(
        r#"(func (export "postern:plugin/{message}-phase@0.1.0#on-{message}")
          (param i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 2))
          (i32.store (i32.const 516) (i32.const {limit}))
          (i32.store8 (i32.const 520) (i32.const {overflow}))
          (i32.const 512))
        (func (export "postern:plugin/{message}-body-phase@0.1.0#on-{message}-body")
          (param $length i64) (param $truncated i32) (result i32)
          (call $read (i64.const 0) (i32.const 1000) (i32.const 600))
          (i32.store8 (i32.const 60000) (i32.const 91))
          (memory.copy (i32.const 60001) (i32.load (i32.const 600)) (i32.load (i32.const 604)))
          (i32.store8 (i32.add (i32.const 60001) (i32.load (i32.const 604))) (i32.const 93))
          (call $replace (i32.const 60000)
            (i32.add (i32.load (i32.const 604)) (i32.const 2)) (i32.const 600))
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (i32.const 512))"#
    );
    component(&guest(HOST, &fields))
}

/// Sees both bodies in pieces, passes them, and adds a mark to the last one.
fn marking() -> Vec<u8> {
    let spec = configure(
        "(i32.store8 (i32.const 276) (i32.const 1)) (i32.store8 (i32.const 277) (i32.const 1))",
    );
    let phase = |message: &str| {
        format!(
            r#"(func (export "postern:plugin/{message}-stream@0.1.0#on-{message}-chunk")
              (param $at i32) (param $len i32) (param $last i32) (result i32)
              {COUNT}
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (if (local.get $last) (then
                (memory.copy (i32.const 196608) (local.get $at) (local.get $len))
                (i32.store8 (i32.add (i32.const 196608) (local.get $len)) (i32.const 33))
                (i32.store8 (i32.const 512) (i32.const 1))
                (i32.store (i32.const 516) (i32.const 196608))
                (i32.store (i32.const 520) (i32.add (local.get $len) (i32.const 1)))))
              (i32.const 512))"#
        )
    };
    let text = guest(
        HOST,
        &format!("{spec} {} {}", phase("request"), phase("response")),
    );
    // Room for the largest piece, twice.
    let text = text.replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 5)",
    );
    component(&text.replace("(i32.const 65536))", "(i32.const 131072))"))
}

fn config(app: &Upstream, settings: &str) -> String {
    format!(
        r#"
        listeners.http.bind = "127.0.0.1:0"
        plugins.guest = {{ source = "guest.wasm", {settings} }}
        {}
        [[routes]]
        rules = [{{ upstream = "app", policies = ["guest"] }}]
        "#,
        upstream_table("app", app.addr)
    )
}

async fn start(app: &Upstream, guest: Vec<u8>, settings: &str) -> Running {
    let set_up = SetUp::new().file("guest.wasm", guest);
    set_up.start(&config(app, settings)).await
}

fn post(client: &Client, body: Body) -> Request<Body> {
    let request = client.request("POST", "a.test", "/");
    request.map(|_| body)
}

/// What an echo upstream got as body.
fn echoed_body(reply: &Reply) -> String {
    let text = reply.text();
    let body = text.split_once("\n\n").map(|(_, body)| body.to_owned());
    body.unwrap_or_default()
}

async fn until(gateway: &Running, line: &str) {
    let waiting = async {
        while !gateway.metrics().lines().any(|l| l == line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(waited.is_ok(), "{line} in\n{}", gateway.metrics());
}

#[tokio::test]
async fn a_plugin_sees_and_replaces_a_request_body_within_its_limit() {
    let app = Upstream::echo("app").await;
    for (overflow, text, want) in [
        (0, "", Ok("[]")),
        (0, "hello", Ok("[hello]")),
        (0, "exactly-16-bytes", Ok("[exactly-16-bytes]")),
        (0, "17 bytes are more", Err(413)),
        (1, "17 bytes are more", Ok("17 bytes are more")),
    ] {
        let gateway = start(&app, bracketing("request", 16, overflow), "").await;
        for is_h2 in [false, true] {
            let addr = gateway.addr("http");
            let mut client = match is_h2 {
                false => Client::http1(addr).await,
                true => Client::http2(addr).await,
            };
            let reply = client.send(post(&client, full(text))).await.unwrap();
            match want {
                Ok(want) => assert_eq!(echoed_body(&reply), want, "{text} h2: {is_h2}"),
                Err(status) => assert_eq!(reply.status, status, "{text} h2: {is_h2}"),
            }
        }
        let lines = gateway.finish().await;
        let outcome = if want.is_ok() {
            "ok"
        } else {
            "request-body-size"
        };
        assert_eq!(lines[0]["outcome"], outcome);
        assert_eq!(lines[0]["request.bytes"], text.len());
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_held_too() {
    let app = Upstream::echo("app").await;
    let gateway = start(&app, bracketing("request", 1000, 0), "").await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let (mut pieces, body) = channel();
    let sending = tokio::spawn(async move {
        for piece in ["one ", "two ", "three"] {
            pieces.send_data(Bytes::from(piece)).await.unwrap();
        }
    });
    let reply = client.send(post(&client, body)).await.unwrap();
    sending.await.unwrap();
    assert_eq!(echoed_body(&reply), "[one two three]");
    // Its length is known now, and the gateway writes it.
    assert_eq!(reply.echoed("content-length"), ["15"]);
}

#[tokio::test]
async fn a_limit_counts_what_a_plugin_before_it_has_read() {
    let app = Upstream::echo("app").await;
    let config = config(&app, "")
        .replace(r#"["guest"]"#, r#"["guest", "body"]"#)
        .replace(
            "plugins.guest",
            "policies.body = { kind = \"body-size\", limit = \"1KiB\" }\nplugins.guest",
        );
    // Too much of it is read, or it is too much with the rest.
    for limit in [1000, 100] {
        let guest = bracketing("request", limit, 1);
        let set_up = SetUp::new().file("guest.wasm", guest);
        let gateway = set_up.start(&config).await;
        for (count, want) in [(4, 200), (5, 413)] {
            let mut client = Client::http1(gateway.addr("http")).await;
            let (mut pieces, body) = channel();
            let sending = tokio::spawn(async move {
                for _ in 0..count {
                    // Ends early where the rest is refused.
                    let _ = pieces.send_data(Bytes::from_static(&[b'x'; 250])).await;
                }
            });
            let reply = client.send(post(&client, body)).await.unwrap();
            sending.await.unwrap();
            assert_eq!(reply.status, want, "{limit} {count}: {}", reply.text());
        }
        let lines = gateway.finish().await;
        assert_eq!(lines[1]["outcome"], "body-size", "{limit}");
        assert_eq!(lines[1]["policy"], "body", "{limit}");
    }
}

#[tokio::test]
async fn a_plugin_sees_and_replaces_a_response_body_within_its_limit() {
    for (overflow, text, want) in [
        (0, "", Ok("[]")),
        (0, "hello", Ok("[hello]")),
        (0, "17 bytes are more", Err(502)),
        (1, "17 bytes are more", Ok("17 bytes are more")),
    ] {
        let app = Upstream::http1(move |_| async move { Response::new(full(text)) }).await;
        let gateway = start(&app, bracketing("response", 16, overflow), "").await;
        let mut client = Client::http1(gateway.addr("http")).await;
        for _ in 0..2 {
            let reply = client.get("a.test", "/").await;
            match want {
                Ok(want) => {
                    assert_eq!(reply.text(), want);
                    assert_eq!(reply.header("content-length"), want.len().to_string());
                }
                Err(status) => assert_eq!(reply.status, status),
            }
        }
        // Nothing to hold, and nothing to send.
        let head = client.request("HEAD", "a.test", "/");
        let head = client.send(head).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn a_plugin_that_fails_open_leaves_nothing_half_done() {
    // Sets a field, asks for the body, replaces it, and then fails.
    let fields = r#"(data (i32.const 0) "x-half")
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param i32 i32) (result i32)
          (call $set (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 6) (i32.const 600))
          (i32.store8 (i32.const 512) (i32.const 2))
          (i32.store (i32.const 516) (i32.const 1000))
          (i32.store8 (i32.const 520) (i32.const 0))
          (i32.const 512))
        (func (export "postern:plugin/request-body-phase@0.1.0#on-request-body")
          (param i64 i32) (result i32)
          (call $replace (i32.const 0) (i32.const 6) (i32.const 600))
          unreachable)"#;
    let app = Upstream::echo("app").await;
    let guest = component(&guest(HOST, fields));
    let gateway = start(&app, guest, "on-error = \"allow\"").await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let reply = client.send(post(&client, full("whole"))).await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.echoed("x-half").is_empty(), "{}", reply.text());
    assert_eq!(echoed_body(&reply), "whole");
}

#[tokio::test]
async fn plugins_see_bodies_in_pieces() {
    let app = Upstream::echo("app").await;
    let gateway = start(&app, marking(), "").await;
    for is_h2 in [false, true] {
        let addr = gateway.addr("http");
        let mut client = match is_h2 {
            false => Client::http1(addr).await,
            true => Client::http2(addr).await,
        };
        for size in [1, 1000, 65_536, 65_537, 1 << 20] {
            let text = "x".repeat(size);
            let reply = client
                .send(post(&client, full(text.clone())))
                .await
                .unwrap();
            let body = echoed_body(&reply);
            assert_eq!(body.len(), size + 2, "{size} h2: {is_h2}");
            assert_eq!(body, format!("{text}!!"));
            assert_eq!(reply.header("content-length"), "");
        }
        // No body, no piece.
        let reply = client.get("a.test", "/").await;
        assert_eq!(echoed_body(&reply), "!");
    }
}

#[tokio::test]
async fn pieces_pass_while_the_body_is_not_over() {
    let app = Upstream::http1(|_| async {
        let (mut pieces, body) = channel();
        tokio::spawn(async move {
            pieces.send_data(Bytes::from("first")).await.unwrap();
            std::future::pending::<()>().await;
        });
        Response::new(body)
    })
    .await;
    let gateway = start(&app, marking(), "").await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let request = client.request("GET", "a.test", "/");
    let mut response = client.open(request).await.unwrap();
    let frame = http_body_util::BodyExt::frame(response.body_mut()).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "first");
}

#[tokio::test]
async fn a_fault_on_a_piece_cuts_the_message_or_lets_it_pass() {
    let spec = configure("(i32.store8 (i32.const 276) (i32.const 1))");
    let phase = r#"(func (export "postern:plugin/request-stream@0.1.0#on-request-chunk")
        (param i32 i32 i32) (result i32) unreachable)"#;
    let trapping = component(&guest(HOST, &format!("{spec} {phase}")));
    let app = Upstream::echo("app").await;
    for (settings, status, outcome) in [
        ("", 503, "plugin-trap"),
        ("on-error = 418", 418, "plugin-trap"),
        ("on-error = \"allow\"", 200, "ok"),
    ] {
        let gateway = start(&app, trapping.clone(), settings).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let reply = client.send(post(&client, full("body"))).await.unwrap();
        assert_eq!(reply.status, status, "{settings}");
        if status == 200 {
            assert_eq!(echoed_body(&reply), "body");
        }
        let lines = gateway.finish().await;
        assert_eq!(lines[0]["outcome"], outcome, "{settings}");
    }
}

#[tokio::test]
async fn a_plugin_is_told_how_an_exchange_ended() {
    let phase = format!(
        r#"(func (export "postern:plugin/log-phase@0.1.0#on-log")
          (param $status i32) (param i64) (param $sent i64) (param $took i64)
          (param $has_upstream i32) (param i32 i32) (param i32 i32)
          (if (i32.and (i32.eq (local.get $status) (i32.const 200)) (local.get $has_upstream))
            (then {COUNT})))"#
    );
    let logging = component(&guest(HOST, &format!("{} {phase}", configure(""))));
    let app = Upstream::echo("app").await;
    let gateway = start(&app, logging, "").await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/").await.status, 200);
    }
    until(&gateway, "postern_plugin_seen{plugin=\"guest\"} 3").await;
    let calls = "postern_plugin_calls_total{plugin=\"guest\",phase=\"log\"} 3";
    until(&gateway, calls).await;
}

#[tokio::test]
async fn a_plugin_ticks_on_one_instance_and_stops_with_its_configuration() {
    let spec = configure("(i32.store (i32.const 280) (i32.const 100))");
    let phase = format!(r#"(func (export "postern:plugin/background@0.1.0#on-tick") {COUNT})"#);
    let ticking = component(&guest(HOST, &format!("{spec} {phase}")));
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", ticking);
    let gateway = set_up.start_with(&config(&app, ""), 2).await;
    until(&gateway, "postern_plugin_seen{plugin=\"guest\"} 3").await;
    let created = "postern_plugin_instances_created_total{plugin=\"guest\"} 1";
    assert!(gateway.metrics().contains(created), "{}", gateway.metrics());
}

/// Knows every token that does not begin with "x", and answers the token itself.
fn challenger() -> Vec<u8> {
    let phase = r#"(func (export "postern:plugin/challenge-phase@0.1.0#key-authorization")
          (param i32 i32) (param $at i32) (param $len i32) (result i32)
          (i32.store8 (i32.const 512)
            (i32.ne (i32.load8_u (local.get $at)) (i32.const 120)))
          (i32.store (i32.const 516) (local.get $at))
          (i32.store (i32.const 520) (local.get $len))
          (i32.const 512))"#;
    component(&guest("", phase))
}

#[tokio::test]
async fn challenges_are_answered_before_routing_and_on_plain_http_only() {
    let app = Upstream::echo("app").await;
    let config = r#"
        listeners.http.bind = "127.0.0.1:0"
        listeners.https = { bind = "127.0.0.1:0", tls = {} }
        certificates.site = { cert-file = "site.pem", key-file = "site.key" }
        plugins.guest = { source = "guest.wasm", grants = { challenges = true } }
        [[routes]]
        rules = [{ redirect = { scheme = "https" } }]
        "#;
    let set_up = SetUp::new()
        .certificate("site", &["a.test"])
        .file("guest.wasm", challenger());
    let gateway = set_up.start(config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let known = client
        .get("a.test", "/.well-known/acme-challenge/tok_EN-1")
        .await;
    assert_eq!(
        (known.status.as_u16(), known.text().as_str()),
        (200, "tok_EN-1")
    );
    for path in [
        "/.well-known/acme-challenge/xtoken",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/a/b",
        "/.well-known/acme-challenge/a.b",
        "/",
    ] {
        assert_eq!(client.get("a.test", path).await.status, 308, "{path}");
    }
    let request = client.request("POST", "a.test", "/.well-known/acme-challenge/token");
    assert_eq!(client.send(request).await.unwrap().status, 308);
    let authority = &gateway.set_up.authority;
    let tls = postern_tests::client::Tls::to(authority, "a.test");
    let mut secure = Client::tls(gateway.addr("https"), &tls).await;
    let reply = secure
        .get("a.test", "/.well-known/acme-challenge/token")
        .await;
    assert_eq!(reply.status, 308);
    drop((client, secure, app));
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["policy"], "guest");
}
