//! What plugins may do beyond their exchange, and what they are refused.

use std::time::Duration;

use http::Response;
use http::StatusCode;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::full;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;

use crate::support::upstream_table;

/// An `on-request` that answers with the status that `body` leaves in `$status`, or goes on if
/// that is 0.
fn on_request(imports: &str, data: &str, body: &str) -> Vec<u8> {
    component(&guest(
        imports,
        &format!(
            r#"{data}
            (global $calls (mut i32) (i32.const 0))
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param i32 i32) (result i32) (local $status i32)
              (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              {body}
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (i32.store8 (i32.const 512) (i32.ne (local.get $status) (i32.const 0)))
              (i32.store16 (i32.const 516) (local.get $status))
              (i32.const 512))"#
        ),
    ))
}

/// Asks the upstream `auth` for "/check" and answers its status if that is not 200. A call that
/// fails is 560 and the case of the error.
fn asking(timeout_ms: u32, max: u32) -> Vec<u8> {
    let import = r#"(import "postern:plugin/callout@0.1.0" "send" (func $send
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
    let body = format!(
        r#"(call $send (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 3)
            (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const {timeout_ms}) (i32.const {max}) (i32.const 600))
          (local.set $status (if (result i32) (i32.load8_u (i32.const 600))
            (then (i32.add (i32.const 560) (i32.load8_u (i32.const 604))))
            (else (i32.load16_u (i32.const 604)))))
          (if (i32.eq (local.get $status) (i32.const 200))
            (then (local.set $status (i32.const 0))))"#
    );
    let data = r#"(data (i32.const 0) "auth") (data (i32.const 8) "GET")
        (data (i32.const 16) "/check")"#;
    on_request(import, data, &body)
}

fn config(upstreams: &[(&str, &Upstream)], settings: &str) -> String {
    let tables = upstreams.iter();
    let tables = tables.map(|(name, upstream)| upstream_table(name, upstream.addr));
    format!(
        r#"
        listeners.http.bind = "127.0.0.1:0"
        plugins.guest = {{ source = "guest.wasm", {settings} }}
        {}
        [[routes]]
        rules = [
          {{ path = {{ prefix = "/plain" }}, upstream = "app" }},
          {{ upstream = "app", policies = ["guest"] }},
        ]
        "#,
        tables.collect::<String>()
    )
}

async fn status(gateway: &Running) -> u16 {
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    reply.status.as_u16()
}

const AUTH: &str = r#"grants = { upstreams = ["auth"] }"#;

#[tokio::test]
async fn a_plugin_asks_a_granted_upstream() {
    let app = Upstream::echo("app").await;
    for (answer, want) in [(200, 200), (401, 401), (204, 204)] {
        let auth = Upstream::http1(move |request| async move {
            assert_eq!(
                (request.method().as_str(), request.uri().path()),
                ("GET", "/check")
            );
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::from_u16(answer).unwrap();
            response
        })
        .await;
        let set_up = SetUp::new().file("guest.wasm", asking(0, 0));
        let config = config(&[("app", &app), ("auth", &auth)], AUTH);
        let gateway = set_up.start(&config).await;
        for _ in 0..3 {
            assert_eq!(status(&gateway).await, want);
        }
        // Over connections that are kept.
        assert_eq!(auth.connections(), 1);
    }
}

#[tokio::test]
async fn a_callout_that_fails_says_how() {
    let app = Upstream::echo("app").await;
    let large = Upstream::http1(|_| async { Response::new(full("12345")) }).await;
    let torn = Upstream::bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let nonsense = Upstream::bytes("nonsense\r\n\r\n").await;
    let silent = Upstream::silent().await;
    let gone = Upstream::silent().await;
    let gone_addr = gone.addr;
    drop(gone);
    let cases = [
        (large.addr, 4, 563, "too large"),
        (large.addr, 5, 200, "just fits"),
        (torn.addr, 0, 564, "ends early"),
        (nonsense.addr, 0, 564, "no HTTP"),
        (silent.addr, 0, 562, "timeout"),
        (gone_addr, 0, 561, "connect"),
    ];
    for (addr, max, want, what) in cases {
        let set_up = SetUp::new().file("guest.wasm", asking(200, max));
        let config = config(&[("app", &app)], AUTH) + &upstream_table("auth", addr);
        let gateway = set_up.start(&config).await;
        assert_eq!(status(&gateway).await, want, "{what}");
    }
    // Granted another upstream than the one that it asks.
    let set_up = SetUp::new().file("guest.wasm", asking(0, 0));
    let other = r#"grants = { upstreams = ["app"] }"#;
    let gateway = set_up.start(&config(&[("app", &app)], other)).await;
    assert_eq!(status(&gateway).await, 560);
}

