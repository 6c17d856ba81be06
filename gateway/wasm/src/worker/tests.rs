//! Guests that do what they should, and guests that do not: each limit is reached by one.

use std::time::Duration;

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use postern_core::config::plugin::PluginLimits;
use postern_core::name::MAX_NAME_LEN;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;

use super::*;
use crate::component::Component;
use crate::engine::PluginEngine;
use crate::error::TrapKind;
use crate::exchange::ResponseHead;
use crate::exchange::Upstreams;
use crate::limits::MAX_STATE_BYTES;
use crate::plugin::PluginSetup;
use crate::solver::Progress;
use crate::solver::TxtRecord;
use crate::test_util::component;
use crate::test_util::guest;

mod callouts;
mod edits;
mod log;
mod many;

const HOST: &str = r#"
  (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "postern:plugin/request@0.1.0" "append" (func $append (param i32 i32 i32 i32 i32)))
  (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))
  (import "postern:plugin/response@0.1.0" "status" (func $status (result i32)))
  (import "postern:plugin/exchange@0.1.0" "set-state" (func $set_state (param i32 i32 i32)))
  (import "postern:plugin/random@0.1.0" "bytes" (func $random (param i32 i32)))
  (import "postern:plugin/random@0.1.0" "number" (func $number (result i64)))
"#;

/// A guest with this body of `on-request`; it may use the locals `$i` and `$j`, and answers
/// "next" at its end.
fn on_request(body: &str) -> String {
    guest(
        HOST,
        &format!(
            r#"(data (i32.const 0) "x-a")
            (table $t 1 funcref)
            (global $count (mut i32) (i32.const 0))
            (func $recurse (param i32) (result i32)
              (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
            (func $is_post (result i32)
              (call $method (i32.const 600))
              (i32.eq (i32.load (i32.const 604)) (i32.const 4)))
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32) (local $i i32) (local $j i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              {body}
              (i32.const 512))"#
        ),
    )
}

/// Answers `status` in place of "next"; an expression of type i32.
fn respond(status: &str) -> String {
    format!("(i32.store8 (i32.const 512) (i32.const 1)) (i32.store16 (i32.const 516) {status})")
}

const SPIN: &str = "(loop $l (br $l))";

async fn plugin_of(wat: &str, limits: PluginLimits) -> Result<Arc<Plugin>, PluginError> {
    let engine = PluginEngine::new(None)?;
    let component = Component::load(&engine, &component(wat))?;
    let name = PolicyName::parse("guest").unwrap();
    Plugin::configure(component, name, "{}".into(), limits).await
}

async fn worker_of(wat: &str, limits: PluginLimits) -> PluginWorker {
    plugin_of(wat, limits).await.unwrap().worker()
}

fn quick() -> PluginLimits {
    PluginLimits {
        cpu: Duration::from_millis(20),
        memory: 4 << 20,
        ..PluginLimits::default()
    }
}

fn post() -> Exchange {
    let mut exchange = Exchange::default();
    exchange.request.method = Method::POST;
    exchange
}

fn status_of(action: &Action) -> u16 {
    match action {
        Action::Respond(response) => response.status.as_u16(),
        Action::Next | Action::NeedBody(_) | Action::Abort => 0,
    }
}

#[tokio::test]
async fn each_fault_has_its_error_and_ends_the_instance() {
    let grow =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let grow_table = "(loop $l (br_if $l (i32.ne
        (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1)))) unreachable";
    let append = "(loop $l (call $append (i32.const 0) (i32.const 3) (i32.const 1024)
        (i32.const 32768) (i32.const 600)) (br $l))";
    let need_body = "(i32.store8 (i32.const 512) (i32.const 2))";
    let bad_case = "(i32.store8 (i32.const 512) (i32.const 9))";
    let body_of_204 = respond("(i32.const 204)") + "(i32.store (i32.const 532) (i32.const 5))";
    let long_list = respond("(i32.const 200)") + "(i32.store (i32.const 532) (i32.const 9999999))";
    let divide = "(drop (i32.div_u (i32.const 1) (local.get $i)))";
    let huge_random = "(call $random (i32.const 65537) (i32.const 600))";
    let cases = [
        ("trap", "unreachable", "Trap(Unreachable)"),
        ("loop", SPIN, "CpuDeadline"),
        (
            "recursion",
            "(drop (call $recurse (i32.const 0)))",
            "Trap(Stack)",
        ),
        ("memory bomb", grow, "Memory"),
        ("table bomb", grow_table, "Memory"),
        (
            "out of bounds",
            "(drop (i32.load (i32.const -4)))",
            "Trap(Bounds)",
        ),
        ("division", divide, "Trap(Arithmetic)"),
        ("null call", "(call_indirect (local.get $i))", "Trap(Call)"),
        ("unknown action", bad_case, "Trap(Boundary)"),
        ("list outside memory", &long_list, "Trap("),
        ("need-body", need_body, "Contract(NeedBody)"),
        ("phase", "(drop (call $status))", "Contract(Phase)"),
        ("host bytes", append, "Contract(HostBytes)"),
        ("random", huge_random, "Contract(RandomBytes)"),
        (
            "status 101",
            &respond("(i32.const 101)"),
            "Contract(ResponseStatus)",
        ),
        (
            "status 1000",
            &respond("(i32.const 1000)"),
            "Contract(ResponseStatus)",
        ),
        ("body of 204", &body_of_204, "Contract(ResponseBody)"),
    ];
    for (what, body, want) in cases {
        let worker = worker_of(&on_request(body), quick()).await;
        for round in 1..=2 {
            let mut exchange = post();
            let error = worker.on_request(&mut exchange).await.unwrap_err();
            assert!(format!("{error:?}").starts_with(want), "{what}: {error:?}");
            assert_eq!(exchange.request.method, Method::POST, "{what}: given back");
            let counted = worker
                .stats()
                .faults()
                .find(|(label, _)| *label == error.reason());
            assert_eq!(counted, Some((error.reason(), round)), "{what}");
            assert_eq!(worker.stats().live(), 0, "{what}");
        }
    }
}

