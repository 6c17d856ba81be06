use postern_plugin::mock;
use postern_plugin::mock::Exchange;

use super::*;

fn configured(config: &str) -> mock::Configured<RouteBy> {
    match mock::configure(config) {
        Ok(plugin) => plugin,
        Err(error) => panic!("{config}: {error}"),
    }
}

fn exchange(client: &str) -> Exchange {
    let mut exchange = Exchange::new("GET", "/x?y=1");
    exchange.upstreams = vec!["a".into(), "b".into()];
    exchange
        .attributes
        .insert("client.ip".into(), client.into());
    exchange
}

#[test]
fn the_first_rule_that_fits_decides() {
    let plugin = configured(
        r#"{ "rules": [
            { "header": "x-tenant", "value": "a", "upstream": "a" },
            { "header": "X-Tenant", "upstream": "b", "prefix": "/other/" },
            { "cookie": "beta", "value": "on", "prefix": "/beta" }
        ] }"#,
    );
    let cases = [
        ("x-tenant", "a", Some("a"), "/x?y=1"),
        ("x-tenant", "c", Some("b"), "/other/x?y=1"),
        ("x-tenant", "", Some("b"), "/other/x?y=1"),
        ("cookie", "a=1; beta=on", None, "/beta/x?y=1"),
        ("cookie", "beta=off", None, "/x?y=1"),
        ("accept", "a", None, "/x?y=1"),
    ];
    for (name, value, upstream, path) in cases {
        let mut exchange = exchange("192.0.2.1").header(name, value);
        assert_eq!(plugin.on_request(&mut exchange), Ok(Action::Next));
        assert_eq!(exchange.upstream.as_deref(), upstream, "{name}: {value}");
        assert_eq!(exchange.path, path, "{name}: {value}");
    }
}

#[test]
fn an_upstream_that_there_is_not_is_named() {
    let plugin = configured(r#"{ "rules": [{ "header": "x", "upstream": "c" }] }"#);
    let fault = plugin
        .on_request(&mut exchange("192.0.2.1").header("x", "1"))
        .unwrap_err();
    assert!(fault.to_string().contains("upstream c: "), "{fault}");
}

const BY_ADDRESS: &str = r#"{ "split": { "seed": "s", "sides": [
    { "name": "old", "weight": 90, "upstream": "a" }, { "name": "new", "weight": 10, "upstream": "b" }
] } }"#;

fn side(plugin: &mock::Configured<RouteBy>, mut exchange: Exchange) -> String {
    plugin.on_request(&mut exchange).unwrap();
    exchange.upstream.unwrap()
}

#[test]
fn weights_are_met_and_clients_stay() {
    let plugin = configured(BY_ADDRESS);
    let more = configured(&BY_ADDRESS.replace("90", "50").replace("10", "50"));
    let mut new = 0;
    for n in 0..5000_u32 {
        let client = std::net::Ipv4Addr::from(0x0A00_0000 + n).to_string();
        let chosen = side(&plugin, exchange(&client));
        assert_eq!(side(&plugin, exchange(&client)), chosen);
        if chosen == "b" {
            new += 1;
            // More weight takes nobody back.
            assert_eq!(side(&more, exchange(&client)), "b", "{client}");
        }
    }
    assert!((400..600).contains(&new), "{new}");
}

#[test]
fn a_key_decides_where_it_is_there() {
    let config = BY_ADDRESS.replace(r#""seed": "s""#, r#""by": { "header": "x-user" }"#);
    let plugin = configured(&config);
    for n in 0..200 {
        let user = format!("user-{n}");
        let one = side(&plugin, exchange("192.0.2.1").header("x-user", &user));
        let two = side(&plugin, exchange("198.51.100.7").header("x-user", &user));
        assert_eq!(one, two, "{user}");
    }
}

#[test]
fn the_choice_is_the_same_for_ever() {
    // Of another build, another machine: a change here moves visitors.
    let numbers = ["", "a", "visitor-17"].map(|key| stable("canary", key) % 100);
    assert_eq!(numbers, [66, 1, 96]);
}

#[test]
fn a_cookie_remembers() {
    let config = BY_ADDRESS.replace(
        r#""seed": "s""#,
        r#""remember": { "cookie": "side", "max-age": "1d" }"#,
    );
    let plugin = configured(&config);
    let mut seen = [0, 0];
    for _ in 0..500 {
        let mut first = exchange("192.0.2.1").header("cookie", "side=made-up");
        plugin.on_request(&mut first).unwrap();
        plugin.on_response(&mut first).unwrap();
        let cookie = first.response.get("set-cookie").unwrap();
        let name = if first.upstream.as_deref() == Some("b") {
            "new"
        } else {
            "old"
        };
        seen[usize::from(name == "new")] += 1;
        assert_eq!(
            cookie,
            format!("side={name}; Path=/; Max-Age=86400; SameSite=Lax; HttpOnly")
        );

        let mut second = exchange("192.0.2.1").header("cookie", &format!("side={name}"));
        plugin.on_request(&mut second).unwrap();
        plugin.on_response(&mut second).unwrap();
        assert_eq!(second.upstream, first.upstream);
        assert_eq!(second.response.get("set-cookie"), None);
    }
    assert!(seen[0] > 400 && seen[1] > 10, "{seen:?}");
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let sides = r#""sides": [{ "name": "a", "weight": 1, "upstream": "a" }]"#;
    let cases = [
        ("{}".to_owned(), "give `rules`, `split` or both"),
        (r#"{ "rules": [{ "upstream": "a" }] }"#.to_owned(), "rules[0]: give `header` or `cookie`"),
        (
            r#"{ "rules": [{ "header": "x", "cookie": "y", "upstream": "a" }] }"#.to_owned(),
            "rules[0]: `header` and `cookie` exclude",
        ),
        (r#"{ "rules": [{ "header": "x" }] }"#.to_owned(), "rules[0]: give `upstream`, `prefix`"),
        (r#"{ "split": {} }"#.to_owned(), "split.sides: is missing"),
        (
            r#"{ "split": { "sides": [{ "name": "a", "weight": 0 }] } }"#.to_owned(),
            "split: sides: one of them",
        ),
        (
            r#"{ "split": { "sides": [{ "name": "a", "weight": 1 }, { "name": "a", "weight": 1 }] } }"#
                .to_owned(),
            "split: sides: \"a\" is there twice",
        ),
        (
            format!(r#"{{ "split": {{ {sides}, "seed": "x", "remember": {{ "cookie": "c" }} }} }}"#),
            "split: `remember` excludes",
        ),
        (format!(r#"{{ "split": {{ {sides}, "by": {{ "header": 1 }} }} }}"#), "split.by.header: must be"),
        (format!(r#"{{ "split": {{ {sides} }}, "rule": [] }}"#), "rule: is not known"),
    ];
    for (config, want) in cases {
        let refusal = mock::configure::<RouteBy>(&config).err().unwrap();
        assert!(refusal.contains(want), "{config}: {refusal}");
    }
}
