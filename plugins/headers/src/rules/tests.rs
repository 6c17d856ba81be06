//! What the rules do, and which configurations are refused where.

use super::*;

fn edits(list: &RuleList, view: &[Option<&str>]) -> Vec<String> {
    let view: Vec<_> = view.iter().map(|v| v.map(str::to_owned)).collect();
    let mut edits = Vec::new();
    list.apply(&view, |edit| {
        edits.push(match edit {
            Edit::Set { name, value } => format!("set {name}={value}"),
            Edit::Add { name, value } => format!("add {name}={value}"),
            Edit::Remove { name } => format!("remove {name}"),
            Edit::Path { path } => format!("path {path}"),
            Edit::Deny { status, body } => format!("deny {status} {body}"),
        });
    });
    edits
}

#[test]
fn rules_apply_in_order_where_their_conditions_hold() {
    let config = r#"{
      "request": [
        { "when": { "path-prefix": "/admin", "header": "X-Api-Key", "absent": true },
          "deny": { "status": 401, "body": "no key" } },
        { "when": { "path-prefix": "/api" }, "rewrite": { "prefix": "/api", "with": "" },
          "set": { "X-Postern": "1" }, "remove": ["x-internal"] },
        { "when": { "method": "POST" }, "add": { "x-b": "2", "x-a": "1" } }
      ],
      "response": [ { "when": { "path-prefix": "/api" }, "remove": ["server"] } ]
    }"#;
    let rules = Rules::parse(config).unwrap();
    assert_eq!(rules.request.view(), [":path", "x-api-key", ":method"]);
    assert_eq!(rules.response.view(), ["req.:path"]);
    let cases: [(&[Option<&str>], &[&str]); 5] = [
        (&[Some("/"), None, Some("GET")], &[]),
        (
            &[Some("/admin?a"), None, Some("POST")],
            &["deny 401 no key"],
        ),
        (&[Some("/admin"), Some("k"), Some("GET")], &[]),
        (&[Some("/administrator"), None, Some("GET")], &[]),
        (
            &[Some("/api/v1?q=/api"), None, Some("POST")],
            &[
                "remove x-internal",
                "set x-postern=1",
                "path /v1?q=/api",
                "add x-a=1",
                "add x-b=2",
            ],
        ),
    ];
    for (view, want) in cases {
        assert_eq!(edits(&rules.request, view), want, "{view:?}");
    }
    assert_eq!(edits(&rules.response, &[Some("/api")]), ["remove server"]);
}

#[test]
fn a_later_rule_sees_the_path_that_an_earlier_one_wrote() {
    let config = r#"{ "request": [
        { "rewrite": { "prefix": "/a", "with": "/b" } },
        { "when": { "path-prefix": "/b" }, "set": { "x-seen": "b" } } ] }"#;
    let rules = Rules::parse(config).unwrap();
    assert_eq!(
        edits(&rules.request, &[Some("/a/c")]),
        ["path /b/c", "set x-seen=b"]
    );
}

#[test]
fn a_rewrite_keeps_a_path_a_path() {
    let cases = [
        ("/api", "", "/api", Some("/")),
        ("/api", "", "/api?q", Some("/?q")),
        ("/api", "", "/api/", Some("/")),
        ("/api", "/", "/api/x", Some("/x")),
        ("/api/", "", "/api/x", Some("/x")),
        ("/api/", "/v1/", "/api/x", Some("/v1/x")),
        ("/api", "/v1", "/api", Some("/v1")),
        ("/api", "/v1", "/api?q", Some("/v1?q")),
        ("/", "/v1", "/x", Some("/v1/x")),
        ("/api", "/v1", "/apis", None),
    ];
    for (prefix, with, path, want) in cases {
        let got = rewritten(path, prefix, with);
        assert_eq!(got.as_deref(), want, "{prefix} {with} {path}");
    }
}

#[test]
fn conditions_on_a_field() {
    let rules = |when: &str| {
        let config =
            format!(r#"{{ "response": [ {{ "when": {{ {when} }}, "set": {{ "x": "1" }} }} ] }}"#);
        Rules::parse(&config).unwrap()
    };
    let cases = [
        (r#""header": "a""#, Some("v"), true),
        (r#""header": "a""#, None, false),
        (r#""header": "a", "absent": false"#, Some("v"), true),
        (r#""header": "a", "absent": true"#, None, true),
        (r#""header": "a", "value": "v""#, Some("v"), true),
        (r#""header": "a", "value": "v""#, Some("w"), false),
    ];
    for (when, value, want) in cases {
        let applied = !edits(&rules(when).response, &[value]).is_empty();
        assert_eq!(applied, want, "{when} {value:?}");
    }
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    let cases = [
        ("", "", "not JSON"),
        ("[]", "", "must be an object"),
        (r#"{ "requests": [] }"#, "", "`requests` is not known"),
        (r#"{ "request": {} }"#, "request", "must be a list"),
        (r#"{ "request": [1] }"#, "request[0]", "must be an object"),
        (r#"{ "request": [{}] }"#, "request[0]", "needs one of"),
        (
            r#"{ "request": [{ "set": { "a b": "c" } }] }"#,
            "request[0].set.a b",
            "not a field name",
        ),
        (
            r#"{ "request": [{ "set": { "x": "a\r\nb" } }] }"#,
            "request[0].set.x",
            "control",
        ),
        (
            r#"{ "request": [{ "set": { "x": 1 } }] }"#,
            "request[0].set.x",
            "must be a text",
        ),
        (
            r#"{ "response": [{ "remove": ["a", "Content-Length"] }] }"#,
            "response[0].remove[1]",
            "writes this field itself",
        ),
        (
            r#"{ "request": [{ "when": { "path": "/" }, "remove": ["a"] }] }"#,
            "request[0].when",
            "`path` is not known",
        ),
        (
            r#"{ "request": [{ "when": {}, "remove": ["a"] }] }"#,
            "request[0].when",
            "no condition",
        ),
        (
            r#"{ "request": [{ "when": { "absent": true }, "remove": ["a"] }] }"#,
            "request[0].when",
            "need a header",
        ),
        (
            r#"{ "request": [{ "when": { "path-prefix": "a" }, "remove": ["a"] }] }"#,
            "request[0].when.path-prefix",
            "begins with '/'",
        ),
        (
            r#"{ "request": [{ "rewrite": { "prefix": "/a" } }] }"#,
            "request[0].rewrite.with",
            "is missing",
        ),
        (
            r#"{ "response": [{ "rewrite": { "prefix": "/a", "with": "" } }] }"#,
            "response[0].rewrite",
            "no path",
        ),
        (
            r#"{ "request": [{ "deny": { "status": 200 } }] }"#,
            "request[0].deny.status",
            "400 to 599",
        ),
    ];
    for (config, place, message) in cases {
        let problem = Rules::parse(config).unwrap_err();
        assert_eq!(problem.place, place, "{config}");
        assert!(problem.message.contains(message), "{config}: {problem}");
    }
}
