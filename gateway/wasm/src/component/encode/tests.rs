use std::sync::Arc;

use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;
use postern_core::request::RequestHead;
use wasmtime::Engine;
use wasmtime::Linker;
use wasmtime::Module;
use wasmtime::Store;

use super::*;
use crate::Component;
use crate::Exchange;
use crate::Plugin;
use crate::PluginEngine;
use crate::test_util;

/// A guest that draws 16 bytes while it starts and 16 in the call, and shows both as letters.
const DRAWS: &str = r#"
  (func (export "_initialize") (drop (call $random (i32.const 600) (i32.const 16))))
  (func $show (param $at i32) (param $byte i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.and (local.get $byte) (i32.const 15))))
    (i32.store8 offset=1 (local.get $at)
      (i32.add (i32.const 97) (i32.shr_u (local.get $byte) (i32.const 4)))))
  (data (i32.const 0) "x-random")
  (func (export "postern:plugin/request-phase@0.1.0#on-request") (param i32 i32) (result i32)
    (local $n i32)
    (drop (call $random (i32.const 616) (i32.const 16)))
    (loop $each
      (call $show (i32.add (i32.const 700) (i32.shl (local.get $n) (i32.const 1)))
        (i32.load8_u offset=600 (local.get $n)))
      (br_if $each (i32.lt_u
        (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 32))))
    (call $set (i32.const 0) (i32.const 8) (i32.const 700) (i32.const 64) (i32.const 512))
    (memory.fill (i32.const 256) (i32.const 0) (i32.const 64))
    (i32.const 256))
"#;

async fn drawn(plugin: &Arc<Plugin>) -> String {
    // Another worker has instances of its own.
    let worker = plugin.worker();
    let mut exchange = Exchange::new(RequestHead::default());
    worker.on_request(&mut exchange).await.unwrap();
    let value = &exchange.request.headers["x-random"];
    value.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_two_instances_see_the_same_random_bytes() {
    let wat = test_util::guest(
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
           (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))"#,
        DRAWS,
    );
    let bytes = test_util::component(&wat);
    let engine = PluginEngine::new(None).unwrap();
    let component = Component::load(&engine, &bytes).unwrap();
    let plugin = Plugin::configure(
        component,
        PolicyName::parse("draws").unwrap(),
        "{}".into(),
        PluginLimits::default(),
    );
    let plugin = plugin.await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..8 {
        let drawn = drawn(&plugin).await;
        // What was drawn at the start, and in the call.
        seen.extend([drawn[..32].to_owned(), drawn[32..].to_owned()]);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 16, "{seen:?}");
}

#[test]
fn the_stream_is_that_of_chacha20() {
    // RFC 8439, A.1: the key and the nonce are zero, the counter 0 and 1.
    const STREAM: &str = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                          da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                          9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                          29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let mut linker = Linker::new(&engine);
    let (random, clock) = ("postern:plugin/random@0.1.0", "postern:plugin/clock@0.1.0");
    linker.func_wrap(random, "number", || 0_i64).unwrap();
    linker.func_wrap(clock, "now-ms", || 5_i64).unwrap();
    linker.func_wrap(clock, "monotonic-ns", || 7_i64).unwrap();
    linker.func_wrap(clock, "sleep-ms", |_: i32| {}).unwrap();
    let kind = wasmtime::MemoryType::new(1, None);
    let memory = wasmtime::Memory::new(&mut store, kind).unwrap();
    linker.define(&store, "env", "memory", memory).unwrap();
    let module = Module::new(&engine, shim()).unwrap();
    let instance = linker.instantiate(&mut store, &module).unwrap();
    let random = instance
        .get_typed_func::<(i32, i32), i32>(&mut store, "random_get")
        .unwrap();
    let mut draw = |at: usize, length: usize| {
        let drawn = random.call(&mut store, (at as i32, length as i32)).unwrap();
        assert_eq!(drawn, 0);
        memory.data(&store)[at..at + length + 1].to_vec()
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    // Not a whole number of blocks, and nothing behind the end is touched.
    let first = draw(8, 127);
    assert_eq!(hex(&first[..127]), STREAM[..254]);
    assert_eq!(first[127], 0);
    // The key has changed: the stream does not begin again.
    assert_ne!(hex(&draw(8, 32)[..32]), STREAM[..64]);
}

#[test]
fn a_module_without_its_interface_gets_the_phases_that_are_named() {
    let guest = test_util::guest(
        // With WASI, so that the interface of what answers it is there too.
        r#"(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))"#,
        r#"
        (func (export "postern:plugin/request-phase@0.1.0#on-request") (param i32 i32) (result i32)
          (drop (call $yield)) (i32.const 512))
        (func (export "postern:plugin/response-phase@0.1.0#on-response") (param i32 i32) (result i32)
          (i32.const 512))
        "#,
    );
    let core = wat::parse_str(guest).unwrap();
    let engine = PluginEngine::new(None).unwrap();
    for (phases, request, response) in [
        (["request"].as_slice(), true, false),
        (&["response"], false, true),
        (&["request", "response"], true, true),
    ] {
        let component = encode_plugin(&core, phases.iter().copied()).unwrap();
        let found = Component::load(&engine, &component).unwrap().phases();
        assert_eq!(
            (found.request, found.response),
            (request, response),
            "{phases:?}"
        );
    }
}
