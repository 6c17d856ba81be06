//! Plugins: components that are anything at all, and one that does whatever an input says.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use postern_core::config::plugin::PluginLimits;
use postern_core::header::FieldKind;
use postern_core::hostname::Authority;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_wasm::Action;
use postern_wasm::Component;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::HeldBody;
use postern_wasm::exchange::ResponseHead;
use postern_wasm::exchange::Upstreams;
use postern_wasm::limits::MAX_FIELDS;
use postern_wasm::test_util;
use tokio::runtime::Runtime;

/// Longest component: compiling takes time in proportion, and a fuzzer wants many.
const MAX_COMPONENT: usize = 64 << 10;
/// Longest program of the interpreter; it stands in one page of memory with its results.
const MAX_PROGRAM: usize = 16 << 10;

struct Host {
    runtime: Runtime,
    engine: Arc<PluginEngine>,
    interpreter: Arc<Component>,
    /// A plugin that failed too often is suspended, so one that failed is replaced.
    worker: RefCell<Option<PluginWorker>>,
}

thread_local! {
    static HOST: Host = Host::start();
}

/// A file that calls itself a component: refused, or configured and called within its limits.
pub fn component_load(input: &[u8]) {
    if input.len() > MAX_COMPONENT {
        return;
    }
    HOST.with(|host| {
        let Ok(component) = Component::load(&host.engine, input) else {
            return;
        };
        host.runtime.block_on(async {
            let Ok(worker) = host.configure(component).await else {
                return;
            };
            let mut exchange = exchange();
            if worker.has_request_phase() && worker.on_request(&mut exchange).await.is_ok() {
                message(&exchange.request.headers);
            }
        });
    });
}

/// A guest that makes every call to the host that there is to edit a message, in any order and
/// with any arguments, and answers what it likes: the message stays one that may be sent.
pub fn plugin_verdict(input: &[u8]) {
    let Some((&mode, program)) = input.split_first() else {
        return;
    };
    if program.len() > MAX_PROGRAM {
        return;
    }
    HOST.with(|host| {
        host.runtime.block_on(async {
            let worker = match host.worker.take() {
                Some(worker) => worker,
                None => {
                    let configured = host.configure(Arc::clone(&host.interpreter)).await;
                    configured.expect("the interpreter is a plugin")
                }
            };
            let mut exchange = exchange();
            exchange.undo = mode & 1 == 1;
            let before = shown(&exchange);
            let mut body = HeldBody {
                bytes: Bytes::copy_from_slice(program),
                is_truncated: mode & 4 == 4,
                is_replaced: false,
            };
            let acted = if mode & 2 == 2 {
                worker.on_response_body(&mut exchange, &mut body).await
            } else {
                worker.on_request_body(&mut exchange, &mut body).await
            };
            sendable(&exchange);
            match acted {
                Ok(action) => {
                    verdict(&action);
                    host.worker.replace(Some(worker));
                }
                Err(_) if exchange.undo => {
                    assert_eq!(before, shown(&exchange), "a failed call left its edits");
                }
                Err(_) => {}
            }
        });
    });
}

fn verdict(action: &Action) {
    match action {
        Action::Respond(response) => {
            status(response.status);
            message(&response.headers);
        }
        Action::NeedBody(_) => panic!("the body was there already"),
        Action::Next | Action::Abort => {}
    }
}

fn sendable(exchange: &Exchange) {
    let request = &exchange.request;
    message(&request.headers);
    let path = RequestPath::from_text(request.path.as_str(), exchange.encoded_slash);
    assert_eq!(path.as_ref(), Ok(&request.path));
    assert_eq!(
        Authority::parse(request.authority.value()).as_ref(),
        Ok(&request.authority)
    );
    assert!(
        request.method != Method::CONNECT && request.method != Method::TRACE,
        "{}",
        request.method
    );
    if let Some(upstream) = &exchange.upstream {
        assert_eq!(upstream.as_str(), "blue");
    }
    if let Some(response) = &exchange.response {
        status(response.status);
        message(&response.headers);
    }
}

