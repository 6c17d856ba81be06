//! Edits: what a guest may change, and what it is told when it may not.

use super::*;

/// A guest that makes one call of an editing function and answers 210, or 211 and more for the
/// cases of `edit-error` in their order. `args` are the texts of the call, or else one number.
fn editing(phase: &str, interface: &str, function: &str, args: &[Arg<'_>]) -> String {
    let answer = respond(
        "(i32.add (i32.const 210) (select
           (i32.add (i32.load8_u (i32.const 601)) (i32.const 1))
           (i32.const 0) (i32.load8_u (i32.const 600))))",
    );
    answering(phase, interface, function, args, &answer)
}

/// As [`editing`], and gives up where the edit is refused.
fn insisting(phase: &str, interface: &str, function: &str, args: &[Arg<'_>]) -> String {
    let answer = "(if (i32.load8_u (i32.const 600)) (then unreachable))";
    answering(phase, interface, function, args, answer)
}

fn answering(
    phase: &str,
    interface: &str,
    function: &str,
    args: &[Arg<'_>],
    answer: &str,
) -> String {
    let mut params = String::new();
    let mut values = String::new();
    let mut data = String::new();
    for (n, arg) in args.iter().enumerate() {
        let at = 16384 * (n + 1);
        match arg {
            Arg::Text(text) => {
                let escaped: String = text.iter().map(|b| format!("\\{b:02x}")).collect();
                data += &format!("(data (i32.const {at}) \"{escaped}\")");
                values += &format!("(i32.const {at}) (i32.const {})", text.len());
                params += "i32 i32 ";
            }
            Arg::Number(number) => {
                values += &format!("(i32.const {number})");
                params += "i32 ";
            }
        }
    }
    let import = format!(
        r#"(import "postern:plugin/{interface}@0.1.0" "{function}"
             (func $edit (param {params} i32)))"#
    );
    let fields = format!(
        r#"{data}
        (func (export "postern:plugin/{phase}-phase@0.1.0#on-{phase}")
          (param i32 i32) (result i32)
          (call $edit {values} (i32.const 600))
          {answer}
          (i32.const 512))"#
    );
    guest(&import, &fields)
}

#[derive(Clone, Copy, Debug)]
enum Arg<'a> {
    Text(&'a [u8]),
    Number(u16),
}

fn texts<'a>(args: &[&'a str]) -> Vec<Arg<'a>> {
    args.iter().map(|text| Arg::Text(text.as_bytes())).collect()
}

fn exchange() -> Exchange {
    let names = ["blue", "green"].map(|name| UpstreamName::parse(name).unwrap());
    let mut exchange = Exchange {
        upstreams: Some(Arc::new(Upstreams::new(names))),
        response: Some(ResponseHead {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
        }),
        ..Exchange::default()
    };
    let headers = &mut exchange.request.headers;
    headers.insert("x-old", HeaderValue::from_static("1"));
    exchange
}

const MADE: u16 = 210;
const FORBIDDEN: u16 = 211;
const INVALID: u16 = 212;
const TOO_LARGE: u16 = 213;
const UNKNOWN_UPSTREAM: u16 = 214;
const TOO_LATE: u16 = 215;

