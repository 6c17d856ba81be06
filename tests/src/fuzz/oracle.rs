//! What holds of every request that leaves the gateway, whatever came in.
//!
//! The invariants have the numbers V2 to V7 wherever they are spoken of. Of V1 (no request more
//! than was authorized) and V8 (nothing after a refusal) the caller takes care: it knows the input.

use postern_core::header::FieldKind;

use crate::upstream::recorder::Recorded;

/// The host that the gateway under test routes; every other is answered by the gateway itself.
pub(super) const HOST: &str = "a.test";

/// Names by which the gateway says who the client is, each of them once.
const OWN: [&str; 5] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
];

/// Panics unless the request is canonical. It came from 127.0.0.1, in clear text.
pub(super) fn check(request: &Recorded) {
    framing(request);
    host_and_target(request);
    fields(request);
}

/// V2. The recorder has refused what is neither of the two, or both.
fn framing(request: &Recorded) {
    for length in request.values("content-length") {
        let is_plain = length == "0" || !length.starts_with('0');
        assert!(
            is_plain && length.bytes().all(|b| b.is_ascii_digit()),
            "V2: length {length:?} of {request:?}"
        );
    }
    for name in request.trailers.iter().map(|(name, _)| name.to_lowercase()) {
        assert_eq!(
            FieldKind::of(&name),
            FieldKind::EndToEnd,
            "V2: trailer {name} of {request:?}"
        );
    }
}

/// V4 and V5.
fn host_and_target(request: &Recorded) {
    let hosts = request.values("host");
    let [host] = hosts.as_slice() else {
        panic!("V4: hosts {hosts:?} of {request:?}");
    };
    let port = host.strip_prefix(HOST).map(|rest| rest.strip_prefix(':'));
    let is_host = match port {
        Some(Some(port)) => port.parse::<u16>().is_ok_and(|p| p.to_string() == port),
        Some(None) => *host == HOST,
        None => false,
    };
    assert!(is_host, "V4: host {host:?} of {request:?}");
    let target = request.target();
    assert!(
        target.starts_with('/') && target.bytes().all(|b| b > 0x20 && b < 0x7f && b != b'#'),
        "V4: target {target:?}"
    );
    let path = target.split('?').next().unwrap_or_default();
    let is_plain = path
        .split('/')
        .all(|segment| segment != "." && segment != "..");
    let lower = path.to_lowercase();
    assert!(
        is_plain
            && !path.contains("//")
            && !path.contains('\\')
            && ["%2e", "%2f", "%5c", "%00"]
                .iter()
                .all(|e| !lower.contains(e)),
        "V5: path {path:?}"
    );
}

/// V3, V6 and V7.
fn fields(request: &Recorded) {
    for (name, value) in &request.fields {
        let lower = name.to_lowercase();
        // The recorder replaces what is no UTF-8, so only ASCII is judged here.
        assert!(
            value.chars().all(|c| c >= ' ' && c != '\x7f' || c == '\t'),
            "V3: {name}: {value:?}"
        );
        match FieldKind::of(&lower) {
            FieldKind::EndToEnd | FieldKind::Framing | FieldKind::Host => {}
            FieldKind::Identity => {
                assert!(OWN.contains(&lower.as_str()), "V7: {name} of {request:?}")
            }
            // What gRPC servers insist on, written by the gateway (RFC 9110, 10.1.4).
            FieldKind::HopByHop if lower == "te" && value == "trailers" => {}
            FieldKind::HopByHop | FieldKind::Expect | FieldKind::Underscore => {
                assert!(is_websocket(request), "V6: {name} of {request:?}");
            }
        }
    }
    let host = request.values("host");
    let own = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", host[0]),
    ];
    for (name, value) in own {
        assert_eq!(request.values(name), [value], "V7: {name} of {request:?}");
    }
    assert_eq!(
        request.values("x-forwarded-port").len(),
        1,
        "V7: {request:?}"
    );
}

/// The one upgrade that passes, with the fields that ask for it.
fn is_websocket(request: &Recorded) -> bool {
    let upgrade = request.values("upgrade");
    let connection = request.values("connection");
    matches!(upgrade.as_slice(), [u] if u.eq_ignore_ascii_case("websocket"))
        && matches!(connection.as_slice(), [c] if c.eq_ignore_ascii_case("upgrade"))
}
