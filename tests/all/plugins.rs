//! Policies in WebAssembly on the way of real requests; guests are text, so no toolchain is needed.

use std::net::SocketAddr;

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;

use crate::support::upstream_table;

const HOST: &str = r#"
  (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))
"#;

const NEXT: &str = "";
const TRAP: &str = "unreachable";
const SPIN: &str = "(loop $l (br $l))";
const GROW: &str =
    "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// An answer with status 401 and no fields.
const DENY: &str =
    "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store16 (i32.const 516) (i32.const 401))";
/// Sets `x-plugin: seen`.
const SET: &str =
    "(call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))";

/// A component whose `on-request` does `body`, for requests that are not GET; for GET, nothing.
fn plugin(body: &str) -> Vec<u8> {
    component(&guest(
        HOST,
        &format!(
            r#"(data (i32.const 0) "x-pluginseen")
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (call $method (i32.const 600))
              (if (i32.ne (i32.load (i32.const 604)) (i32.const 3)) (then {body}))
              (i32.const 512))"#
        ),
    ))
}

fn with_plugin(app: SocketAddr, settings: &str) -> String {
    format!(
        r#"
        listeners.http.bind = "127.0.0.1:0"
        plugins.guest = {{ source = "guest.wasm", {settings} }}
        {}
        [[routes]]
        rules = [{{ upstream = "app", policies = ["guest"] }}]
        "#,
        upstream_table("app", app)
    )
}

async fn post(client: &mut Client) -> client::Reply {
    let request = client.request("POST", "a.test", "/");
    client.send(request).await.unwrap()
}

#[tokio::test]
async fn a_plugin_edits_and_answers_requests() {
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", plugin(SET));
    let mut gateway = set_up.start(&with_plugin(app.addr, "")).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    assert_eq!(post(&mut client).await.echoed("x-plugin"), ["seen"]);

    // New code under the same name is a change.
    gateway.set_up = gateway.set_up.file("guest.wasm", plugin(DENY));
    gateway.reload(&with_plugin(app.addr, "")).await.unwrap();
    assert_eq!(post(&mut client).await.status, 401);
    assert_eq!(client.get("a.test", "/").await.status, 200);
    drop(client);
    let lines = gateway.finish().await;
    assert_eq!(lines[1]["policy"], "guest");
}

#[tokio::test]
async fn a_fault_of_a_plugin_costs_one_request() {
    let app = Upstream::echo("app").await;
    for (what, body, reason) in [
        ("trap", TRAP, "plugin-trap"),
        ("loop", SPIN, "plugin-cpu"),
        ("memory", GROW, "plugin-memory"),
    ] {
        let limits = "limits = { cpu = \"10ms\", memory = \"1MiB\" }";
        for (on_error, want) in [
            (String::new(), 503),
            ("on-error = \"deny\",".to_owned(), 503),
            ("on-error = \"allow\",".to_owned(), 200),
            ("on-error = 418,".to_owned(), 418),
        ] {
            let set_up = SetUp::new().file("guest.wasm", plugin(body));
            let config = with_plugin(app.addr, &format!("{on_error} {limits}"));
            let gateway = set_up.start(&config).await;
            let mut client = Client::http1(gateway.addr("http")).await;
            for round in 1..=3 {
                let reply = post(&mut client).await;
                assert_eq!(reply.status, want, "{what} {on_error} {round}");
                // The next request is served, over the same connection.
                let next = client.get("a.test", "/").await;
                assert_eq!(next.status, 200, "{what} {on_error} {round}");
            }
            drop(client);
            let lines = gateway.finish().await;
            let outcome = if want == 200 { "ok" } else { reason };
            assert_eq!(lines[0]["outcome"], outcome, "{what} {on_error}");
            assert_eq!(lines[1]["outcome"], "ok", "{what} {on_error}");
        }
    }
}

#[tokio::test]
async fn a_plugin_that_burns_time_does_not_stop_its_worker() {
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", plugin(SPIN));
    let config = with_plugin(app.addr, "limits = { cpu = \"10s\", time = \"1s\" }");
    let gateway = set_up.start(&config).await;
    let addr = gateway.addr("http");
    let mut spinning = Client::http1(addr).await;
    let spin = tokio::spawn(async move { post(&mut spinning).await });
    // The one worker serves these while it runs the other: nothing here waits for its end.
    for _ in 0..20 {
        assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
    }
    assert_eq!(spin.await.unwrap().status, 503);
}

#[tokio::test]
async fn a_component_that_cannot_be_used_keeps_the_old_one_serving() {
    let app = Upstream::echo("app").await;
    let set_up = SetUp::new().file("guest.wasm", plugin(SET));
    let config = with_plugin(app.addr, "");
    let mut gateway = set_up.start(&config).await;
    let core_module = postern_wasm::test_util::module(&guest(HOST, ""));
    let good = plugin(NEXT);
    let cases = [
        ("empty", Vec::new()),
        ("text", b"no component".to_vec()),
        ("a core module", core_module),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("too large", vec![0; 33 << 20]),
    ];
    for (what, bytes) in cases {
        gateway.set_up = gateway.set_up.file("guest.wasm", bytes);
        let problems = gateway.reload(&config).await.unwrap_err();
        assert!(problems.contains("postern.toml:3:"), "{what}: {problems}");
        let mut client = Client::http1(gateway.addr("http")).await;
        assert_eq!(
            post(&mut client).await.echoed("x-plugin"),
            ["seen"],
            "{what}"
        );
    }
}