#[tokio::test]
async fn a_loop_leaves_the_worker_to_others() {
    let limits = PluginLimits {
        cpu: Duration::from_millis(500),
        time: Duration::from_secs(60),
        ..quick()
    };
    let worker = worker_of(&on_request(SPIN), limits).await;
    let turns = std::rc::Rc::new(Cell::new(0));
    let counted = std::rc::Rc::clone(&turns);
    let local = tokio::task::LocalSet::new();
    let neighbour = local.spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_micros(100)).await;
            counted.set(counted.get() + 1);
        }
    });
    let called = local.run_until(async { worker.on_request(&mut Exchange::default()).await });
    let error = called.await.unwrap_err();
    neighbour.abort();
    assert!(
        matches!(error, PluginError::CpuDeadline { .. }),
        "{error:?}"
    );
    // Timers are exact to a millisecond, so it might run every other one. A tenth of that leaves
    // room for a busy machine, to whose other threads the worker gives way after each slice.
    assert!(turns.get() >= 25, "ran {} times", turns.get());
}

#[tokio::test]
async fn a_loop_ends_at_the_wall_deadline_too() {
    let limits = PluginLimits {
        cpu: Duration::from_secs(60),
        time: Duration::from_millis(30),
        ..quick()
    };
    let worker = worker_of(&on_request(SPIN), limits).await;
    let error = worker.on_request(&mut post()).await.unwrap_err();
    assert!(matches!(error, PluginError::Deadline { .. }), "{error:?}");
    assert_eq!(worker.stats().live(), 0);
}

