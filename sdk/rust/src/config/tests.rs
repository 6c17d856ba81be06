use super::*;

/// Everything that is wrong with `text`, read by `make`.
fn problems<T>(text: &str, make: impl FnOnce(&Section<'_>) -> Option<T>) -> String {
    read(text, make).err().unwrap_or_default()
}

#[test]
fn each_kind_of_value_is_read_or_refused() {
    type Read = fn(Item<'_>) -> Option<String>;
    let text: Read = |item| item.text();
    let flag: Read = |item| item.flag().map(|flag| flag.to_string());
    let number: Read = |item| item.number(1..=9).map(|number| number.to_string());
    let time: Read = |item| item.duration_ms(1000..=86_400_000).map(|ms| ms.to_string());
    let name: Read = |item| item.field_name();
    let value: Read = |item| item.field_value();
    let path: Read = |item| item.path();
    let choice: Read = |item| item.one_of(&[("a", "1"), ("b", "2")]).map(str::to_owned);
    let cases: [(&str, Read, Result<&str, &str>); 29] = [
        (r#""x""#, text, Ok("x")),
        ("1", text, Err("k: must be a text")),
        ("true", flag, Ok("true")),
        (r#""true""#, flag, Err("k: must be true or false")),
        ("9", number, Ok("9")),
        ("0", number, Err("from 1 to 9")),
        ("1.5", number, Err("from 1 to 9")),
        ("-1", number, Err("from 1 to 9")),
        (r#""1""#, number, Err("from 1 to 9")),
        (r#""5s""#, time, Ok("5000")),
        (r#""1 d""#, time, Ok("86400000")),
        (r#""999ms""#, time, Err("from 1s to 1d")),
        (r#""2d""#, time, Err("from 1s to 1d")),
        (r#""99999999999999999999s""#, time, Err("with its unit")),
        ("5", time, Err("with its unit")),
        (r#""X-A""#, name, Ok("x-a")),
        (r#""x a""#, name, Err("not a field name")),
        (r#""""#, name, Err("not a field name")),
        (r#""Content-Length""#, name, Err("writes this field")),
        (r#""a b""#, value, Ok("a b")),
        (r#""a\nb""#, value, Err("control")),
        (r#"" a""#, value, Err("space at its ends")),
        (r#""/a/b""#, path, Ok("/a/b")),
        (r#""a""#, path, Err("begins with `/`")),
        (r#""/a?b""#, path, Err("begins with `/`")),
        (r#""/a b""#, path, Err("begins with `/`")),
        (r#""b""#, choice, Ok("2")),
        (r#""c""#, choice, Err(r#"one of "a", "b""#)),
        ("1", choice, Err(r#"one of "a", "b""#)),
    ];
    for (given, kind, want) in cases {
        let got = read(&format!(r#"{{ "k": {given} }}"#), |config| {
            kind(config.get("k"))
        });
        match (&got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{given}"),
            (Err(got), Err(want)) => assert!(got.contains(want), "{given}: {got}"),
            _ => panic!("{given}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn every_problem_is_told_with_its_place() {
    let text = r#"{ "rules": [ { "to": "x" }, { "from": 1, "too": 2 }, 3 ], "b": {"x y": "a", "y": "b\n"} }"#;
    let told = problems(text, |config| {
        config.get("rules").list(|item| {
            item.section(|rule| {
                let (from, to) = (rule.need("from").text(), rule.need("to").text());
                Some((from?, to?))
            })
        });
        config.get("b").fields();
        Some(())
    });
    assert_eq!(
        told,
        "rules[0].from: is missing; rules[1].from: must be a text; rules[1].to: is missing; \
         rules[1].too: is not known here; known are from, to; rules[2]: must be an object; \
         b.x y: not a field name; b.y: a value has no control characters and no space at its ends"
    );
}

#[test]
fn a_configuration_is_an_object_of_known_keys() {
    let nothing = |_: &Section<'_>| Some(());
    assert_eq!(problems("{}", nothing), "");
    assert_eq!(problems("[]", nothing), "must be an object");
    assert_eq!(
        problems("{", nothing),
        "not JSON: a name is missing at byte 1"
    );
    assert_eq!(
        problems(r#"{"a":1}"#, nothing),
        "a: is not known here; there are no keys"
    );
    let many: Vec<String> = (0..100).map(|n| format!(r#""k{n}":0"#)).collect();
    let told = problems(&format!("{{{}}}", many.join(",")), nothing);
    assert_eq!(told.matches("is not known").count(), MAX_PROBLEMS);
}

#[test]
fn what_is_not_given_is_no_problem() {
    let made = read("{}", |config| {
        assert!(!config.get("a").is_given());
        let list = config.get("b").list(Item::text);
        let section = config.get("c").section(|_| Some(()));
        Some(list.is_none() && section.is_none() && config.get("d").fields().is_none())
    });
    assert_eq!(made, Ok(true));
}
