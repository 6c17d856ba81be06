//! HTTP/2 requests that an HTTP/1 upstream could read as something else: refused, or exactly one
//! canonical request.

use postern_tests::client::frames::Connection;
use postern_tests::client::frames::DATA;
use postern_tests::client::frames::END_HEADERS;
use postern_tests::client::frames::END_STREAM;
use postern_tests::client::frames::HEADERS;
use postern_tests::client::frames::Outcome;
use postern_tests::client::frames::RST_STREAM;
use postern_tests::client::frames::block;
use postern_tests::client::frames::frame;
use postern_tests::client::frames::headers;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::recorder::Recorded;
use postern_tests::upstream::recorder::Recorder;

use super::config;
use super::is_served;
use crate::framing::canonical;
use crate::support::until;

type Field = (&'static str, &'static [u8]);

const METHOD: Field = (":method", b"GET");
const POST: Field = (":method", b"POST");
const SCHEME: Field = (":scheme", b"http");
const AUTHORITY: Field = (":authority", b"a.test");
const PATH: Field = (":path", b"/");
const GET: [Field; 4] = [METHOD, SCHEME, AUTHORITY, PATH];

#[derive(Clone, Copy, Debug)]
enum Must {
    Refuse,
    /// One request with each of these fields exactly so; an empty value: without it.
    One(&'static [(&'static str, &'static str)]),
    /// Refused, or one request without these fields.
    RefuseOrDrop(&'static [&'static str]),
    /// No complete request, whatever the client is told.
    Truncate,
}

use Must::*;

struct Case {
    what: &'static str,
    fields: Vec<Field>,
    body: Vec<&'static [u8]>,
    trailers: Vec<Field>,
    must: Must,
}

fn with(what: &'static str, more: &[Field], must: Must) -> Case {
    plain(what, [&GET, more].concat(), must)
}

fn plain(what: &'static str, fields: Vec<Field>, must: Must) -> Case {
    Case {
        what,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        must,
    }
}

fn post(what: &'static str, more: &[Field], body: Vec<&'static [u8]>, must: Must) -> Case {
    Case {
        body,
        ..plain(
            what,
            [&[POST, SCHEME, AUTHORITY, PATH], more].concat(),
            must,
        )
    }
}

fn replaced(what: &'static str, field: Field, must: Must) -> Case {
    let fields = GET.map(|f| if f.0 == field.0 { field } else { f });
    plain(what, fields.to_vec(), must)
}

