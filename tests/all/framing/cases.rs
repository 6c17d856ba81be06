//! The inputs, and what each must come to.
//!
//! Groups: A length, B transfer coding, C chunks, D request line, E host, F path, G fields of a
//! connection, H upgrades, I fields and pipelines. Where a specification lets a recipient be
//! lenient, refusing is this gateway's policy.

mod body;

/// One input.
pub(super) struct Case {
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) must: Must,
    /// The client ends its direction after the bytes.
    pub(super) ends: bool,
}

/// What the gateway must make of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Must {
    /// One answer that says no, nothing upstream.
    Refuse,
    /// One request upstream, one answer.
    One,
    /// The same, with this body.
    Body(&'static [u8]),
    RefuseOrBody(&'static [u8]),
    RefuseOrOne,
    /// One request without these fields.
    Drop(&'static [&'static str]),
    /// No complete request upstream.
    Truncate,
    /// One request with this target.
    Target(&'static str),
    /// Routed as `/admin`, or refused.
    Admin,
    /// Each request on its own, in order.
    Sequence(&'static [&'static str]),
    OneThenRefuse,
    /// One request that says who the client is as the gateway saw it.
    OwnIdentity,
}

use Must::*;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
const TE: &str = "Transfer-Encoding: chunked\r\n";
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(body::lengths());
    cases.extend(body::codings());
    cases.extend(body::chunks());
    cases.extend(request_lines());
    cases.extend(hosts_and_paths());
    cases.extend(fields());
    cases
}

fn case(id: &'static str, what: &'static str, bytes: impl Into<Vec<u8>>, must: Must) -> Case {
    Case {
        id,
        what,
        bytes: bytes.into(),
        must,
        ends: false,
    }
}

fn post(rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}")
}

fn get(rest: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{rest}")
}

fn target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn request_lines() -> Vec<Case> {
    vec![
        case(
            "D01",
            "bare LF",
            "GET / HTTP/1.1\nHost: a.test\n\n",
            RefuseOrOne,
        ),
        case(
            "D02",
            "one empty line before",
            format!("\r\n{}", get("\r\n")),
            One,
        ),
        case(
            "D03",
            "10 kB of empty lines before",
            format!("{}{}", "\r\n".repeat(5000), get("\r\n")),
            RefuseOrOne,
        ),
        case(
            "D04",
            "two spaces",
            "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            Refuse,
        ),
        case(
            "D05",
            "tabs",
            "GET\t/\tHTTP/1.1\r\nHost: a.test\r\n\r\n",
            Refuse,
        ),
        case("D08", "HTTP/0.9", "GET /\r\n\r\n", Refuse),
        case("D11", "NUL in the target", target("/a\0b"), Refuse),
        case(
            "D14",
            "another host in the target",
            target("http://evil.test/x"),
            Refuse,
        ),
        case(
            "D15",
            "user in the target",
            target("http://u:p@a.test/x"),
            Refuse,
        ),
        case("D16", "authority alone", target("a.test:80"), Refuse),
        case(
            "D17",
            "CONNECT",
            "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            Refuse,
        ),
        case(
            "D18",
            "TRACE",
            "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            Refuse,
        ),
        case("D19", "asterisk", target("*"), Refuse),
        case("D20", "fragment", target("/a#b"), RefuseOrOne),
        case(
            "D22",
            "70 kB",
            target(&format!("/{}", "a".repeat(70_000))),
            Refuse,
        ),
        case("D23", "backslash", target("/a\\..\\b"), Refuse),
    ]
}

fn hosts_and_paths() -> Vec<Case> {
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    vec![
        case("E01", "no host", "GET / HTTP/1.1\r\n\r\n", Refuse),
        case("E03", "two hosts", get("Host: evil.test\r\n\r\n"), Refuse),
        case("E04", "a list of hosts", host("a.test, evil.test"), Refuse),
        case("E06", "user in the host", host("a.test@evil.test"), Refuse),
        case("E08", "port out of range", host("a.test:99999"), Refuse),
        case(
            "E12",
            "space before the first field",
            "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
            Refuse,
        ),
        case(
            "E13",
            "upper case and a dot at the end",
            host("A.TEST."),
            One,
        ),
        case("E15", "NUL in the host", host("a.test\0.evil.test"), Refuse),
        case("F01", "dot segments", target("/public/../admin"), Admin),
        case(
            "F02",
            "encoded dot segments",
            target("/public/%2e%2e/admin"),
            Admin,
        ),
        case("F03", "encoded slash", target("/public/..%2fadmin"), Refuse),
        case(
            "F04",
            "encoded twice",
            target("/public/%252e%252e/admin"),
            Target("/public/%252e%252e/admin"),
        ),
        case(
            "F05",
            "path parameter",
            target("/public/..;/admin"),
            RefuseOrOne,
        ),
        case("F05b", "parameter", target("/admin;a=1/x"), Admin),
        case("F05c", "encoded parameter", target("/admin%3Ba"), Admin),
        case("F06", "encoded NUL", target("/admin%00.png"), Refuse),
        case("F07", "two slashes", target("//admin"), Admin),
        case("F10", "encoded letter", target("/%61dmin"), Admin),
        case("F12", "malformed escape", target("/a%zz"), Refuse),
        case(
            "F15",
            "two dots after a name",
            target("/api../secret"),
            RefuseOrOne,
        ),
        case(
            "F18",
            "above the root",
            target("/../../../../etc/passwd"),
            RefuseOrOne,
        ),
    ]
}

