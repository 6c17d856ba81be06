use super::*;

fn number(text: &str) -> Value {
    Value::Number(text.to_owned())
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn every_form_of_a_value_is_read() {
    let cases = [
        ("null", Value::Null),
        (" true ", Value::Bool(true)),
        ("0", number("0")),
        ("-1.5e+3", number("-1.5e+3")),
        (r#""""#, string("")),
        (r#""\"\\\/\b\f\n\r\t""#, string("\"\\/\u{8}\u{c}\n\r\t")),
        (r#""\u00e9\uD83d\ude00é""#, string("é😀é")),
        ("[]", Value::Array(vec![])),
        (
            "[1,\n[2]]",
            Value::Array(vec![number("1"), Value::Array(vec![number("2")])]),
        ),
        (
            r#"{"b":1, "a" : "x"}"#,
            Value::Object(vec![("a".into(), string("x")), ("b".into(), number("1"))]),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(Value::parse(text), Ok(want), "{text}");
    }
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let cases = [
        ("", 0, "ends too early"),
        ("nul", 0, "not a value"),
        ("'a'", 0, "not a value"),
        ("1 2", 2, "more than one"),
        ("01", 1, "more than one"),
        ("1.", 2, "digit"),
        ("-", 1, "digit"),
        ("1e", 2, "digit"),
        ("[1,]", 3, "not a value"),
        ("[1", 2, "`]`"),
        (r#"{"a":1,}"#, 7, "name"),
        (r#"{"a" 1}"#, 5, "`:`"),
        (r#"{"a":1,"a":2}"#, 13, "twice"),
        (r#"{a:1}"#, 1, "name"),
        ("\"a\nb\"", 2, "control"),
        (r#""a"#, 1, "does not end"),
        (r#""\x""#, 2, "escape"),
        (r#""\"#, 2, "escape"),
        (r#""\u12""#, 3, "hexadecimal"),
        (r#""\u12é4""#, 3, "hexadecimal"),
        (r#""\ud800""#, 7, "half"),
        (r#""\ud800\u0041""#, 13, "half"),
        (r#""\udc00""#, 7, "half"),
    ];
    for (text, at, reason) in cases {
        let error = Value::parse(text).unwrap_err();
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Value::parse(&nested(MAX_DEPTH + 1)).is_ok());
    for depth in [MAX_DEPTH + 2, 1_000_000] {
        let error = Value::parse(&nested(depth)).unwrap_err();
        assert_eq!(error.reason, "nested too deep");
    }
}

#[test]
fn values_are_looked_at_by_their_kind() {
    let value = Value::parse(r#"{"n": 7, "f": 7.5, "s": "x", "t": true, "l": [1]}"#).unwrap();
    assert_eq!(value.get("n").and_then(Value::as_u64), Some(7));
    assert_eq!(value.get("f").and_then(Value::as_u64), None);
    assert_eq!(value.get("s").and_then(Value::as_str), Some("x"));
    assert_eq!(value.get("t").and_then(Value::as_bool), Some(true));
    assert_eq!(
        value.get("l").and_then(Value::as_array).map(<[_]>::len),
        Some(1)
    );
    assert_eq!(value.get("x"), None);
    assert_eq!(value.get("n").and_then(|n| n.get("n")), None);
}

/// Texts made of the pieces that matter, from a fixed seed.
#[test]
fn no_text_panics() {
    const PIECES: [&str; 20] = [
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "d83d", "a", "é", "0", "-", ".", "e",
        "true", "null", " ", "\n",
    ];
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text.push_str(PIECES[(state >> 33) as usize % PIECES.len()]);
        }
        let _ = Value::parse(&text);
    }
}
