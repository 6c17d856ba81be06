//! `postern explain --run`: plugins are run for the request, one after the other, and nothing is
//! sent.

use postern_tests::scratch::Scratch;
use postern_tests::upstream::Upstream;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;
use serde_json::Value;
use serde_json::json;

use crate::support::postern;

/// A component that sets `x-plugin` on the request; GET only: whatever else there is traps.
fn plugin() -> Vec<u8> {
    let imports = r#"
      (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
      (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))"#;
    component(&guest(
        imports,
        r#"(data (i32.const 0) "x-pluginseen")
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (call $method (i32.const 600))
          (if (i32.ne (i32.load (i32.const 604)) (i32.const 3)) (then unreachable))
          (call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))
          (i32.const 512))"#,
    ))
}

#[tokio::test]
async fn plugins_are_run_and_nothing_is_sent() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    dir.write("guest.wasm", plugin());
    let config = format!(
        r#"
        upstreams.app.endpoints = ["{}"]
        plugins.guest = {{ source = "guest.wasm" }}
        policies.after = {{ kind = "headers", request-headers = {{ remove = ["x-plugin"] }}, response-headers = {{ set = {{ x-after = "1" }} }} }}
        [[routes]]
        hosts = ["a.test"]
        rules = [{{ upstream = "app", policies = ["guest", "after"] }}]
        "#,
        app.addr
    );
    let config = dir.write("postern.toml", config).display().to_string();
    let explain = async |method: &str| -> Value {
        let (is_explained, text) = postern(&[
            "explain",
            "--run",
            "--format",
            "json",
            "--config",
            &config,
            method,
            "http://a.test/x",
        ])
        .await;
        assert!(is_explained, "{text}");
        let explained: Value = serde_json::from_str(&text).expect(&text);
        explained["run"].clone()
    };

    let run = explain("GET").await;
    let edit = |what, before, after| json!({ "what": what, "before": before, "after": after });
    let seen = json!("seen");
    let (none, one) = (Value::Null, json!("1"));
    assert_eq!(
        run["request"],
        json!([
            { "policy": "guest", "kind": "plugin", "edits": [edit("field x-plugin", &none, &seen)] },
            { "policy": "after", "kind": "headers", "edits": [edit("field x-plugin", &seen, &none)] },
        ])
    );
    assert_eq!(run["sent"]["upstream"], "app");
    assert_eq!(run["sent"]["path"], "/x");
    assert_eq!(
        run["response"],
        json!([{ "policy": "after", "kind": "headers", "edits": [edit("field x-after", &none, &one)] }])
    );
    assert_eq!(run["answer"]["status"], 200);

    let run = explain("POST").await;
    assert_eq!(run["request"].as_array().map(Vec::len), Some(1), "{run}");
    assert_eq!(
        run["request"][0]["failed"]["reason"], "plugin-trap",
        "{run}"
    );
    assert_eq!(run["answer"]["status"], 503);
    assert_eq!(run["sent"], none);
    assert_eq!(app.connections(), 0);
}