fn fields() -> Vec<Case> {
    let mut non_utf8 = get("Connection: ").into_bytes();
    non_utf8.extend(b"\xff\xfe\r\n\r\n");
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let hops = "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
        Trailer: X-T\r\nProxy-Authorization: Basic eA==\r\n\r\n";
    let identity = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: evil.test\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\r\n";
    let two = "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut cases = vec![
        case(
            "G01",
            "connection names our fields",
            get("Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP\r\n\r\n"),
            OwnIdentity,
        ),
        case(
            "G02",
            "connection names a field",
            get("Connection: X-Custom\r\nX-Custom: v\r\n\r\n"),
            Drop(&["x-custom"]),
        ),
        case(
            "G03",
            "connection names the length",
            post("Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "G05",
            "connection names authorization",
            get("Connection: Authorization\r\nAuthorization: Bearer t\r\n\r\n"),
            RefuseOrOne,
        ),
        case(
            "G06",
            "fields of one connection",
            get(hops),
            Drop(&[
                "keep-alive",
                "proxy-connection",
                "te",
                "trailer",
                "proxy-authorization",
            ]),
        ),
        case("G08", "connection is no text", non_utf8, RefuseOrOne),
        case(
            "G09",
            "underscores",
            get("X_Forwarded_For: 9.9.9.9\r\nX_Real_IP: 9.9.9.9\r\n\r\n"),
            OwnIdentity,
        ),
        case("G10", "invented identity", get(identity), OwnIdentity),
        case(
            "G11",
            "proxy",
            get("Proxy: http://evil.test:1\r\n\r\n"),
            Drop(&["proxy"]),
        ),
        case(
            "H01",
            "h2c",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
            ),
            Drop(&["upgrade", "http2-settings"]),
        ),
        case(
            "H02",
            "unknown upgrade, then a request",
            get(&format!(
                "Connection: Upgrade\r\nUpgrade: foo\r\n\r\n{SMUGGLED}"
            )),
            Sequence(&["/", "/smuggled"]),
        ),
        case(
            "H03",
            "websocket that is refused, then a request",
            get(&format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{SMUGGLED}"
            )),
            Sequence(&["/", "/smuggled"]),
        ),
        case(
            "H04",
            "upgrade in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Drop(&["upgrade"]),
        ),
        case("I01", "NUL in a value", get("X-A: b\0c\r\n\r\n"), Refuse),
        case("I04", "empty name", get(": b\r\n\r\n"), Refuse),
        case("I05", "no colon", get("NoColonHere\r\n\r\n"), Refuse),
        case("I06", "folded", get("X-A: b\r\n folded\r\n\r\n"), Refuse),
        case(
            "I09",
            "70 kB field",
            get(&format!("X-A: {}\r\n\r\n", "a".repeat(70_000))),
            Refuse,
        ),
        case("I10", "500 fields", get(&format!("{many}\r\n")), Refuse),
        case(
            "I13",
            "expect with body",
            post("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
            Body(b"hello"),
        ),
        case(
            "I15",
            "expect with a body like a request",
            post(&format!(
                "Expect: 100-continue\r\nContent-Length: 40\r\n\r\n{SMUGGLED}"
            )),
            One,
        ),
        case("I16", "pipelined", two, Sequence(&["/1", "/2"])),
        case(
            "I17",
            "good, then bad",
            "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nBROKEN\r\n\r\n",
            OneThenRefuse,
        ),
    ];
    cases.push(Case {
        ends: true,
        ..case(
            "I20",
            "a terabyte announced",
            post("Content-Length: 1000000000000\r\n\r\na"),
            Truncate,
        )
    });
    cases
}
