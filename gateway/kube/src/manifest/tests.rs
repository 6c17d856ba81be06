//! Reading manifests.

use serde_json::json;

use super::*;

fn values(text: &str) -> Vec<Value> {
    let (manifests, errors) = load(text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    manifests
        .into_iter()
        .map(|manifest| manifest.value)
        .collect()
}

#[test]
fn scalars_are_what_kubectl_takes_them_for() {
    let cases = [
        ("a: 80", json!({"a": 80})),
        ("a: '80'", json!({"a": "80"})),
        ("a: on", json!({"a": true})),
        ("a: ~", json!({"a": null})),
        ("a:", json!({"a": null})),
        ("a: 1.5", json!({"a": 1.5})),
        ("a: 10.0.0.1", json!({"a": "10.0.0.1"})),
        (
            "a: 2026-01-01T00:00:00Z",
            json!({"a": "2026-01-01T00:00:00Z"}),
        ),
        ("a:\n- ~", json!({"a": [null]})),
        ("a: !!str 80", json!({"a": "80"})),
        ("a: |\n  x\n  y\n", json!({"a": "x\ny\n"})),
        (
            "{\"a\": [1, {\"b\": \"c\"}]}",
            json!({"a": [1, {"b": "c"}]}),
        ),
        (
            "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}",
            json!({"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(values(text), [want], "{text}");
    }
}

#[test]
fn documents_and_lists_are_objects() {
    let text = "# nothing\n---\nkind: A\n---\n---\nkind: List\nitems:\n- kind: B\n  x: 1\n- kind: C\n---\nkind: DList\napiVersion: v1\nitems: [{x: 1}]\n";
    let want = [
        json!({"kind": "A"}),
        json!({"kind": "B", "x": 1}),
        json!({"kind": "C"}),
        json!({"kind": "D", "apiVersion": "v1", "x": 1}),
    ];
    assert_eq!(values(text), want);
}

#[test]
fn a_field_knows_its_place() {
    let text = "kind: List\nitems:\n- kind: A\n  metadata:\n    annotations:\n      a.b/c: x\n  spec:\n    rules:\n    - host: y\n";
    let (manifests, _) = load(text);
    let cases = [
        ("spec.rules[0].host", "host"),
        ("spec.rules[0].host.more", "host"),
        ("spec.rules[3].host", "rules"),
        ("metadata.annotations[a.b/c]", "a.b/c"),
        ("metadata.annotations[d.e/f]", "annotations"),
        ("nothing", "kind: A"),
    ];
    for (field, want) in cases {
        let place = manifests[0].place(field);
        assert!(
            text[place.start..].starts_with(want),
            "{field}: {:?}",
            &text[place]
        );
    }
}

#[test]
fn what_is_no_manifest_is_an_error_at_its_place() {
    let cases = [
        ("a: [1", "not YAML"),
        ("a: 1\na: 2", "the key a is there twice"),
        ("a: *x", "not YAML"),
        ("? [1]\n: 2", "a key has to be a text"),
        ("a: &x [*x]", "it repeats what holds it"),
    ];
    for (text, want) in cases {
        let (_, errors) = load(text);
        let found = errors.first().map(|error| error.message.as_str());
        assert!(
            found.is_some_and(|found| found.starts_with(want)),
            "{text}: {errors:?}"
        );
    }
}

#[test]
fn anchors_cannot_make_much_of_little() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = level - 1;
        let items = vec![format!("*a{last}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let (_, errors) = load(&text);
    assert!(errors[0].message.contains("values"), "{errors:?}");
    let (_, errors) = load(&"[".repeat(100_000));
    assert_eq!(errors.len(), 1, "{errors:?}");
}