fn status(status: StatusCode) {
    assert!((200..600).contains(&status.as_u16()), "{status}");
}

fn message(headers: &HeaderMap) {
    assert!(headers.len() <= MAX_FIELDS, "{} fields", headers.len());
    for (name, value) in headers {
        let kind = FieldKind::of(name.as_str());
        let is_free = matches!(
            kind,
            FieldKind::EndToEnd | FieldKind::Identity | FieldKind::Underscore
        );
        // No second spelling of a field that is not free either.
        let twin = FieldKind::of(&name.as_str().replace('_', "-"));
        let is_twin_free = matches!(twin, FieldKind::EndToEnd | FieldKind::Identity);
        assert!(is_free && is_twin_free, "{name}");
        let is_value = |&b: &u8| b >= 0x20 && b != 0x7f || b == b'\t';
        assert!(value.as_bytes().iter().all(is_value), "{name}: {value:?}");
    }
}

fn shown(exchange: &Exchange) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        exchange.request,
        exchange.response,
        exchange.upstream,
        exchange.vars().collect::<Vec<_>>()
    )
}

fn exchange() -> Exchange {
    let mut exchange = Exchange::default();
    let name = UpstreamName::parse("blue").expect("a name");
    exchange.upstreams = Some(Arc::new(Upstreams::new([name])));
    exchange.encoded_slash = EncodedSlash::Reject;
    exchange.response = Some(ResponseHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
    });
    exchange
}

impl Host {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("the runtime starts");
        let engine = PluginEngine::new(None).expect("the plugin engine starts");
        let interpreter = Component::load(&engine, &test_util::component(&interpreter()));
        let interpreter = interpreter.expect("the interpreter is a plugin");
        Self {
            runtime,
            engine,
            interpreter,
            worker: RefCell::default(),
        }
    }

    async fn configure(
        &self,
        component: Arc<Component>,
    ) -> Result<PluginWorker, postern_wasm::PluginError> {
        let limits = PluginLimits {
            cpu: Duration::from_millis(20),
            time: Duration::from_millis(200),
            memory: 4 << 20,
            ..PluginLimits::default()
        };
        let name = PolicyName::parse("guest").expect("a name");
        let plugin = Plugin::configure(component, name, "{}".into(), limits).await?;
        Ok(plugin.worker())
    }
}

/// The functions that the interpreter calls, in the order of the operations that call them; the
/// last part says which of the texts they get.
const CALLS: [(&str, &str, Arguments); 14] = [
    ("request", "set", Arguments::Two),
    ("request", "append", Arguments::Two),
    ("request", "remove", Arguments::One),
    ("request", "set-method", Arguments::One),
    ("request", "set-path", Arguments::One),
    ("request", "set-authority", Arguments::One),
    ("request", "set-upstream", Arguments::One),
    ("response", "set", Arguments::Two),
    ("response", "append", Arguments::Two),
    ("response", "remove", Arguments::One),
    ("response", "set-status", Arguments::Number),
    ("exchange", "set-state", Arguments::One),
    ("exchange", "set-var", Arguments::Two),
    ("body", "replace", Arguments::One),
];

#[derive(Clone, Copy)]
enum Arguments {
    One,
    Two,
    /// The first two bytes of the first text.
    Number,
}