#[tokio::test]
async fn an_edit_is_made_or_refused_with_its_reason() {
    let long_path = format!("/{}", "a".repeat(8192));
    let large = "v".repeat(MAX_STATE_BYTES + 1);
    let cases: [(&str, &str, &[&str], u16); 27] = [
        ("request", "set", &["x-new", "v"], MADE),
        ("request", "set", &["X-Old", "v"], MADE),
        ("request", "append", &["x-old", "v"], MADE),
        ("request", "set", &["content-length", "5"], FORBIDDEN),
        ("request", "set", &["Host", "a"], FORBIDDEN),
        ("request", "append", &[":path", "/"], FORBIDDEN),
        ("request", "set", &["a b", "v"], INVALID),
        ("request", "set", &["x-a", "a\r\nb: c"], INVALID),
        ("request", "remove", &["x-old"], MADE),
        ("request", "remove", &["x-none"], MADE),
        ("request", "remove", &["transfer-encoding"], FORBIDDEN),
        ("request", "set-method", &["PUT"], MADE),
        ("request", "set-method", &["CONNECT"], FORBIDDEN),
        ("request", "set-method", &["TRACE"], FORBIDDEN),
        ("request", "set-method", &["A B"], INVALID),
        ("request", "set-path", &["/a/./b?c=d"], MADE),
        ("request", "set-path", &["/a/../../b"], INVALID),
        ("request", "set-path", &["/a b"], INVALID),
        ("request", "set-path", &["/a\r\nX: y"], INVALID),
        ("request", "set-path", &["http://a/"], INVALID),
        ("request", "set-path", &[&long_path], TOO_LARGE),
        ("request", "set-authority", &["a.test:80"], MADE),
        ("request", "set-authority", &["a@b"], INVALID),
        ("request", "set-upstream", &["green"], MADE),
        ("request", "set-upstream", &["red"], UNKNOWN_UPSTREAM),
        ("exchange", "set-state", &[&large], TOO_LARGE),
        ("exchange", "set-var", &["a b", "v"], INVALID),
    ];
    for (interface, function, args, want) in cases {
        let wat = editing("request", interface, function, &texts(args));
        let worker = worker_of(&wat, quick()).await;
        let mut exchange = exchange();
        let action = worker.on_request(&mut exchange).await.unwrap();
        assert_eq!(status_of(&action), want, "{function} {args:?}");
        if want != MADE {
            assert_eq!(exchange.request.headers.len(), 1, "{function} {args:?}");
            assert_eq!(exchange.request.path.as_str(), "/", "{function} {args:?}");
            assert_eq!(exchange.request.method, Method::GET, "{function} {args:?}");
            assert!(exchange.upstream.is_none(), "{function} {args:?}");
        }
    }
}

#[tokio::test]
async fn a_guest_that_gives_up_over_too_large_a_message_is_not_at_fault() {
    let long_path = format!("/{}", "a".repeat(8192));
    let cases: [(&str, &str, &[&str], u16); 4] = [
        ("request", "set", &["x-new", "v"], 431),
        ("request", "append", &["x-new", "v"], 431),
        ("request", "set-path", &[&long_path], 414),
        ("response", "set", &["x-new", "v"], 502),
    ];
    for (phase, function, args, want) in cases {
        let wat = insisting(phase, phase, function, &texts(args));
        let worker = worker_of(&wat, quick()).await;
        // More often than a plugin may fail.
        for _ in 0..10 {
            let mut exchange = exchange();
            let mut headers = http::HeaderMap::new();
            for n in 0..crate::limits::MAX_FIELDS {
                let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
                headers.insert(name, HeaderValue::from_static("v"));
            }
            exchange.response.as_mut().unwrap().headers = headers.clone();
            exchange.request.headers = headers;
            let action = match phase {
                "request" => worker.on_request(&mut exchange).await,
                _ => worker.on_response(&mut exchange).await,
            };
            assert_eq!(status_of(&action.unwrap()), want, "{phase} {function}");
            assert_eq!(worker.stats().live(), 0, "its instance is replaced");
        }
        assert_eq!(worker.stats().faults().map(|(_, n)| n).sum::<u64>(), 0);
    }
    // What else ends the guest remains its fault.
    let wat = insisting("request", "request", "set", &texts(&["a b", "v"]));
    let worker = worker_of(&wat, quick()).await;
    let error = worker.on_request(&mut exchange()).await.unwrap_err();
    assert!(matches!(error, PluginError::Trap(_)), "{error:?}");
}

#[tokio::test]
async fn an_edit_is_in_the_exchange_afterwards() {
    let wat = editing("request", "request", "set-path", &texts(&["/a/./b?c=d"]));
    let worker = worker_of(&wat, quick()).await;
    let mut exchange = exchange();
    worker.on_request(&mut exchange).await.unwrap();
    assert_eq!(exchange.request.path.as_str(), "/a/b?c=d");

    let wat = editing("request", "request", "set-upstream", &texts(&["green"]));
    let worker = worker_of(&wat, quick()).await;
    worker.on_request(&mut exchange).await.unwrap();
    assert_eq!(exchange.upstream.unwrap().as_str(), "green");
}