fn framing() -> Vec<Case> {
    vec![
        with(
            "transfer-encoding",
            &[("transfer-encoding", b"chunked")],
            Refuse,
        ),
        post(
            "transfer-encoding and a body like a request",
            &[("transfer-encoding", b"chunked")],
            vec![b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"],
            Refuse,
        ),
        post(
            "two lengths",
            &[("content-length", b"4"), ("content-length", b"5")],
            vec![b"body"],
            Refuse,
        ),
        post(
            "a signed length",
            &[("content-length", b"+4")],
            vec![b"body"],
            Refuse,
        ),
        post(
            "a list of lengths",
            &[("content-length", b"4, 4")],
            vec![b"body"],
            Refuse,
        ),
        post(
            "less than the length",
            &[("content-length", b"9")],
            vec![b"body"],
            Truncate,
        ),
        post(
            "more than the length",
            &[("content-length", b"0")],
            vec![b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"],
            Truncate,
        ),
        post(
            "a length on a body in pieces",
            &[("content-length", b"8")],
            vec![b"body", b"body"],
            One(&[]),
        ),
        post(
            "a body without length",
            &[],
            vec![b"body"],
            One(&[("transfer-encoding", "chunked")]),
        ),
        with("underscore length", &[("content_length", b"4")], Refuse),
    ]
}

fn bytes() -> Vec<Case> {
    vec![
        with("CRLF in a value", &[("x-a", b"b\r\nx-injected: 1")], Refuse),
        with("LF in a value", &[("x-a", b"b\nx-injected: 1")], Refuse),
        with("NUL in a value", &[("x-a", b"b\0c")], Refuse),
        replaced(
            "CRLF in the path",
            (":path", b"/ HTTP/1.1\r\nx-injected: 1\r\n"),
            Refuse,
        ),
        replaced("a space in the path", (":path", b"/ HTTP/1.1"), Refuse),
        replaced(
            "CRLF in the method",
            (":method", b"GET / HTTP/1.1\r\nx: "),
            Refuse,
        ),
        replaced("a space in the method", (":method", b"GET /x"), Refuse),
        replaced(
            "CRLF in the authority",
            (":authority", b"a.test\r\nx-injected: 1"),
            Refuse,
        ),
        replaced(
            "a space in the authority",
            (":authority", b"a.test x"),
            Refuse,
        ),
        replaced("an odd scheme", (":scheme", b"http://evil.test/?"), Refuse),
        with("an upper-case name", &[("X-Upper", b"1")], Refuse),
        with("a colon in a name", &[("x:a", b"1")], Refuse),
        with("a space in a name", &[("x a", b"1")], Refuse),
        with(
            "CRLF in a name",
            &[("x\r\nx-injected: 1\r\ny", b"1")],
            Refuse,
        ),
        with("an empty name", &[("", b"1")], Refuse),
        with(
            "space around a value",
            &[("x-a", b" b\t")],
            One(&[("x-a", "b")]),
        ),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        replaced("no slash", (":path", b"x"), Refuse),
        replaced("an empty path", (":path", b""), Refuse),
        replaced("absolute", (":path", b"http://evil.test/"), Refuse),
        replaced("dot segments", (":path", b"/a/../../b"), RefuseOrDrop(&[])),
        replaced("an encoded slash", (":path", b"/a%2fb"), Refuse),
        with("another host", &[("host", b"evil.test")], Refuse),
        with(
            "the same host",
            &[("host", b"a.test")],
            One(&[("host", "a.test")]),
        ),
        with(
            "two hosts",
            &[("host", b"a.test"), ("host", b"a.test")],
            Refuse,
        ),
        replaced("user in the authority", (":authority", b"u@a.test"), Refuse),
        plain("no host at all", vec![METHOD, SCHEME, PATH], Refuse),
        plain(
            "host alone",
            vec![METHOD, SCHEME, PATH, ("host", b"a.test")],
            One(&[("host", "a.test")]),
        ),
        plain(
            "CONNECT",
            vec![(":method", b"CONNECT"), (":authority", b"a.test:443")],
            Refuse,
        ),
        plain(
            "extended CONNECT",
            vec![
                (":method", b"CONNECT"),
                SCHEME,
                AUTHORITY,
                PATH,
                (":protocol", b"websocket"),
            ],
            Refuse,
        ),
        replaced("TRACE", (":method", b"TRACE"), Refuse),
        plain(
            "a pseudo-field twice",
            vec![METHOD, METHOD, SCHEME, AUTHORITY, PATH],
            Refuse,
        ),
        plain(
            "a late pseudo-field",
            vec![METHOD, SCHEME, PATH, ("x", b"1"), AUTHORITY],
            Refuse,
        ),
        with("an unknown pseudo-field", &[(":x", b"1")], Refuse),
        with(
            "a pseudo-field of responses",
            &[(":status", b"200")],
            Refuse,
        ),
    ]
}

fn fields() -> Vec<Case> {
    let mut cases = vec![
        with("connection", &[("connection", b"close")], Refuse),
        with("upgrade", &[("upgrade", b"websocket")], Refuse),
        with(
            "proxy-connection",
            &[("proxy-connection", b"close")],
            Refuse,
        ),
        with(
            "keep-alive",
            &[("keep-alive", b"5")],
            RefuseOrDrop(&["keep-alive"]),
        ),
        with("te: gzip", &[("te", b"gzip")], Refuse),
        with("te: trailers", &[("te", b"trailers")], One(&[("te", "")])),
        with(
            "cookies in crumbs",
            &[("cookie", b"a=1"), ("cookie", b"b=2"), ("cookie", b"c=3")],
            One(&[("cookie", "a=1; b=2; c=3")]),
        ),
        with(
            "invented identity",
            &[
                ("x-forwarded-for", b"9.9.9.9"),
                ("x-real-ip", b"9.9.9.9"),
                ("forwarded", b"for=9.9.9.9"),
            ],
            One(&[
                ("x-forwarded-for", "127.0.0.1"),
                ("x-real-ip", "127.0.0.1"),
                ("forwarded", ""),
            ]),
        ),
        with(
            "underscores",
            &[("x_forwarded_for", b"9.9.9.9")],
            RefuseOrDrop(&["x_forwarded_for"]),
        ),
        with(
            "h2c",
            &[("http2-settings", b"AAMAAABk")],
            RefuseOrDrop(&["http2-settings"]),
        ),
        with(
            "proxy",
            &[("proxy", b"http://evil.test")],
            RefuseOrDrop(&["proxy"]),
        ),
        with("expect", &[("expect", b"something")], Refuse),
    ];
    cases.push(Case {
        trailers: vec![
            ("x-checksum", b"1"),
            ("authorization", b"x"),
            ("content-length", b"9"),
            ("x-forwarded-for", b"9.9.9.9"),
        ],
        ..post(
            "trailers",
            &[],
            vec![b"body"],
            One(&[("authorization", ""), ("content-length", "")]),
        )
    });
    cases.push(Case {
        trailers: vec![(":path", b"/admin")],
        ..post(
            "a pseudo-field in trailers",
            &[],
            vec![b"body"],
            RefuseOrDrop(&[]),
        )
    });
    cases
}

#[tokio::test]
async fn hostile_requests_are_refused_or_become_one_canonical_request() {
    let mut cases = framing();
    cases.extend(bytes());
    cases.extend(targets());
    cases.extend(fields());
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(why) = check(case).await {
            wrong.push(format!("{}: {why}", case.what));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn a_request_whose_stream_is_reset_without_an_error_is_not_completed() {
    let recorder = Recorder::start().await;
    let gateway = SetUp::new().start(&config(recorder.addr, "")).await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    let post = [POST, SCHEME, AUTHORITY, PATH];
    let part = frame(DATA, 0, 1, b"part");
    let begun = [headers(1, END_HEADERS, &post), part.clone()].concat();
    connection.send(&begun).await;
    until("it has begun", || !recorder.seen().0.is_empty()).await;
    // In one segment: the gateway sees what comes last before it has sent what comes first.
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    connection.send(&[part, reset].concat()).await;
    is_served(&mut connection, 3, "the connection goes on").await;
    drop(connection);
    gateway.finish().await;
    let (requests, violations) = recorder.seen();
    let complete: Vec<&str> = requests
        .iter()
        .filter(|request| request.is_complete)
        .map(|request| request.line.as_str())
        .collect();
    assert_eq!(complete, ["GET /after HTTP/1.1"], "{requests:?}");
    assert!(violations.is_empty(), "{violations:?}");
}

async fn check(case: &Case) -> Result<(), String> {
    let recorder = Recorder::start().await;
    let settings = "timeouts = { body-idle = \"500ms\" }";
    let gateway = SetUp::new().start(&config(recorder.addr, settings)).await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    connection.send(&request(case)).await;
    let outcome = connection.outcome(1).await;
    drop(connection);
    gateway.finish().await;
    let (requests, violations) = recorder.seen();
    if !violations.is_empty() {
        return Err(format!("not well formed upstream: {violations:?}"));
    }
    let complete: Vec<&Recorded> = requests.iter().filter(|r| r.is_complete).collect();
    for request in &complete {
        canonical(request)?;
        if request.fields.iter().any(|(name, _)| name == "x-injected") {
            return Err("a field was injected".to_owned());
        }
    }
    judge(case, &outcome, &complete)
        .ok_or_else(|| format!("must {:?}: {outcome:?}, upstream {complete:?}", case.must))
}

fn request(case: &Case) -> Vec<u8> {
    let ends = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let is_short = case.body.is_empty() && case.trailers.is_empty();
    let mut bytes = headers(1, END_HEADERS | ends(is_short), &case.fields);
    for (index, piece) in case.body.iter().enumerate() {
        let is_last = index + 1 == case.body.len() && case.trailers.is_empty();
        bytes.extend(frame(DATA, ends(is_last), 1, piece));
    }
    if !case.trailers.is_empty() {
        let trailers = block(&case.trailers);
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers));
    }
    bytes
}

fn judge(case: &Case, outcome: &Outcome, complete: &[&Recorded]) -> Option<()> {
    let is_refused = outcome.is_refused() && complete.is_empty();
    let is_one = outcome.status == Some(200) && complete.len() == 1;
    let holds = match case.must {
        Refuse => is_refused,
        One(fields) => {
            is_one
                && complete[0].body == case.body.concat()
                && fields.iter().all(|(name, value)| match *value {
                    "" => complete[0].values(name).is_empty(),
                    value => complete[0].values(name) == [value],
                })
        }
        RefuseOrDrop(names) => {
            is_refused || (is_one && names.iter().all(|n| complete[0].values(n).is_empty()))
        }
        Truncate => complete.is_empty(),
    };
    holds.then_some(())
}
