//! Files that are no plugins, or none that can be used: none of them ever takes effect.

use std::path::Path;

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::scratch::Scratch;
use postern_tests::served::Served;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;
use postern_wasm::test_util::module;

const HOST: &str = r#"
  (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))
"#;

/// A component with this `on-request`, and whatever stands before it.
fn plugin(before: &str, body: &str) -> Vec<u8> {
    component(&guest(
        HOST,
        &format!(
            r#"{before}
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32)) {body}
              (i32.const 512))"#
        ),
    ))
}

/// Answers 401.
fn denying() -> Vec<u8> {
    plugin(
        "",
        "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store16 (i32.const 516) (i32.const 401))",
    )
}

/// A component whose `configure` does this.
fn configuring(body: &str) -> Vec<u8> {
    let configure = format!(
        r#"(func (export "postern:plugin/lifecycle@0.1.0#configure")
            (param i32 i32) (result i32) {body})"#
    );
    plugin(&configure, "")
}

/// The same component with other names in it, of the same length.
fn renamed(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    assert!(at > 0, "no {from} in the component");
    bytes
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plugins");
    std::fs::read(folder.join(name)).unwrap()
}

/// What the gateway itself keeps in its cache: machine code.
async fn precompiled() -> Vec<u8> {
    let dir = Scratch::new();
    dir.write("guest.wasm", denying());
    let config = "plugins.guest.source = \"guest.wasm\"\n";
    Served::start(dir.path(), config).await.end().await;
    let entries = std::fs::read_dir(dir.path().join("cache")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let path = paths.find(|path| path.extension().is_some_and(|e| e == "cwasm"));
    std::fs::read(path.unwrap()).unwrap()
}

const CONFIG: &str = r#"
listeners.http.bind = "127.0.0.1:0"
plugins.guest = { source = "guest.wasm" }
[[routes]]
rules = [
  { path = { prefix = "/plugin" }, respond = { status = 204 }, policies = ["guest"] },
  { respond = { status = 200 } },
]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_never_takes_effect() {
    let good = denying();
    let set_up = SetUp::new().file("guest.wasm", &good);
    let mut gateway = set_up.start(CONFIG).await;
    let trap_at_start = r#"(func $start unreachable) (start $start)"#;
    let loop_at_start = r#"(func $start (loop $l (br $l))) (start $start)"#;
    let cases = [
        ("empty", Vec::new(), "not WebAssembly"),
        ("text", b"no component".to_vec(), "not WebAssembly"),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0, 0], "not WebAssembly"),
        (
            "an ELF file",
            b"\x7fELF\x02\x01\x01\0".to_vec(),
            "not WebAssembly",
        ),
        ("eight bytes", good[..8].to_vec(), "does not export"),
        (
            "half of it",
            good[..good.len() / 2].to_vec(),
            "does not compile",
        ),
        (
            "all but a byte",
            good[..good.len() - 1].to_vec(),
            "does not compile",
        ),
        ("too large", vec![0; (32 << 20) + 1], "32 MiB"),
        ("a core module", module(&guest(HOST, "")), "core module"),
        (
            "an empty component",
            fixture("empty-component.wasm"),
            "does not export",
        ),
        ("no phase", component(&guest(HOST, "")), "exports no phase"),
        (
            "a foreign import",
            fixture("unknown-import.wasm"),
            "does not offer",
        ),
        ("machine code", precompiled().await, "precompiled"),
        (
            "a newer interface",
            renamed(good.clone(), "@0.1.0", "@0.9.0"),
            "@0.9.0",
        ),
        (
            "a later one",
            renamed(good.clone(), "@0.1.0", "@1.0.0"),
            "@1.0.0",
        ),
        (
            "another world",
            renamed(good.clone(), "request-phase", "request-phasx"),
            "request-phasx",
        ),
        ("a trap in configure", configuring("unreachable"), "trapped"),
        (
            "configure without end",
            configuring("(loop $l (br $l)) unreachable"),
            "processor time",
        ),
        ("a trap at the start", plugin(trap_at_start, ""), "trapped"),
        (
            "a start without end",
            plugin(loop_at_start, ""),
            "processor time",
        ),
        (
            "a refusal",
            configuring("(i32.store8 (i32.const 256) (i32.const 1)) (i32.const 256)"),
            "refuses its configuration",
        ),
    ];
    let generation = gateway.generation();
    for (what, bytes, want) in cases {
        gateway.set_up = gateway.set_up.file("guest.wasm", bytes);
        let problems = gateway.reload(CONFIG).await.unwrap_err();
        assert!(problems.contains("postern.toml:3:"), "{what}: {problems}");
        assert!(problems.contains(want), "{what}: no '{want}' in {problems}");
        assert_eq!(gateway.generation(), generation, "{what}");
        let addr = gateway.addr("http");
        let reply = client::get(addr, "a.test", "/plugin").await;
        assert_eq!(reply.status, 401, "{what}: the last good one serves");
        assert_eq!(client::get(addr, "a.test", "/").await.status, 200, "{what}");
    }
    gateway.set_up = gateway.set_up.file("guest.wasm", plugin("", ""));
    gateway.reload(CONFIG).await.unwrap();
    let mut client = Client::http1(gateway.addr("http")).await;
    assert_eq!(client.get("a.test", "/plugin").await.status, 204);
}