#[tokio::test]
async fn a_guest_that_cannot_start_is_not_taken_into_service() {
    let spin = guest(HOST, &format!("(func $s {SPIN}) (start $s)"));
    let trap = guest(HOST, "(func $s unreachable) (start $s)");
    let phase = r#"(func (export "postern:plugin/request-phase@0.1.0#on-request")
        (param i32 i32) (result i32) (i32.const 512))"#;
    let spin = spin.replace("(start $s)", &format!("(start $s) {phase}"));
    let trap = trap.replace("(start $s)", &format!("(start $s) {phase}"));
    let early = on_request("").replace(
        "(memory.fill (i32.const 256)",
        "(call $method (i32.const 600)) (memory.fill (i32.const 256)",
    );
    let large = on_request("").replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 65)",
    );
    let limits = PluginLimits {
        cpu: Duration::from_millis(5),
        ..quick()
    };
    let refused = |wat: String| async move { plugin_of(&wat, limits).await.unwrap_err() };
    let error = refused(spin).await;
    assert!(
        matches!(error, PluginError::CpuDeadline { .. }),
        "{error:?}"
    );
    let error = refused(trap).await;
    assert!(
        matches!(error, PluginError::Trap(TrapKind::Unreachable)),
        "{error:?}"
    );
    let error = refused(early).await;
    assert!(
        matches!(error, PluginError::Contract(Breach::Phase)),
        "{error:?}"
    );
    let error = refused(large).await;
    assert!(matches!(error, PluginError::Memory), "{error:?}");
}