#[tokio::test]
async fn a_waiting_plugin_holds_nobody_up_and_goes_with_its_client() {
    let app = Upstream::echo("app").await;
    let (auth, mut asked) = upstream::held().await;
    let set_up = SetUp::new().file("guest.wasm", asking(0, 0));
    let settings = format!("{AUTH}, limits = {{ time = \"60s\" }}");
    let gateway = set_up
        .start(&config(&[("app", &app), ("auth", &auth)], &settings))
        .await;
    let addr = gateway.addr("http");
    let waiting = tokio::spawn(async move { client::get(addr, "a.test", "/").await });
    let held = asked.recv().await.unwrap();
    for _ in 0..20 {
        assert_eq!(client::get(addr, "a.test", "/plain").await.status, 200);
    }
    held.release("");
    assert_eq!(waiting.await.unwrap().status, 200);

    let leaving = tokio::spawn(async move { client::get(addr, "a.test", "/").await });
    let held = asked.recv().await.unwrap();
    leaving.abort();
    // The upstream sees that nobody wants its answer.
    held.cancelled().await;
    let cancelled = "postern_plugin_cancelled_total{plugin=\"guest\"} 1";
    let waiting = async {
        while !gateway.metrics().contains(cancelled) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(waited.is_ok(), "{}", gateway.metrics());
}

#[tokio::test]
async fn a_callout_ends_before_the_wall_time_of_its_call_and_its_plugin_goes_on() {
    let app = Upstream::echo("app").await;
    let silent = Upstream::silent().await;
    // Without a time of its own, and with one that is longer than the call's.
    for timeout_ms in [0, 60_000] {
        let set_up = SetUp::new().file("guest.wasm", asking(timeout_ms, 0));
        let settings = format!("{AUTH}, limits = {{ time = \"50ms\" }}");
        let gateway = set_up
            .start(&config(&[("app", &app), ("auth", &silent)], &settings))
            .await;
        // More often than a plugin may fail: `timeout` each time.
        for _ in 0..10 {
            assert_eq!(status(&gateway).await, 562);
        }
    }
}

#[tokio::test]
async fn a_plugin_that_waits_is_ended_with_the_wall_time_of_its_call() {
    let app = Upstream::echo("app").await;
    let import = r#"(import "postern:plugin/clock@0.1.0" "sleep-ms" (func $sleep (param i32)))"#;
    let guest = on_request(import, "", "(call $sleep (i32.const 60000))");
    let set_up = SetUp::new().file("guest.wasm", guest);
    let settings = "limits = { time = \"50ms\" }";
    let gateway = set_up.start(&config(&[("app", &app)], settings)).await;
    assert_eq!(status(&gateway).await, 503);
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "plugin-deadline");
    assert_eq!(lines[0]["policy"], "guest");
}

/// Answers 400 and how often this key was counted.
fn counting() -> Vec<u8> {
    let import = r#"(import "postern:plugin/shared@0.1.0" "increment"
        (func $increment (param i32 i32 i64 i64) (result i64)))"#;
    let body = "(local.set $status (i32.add (i32.const 400) (i32.wrap_i64
        (call $increment (i32.const 0) (i32.const 3) (i64.const 1) (i64.const 0)))))";
    on_request(import, r#"(data (i32.const 0) "key")"#, body)
}

