use postern_plugin::mock;
use postern_plugin::mock::Exchange;

use super::*;

fn rewritten(rules: &str, path: &str) -> String {
    let plugin = match mock::configure::<Rewrite>(&format!(r#"{{ "rules": [{rules}] }}"#)) {
        Ok(plugin) => plugin,
        Err(error) => panic!("{rules}: {error}"),
    };
    let mut exchange = Exchange::new("GET", path);
    assert_eq!(plugin.on_request(&mut exchange), Ok(Action::Next));
    exchange.path
}

#[test]
fn paths_are_rewritten() {
    let prefix = r#"{ "prefix": "/api/v1/", "with": "/v1" }"#;
    let strip = r#"{ "prefix": "/app", "with": "" }"#;
    let add = r#"{ "prefix": "/", "with": "/app" }"#;
    let user = r#"{ "match": "/users/{id}", "to": "/user?id={id}" }"#;
    let rest = r#"{ "match": "/{lang}/docs/{page*}", "to": "/docs/{page}/{lang}" }"#;
    let cases = [
        (prefix, "/api/v1/x?y=1", "/v1/x?y=1"),
        (prefix, "/api/v1", "/v1"),
        (prefix, "/api/v12", "/api/v12"),
        (strip, "/app", "/"),
        (strip, "/app?x", "/?x"),
        (strip, "/app/x", "/x"),
        (strip, "/apple", "/apple"),
        (add, "/", "/app/"),
        (add, "/x", "/app/x"),
        (user, "/users/7", "/user?id=7"),
        (user, "/users/7?a=1", "/user?id=7&a=1"),
        (user, "/users/a&admin=1;+b", "/user?id=a%26admin%3D1%3B%2Bb"),
        (user, "/users/a%26b", "/user?id=a%26b"),
        (user, "/users/", "/users/"),
        (user, "/users/7/", "/users/7/"),
        (user, "/users", "/users"),
        (rest, "/de/docs/a/b", "/docs/a/b/de"),
        (rest, "/de/docs/", "/docs//de"),
        (rest, "/de/docs", "/docs//de"),
        (rest, "/docs", "/docs"),
    ];
    for (rules, path, want) in cases {
        assert_eq!(rewritten(rules, path), want, "{rules} {path}");
    }
}

#[test]
fn the_first_rule_that_fits_is_the_only_one() {
    let rules = r#"
        { "match": "/a/special", "to": "/found" },
        { "prefix": "/a", "with": "/b" },
        { "prefix": "/b", "with": "/c" }
    "#;
    for (path, want) in [
        ("/a/special", "/found"),
        ("/a/x", "/b/x"),
        ("/b/x", "/c/x"),
        ("/d", "/d"),
    ] {
        assert_eq!(rewritten(rules, path), want, "{path}");
    }
}

#[test]
fn queries_are_rewritten() {
    let clean = r#"{ "query": { "remove": ["utm_*", "fbclid"], "set": { "from": "edge" } } }"#;
    let drop = r#"{ "prefix": "/a", "with": "/b", "query": { "drop": true } }"#;
    let cases = [
        (clean, "/", "/?from=edge"),
        (
            clean,
            "/?utm_source=x&q=1&fbclid=2&from=me&utm",
            "/?q=1&utm&from=edge",
        ),
        (clean, "/?&&", "/?from=edge"),
        (drop, "/a?x=1", "/b"),
    ];
    for (rules, path, want) in cases {
        assert_eq!(rewritten(rules, path), want, "{rules} {path}");
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let cases = [
        ("", "rules: without one"),
        ("{}", "rules[0]: give `prefix` and `with`"),
        (
            r#"{ "prefix": "/a" }"#,
            "rules[0]: give `prefix` and `with`",
        ),
        (
            r#"{ "prefix": "/a", "to": "/b" }"#,
            "rules[0]: give `prefix` and `with`",
        ),
        (
            r#"{ "prefix": "a", "with": "/b" }"#,
            "rules[0].prefix: must be a path",
        ),
        (
            r#"{ "match": "/a/{x*}/b", "to": "/" }"#,
            "{x*} may only be the last",
        ),
        (
            r#"{ "match": "/a/{x}/{x}", "to": "/" }"#,
            "{x} is there twice",
        ),
        (r#"{ "match": "/a{x}", "to": "/" }"#, "whole segment"),
        (r#"{ "match": "/{}", "to": "/" }"#, "must be of letters"),
        (
            r#"{ "match": "/a", "to": "/{x}" }"#,
            "rules[0]: to: `match` has no {x}",
        ),
        (
            r#"{ "match": "/a", "to": "b" }"#,
            "rules[0].to: must begin with `/`",
        ),
        (r#"{ "match": "/a", "to": "/{x" }"#, "a `{` has no `}`"),
        (r#"{ "match": "/a", "to": "/a#b" }"#, "no part of a path"),
        (
            r#"{ "query": { "set": { "a": "b&c" } } }"#,
            "rules[0].query.set.a: must be percent-encoded",
        ),
        (
            r#"{ "query": { "remove": ["*"] } }"#,
            "rules[0].query.remove[0]: must be the name",
        ),
        (
            r#"{ "query": {}, "when": 1 }"#,
            "rules[0].when: is not known",
        ),
    ];
    for (rules, want) in cases {
        let refusal = mock::configure::<Rewrite>(&format!(r#"{{ "rules": [{rules}] }}"#));
        let refusal = refusal.err().unwrap();
        assert!(refusal.contains(want), "{rules}: {refusal}");
    }
}

/// Paths of the pieces that matter, from a fixed seed.
#[test]
fn no_path_panics_and_every_path_stays_one() {
    const PIECES: [&str; 12] = [
        "/", "//", "a", "users", "?", "&", "=", "%2F", "{id}", "é", ".", "utm_x=1",
    ];
    let rules = r#"{ "rules": [
        { "match": "/{a}/{b}/{rest*}", "to": "/{rest}/{a}?b={b}" },
        { "match": "/users/{id}", "to": "/{id}" },
        { "prefix": "/a", "with": "", "query": { "remove": ["utm_*"], "set": { "x": "1" } } },
        { "query": { "drop": true } }
    ] }"#;
    let plugin = mock::configure::<Rewrite>(rules).unwrap();
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut path = "/".to_owned();
        for _ in 0..6 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            path.push_str(PIECES[(state >> 33) as usize % PIECES.len()]);
        }
        let mut exchange = Exchange::new("GET", &path);
        plugin.on_request(&mut exchange).unwrap();
        assert!(exchange.path.starts_with('/'), "{path}: {}", exchange.path);
    }
}