#[tokio::test]
async fn a_dropped_call_takes_its_instance_along() {
    let body = format!("(if (call $is_post) (then {SPIN}))");
    let limits = PluginLimits {
        cpu: Duration::from_secs(60),
        ..quick()
    };
    let worker = worker_of(&on_request(&body), limits).await;
    for round in 1..=50u64 {
        let mut exchange = post();
        let call = worker.on_request(&mut exchange);
        let dropped = tokio::time::timeout(Duration::from_micros(100 * round), call).await;
        assert!(dropped.is_err());
        assert_eq!(worker.stats().cancelled(), round);
        assert_eq!(worker.stats().live(), 0);
        let action = worker.on_request(&mut Exchange::default()).await;
        assert!(matches!(action, Ok(Action::Next)), "{action:?}");
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_instance_that_failed() {
    // Counts its calls in a global and in memory, answers the sum, and fails on POST.
    let body = format!(
        "(global.set $count (i32.add (global.get $count) (i32.const 1)))
         (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
         (if (call $is_post) (then unreachable))
         {}",
        respond(
            "(i32.add (i32.const 200) (i32.add (global.get $count) (i32.load (i32.const 64))))"
        )
    );
    let worker = worker_of(&on_request(&body), quick()).await;
    for _ in 0..100 {
        for want in [202, 204] {
            let action = worker.on_request(&mut Exchange::default()).await.unwrap();
            assert_eq!(status_of(&action), want);
        }
        worker.on_request(&mut post()).await.unwrap_err();
    }
}

#[tokio::test]
async fn calls_wait_for_an_instance_and_give_up() {
    let body = format!("(if (call $is_post) (then {SPIN}))");
    let limits = PluginLimits {
        cpu: Duration::from_millis(100),
        time: Duration::from_millis(20),
        instances: 1,
        ..quick()
    };
    let worker = worker_of(&on_request(&body), limits).await;
    let patient = PluginLimits {
        time: Duration::from_secs(10),
        ..limits
    };
    let patient = worker_of(&on_request(&body), patient).await;

    let (mut slow, mut other) = (post(), Exchange::default());
    let (_, late) = tokio::join!(worker.on_request(&mut slow), worker.on_request(&mut other));
    // Both wait equally long, and the first to go may leave its place to the second, with little
    // time left or none.
    if let Err(error) = late {
        let gave_up = matches!(
            error,
            PluginError::Overloaded { .. } | PluginError::Deadline { .. }
        );
        assert!(gave_up, "{error:?}");
    }
    assert_eq!(worker.stats().waited(), 1);

    let (failed, served) = tokio::join!(
        patient.on_request(&mut slow),
        patient.on_request(&mut other)
    );
    assert!(
        matches!(failed, Err(PluginError::CpuDeadline { .. })),
        "{failed:?}"
    );
    assert!(matches!(served, Ok(Action::Next)), "{served:?}");
}

#[tokio::test]
async fn an_instance_is_replaced_after_its_uses() {
    let worker = worker_of(&on_request(""), PluginLimits::default()).await;
    let mut exchange = Exchange::default();
    for _ in 0..=MAX_USES {
        worker.on_request(&mut exchange).await.unwrap();
    }
    let stats = worker.stats();
    assert!((2..=3).contains(&stats.created()), "{}", stats.created());
    assert_eq!((stats.live(), stats.calls()), (1, u64::from(MAX_USES) + 1));
}

#[tokio::test]
async fn every_instance_answers_the_same_spec() {
    // One name in the view, made of random letters.
    let configure = r#"(func (export "postern:plugin/lifecycle@0.1.0#configure")
        (param i32 i32) (result i32)
        (i64.store (i32.const 320) (i64.or (i64.const 0x6161616161616161)
          (i64.and (call $number) (i64.const 0x0e0e0e0e0e0e0e0e))))
        (i32.store (i32.const 300) (i32.const 320)) (i32.store (i32.const 304) (i32.const 8))
        (i32.store (i32.const 260) (i32.const 300)) (i32.store (i32.const 264) (i32.const 1))
        (i32.const 256))"#;
    let phase = r#"(func (export "postern:plugin/request-phase@0.1.0#on-request")
        (param i32 i32) (result i32) (i32.const 512))"#;
    let worker = worker_of(&guest(HOST, &format!("{configure} {phase}")), quick()).await;
    let error = worker
        .on_request(&mut Exchange::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, PluginError::Contract(Breach::SpecChanged)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_configuration_may_be_refused_with_a_reason() {
    let configure = |text: &str, at: usize, len: usize| {
        let configure = format!(
            r#"(data (i32.const {at}) "{text}")
            (func (export "postern:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
              (i32.store8 (i32.const 256) (i32.const 1))
              (i32.store (i32.const 260) (i32.const {at})) (i32.store (i32.const 264) (i32.const {len}))
              (i32.const 256))"#
        );
        guest(
            "",
            &format!(
                r#"{configure} (func (export "postern:plugin/request-phase@0.1.0#on-request")
            (param i32 i32) (result i32) (i32.const 512))"#
            ),
        )
    };
    let error = plugin_of(&configure("no\\0a\\1b", 16, 4), quick())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PluginError::Refused(text) if text == r"no\n\u{1b}"),
        "{error:?}"
    );
    assert_eq!(error.reason(), "plugin-config");
    let error = plugin_of(&configure("", 2048, 60000), quick())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PluginError::Refused(text) if text.len() < 10_000),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_plugin_that_asks_for_a_phase_it_lacks_is_refused() {
    let with = |at: u32| {
        on_request("").replace(
            "(memory.fill (i32.const 256) (i32.const 0) (i32.const 64))",
            &format!("(i32.store8 (i32.const {at}) (i32.const 1))"),
        )
    };
    for (at, want) in [
        (276, "request bodies"),
        (277, "response bodies"),
        (280, "background"),
    ] {
        let error = plugin_of(&with(at), quick()).await.unwrap_err();
        assert!(
            matches!(error, PluginError::MissingPhase { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[tokio::test]
async fn a_failed_call_can_be_taken_back() {
    let set = "(call $set (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 3) (i32.const 600))";
    let state = "(call $set_state (i32.const 0) (i32.const 3) (i32.const 600))";
    let body = format!("{set} {state} unreachable");
    let worker = worker_of(&on_request(&body), quick()).await;
    for undo in [false, true] {
        let mut exchange = Exchange {
            undo,
            ..Exchange::default()
        };
        exchange.set_state(worker.plugin().name(), b"before".to_vec());
        let headers = &mut exchange.request.headers;
        headers.insert("x-a", HeaderValue::from_static("before"));
        worker.on_request(&mut exchange).await.unwrap_err();
        let want = if undo { "before" } else { "x-a" };
        assert_eq!(exchange.request.headers["x-a"], want, "undo: {undo}");
        let state = exchange.state(worker.plugin().name());
        assert_eq!(state, want.as_bytes(), "undo: {undo}");
    }
}

#[tokio::test]
async fn a_plugin_may_choose_the_upstream_before_routing() {
    let select = r#"(data (i32.const 0) "canary")
        (func (export "postern:plugin/route-phase@0.1.0#select") (param i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 1))
          (i32.store (i32.const 516) (i32.const 0)) (i32.store (i32.const 520) (i32.const 6))
          (i32.const 512))"#;
    let worker = worker_of(&guest("", select), quick()).await;
    assert!(worker.has_route_phase() && !worker.has_request_phase());
    let mut exchange = Exchange::default();
    let selected = worker.select(&mut exchange).await.unwrap();
    assert_eq!(selected.as_deref(), Some("canary"));
    // Phases that it does not export are not called.
    assert!(matches!(
        worker.on_request(&mut exchange).await,
        Ok(Action::Next)
    ));
    assert_eq!(worker.stats().calls(), 1);

    let long = format!("(i32.const {})", MAX_NAME_LEN + 1);
    let long = select.replace("(i32.const 6)", &long);
    let worker = worker_of(&guest("", &long), quick()).await;
    let error = worker.select(&mut exchange).await.unwrap_err();
    assert!(
        matches!(error, PluginError::Contract(Breach::Selected)),
        "{error:?}"
    );
}

#[tokio::test]
async fn there_is_no_system_behind_wasi() {
    let code = crate::component::tests::wasi_guest("(call $args (i32.const 600))");
    let engine = PluginEngine::new(None).unwrap();
    let component = Component::load(&engine, &code).unwrap();
    let name = PolicyName::parse("guest").unwrap();
    let plugin = Plugin::configure(component, name, "{}".into(), quick()).await;
    let worker = plugin.unwrap().worker();
    let error = worker.on_request(&mut Exchange::default()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, PluginError::Contract(Breach::Stubbed)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_plugin_writes_dns_records() {
    // Refuses a zone that begins with "x"; is pending for 5 ms, which is too short, and then done.
    let functions = r#"
        (data (i32.const 0) "no\n")
        (func (export "postern:plugin/dns-solver@0.1.0#supports")
          (param $at i32) (param i32) (result i32)
          (i32.ne (i32.load8_u (local.get $at)) (i32.const 120)))
        (func (export "postern:plugin/dns-solver@0.1.0#present")
          (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 0)) (i32.store8 (i32.const 516) (i32.const 1))
          (i32.store (i32.const 520) (i32.const 5)) (i32.const 512))
        (func (export "postern:plugin/dns-solver@0.1.0#poll")
          (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 0)) (i32.store8 (i32.const 516) (i32.const 0))
          (i32.const 512))
        (func (export "postern:plugin/dns-solver@0.1.0#cleanup")
          (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 512) (i32.const 1))
          (i32.store (i32.const 516) (i32.const 0)) (i32.store (i32.const 520) (i32.const 3))
          (i32.const 512))"#;
    let engine = PluginEngine::new(None).unwrap();
    let component = Component::load(&engine, &component(&guest("", functions))).unwrap();
    let name = PolicyName::parse("guest").unwrap();
    let mut setup = PluginSetup::new(name, "{}".into(), quick());
    let refused = Plugin::set_up(Arc::clone(&component), setup.clone(), None).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, PluginError::NotGranted { .. }),
        "{refused:?}"
    );
    setup.grants.dns = true;
    let plugin = Plugin::set_up(component, setup, None).await.unwrap();
    let solver = plugin.solver(None).unwrap();
    assert!(solver.supports("example.org").await.unwrap());
    assert!(!solver.supports("x.example").await.unwrap());
    let txt = TxtRecord {
        name: "_acme-challenge.example.org".into(),
        zone: "example.org".into(),
        value: "value".into(),
        identifier: "example.org".into(),
    };
    let pending = Progress::Pending(Duration::from_millis(100));
    assert_eq!(solver.present(&txt).await.unwrap(), Ok(pending));
    assert_eq!(solver.poll(&txt).await.unwrap(), Ok(Progress::Ready));
    assert_eq!(solver.cleanup(&txt).await.unwrap(), Err(r"no\n".to_owned()));
}

#[test]
fn configuring_may_happen_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&plugin_of("", quick()));
}