#[tokio::test]
async fn shared_state_is_of_all_instances_and_outlives_a_reload() {
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", counting());
    let with = |more: &str| {
        let settings = format!(r#"grants = {{ shared-state = "64KiB" }}, {more}"#);
        config(&[("app", &app)], &settings)
    };
    let gateway = set_up.start_with(&with("isolation = \"request\""), 2).await;
    for want in 401..405 {
        assert_eq!(status(&gateway).await, want);
    }
    gateway
        .reload(&with("config = { other = 1 }"))
        .await
        .unwrap();
    assert_eq!(status(&gateway).await, 405);
}

#[tokio::test]
async fn an_instance_of_its_own_for_each_call_remembers_nothing() {
    let app = Upstream::echo("app").await;
    let body = "(local.set $status (i32.add (i32.const 400) (global.get $calls)))";
    for (isolation, want) in [("request", [401; 3]), ("plugin", [401, 402, 403])] {
        let set_up = SetUp::new().file("guest.wasm", on_request("", "", body));
        let settings = format!("isolation = \"{isolation}\"");
        let gateway = set_up.start(&config(&[("app", &app)], &settings)).await;
        for want in want {
            assert_eq!(status(&gateway).await, want, "{isolation}");
        }
    }
}

/// Answers 400 and the length of the secret `key`, or 400 if there is none.
fn keyed() -> Vec<u8> {
    let import = r#"(import "postern:plugin/secrets@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    let body = "(call $get (i32.const 0) (i32.const 3) (i32.const 600))
        (local.set $status (i32.add (i32.const 400) (if (result i32)
          (i32.load8_u (i32.const 600)) (then (i32.load (i32.const 608))) (else (i32.const 0)))))";
    on_request(import, r#"(data (i32.const 0) "key")"#, body)
}

#[tokio::test]
async fn secrets_are_read_when_configured_and_again_when_they_change() {
    let app = Upstream::echo("app").await;
    let settings = r#"grants = { secrets.key = { file = "key.txt" } }"#;
    let config = config(&[("app", &app)], settings);
    let set_up = SetUp::new().file("guest.wasm", keyed());
    let mut gateway = set_up.file("key.txt", "top secret\n").start(&config).await;
    assert_eq!(status(&gateway).await, 410);
    gateway.set_up = gateway.set_up.file("key.txt", "other");
    gateway.reload(&config).await.unwrap();
    assert_eq!(status(&gateway).await, 405);

    gateway.set_up = gateway.set_up.file("key.txt", "\n");
    let problems = gateway.reload(&config).await.unwrap_err();
    assert!(problems.contains("postern.toml:3:"), "{problems}");
    assert!(problems.contains("the secret is empty"), "{problems}");
    // What was good goes on.
    assert_eq!(status(&gateway).await, 405);

    let missing = config.replace("key.txt", "none.txt");
    let problems = gateway.reload(&missing).await.unwrap_err();
    assert!(problems.contains("none.txt"), "{problems}");
    let variable = config.replace("file = \"key.txt\"", "env = \"POSTERN_TEST_NONE\"");
    let problems = gateway.reload(&variable).await.unwrap_err();
    assert!(
        problems.contains("there is no variable POSTERN_TEST_NONE"),
        "{problems}"
    );
}

#[tokio::test]
async fn a_plugin_that_needs_a_grant_is_refused_with_the_line_that_gives_it() {
    let app = Upstream::echo("app").await;
    let challenge = guest(
        "",
        r#"(func (export "postern:plugin/challenge-phase@0.1.0#key-authorization")
          (param i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 0)) (i32.const 512))"#,
    );
    let cases = [
        (
            asking(0, 0),
            "imports `postern:plugin/callout@0.1.0`",
            "grants.upstreams = [\"UPSTREAM\"]",
        ),
        (
            counting(),
            "imports `postern:plugin/shared@0.1.0`",
            "grants.shared-state = \"1MiB\"",
        ),
        (
            keyed(),
            "imports `postern:plugin/secrets@0.1.0`",
            "grants.secrets.NAME = { file = \"PATH\" }",
        ),
        (
            component(&challenge),
            "exports `postern:plugin/challenge-phase`",
            "grants.challenges = true",
        ),
    ];
    let good = on_request("", "", "");
    let mut gateway = SetUp::new()
        .file("guest.wasm", good)
        .start(&config(&[("app", &app)], ""))
        .await;
    for (bytes, what, grant) in cases {
        gateway.set_up = gateway.set_up.file("guest.wasm", bytes);
        let problems = gateway.reload(&config(&[("app", &app)], "")).await;
        let problems = problems.unwrap_err();
        let file = gateway.set_up.path("postern.toml");
        let want = format!(
            "{}:3:36: error: the component {what}, which needs a grant\n  |\n\
             3 |         plugins.guest = {{ source = \"guest.wasm\",  }}\n  \
             |                                    ^^^^^^^^^^^^\n  \
             help: add to [plugins.guest], if it is to have that: {grant}",
            file.display()
        );
        assert_eq!(problems, want);
        // The one before goes on.
        assert_eq!(status(&gateway).await, 200);
    }
}

#[tokio::test]
async fn a_plugin_that_always_fails_is_left_alone() {
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", on_request("", "", "unreachable"));
    let gateway = set_up.start(&config(&[("app", &app)], "")).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").await.status, 503);
        assert_eq!(client.get("a.test", "/plain").await.status, 200);
    }
    let metrics = gateway.metrics();
    for line in [
        "postern_plugin_breaker_open{plugin=\"guest\"} 1",
        "postern_plugin_faults_total{plugin=\"guest\",reason=\"plugin-trap\"} 6",
        "postern_plugin_faults_total{plugin=\"guest\",reason=\"plugin-breaker\"} 4",
        "postern_plugin_traps_total{plugin=\"guest\",kind=\"unreachable\"} 6",
        "postern_plugin_instances{plugin=\"guest\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    drop(client);
    let lines = gateway.finish().await;
    assert_eq!(lines[18]["outcome"], "plugin-breaker");
}
