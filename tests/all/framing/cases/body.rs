//! Where a body begins and ends: groups A, B and C.

use super::CHUNKS;
use super::Case;
use super::Must::*;
use super::SMUGGLED;
use super::TE;
use super::case;
use super::get;
use super::post;

pub(super) fn lengths() -> Vec<Case> {
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n\r\nhello"));
    vec![
        case(
            "A01",
            "twice the same",
            post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "A02",
            "twice, differing",
            post("Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
            Refuse,
        ),
        case("A03", "a list", length("5, 5"), Refuse),
        case("A05", "plus sign", length("+5"), Refuse),
        case("A06", "negative", length("-5"), Refuse),
        case("A07", "hexadecimal", length("0x5"), Refuse),
        case(
            "A09",
            "empty",
            post(&format!("Content-Length: \r\n\r\n{SMUGGLED}")),
            Refuse,
        ),
        case("A11", "2^64+5", length("18446744073709551621"), Refuse),
        case(
            "A12",
            "leading zeros",
            length("0000005"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "A14",
            "space before the colon",
            post("Content-Length : 5\r\n\r\nhello"),
            Refuse,
        ),
        case(
            "A15",
            "folded",
            post("Content-Length:\r\n 5\r\n\r\nhello"),
            Refuse,
        ),
        case(
            "A16",
            "underscore",
            post(&format!("Content_Length: 41\r\n\r\n{SMUGGLED}")),
            Refuse,
        ),
        case("A18", "NUL", length("5\0"), Refuse),
        case(
            "A20",
            "GET with a body",
            get("Content-Length: 5\r\n\r\nhello"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "A21",
            "GET with a chunked body",
            get(&format!("{TE}\r\n{CHUNKS}")),
            Body(b"hello"),
        ),
        case(
            "A22",
            "GET with a body that is no chunk",
            get(&format!("{TE}\r\n10000000000000005\r\nhello\r\n0\r\n\r\n")),
            Truncate,
        ),
    ]
}

pub(super) fn codings() -> Vec<Case> {
    let coding = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n\r\n{CHUNKS}"));
    vec![
        case(
            "B01",
            "length, then coding",
            post(&format!("Content-Length: 5\r\n{TE}\r\n0\r\n\r\n{SMUGGLED}")),
            RefuseOrOne,
        ),
        case(
            "B02",
            "coding, then length",
            post(&format!("{TE}Content-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}")),
            RefuseOrOne,
        ),
        case(
            "B03",
            "identity and length",
            post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
            Refuse,
        ),
        case(
            "B04",
            "unknown before chunked",
            coding("gzip, chunked"),
            Refuse,
        ),
        case(
            "B05",
            "chunked not last",
            coding("chunked, identity"),
            Refuse,
        ),
        case("B06", "unknown", coding("xchunked"), Refuse),
        case(
            "B07",
            "two fields",
            post(&format!("{TE}{TE}\r\n{CHUNKS}")),
            Refuse,
        ),
        case("B08", "chunked twice", coding("chunked, chunked"), Refuse),
        case(
            "B09",
            "leading comma",
            coding(",chunked"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "B11",
            "space before the colon",
            post(&format!("Transfer-Encoding : chunked\r\n\r\n{CHUNKS}")),
            Refuse,
        ),
        case("B12", "vertical tab", coding("\x0bchunked"), Refuse),
        case("B14", "any case", coding("cHuNkEd"), Body(b"hello")),
        case("B16", "a parameter", coding("chunked;q=1"), Refuse),
        case(
            "B17",
            "in HTTP/1.0",
            format!("POST / HTTP/1.0\r\nHost: a.test\r\n{TE}\r\n{CHUNKS}"),
            Refuse,
        ),
        case(
            "B18",
            "folded",
            post(&format!("Transfer-Encoding:\r\n chunked\r\n\r\n{CHUNKS}")),
            Refuse,
        ),
        case(
            "B19",
            "hidden in a fold",
            post(&format!("X-A: b\r\n {TE}Content-Length: 5\r\n\r\nhello")),
            Refuse,
        ),
        case(
            "B21",
            "underscore",
            post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"),
            Refuse,
        ),
        case(
            "B23",
            "behind a bare LF",
            post(&format!("X-A: b\n{TE}\r\n{CHUNKS}")),
            RefuseOrBody(b"hello"),
        ),
        case(
            "B24",
            "behind a bare CR",
            post(&format!("X-A: b\r{TE}\r\n{CHUNKS}")),
            Refuse,
        ),
        case(
            "B26",
            "identity, then chunked",
            post(&format!("Transfer-Encoding: identity\r\n{TE}\r\n{CHUNKS}")),
            Refuse,
        ),
    ]
}

pub(super) fn chunks() -> Vec<Case> {
    let chunked = |body: &str| post(&format!("{TE}\r\n{body}"));
    let mut cases = vec![
        case(
            "C01",
            "extension",
            chunked("5;a=b\r\nhello\r\n0\r\n\r\n"),
            Body(b"hello"),
        ),
        case(
            "C02",
            "70 kB extension",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(70_000))),
            Refuse,
        ),
        case(
            "C03",
            "space after the size",
            chunked("5 \r\nhello\r\n0\r\n\r\n"),
            RefuseOrBody(b"hello"),
        ),
        case("C05", "0x", chunked(&format!("0x{CHUNKS}")), Refuse),
        case("C06", "negative", chunked(&format!("-{CHUNKS}")), Refuse),
        case(
            "C09",
            "2^64+5",
            chunked(&format!("1000000000000000{CHUNKS}")),
            Refuse,
        ),
        case(
            "C10",
            "2^64-1",
            chunked("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
            Refuse,
        ),
        case(
            "C12",
            "bare LF after the size",
            chunked("5\nhello\r\n0\r\n\r\n"),
            Refuse,
        ),
        case(
            "C13",
            "bare LF after the data",
            chunked("5\r\nhello\n0\r\n\r\n"),
            Refuse,
        ),
        case(
            "C14",
            "no end of the data",
            chunked("5\r\nhello0\r\n\r\n"),
            Refuse,
        ),
        case(
            "C16",
            "bare LF in an extension",
            chunked("5;a\nhello\r\n0\r\n\r\n"),
            Refuse,
        ),
        case(
            "C17",
            "two CR",
            chunked("5\r\r;ABCD\r\nhello\r\n0\r\n\r\n"),
            Refuse,
        ),
        case("C18", "empty size", chunked("\r\n\r\n"), Refuse),
        case(
            "C19",
            "framing in a trailer",
            chunked("0\r\nContent-Length: 41\r\nX-T: 1\r\n\r\n"),
            RefuseOrOne,
        ),
        case(
            "C20",
            "authority in a trailer",
            chunked("0\r\nHost: evil.test\r\nAuthorization: x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"),
            RefuseOrOne,
        ),
        case(
            "C21",
            "a trailer like a request",
            chunked("0\r\nX:GET /smuggled HTTP/1.1\r\n\r\n"),
            RefuseOrOne,
        ),
        case(
            "C23",
            "NUL in an extension",
            chunked("5;\0\r\nhello\r\n0\r\n\r\n"),
            RefuseOrBody(b"hello"),
        ),
        case(
            "C25",
            "garbage, then a request",
            chunked(&format!("INVALID\r\n{SMUGGLED}")),
            Refuse,
        ),
    ];
    cases.push(Case {
        ends: true,
        ..case("C26", "cut short", chunked("5\r\nhel"), Truncate)
    });
    cases
}