#[tokio::test]
async fn edits_of_the_response_are_checked_alike() {
    let cases: [(&str, &[&str], u16); 5] = [
        ("set", &["x-new", "v"], MADE),
        ("append", &["set-cookie", "a=b"], MADE),
        ("set", &["connection", "close"], FORBIDDEN),
        ("set", &["x-a", "a\0"], INVALID),
        ("remove", &["content-length"], FORBIDDEN),
    ];
    for (function, args, want) in cases {
        let wat = editing("response", "response", function, &texts(args));
        let worker = worker_of(&wat, quick()).await;
        let mut exchange = exchange();
        let action = worker.on_response(&mut exchange).await.unwrap();
        assert_eq!(status_of(&action), want, "{function} {args:?}");
        let fields = exchange.response.unwrap().headers.len();
        assert_eq!(fields, usize::from(want == MADE), "{function} {args:?}");
    }
}

#[tokio::test]
async fn the_request_is_past_editing_in_the_response_phase() {
    let wat = editing("response", "request", "set", &texts(&["x-new", "v"]));
    let worker = worker_of(&wat, quick()).await;
    let mut exchange = exchange();
    let action = worker.on_response(&mut exchange).await.unwrap();
    assert_eq!(status_of(&action), TOO_LATE);
    assert_eq!(exchange.request.headers.len(), 1);
}

#[tokio::test]
async fn a_status_that_speaks_of_the_body_stays() {
    let cases = [
        (200, 404, MADE),
        (200, 599, MADE),
        (200, 204, FORBIDDEN),
        (304, 200, FORBIDDEN),
        (204, 204, MADE),
        (200, 101, INVALID),
        (200, 99, INVALID),
        (200, 1000, INVALID),
    ];
    for (from, to, want) in cases {
        let wat = editing("response", "response", "set-status", &[Arg::Number(to)]);
        let worker = worker_of(&wat, quick()).await;
        let mut exchange = exchange();
        let response = exchange.response.as_mut().unwrap();
        response.status = StatusCode::from_u16(from).unwrap();
        let action = worker.on_response(&mut exchange).await.unwrap();
        assert_eq!(status_of(&action), want, "{from} to {to}");
        let status = exchange.response.unwrap().status.as_u16();
        assert_eq!(status, if want == MADE { to } else { from });
    }
}

#[tokio::test]
async fn appending_without_end_is_refused_not_obeyed() {
    let answer = respond("(i32.add (i32.const 211) (i32.load8_u (i32.const 601)))");
    let body = format!(
        "(loop $l
           (call $append (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 600))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 32769))))
         {answer}"
    );
    let limits = PluginLimits {
        cpu: Duration::from_secs(10),
        time: Duration::from_secs(20),
        ..quick()
    };
    let worker = worker_of(&on_request(&body), limits).await;
    let mut exchange = Exchange::default();
    let action = worker.on_request(&mut exchange).await.unwrap();
    assert_eq!(status_of(&action), TOO_LARGE);
    assert_eq!(exchange.request.headers.len(), crate::limits::MAX_FIELDS);
}

#[tokio::test]
async fn a_guest_is_handed_its_view() {
    // The spec asks for "x-b" and "x-a"; the guest writes the second value under "x-c".
    let configure = r#"
        (data (i32.const 32) "x-bx-ax-c")
        (func (export "postern:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
          (i32.store (i32.const 300) (i32.const 32)) (i32.store (i32.const 304) (i32.const 3))
          (i32.store (i32.const 308) (i32.const 35)) (i32.store (i32.const 312) (i32.const 3))
          (i32.store (i32.const 260) (i32.const 300)) (i32.store (i32.const 264) (i32.const 2))
          (i32.const 256))"#;
    let phase = r#"
        (func (export "postern:plugin/request-phase@0.1.0#on-request")
          (param $view i32) (param $len i32) (result i32)
          (if (i32.ne (local.get $len) (i32.const 2)) (then unreachable))
          (if (i32.load8_u (local.get $view)) (then unreachable))
          (if (i32.eqz (i32.load8_u offset=12 (local.get $view))) (then unreachable))
          (call $set (i32.const 38) (i32.const 3)
            (i32.load offset=16 (local.get $view)) (i32.load offset=20 (local.get $view))
            (i32.const 600))
          (i32.const 512))"#;
    let wat = guest(HOST, &format!("{configure} {phase}"));
    let worker = worker_of(&wat, quick()).await;
    let mut exchange = Exchange::default();
    let headers = &mut exchange.request.headers;
    headers.append("x-a", HeaderValue::from_static("one"));
    headers.append("x-a", HeaderValue::from_static("two"));
    worker.on_request(&mut exchange).await.unwrap();
    assert_eq!(exchange.request.headers["x-c"], "one, two");
}
