use postern_plugin::callout::CallError;
use postern_plugin::mock;

use super::*;

const CONFIG: &str =
    r#"{ "upstream": "dns-api", "authorization": "key", "zones": ["a.test", "B.test."] }"#;

fn configure(config: &str) -> Result<mock::Configured<DnsHttp>, String> {
    let secret = b"Bearer of good news\n".to_vec();
    mock::gateway(|gateway| gateway.secrets.insert("key".to_owned(), secret));
    mock::configure(config)
}

fn record() -> TxtRecord {
    TxtRecord {
        name: "_acme-challenge.a.test".to_owned(),
        zone: "a.test".to_owned(),
        value: "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM".to_owned(),
        identifier: "a.test".to_owned(),
    }
}

fn answered(
    config: &str,
    answer: Result<u16, CallError>,
) -> (Result<Progress, String>, Result<(), String>, Vec<Call>) {
    let plugin = configure(config).unwrap();
    mock::gateway(|gateway| {
        gateway.calls.clear();
        gateway.on_callout(move |_| {
            answer.map(|status| Answer {
                status,
                headers: Vec::new(),
                body: b"{ \"error\":\n\"no such zone\" }".to_vec(),
            })
        });
    });
    let (present, cleanup) = (
        plugin.plugin().present(&record()),
        plugin.plugin().cleanup(&record()),
    );
    let calls = mock::gateway(|gateway| gateway.calls.clone());
    (present, cleanup, calls)
}

#[test]
fn a_record_is_told_as_the_api_wants_it() {
    let (present, cleanup, calls) = answered(CONFIG, Ok(200));
    assert!(matches!(present, Ok(Progress::Ready)), "{present:?}");
    assert_eq!(cleanup, Ok(()));
    let body = r#"{"fqdn":"_acme-challenge.a.test.","value":"LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"}"#;
    for (call, path) in calls.iter().zip(["/present", "/cleanup"]) {
        let seen = (call.upstream.as_str(), call.method.as_str(), &*call.path);
        assert_eq!(seen, ("dns-api", "POST", path));
        assert_eq!(String::from_utf8_lossy(&call.body), body);
        assert_eq!(call.timeout_ms, DEFAULT_TIMEOUT_MS);
    }

    let other = r#"{ "upstream": "x", "present": "/set-txt", "cleanup": "/clear-txt",
        "name-field": "host", "value-field": "a\"b", "timeout": "2s", "authorization": "key" }"#;
    let (_, _, calls) = answered(other, Ok(204));
    let paths: Vec<&str> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths, ["/set-txt", "/clear-txt"]);
    let body = String::from_utf8_lossy(&calls[0].body).into_owned();
    let want = r#"{"host":"_acme-challenge.a.test.","a\"b":"#;
    assert!(body.starts_with(want), "{body}");
    let field = ("authorization".to_owned(), "Bearer of good news".to_owned());
    assert!(calls[0].headers.contains(&field), "{:?}", calls[0].headers);
}

#[test]
fn what_went_wrong_is_told() {
    let (present, cleanup, _) = answered(CONFIG, Ok(422));
    let want = "to dns-api was answered 422: { \"error\": \"no such zone\" }";
    assert_eq!(present.err(), Some(format!("POST /present {want}")));
    assert_eq!(cleanup, Err(format!("POST /cleanup {want}")));
    let (present, cleanup, _) = answered(CONFIG, Err(CallError::Timeout));
    let present = present.err().unwrap();
    assert!(
        present.starts_with("POST /present to dns-api: "),
        "{present}"
    );
    assert!(cleanup.is_err());
}

#[test]
fn what_is_gone_already_is_clean() {
    for status in [404, 410] {
        let (present, cleanup, _) = answered(CONFIG, Ok(status));
        assert!(present.is_err());
        assert_eq!(cleanup, Ok(()));
    }
}

#[test]
fn zones_are_those_that_were_named_and_what_is_below() {
    let all = configure(r#"{ "upstream": "x", "authorization": "key" }"#).unwrap();
    let some = configure(CONFIG).unwrap();
    let cases = [
        ("a.test", true),
        ("A.test.", true),
        ("x.b.test", true),
        ("xb.test", false),
        ("test", false),
    ];
    for (zone, want) in cases {
        assert_eq!(some.plugin().supports(zone), want, "{zone}");
        assert!(all.plugin().supports(zone));
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let cases = [
        ("{}", "upstream: is missing"),
        (r#"{ "upstream": "x" }"#, "authorization: is missing"),
        (
            r#"{ "upstream": "x", "present": "set" }"#,
            "present: must be a path",
        ),
        (
            r#"{ "upstream": "x", "zones": ["*"] }"#,
            "zones[0]: must be the name of a zone",
        ),
        (
            r#"{ "upstream": "x", "name-field": "" }"#,
            "name-field: must be the name of a field",
        ),
        (
            r#"{ "upstream": "x", "timeout": "1h" }"#,
            "timeout: must be from 100ms to 50s",
        ),
        (
            r#"{ "upstream": "x", "authorization": "none" }"#,
            "authorization: there is no secret \"none\"; grant one with grants.secrets.none",
        ),
        (r#"{ "upstream": "x", "url": "y" }"#, "url: is not known"),
    ];
    for (config, want) in cases {
        let refusal = configure(config).err().unwrap();
        assert!(refusal.contains(want), "{config}: {refusal}");
    }
}