/// A guest that reads its body as a program. An operation is a byte and two texts, each a byte
/// that says how long it is and so many more. Behind [`CALLS`] come the ways to end: respond,
/// abort, ask for the body again, trap, and an answer that there is not.
pub(super) fn interpreter() -> String {
    let mut imports = String::from(
        r#"(import "postern:plugin/body@0.1.0" "read" (func $read (param i64 i32 i32)))"#,
    );
    let mut operations = String::new();
    for (index, (interface, function, arguments)) in CALLS.iter().enumerate() {
        let (params, values) = match arguments {
            Arguments::One => ("i32 i32", "(local.get $p) (local.get $pl)"),
            Arguments::Two => (
                "i32 i32 i32 i32",
                "(local.get $p) (local.get $pl) (local.get $q) (local.get $ql)",
            ),
            Arguments::Number => ("i32", "(i32.load16_u (local.get $p))"),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            imports,
            r#"(import "postern:plugin/{interface}@0.1.0" "{function}"
                 (func $call{index} (param {params} i32)))"#
        );
        let _ = write!(
            operations,
            "(if (i32.eq (local.get $op) (i32.const {index}))
               (then (call $call{index} {values} (i32.const 600))))"
        );
    }
    let ends = CALLS.len();
    let (respond, abort, again, trap, none) = (ends, ends + 1, ends + 2, ends + 3, ends + 4);
    let fields = format!(
        r#"
        (global $at (mut i32) (i32.const 0))
        (global $end (mut i32) (i32.const 0))
        (global $len (mut i32) (i32.const 0))
        (func $byte (result i32)
          (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
          (global.set $at (i32.add (global.get $at) (i32.const 1)))
          (i32.load8_u (i32.sub (global.get $at) (i32.const 1))))
        (func $text (result i32)
          (global.set $len (call $byte))
          (if (i32.gt_u (global.get $len) (i32.sub (global.get $end) (global.get $at)))
            (then (global.set $len (i32.sub (global.get $end) (global.get $at)))))
          (global.set $at (i32.add (global.get $at) (global.get $len)))
          (i32.sub (global.get $at) (global.get $len)))
        (func $run (result i32)
          (local $op i32) (local $p i32) (local $pl i32) (local $q i32) (local $ql i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 256))
          (call $read (i64.const 0) (i32.const {MAX_PROGRAM}) (i32.const 600))
          (global.set $at (i32.load (i32.const 600)))
          (global.set $end (i32.add (global.get $at) (i32.load (i32.const 604))))
          (loop $next
            (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 512))))
            (local.set $op (call $byte))
            (local.set $p (call $text))
            (local.set $pl (global.get $len))
            (local.set $q (call $text))
            (local.set $ql (global.get $len))
            {operations}
            (if (i32.eq (local.get $op) (i32.const {respond})) (then
              (i32.store8 (i32.const 512) (i32.const 1))
              (i32.store16 (i32.const 516) (i32.load16_u (local.get $q)))
              (i32.store (i32.const 520) (i32.const 640))
              (i32.store (i32.const 524) (i32.const 1))
              (i32.store (i32.const 528) (local.get $p))
              (i32.store (i32.const 532) (local.get $pl))
              (i32.store (i32.const 640) (local.get $p))
              (i32.store (i32.const 644) (local.get $pl))
              (i32.store (i32.const 648) (local.get $q))
              (i32.store (i32.const 652) (local.get $ql))
              (return (i32.const 512))))
            (if (i32.eq (local.get $op) (i32.const {abort})) (then
              (i32.store8 (i32.const 512) (i32.const 3)) (return (i32.const 512))))
            (if (i32.eq (local.get $op) (i32.const {again})) (then
              (i32.store8 (i32.const 512) (i32.const 2)) (return (i32.const 512))))
            (if (i32.eq (local.get $op) (i32.const {trap})) (then unreachable))
            (if (i32.eq (local.get $op) (i32.const {none})) (then
              (i32.store8 (i32.const 512) (i32.const 9)) (return (i32.const 512))))
            (br $next))
          (i32.const 512))
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param i32 i32) (result i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (i32.store8 (i32.const 512) (i32.const 2))
          (i32.const 512))
        (func (export "postern:plugin/response-phase@0.1.0#on-response")
          (param i32 i32) (result i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          (i32.store8 (i32.const 512) (i32.const 2))
          (i32.const 512))
        (func (export "postern:plugin/request-body-phase@0.1.0#on-request-body")
          (param i64 i32) (result i32) (call $run))
        (func (export "postern:plugin/response-body-phase@0.1.0#on-response-body")
          (param i64 i32) (result i32) (call $run))
        "#
    );
    test_util::guest(&imports, &fields)
}
