use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_plugin::callout::Answer;
use postern_plugin::callout::CallError;
use postern_plugin::mock;
use postern_plugin::mock::Exchange;

use super::*;

const CONFIG: &str = r#"{
    "jwks": { "upstream": "idp", "path": "/keys" },
    "issuer": "https://idp.test",
    "audience": ["app", "other"],
    "set-headers": { "X-User": "sub", "x-roles": ["realm_access", "roles"], "x-age": "age" }
}"#;
const SET: &str = r#"{ "keys": [
    { "kty": "oct", "k": "AA", "kid": "secret" },
    { "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }
] }"#;
const NOW: u64 = 1_700_000_000;
const HEADER: &str = r#"{ "alg": "EdDSA", "kid": "k1", "typ": "JWT" }"#;

fn token(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(header), part(claims), part("signature"))
}

fn claims(more: &str) -> String {
    format!(
        r#"{{ "iss": "https://idp.test", "aud": "app", "exp": {}{more} }}"#,
        NOW + 600
    )
}

fn good() -> String {
    token(HEADER, &claims(r#", "sub": "ann""#))
}

/// An issuer whose keys are there, and signatures that are good.
fn start(config: &str) -> mock::Configured<Jwt> {
    mock::gateway(|gateway| {
        gateway.calls.clear();
        gateway.logs.clear();
        gateway.shared.clear();
        gateway.now_ms = NOW * 1000;
        gateway.verifies = true;
        gateway.on_callout(|_| {
            Ok(Answer {
                status: 200,
                headers: Vec::new(),
                body: SET.into(),
            })
        });
    });
    match mock::configure(config) {
        Ok(plugin) => plugin,
        Err(error) => panic!("{error}"),
    }
}

fn send(plugin: &mock::Configured<Jwt>, name: &str, value: &str) -> (Action, Exchange) {
    let mut exchange = Exchange::new("GET", "/")
        .header(name, value)
        .header("x-user", "root");
    (plugin.on_request(&mut exchange).unwrap(), exchange)
}

/// The status and the label of the reason.
fn denied(plugin: &mock::Configured<Jwt>, token: &str) -> (u16, String) {
    let (action, exchange) = send(plugin, "authorization", &format!("Bearer {token}"));
    assert_eq!(exchange.request.get("x-user"), None, "{token}");
    match action {
        Action::Respond(reply) => (reply.status, exchange.vars["jwt"].clone()),
        other => panic!("{token}: {other:?}"),
    }
}

#[test]
fn a_good_token_passes_and_says_who_it_is() {
    let plugin = start(CONFIG);
    let claims = claims(
        r#", "sub": "ann", "realm_access": { "roles": ["a", "b,root", "c", 7] }, "age": 41"#,
    );
    let (action, exchange) = send(
        &plugin,
        "authorization",
        &format!("bearer {}", token(HEADER, &claims)),
    );
    assert_eq!(action, Action::Next);
    assert_eq!(exchange.request.all("x-user").collect::<Vec<_>>(), ["ann"]);
    assert_eq!(exchange.request.get("x-roles"), Some("a,c,7"));
    assert_eq!(exchange.request.get("x-age"), Some("41"));
    assert_eq!(exchange.request.get("authorization"), None);
}

#[test]
fn a_claim_that_is_no_field_sets_none() {
    let plugin = start(CONFIG);
    for sub in [
        r#""""#,
        r#""a\nx-admin: 1""#,
        r#"" ""#,
        "null",
        "{}",
        "[]",
        "[{}]",
    ] {
        let token = token(HEADER, &claims(&format!(r#", "sub": {sub}"#)));
        let (action, exchange) = send(&plugin, "authorization", &format!("Bearer {token}"));
        assert_eq!(action, Action::Next, "{sub}");
        assert_eq!(exchange.request.get("x-user"), None, "{sub}");
    }
}

#[test]
fn a_token_that_is_not_good_is_told_why() {
    let plugin = start(CONFIG);
    let with = |header: &str| token(header, &claims(""));
    let says = |claims: &str| token(HEADER, claims);
    let deep = format!(r#"{{ "alg": {} }}"#, "[".repeat(5000));
    let times = |exp: &str, more: &str| {
        says(&format!(
            r#"{{ "iss": "https://idp.test", "aud": "app", "exp": {exp}{more} }}"#
        ))
    };
    let cases = [
        ("x".to_owned(), "malformed"),
        ("a.b".to_owned(), "malformed"),
        ("..".to_owned(), "malformed"),
        (format!("{}.", good()), "malformed"),
        (good().replace('.', "=."), "malformed"),
        ("x".repeat(20 << 10), "malformed"),
        (with("[]"), "malformed"),
        (with(&deep), "malformed"),
        (with(r#"{ "kid": "k1" }"#), "malformed"),
        (with(r#"{ "alg": "EdDSA", "kid": 1 }"#), "malformed"),
        (
            with(r#"{ "alg": "EdDSA", "kid": "k1", "crit": ["b64"] }"#),
            "malformed",
        ),
        (
            with(r#"{ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }"#),
            "malformed",
        ),
        (
            with(r#"{ "alg": "EdDSA", "alg": "none", "kid": "k1" }"#),
            "malformed",
        ),
        (with(r#"{ "alg": "none", "kid": "k1" }"#), "algorithm"),
        (with(r#"{ "alg": "None", "kid": "k1" }"#), "algorithm"),
        (with(r#"{ "alg": "HS256", "kid": "k1" }"#), "algorithm"),
        (with(r#"{ "alg": "HS256", "kid": "secret" }"#), "algorithm"),
        (with(r#"{ "alg": "ES256", "kid": "k1" }"#), "unknown-key"),
        (with(r#"{ "alg": "EdDSA", "kid": "k2" }"#), "unknown-key"),
        (says(r#"{ "aud": "app", "exp": 1 }"#), "issuer"),
        (
            says(r#"{ "iss": "https://idp.test.evil", "aud": "app", "exp": 1 }"#),
            "issuer",
        ),
        (
            says(r#"{ "iss": ["https://idp.test"], "aud": "app", "exp": 1 }"#),
            "issuer",
        ),
        (
            says(r#"{ "iss": "https://idp.test", "exp": 1 }"#),
            "audience",
        ),
        (
            says(r#"{ "iss": "https://idp.test", "aud": ["a", 1], "exp": 1 }"#),
            "audience",
        ),
        (
            says(r#"{ "iss": "https://idp.test", "aud": "app" }"#),
            "expired",
        ),
        (times("1", ""), "expired"),
        (times(&(NOW - 61).to_string(), ""), "expired"),
        (times("\"2100\"", ""), "malformed"),
        (times("1e99", ""), "malformed"),
        (times("-1", ""), "malformed"),
        (
            times("4102444800", &format!(r#", "nbf": {}"#, NOW + 61)),
            "not-yet",
        ),
        (times("4102444800", r#", "nbf": null"#), "malformed"),
    ];
    for (token, want) in cases {
        assert_eq!(denied(&plugin, &token), (401, want.to_owned()), "{token}");
    }
    mock::gateway(|gateway| gateway.verifies = false);
    assert_eq!(denied(&plugin, &good()), (401, "signature".to_owned()));
}

#[test]
fn clocks_may_differ_a_little() {
    let plugin = start(CONFIG);
    for times in [
        format!(r#""exp": {}"#, NOW - 60),
        format!(r#""exp": {}.75, "nbf": {}"#, NOW, NOW + 60),
    ] {
        let claims = format!(r#"{{ "iss": "https://idp.test", "aud": ["x", "other"], {times} }}"#);
        let (action, _) = send(
            &plugin,
            "authorization",
            &format!("Bearer {}", token(HEADER, &claims)),
        );
        assert_eq!(action, Action::Next, "{times}");
    }
}

#[test]
fn the_challenge_is_that_of_rfc_6750() {
    let plugin = start(CONFIG);
    let challenge = |value: &str| match send(&plugin, "authorization", value).0 {
        Action::Respond(reply) => {
            let found = reply
                .headers
                .iter()
                .find(|(name, _)| name == "www-authenticate");
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(challenge("Basic YTpi"), "Bearer realm=\"restricted\"");
    assert_eq!(
        challenge("Bearer x"),
        "Bearer realm=\"restricted\", error=\"invalid_token\", \
         error_description=\"the token is malformed\""
    );
}

#[test]
fn claims_may_have_to_say_something() {
    let config = CONFIG.replacen(
        '{',
        r#"{ "require": { "scope": ["read", "write"], "groups": "staff" }, "#,
        1,
    );
    let plugin = start(&config);
    let cases = [
        (r#", "scope": "x read", "groups": ["a", "staff"]"#, true),
        (r#", "scope": "write", "groups": "staff""#, true),
        (r#", "scope": "reader", "groups": "staff""#, false),
        (r#", "scope": "read", "groups": "staff a""#, false),
        (r#", "scope": "read", "groups": {"staff": true}"#, false),
        (r#", "groups": "staff""#, false),
    ];
    for (more, passes) in cases {
        let token = token(HEADER, &claims(more));
        if passes {
            let (action, _) = send(&plugin, "authorization", &format!("Bearer {token}"));
            assert_eq!(action, Action::Next, "{more}");
        } else {
            assert_eq!(denied(&plugin, &token), (403, "claim".to_owned()), "{more}");
        }
    }
}

#[test]
fn a_token_may_be_elsewhere_and_may_stay() {
    let cookie = CONFIG.replacen('{', r#"{ "token": { "cookie": "id" }, "#, 1);
    let plugin = start(&cookie);
    let (action, exchange) = send(&plugin, "cookie", &format!("a=1; id={}; b=2", good()));
    assert_eq!(action, Action::Next);
    assert_eq!(exchange.request.get("cookie"), Some("a=1; b=2"));
    let (_, exchange) = send(&plugin, "cookie", &format!("id={}", good()));
    assert_eq!(exchange.request.get("cookie"), None);

    let header = CONFIG.replacen(
        '{',
        r#"{ "token": { "header": "x-token" }, "keep-token": true, "#,
        1,
    );
    let plugin = start(&header);
    let (action, exchange) = send(&plugin, "x-token", &good());
    assert_eq!(action, Action::Next);
    assert!(exchange.request.get("x-token").is_some());
}

#[test]
fn no_token_may_be_as_good_but_a_bad_one_is_not() {
    let config = CONFIG.replacen('{', r#"{ "on-missing": "pass", "#, 1);
    let plugin = start(&config);
    let (action, exchange) = send(&plugin, "accept", "*/*");
    assert_eq!(action, Action::Next);
    assert_eq!(exchange.request.get("x-user"), None);
    assert_eq!(denied(&plugin, "x").0, 401);
}

fn calls() -> usize {
    mock::gateway(|gateway| gateway.calls.len())
}

fn later(ms: u64) {
    mock::gateway(|gateway| gateway.now_ms += ms);
}

#[test]
fn keys_are_fetched_when_they_are_needed_and_no_oftener() {
    let plugin = start(CONFIG);
    let unknown = token(r#"{ "alg": "EdDSA", "kid": "k9" }"#, &claims(""));
    let bearer = format!("Bearer {}", good());
    for _ in 0..3 {
        assert_eq!(send(&plugin, "authorization", &bearer).0, Action::Next);
    }
    assert_eq!(calls(), 1);
    for _ in 0..3 {
        assert_eq!(denied(&plugin, &unknown), (401, "unknown-key".to_owned()));
    }
    assert_eq!(
        calls(),
        1,
        "a key that is not known is asked for after a while only"
    );
    later(keys::MIN_INTERVAL_MS);
    denied(&plugin, &unknown);
    denied(&plugin, &unknown);
    assert_eq!(calls(), 2);
    later(540_000);
    assert_eq!(send(&plugin, "authorization", &bearer).0, Action::Next);
    assert_eq!(calls(), 2);
    later(60_000);
    assert_eq!(send(&plugin, "authorization", &bearer).0, Action::Next);
    assert_eq!(calls(), 3, "after ten minutes they are fetched again");
}

#[test]
fn a_new_instance_has_the_keys_that_another_fetched() {
    let claims = claims("").replace(&(NOW + 600).to_string(), "4102444800");
    let bearer = format!("Bearer {}", token(HEADER, &claims));
    let pass = |plugin: &mock::Configured<Jwt>| {
        assert_eq!(send(plugin, "authorization", &bearer).0, Action::Next);
    };
    pass(&start(CONFIG));
    mock::gateway(|gateway| gateway.on_callout(|_| Err(CallError::Connect)));
    // For a day, whatever becomes of the issuer, and asking for it by one instance at a time.
    for hours in 0..23 {
        let first = mock::configure::<Jwt>(CONFIG).unwrap();
        let second = mock::configure::<Jwt>(CONFIG).unwrap();
        pass(&first);
        pass(&second);
        assert_eq!(calls(), 1 + hours);
        later(60 * 60_000);
    }
    // Of another issuer, they are none.
    let other = CONFIG.replace("/keys", "/others");
    let other = mock::configure::<Jwt>(&other).unwrap();
    assert_eq!(denied(&other, &good()).0, 503);
}

#[test]
fn an_issuer_that_is_out_is_waited_for_with_the_keys_that_there_are() {
    let plugin = start(CONFIG);
    let out = || {
        mock::gateway(|gateway| gateway.on_callout(|_| Err(CallError::Connect)));
    };
    let bearer = format!(
        "Bearer {}",
        token(HEADER, &claims("").replace("1700000600", "4102444800"))
    );
    out();
    for _ in 0..3 {
        let (action, _) = send(&plugin, "authorization", &bearer);
        assert!(
            matches!(action, Action::Respond(Reply { status: 503, .. })),
            "{action:?}"
        );
    }
    assert_eq!(calls(), 1);
    let logs = mock::gateway(|gateway| gateway.logs.len());
    assert_eq!(logs, 1);
    later(keys::RETRY_MS);
    send(&plugin, "authorization", &bearer);
    assert_eq!(calls(), 2);

    let plugin = start(CONFIG);
    assert_eq!(send(&plugin, "authorization", &bearer).0, Action::Next);
    out();
    later(23 * 60 * 60_000);
    assert_eq!(send(&plugin, "authorization", &bearer).0, Action::Next);
    later(60 * 60_000);
    let (action, _) = send(&plugin, "authorization", &bearer);
    assert!(
        matches!(action, Action::Respond(Reply { status: 503, .. })),
        "{action:?}"
    );
}

#[test]
fn what_is_no_key_set_is_as_good_as_none() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{ "keys": 1 }"#,
        r#"{ "keys": [] }"#,
        r#"{ "keys": [{}, 1] }"#,
    ] {
        let plugin = start(CONFIG);
        mock::gateway(|gateway| {
            gateway.on_callout(move |_| {
                Ok(Answer {
                    status: 200,
                    headers: Vec::new(),
                    body: body.into(),
                })
            });
        });
        assert_eq!(
            denied(&plugin, &good()),
            (503, "no-keys".to_owned()),
            "{body}"
        );
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let jwks = r#""jwks": { "upstream": "idp", "path": "/keys" }, "issuer": "i""#;
    let whole = format!(r#"{jwks}, "audience": "a""#);
    let cases = [
        (
            String::new(),
            "jwks: is missing; issuer: is missing; audience: is missing",
        ),
        (jwks.to_owned(), "audience: is missing"),
        (
            format!(r#"{jwks}, "audience": true"#),
            "audience: must be a text, a list of texts, or false",
        ),
        (
            format!(r#"{jwks}, "audience": []"#),
            "audience: must not be empty",
        ),
        (
            format!(r#"{whole}, "algorithms": ["none"]"#),
            "algorithms[0]: must be one of \"RS256\"",
        ),
        (
            format!(r#"{whole}, "algorithms": ["HS256"]"#),
            "algorithms[0]: must be one of",
        ),
        (
            format!(r#"{whole}, "algorithms": []"#),
            "algorithms: without one",
        ),
        (
            format!(r#"{whole}, "leeway": "1h""#),
            "leeway: must be from 0ms to 5m",
        ),
        (
            format!(r#"{whole}, "set-headers": {{ "host": "sub" }}"#),
            "set-headers.host: the gateway writes",
        ),
        (
            format!(r#"{whole}, "set-headers": {{ "x": 1 }}"#),
            "set-headers.x: must be a text or a list",
        ),
        (
            format!(r#"{whole}, "token": {{}}"#),
            "token: must be { header = NAME }",
        ),
        (
            format!(r#"{whole}, "claims": {{}}"#),
            "claims: is not known",
        ),
    ];
    for (config, want) in cases {
        let refusal = mock::configure::<Jwt>(&format!("{{ {config} }}"))
            .err()
            .unwrap();
        assert!(refusal.contains(want), "{config}: {refusal}");
    }
    assert!(mock::configure::<Jwt>(&format!(r#"{{ {jwks}, "audience": false }}"#)).is_ok());
}

/// Tokens of the pieces that matter, from a fixed seed.
#[test]
fn no_token_panics() {
    let good = good();
    let parts: Vec<&str> = good.split('.').collect();
    let pieces = [
        parts[0], parts[1], parts[2], ".", "..", "=", "e30", "W10", "AA", "-_", "é", " ", "",
    ];
    let plugin = start(CONFIG);
    mock::gateway(|gateway| gateway.verifies = false);
    let mut state = 1_u64;
    for _ in 0..5000 {
        let mut token = String::new();
        for _ in 0..5 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            token.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        let (action, _) = send(&plugin, "authorization", &format!("Bearer {token}"));
        assert_ne!(action, Action::Next, "{token}");
    }
}
