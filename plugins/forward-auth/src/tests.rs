use postern_plugin::callout::CallError;
use postern_plugin::mock;
use postern_plugin::mock::Exchange;

use super::*;

const CONFIG: &str = r#"{
    "upstream": "auth", "path": "/check", "timeout": "200ms",
    "set-headers": ["X-User", "x-groups"]
}"#;

fn answer(status: u16, headers: &[(&str, &str)]) -> Answer {
    Answer {
        status,
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        body: b"log in".to_vec(),
    }
}

fn ask(config: &str, answered: Result<Answer, CallError>) -> (Action, Exchange, Vec<Call>) {
    let plugin = mock::configure::<ForwardAuth>(config).unwrap();
    mock::gateway(|gateway| {
        gateway.calls.clear();
        gateway.on_callout(move |_| answered.clone());
    });
    let mut exchange = Exchange::new("POST", "/app?x=1")
        .header("cookie", "sid=1")
        .header("x-user", "root")
        .header("x-groups", "wheel")
        .header("x-forwarded-uri", "/elsewhere")
        .header("accept", "text/html");
    exchange
        .attributes
        .insert("client.ip".into(), "192.0.2.1".into());
    let action = plugin.on_request(&mut exchange).unwrap();
    let calls = mock::gateway(|gateway| gateway.calls.clone());
    (action, exchange, calls)
}

#[test]
fn a_service_that_agrees_says_who_it_is() {
    let ok = answer(
        200,
        &[
            ("x-user", "ann"),
            ("x-groups", "a"),
            ("x-groups", "b"),
            ("x-more", "1"),
        ],
    );
    let (action, exchange, calls) = ask(CONFIG, Ok(ok));
    assert_eq!(action, Action::Next);
    assert_eq!(exchange.request.all("x-user").collect::<Vec<_>>(), ["ann"]);
    assert_eq!(
        exchange.request.all("x-groups").collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(exchange.request.get("x-more"), None);

    let [call] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (call.upstream.as_str(), call.path.as_str(), call.timeout_ms),
        ("auth", "/check", 200)
    );
    let want = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-uri", "/app?x=1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("cookie", "sid=1"),
    ];
    let want: Vec<_> = want
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(call.headers, want);
}

#[test]
fn a_field_that_the_service_does_not_set_is_not_there() {
    let (action, exchange, _) = ask(CONFIG, Ok(answer(204, &[])));
    assert_eq!(action, Action::Next);
    assert_eq!(exchange.request.get("x-user"), None);
    assert_eq!(exchange.request.get("x-groups"), None);
}

#[test]
fn a_refusal_is_the_clients_to_read() {
    let headers = [
        ("location", "/login"),
        ("x-user", "ann"),
        ("server", "auth/1"),
    ];
    for status in [302, 401, 403, 429] {
        let (action, exchange, _) = ask(CONFIG, Ok(answer(status, &headers)));
        let want = Reply::new(status)
            .header("location", "/login")
            .body("log in");
        assert_eq!(action, want.into());
        assert_eq!(exchange.request.get("x-user"), None);
    }
}

#[test]
fn an_outage_lets_nobody_pass_unless_told_to() {
    let open = CONFIG.replacen('{', r#"{ "on-outage": "allow", "#, 1);
    let outages = [
        Err(CallError::Connect),
        Err(CallError::Timeout),
        Err(CallError::TooLarge),
        Err(CallError::Protocol),
        Ok(answer(500, &[("x-user", "ann")])),
        Ok(answer(503, &[])),
    ];
    for outage in outages {
        let (action, _, _) = ask(CONFIG, outage.clone());
        assert!(
            matches!(action, Action::Respond(Reply { status: 503, .. })),
            "{action:?}"
        );
        let (action, exchange, _) = ask(&open, outage);
        assert_eq!(action, Action::Next);
        assert_eq!(exchange.request.get("x-user"), None);
    }
}

#[test]
fn an_outage_is_logged_once() {
    let plugin = mock::configure::<ForwardAuth>(CONFIG).unwrap();
    for _ in 0..3 {
        plugin.on_request(&mut Exchange::new("GET", "/")).unwrap();
    }
    let logs = mock::gateway(|gateway| std::mem::take(&mut gateway.logs));
    assert_eq!(logs.len(), 1, "{logs:?}");
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let cases = [
        ("{}", "upstream: is missing"),
        (
            r#"{ "upstream": "a", "path": "check" }"#,
            "path: must be a path",
        ),
        (
            r#"{ "upstream": "a", "timeout": "1h" }"#,
            "timeout: must be from 10ms to 1m",
        ),
        (
            r#"{ "upstream": "a", "ask-headers": ["x-forwarded-for"] }"#,
            "is always sent",
        ),
        (
            r#"{ "upstream": "a", "set-headers": ["host"] }"#,
            "set-headers[0]: the gateway writes",
        ),
        (
            r#"{ "upstream": "a", "on-outage": "open" }"#,
            "on-outage: must be one of",
        ),
        (r#"{ "upstream": "a", "url": "x" }"#, "url: is not known"),
    ];
    for (config, want) in cases {
        let refusal = mock::configure::<ForwardAuth>(config).err().unwrap();
        assert!(refusal.contains(want), "{config}: {refusal}");
    }
}
