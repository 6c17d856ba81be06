//! Hostile upstream responses: refused with 502, passed on in one canonical form, or visibly cut.
//!
//! Each case runs twice over one gateway: what one client's exchange leaves behind must not reach
//! the next one.

use std::time::Duration;

use postern_tests::client::raw;
use postern_tests::client::raw::Answer;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;

use crate::support::upstream_table;

#[derive(Clone, Copy, Debug)]
enum Must {
    /// 502, and nothing of what the upstream sent.
    Bad,
    /// 200 with this body, whole.
    Whole(&'static str),
    /// This status without a body.
    Bare(u16),
    /// Bad, or whole.
    BadOr(&'static str),
    /// An answer that a client can see is not whole, or none, or 502.
    Cut,
    /// 200 with this body and without these words anywhere.
    Without(&'static str, &'static [&'static str]),
}

use Must::*;

struct Case {
    id: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
    must: Must,
}

fn case(id: &'static str, what: &'static str, bytes: impl Into<Vec<u8>>, must: Must) -> Case {
    Case {
        id,
        what,
        bytes: bytes.into(),
        must,
    }
}

fn ok(rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{rest}")
}

fn framing() -> Vec<Case> {
    let te = "Transfer-Encoding: chunked\r\n";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        case(
            "R01",
            "length and coding",
            ok(&format!("Content-Length: 5\r\n{te}\r\n{chunks}")),
            Bad,
        ),
        case(
            "R01b",
            "coding and length",
            ok(&format!("{te}Content-Length: 5\r\n\r\n{chunks}")),
            Bad,
        ),
        case(
            "R02",
            "two lengths",
            ok("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
            Bad,
        ),
        case(
            "R02b",
            "one length twice",
            ok("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R03",
            "a list of lengths",
            ok("Content-Length: 5, 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R04",
            "a signed length",
            ok("Content-Length: +5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R05",
            "more than the length",
            ok("Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
            Whole("hello"),
        ),
        case(
            "R06",
            "bare CR",
            ok("X-A: b\rContent-Length: 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R07",
            "bare LF",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            BadOr("hello"),
        ),
        case(
            "R08",
            "NUL in a value",
            ok("X-A: b\0c\r\nContent-Length: 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R09",
            "folded",
            ok("X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R10",
            "space before the colon",
            ok("Content-Length : 5\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R11",
            "less than the length",
            ok("Content-Length: 50\r\n\r\nhello"),
            Cut,
        ),
        case(
            "R12",
            "chunks without end",
            ok(&format!("{te}\r\n5\r\nhello\r\n")),
            Cut,
        ),
        case(
            "R13",
            "no chunk size",
            ok(&format!("{te}\r\nxyz\r\nhello\r\n0\r\n\r\n")),
            Cut,
        ),
        case(
            "R14",
            "gzip, chunked",
            ok(&format!("Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}")),
            Bad,
        ),
        case(
            "R15",
            "chunked in HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\n{te}\r\n{chunks}"),
            Bad,
        ),
        case(
            "R16",
            "204 with a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            Bare(204),
        ),
        case(
            "R17",
            "304 with a body",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
            Bare(304),
        ),
        case("R30", "until the end", ok("\r\nhello"), Whole("hello")),
        case(
            "R31",
            "2^64",
            ok("Content-Length: 18446744073709551621\r\n\r\nhello"),
            Bad,
        ),
        case(
            "R33",
            "framing in trailers",
            ok(&format!(
                "{te}\r\n5\r\nhello\r\n0\r\nContent-Length: 9\r\nSet-Cookie: evil=1\r\n\r\n"
            )),
            Without("hello", &["evil", "content-length: 9"]),
        ),
        case(
            "R34",
            "coding twice",
            ok(&format!("{te}{te}\r\n{chunks}")),
            Bad,
        ),
    ]
}

fn heads() -> Vec<Case> {
    let many = |count: usize| "X-A: b\r\n".repeat(count);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let whole = ok("Content-Length: 5\r\n\r\nhello");
    vec![
        case(
            "R18",
            "status 99",
            "HTTP/1.1 99 Odd\r\nContent-Length: 5\r\n\r\nhello",
            Bad,
        ),
        case(
            "R19",
            "status 1000",
            "HTTP/1.1 1000 Odd\r\nContent-Length: 5\r\n\r\nhello",
            Bad,
        ),
        case(
            "R20",
            "HTTP/2.0",
            "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Bad,
        ),
        case(
            "R21",
            "101 unasked",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello",
            Bad,
        ),
        case(
            "R22",
            "a few interim responses",
            format!("{}{whole}", interim.repeat(16)),
            Whole("hello"),
        ),
        case(
            "R22a",
            "one too many",
            format!("{}{whole}", interim.repeat(17)),
            Bad,
        ),
        case(
            "R22b",
            "3000 interim responses",
            format!("{}{whole}", interim.repeat(3000)),
            Bad,
        ),
        case("R23", "interim responses alone", interim.repeat(3000), Bad),
        case(
            "R24",
            "5000 fields",
            ok(&format!("{}Content-Length: 5\r\n\r\nhello", many(5000))),
            Bad,
        ),
        case(
            "R25",
            "1 MiB field",
            ok(&format!(
                "X-A: {}\r\nContent-Length: 5\r\n\r\nhello",
                "a".repeat(1 << 20)
            )),
            Bad,
        ),
        case(
            "R26",
            "fields of one connection",
            ok(
                "Connection: X-Secret\r\nX-Secret: leaked\r\nKeep-Alive: timeout=77\r\nProxy-Connection: odd\r\nContent-Length: 5\r\n\r\nhello",
            ),
            Without("hello", &["leaked", "timeout=77", "proxy-connection"]),
        ),
        case("R27", "nothing", "", Bad),
        case("R28", "half a line", "HTTP/1.1 2", Bad),
        case("R29", "garbage", "garbage\r\n\r\n", Bad),
        case(
            "R32",
            "control in the reason",
            "HTTP/1.1 200 O\x01K\r\nContent-Length: 5\r\n\r\nhello",
            Bad,
        ),
    ]
}

#[tokio::test]
async fn hostile_responses_are_refused_or_passed_on_in_one_form() {
    let mut wrong = Vec::new();
    for case in framing().into_iter().chain(heads()) {
        let app = Upstream::bytes(case.bytes.clone()).await;
        let config = format!(
            "[listeners.http]\nbind = \"127.0.0.1:0\"\n{}[[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
            upstream_table("app", app.addr)
                + "timeouts = { first-byte = \"5s\", body-idle = \"1s\" }\n"
        );
        let gateway = SetUp::new().start(&config).await;
        for round in ["first", "second"] {
            let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            let got = raw::exchange(gateway.addr("http"), request).await;
            if let Err(why) = judge(&case, &got) {
                let text = String::from_utf8_lossy(&got[..got.len().min(500)]).into_owned();
                wrong.push(format!(
                    "{} ({}), {round}: {why}: {text:?}",
                    case.id, case.what
                ));
            }
        }
        if !gateway.drain(Duration::from_secs(5)).await {
            wrong.push(format!("{}: something was left", case.id));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} deviations:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn judge(case: &Case, got: &[u8]) -> Result<(), String> {
    let answers = raw::answers(got);
    let last = answers
        .iter()
        .filter(|a| a.status >= 200)
        .collect::<Vec<_>>();
    let interim = answers.len() - last.len();
    if interim > 16 {
        return Err(format!("{interim} interim responses"));
    }
    if got.is_empty() && matches!(case.must, Cut) {
        return Ok(());
    }
    let [answer] = last.as_slice() else {
        return Err(format!("{} answers", last.len()));
    };
    let is_bad = answer.status == 502;
    let whole = whole(answer);
    let is_body = |body: &str| answer.status == 200 && whole.as_deref() == Some(body.as_bytes());
    let holds = match case.must {
        Bad => is_bad,
        Whole(body) => is_body(body),
        BadOr(body) => is_bad || is_body(body),
        Bare(status) => answer.status == status && answer.body.is_empty(),
        Cut => is_bad || (answer.status == 200 && whole.is_none()),
        Without(body, words) => {
            let text = String::from_utf8_lossy(got).to_lowercase();
            is_body(body) && !words.iter().any(|word| text.contains(word))
        }
    };
    if holds {
        Ok(())
    } else {
        Err(format!("must {:?}", case.must))
    }
}

/// The body, if a client can tell that it is whole.
fn whole(answer: &Answer) -> Option<Vec<u8>> {
    if let Some(length) = raw::field(&answer.head, "content-length") {
        let length: usize = length.parse().ok()?;
        return (answer.body.len() == length).then(|| answer.body.clone());
    }
    if raw::field(&answer.head, "transfer-encoding") != Some("chunked") {
        return None;
    }
    let mut body = Vec::new();
    let mut rest = answer.body.as_slice();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = rest.get(end + 2..)?;
        if size == 0 {
            return rest.ends_with(b"\r\n").then_some(body);
        }
        body.extend(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
