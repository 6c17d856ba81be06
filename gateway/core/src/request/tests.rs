//! What is refused, and what the canonical request looks like.

use super::*;

fn parse(
    method: &str,
    target: &str,
    version: Version,
    fields: &[(&str, &str)],
) -> Result<RequestHead, RequestError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    RequestHead::parse(
        method.parse().unwrap(),
        &target.parse().unwrap(),
        version,
        headers,
        Scheme::Http,
        RequestRules::default(),
    )
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    use RequestError as E;
    const H: (&str, &str) = ("host", "a.test");
    let cases: [(&str, &str, &[(&str, &str)], RequestError); 18] = [
        ("CONNECT", "/", &[H], E::Method(RefusedMethod::Connect)),
        ("TRACE", "/", &[H], E::Method(RefusedMethod::Trace)),
        ("GET", "*", &[H], E::TargetForm),
        ("GET", "a.test:80", &[H], E::TargetForm),
        ("GET", "/", &[], E::NoHost),
        ("GET", "/", &[H, ("host", "a.test")], E::Hosts),
        ("GET", "http://evil.test/x", &[H], E::Hosts),
        (
            "GET",
            "http://u:p@a.test/x",
            &[H],
            E::Host(HostnameError::UserInfo),
        ),
        (
            "GET",
            "/",
            &[("host", "a.test:99999")],
            E::Host(HostnameError::Port),
        ),
        ("GET", "/a%2fb", &[H], E::Path(PathError::EncodedSlash)),
        (
            "POST",
            "/",
            &[H, ("content-length", "5"), ("content-length", "5")],
            E::ContentLength,
        ),
        (
            "POST",
            "/",
            &[H, ("content-length", "5, 5")],
            E::ContentLength,
        ),
        (
            "POST",
            "/",
            &[H, ("transfer-encoding", "gzip, chunked")],
            E::TransferEncoding,
        ),
        (
            "POST",
            "/",
            &[H, ("transfer-encoding", ",chunked")],
            E::TransferEncoding,
        ),
        ("POST", "/", &[H, ("content_length", "5")], E::FramingTwin),
        (
            "POST",
            "/",
            &[H, ("transfer_encoding", "chunked")],
            E::FramingTwin,
        ),
        (
            "GET",
            "/",
            &[H, ("connection", "authorization")],
            E::Nomination,
        ),
        (
            "GET",
            "/",
            &[H, ("expect", "the-unexpected")],
            E::Expectation,
        ),
    ];
    for (method, target, fields, want) in cases {
        let got = parse(method, target, Version::HTTP_11, fields);
        assert_eq!(got.err(), Some(want), "{method} {target} {fields:?}");
    }
}

#[test]
fn only_end_to_end_fields_remain() {
    let head = parse(
        "GET",
        "/%61/../b",
        Version::HTTP_11,
        &[
            ("host", "A.Test."),
            ("connection", "upgrade, x-gone"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
            ("te", "gzip"),
            ("proxy", "http://evil.test"),
            ("transfer-encoding", "cHuNkEd"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x_forwarded_for", "9.9.9.9"),
            ("x-gone", "1"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "*/*"),
        ],
    )
    .unwrap();
    let mut left: Vec<_> = head
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [("accept", "*/*"), ("cookie", "a=1; b=2")]);
    assert_eq!(
        (head.authority.as_str(), head.path.as_str()),
        ("a.test", "/b")
    );
    assert!(!head.is_websocket && !head.takes_trailers);
}

#[test]
fn a_websocket_is_asked_for_in_http_1_1_only() {
    let fields = [
        ("host", "a.test"),
        ("connection", "Upgrade"),
        ("upgrade", "WebSocket"),
    ];
    for (version, want) in [(Version::HTTP_11, true), (Version::HTTP_10, false)] {
        let head = parse("GET", "/", version, &fields).unwrap();
        assert_eq!(head.is_websocket, want, "{version:?}");
    }
}

#[test]
fn an_authority_in_the_target_counts_like_a_host() {
    let head = parse(
        "GET",
        "https://A.test:443/x?y",
        Version::HTTP_2,
        &[("te", "trailers")],
    )
    .unwrap();
    assert_eq!(head.authority.as_str(), "a.test:443");
    assert_eq!(head.path.as_str(), "/x?y");
    assert!(head.takes_trailers);
}
