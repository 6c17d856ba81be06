//! Cases against guests written as text, which need no compiler.

use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;

use super::*;
use crate::plugin::verdict::differences;

const HOST: &str = r#"
  (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "postern:plugin/request@0.1.0" "method" (func $method (param i32)))
"#;
/// Sets `x-plugin: seen`.
const SET: &str =
    "(call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))";
/// An answer with status 401 and no fields.
const DENY: &str =
    "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store16 (i32.const 516) (i32.const 401))";

/// A component whose `on-request` does `body`.
fn runner(body: &str) -> Runner {
    let text = format!(
        r#"(data (i32.const 0) "x-pluginseen")
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32)
          (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
          {body}
          (i32.const 512))"#
    );
    Runner::open(
        Path::new("guest.wasm"),
        &component(&guest(HOST, &text)),
        None,
    )
    .unwrap()
}

fn one_case(text: &str) -> CaseFile {
    CaseFile::parse(&format!("[[case]]\nname = 'x'\n{text}")).unwrap()
}

/// How many differences there are between what the guest does and what the case says.
fn found(runner: &Runner, text: &str) -> Vec<String> {
    let file = one_case(text);
    let outcome = runner.run(&file, &file.cases[0]).unwrap();
    differences(&file.cases[0], &outcome)
}

#[test]
fn what_a_guest_does_is_what_its_case_sees() {
    let table = [
        ("", "", 0),
        (SET, "expect.request.headers = { x-plugin = 'seen' }", 0),
        (SET, "", 1),
        ("", "expect.request.headers = { x-plugin = 'seen' }", 1),
        (DENY, "expect.reply.status = 401", 0),
        (DENY, "expect.reply.status = 403", 1),
        (DENY, "", 1),
        ("unreachable", "expect.fault = 'plugin-trap'", 0),
        ("unreachable", "", 1),
        ("(loop $l (br $l))", "expect.fault = 'plugin-cpu'", 0),
    ];
    for (body, case, want) in table {
        let found = found(&runner(body), case);
        assert_eq!(found.len(), want, "{body} / {case}: {found:?}");
    }
}

#[test]
fn a_callout_that_is_not_made_is_a_difference() {
    let found = found(
        &runner(""),
        "callouts = [{ upstream = 'auth', path = '/' }]",
    );
    assert_eq!(found, ["callout: expected GET / to auth, got none"]);
}

#[test]
fn a_mistake_in_a_case_is_said_with_its_key() {
    let cases = [
        ("request.path = 'x'", "request.path"),
        ("request.path = '/a/../b'", "the gateway makes `/b` of it"),
        ("request.host = 'a b'", "request.host"),
        ("request.method = ' '", "request.method"),
        ("request.scheme = 'ftp'", "request.scheme"),
        ("request.client = 'x'", "request.client"),
        ("request.headers = { 'a b' = '1' }", "request.headers"),
        ("response.status = 99", "response.status"),
        ("response.headers = { a = \"1\\n\" }", "response.headers"),
    ];
    let runner = runner("");
    for (text, want) in cases {
        let file = one_case(text);
        let error = runner.run(&file, &file.cases[0]).unwrap_err();
        assert!(format!("{error:#}").contains(want), "{text}: {error:#}");
    }
}

#[test]
fn the_cost_of_a_case_has_every_phase_that_was_called() {
    let file = one_case("");
    let cost = runner(SET).measure(&file, &file.cases[0], 20).unwrap();
    let phases: Vec<&str> = cost.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, ["request"]);
    let times = cost.phases[0].1;
    assert!(Duration::ZERO < times.p50 && times.p50 <= times.p99 && times.p99 <= times.max);
    assert!(cost.memory >= 64 << 10, "{}", cost.memory);
}

fn with_phase(phase: &str) -> Runner {
    let text = component(&guest("", phase));
    Runner::open(Path::new("guest.wasm"), &text, None).unwrap()
}

#[test]
fn a_challenge_is_a_case_by_itself() {
    // Knows every token that does not begin with "x", and answers the token.
    let runner = with_phase(
        r#"(func (export "postern:plugin/challenge-phase@0.1.0#key-authorization")
          (param i32 i32) (param $at i32) (param $len i32) (result i32)
          (i32.store8 (i32.const 512)
            (i32.ne (i32.load8_u (local.get $at)) (i32.const 120)))
          (i32.store (i32.const 516) (local.get $at))
          (i32.store (i32.const 520) (local.get $len))
          (i32.const 512))"#,
    );
    let table = [
        (
            "challenge.token = 'abc'",
            "expect.key-authorization = 'abc'",
            0,
        ),
        (
            "challenge.token = 'abc'",
            "expect.key-authorization = 'xyz'",
            1,
        ),
        ("challenge.token = 'abc'", "", 1),
        ("challenge.token = 'xyz'", "", 0),
    ];
    for (case, expect, want) in table {
        let found = found(&runner, &format!("{case}\n{expect}"));
        assert_eq!(found.len(), want, "{case} / {expect}: {found:?}");
    }
}

#[test]
fn the_log_phase_is_told_how_the_exchange_ended() {
    // Traps on anything but status 404.
    let runner = with_phase(
        r#"(func (export "postern:plugin/log-phase@0.1.0#on-log")
          (param $status i32) (param i64) (param i64) (param i64)
          (param i32) (param i32 i32) (param i32 i32)
          (if (i32.ne (local.get $status) (i32.const 404)) (then unreachable)))"#,
    );
    assert_eq!(found(&runner, "response.status = 404"), [""; 0]);
    assert_eq!(found(&runner, "expect.fault = 'plugin-trap'"), [""; 0]);
}

#[test]
fn ticks_come_before_the_exchange_and_a_solver_is_asked_alone() {
    let ticking = r#"(func (export "postern:plugin/lifecycle@0.1.0#configure")
          (param i32 i32) (result i32)
          (memory.fill (i32.const 256) (i32.const 0) (i32.const 64))
          (i32.store (i32.const 280) (i32.const 100))
          (i32.const 256))
        (func (export "postern:plugin/background@0.1.0#on-tick") unreachable)"#;
    let runner = with_phase(ticking);
    assert_eq!(found(&runner, ""), [""; 0]);
    assert_eq!(
        found(&runner, "ticks = 1\nexpect.fault = 'plugin-trap'"),
        [""; 0]
    );

    let record = "dns = { name = '_acme-challenge.a.test', zone = 'a.test', value = 'v', identifier = 'a.test' }";
    let file = one_case(record);
    assert!(
        runner.run(&file, &file.cases[0]).is_err(),
        "there is no solver"
    );
}
