//! HTTP/1 on both sides of the gateway.

use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;

use super::harness;
use super::harness::Answer;
use super::harness::Outcome;
use super::http1;
use super::http1::Message;
use super::http1::Read;
use crate::upstream::recorder::Recorded;

/// Longest input: some heads of the largest size.
const MAX_INPUT: usize = 256 << 10;
/// A client that knows what it is doing.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// What a client sends, in one piece and in several. The connection ends, what goes upstream is
/// canonical (see [`super::oracle`]), and it does not depend on the pieces, except for where it
/// ends: a request that is answered before its body has come is the last one.
pub fn h1_edge(input: &[u8]) {
    if input.len() > MAX_INPUT {
        return;
    }
    harness::with(|harness| {
        let whole = harness.run(false, &[input], None);
        let split = harness.run(false, &pieces(input), None);
        let whole: Vec<_> = whole.complete().collect();
        let split: Vec<_> = split.complete().collect();
        assert!(
            whole.starts_with(&split) || split.starts_with(&whole),
            "what goes upstream depends on how the bytes arrive: {whole:?}, or {split:?}"
        );
    });
}

/// No request goes upstream that the bytes do not hold by our own reading, and none with another
/// body: V1 and V8.
pub fn h1_differential(input: &[u8]) {
    if input.len() > MAX_INPUT {
        return;
    }
    let outcome = harness::with(|harness| harness.run(false, &[input], None));
    let asked = http1::requests(input);
    let mut remaining = asked.iter();
    for sent in outcome.complete() {
        assert!(
            remaining.any(|asked| is_of(sent, asked)),
            "V1, V8: nobody asked for {sent:?}; what was asked: {asked:?}"
        );
    }
}

fn is_of(sent: &Recorded, asked: &Message) -> bool {
    let method = sent.line.split(' ').next().unwrap_or_default();
    if method != asked.method() || sent.body != asked.body {
        return false;
    }
    // The absolute form names the same path behind an authority.
    let target = asked.target();
    let target = target.split('#').next().unwrap_or_default();
    let target = match target.find("://") {
        Some(at) if !target.starts_with('/') => {
            let rest = &target[at + 3..];
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    let target = if target.starts_with('?') {
        format!("/{target}")
    } else {
        target.to_owned()
    };
    RequestPath::from_text(&target, EncodedSlash::Reject)
        .is_ok_and(|path| path.as_str() == sent.target())
}

/// Cuts at places that follow from the bytes, so that an input says all.
fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut state = input.iter().fold(0x9e37_79b9_u32, |state, &byte| {
        (state ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let mut rest = input;
    let mut pieces = Vec::new();
    // Few and large, or the many tiny ones that a slow client sends.
    let most = [1, 7, 64, 4096][state as usize % 4].max(input.len() / 512);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = ((state >> 16) as usize % most + 1).min(rest.len());
        let (piece, after) = rest.split_at(len);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// What an upstream answers. The client gets a whole response only if the upstream sent one, its
/// body and no more; the next client gets nothing of it.
pub fn h1_upstream_response(input: &[u8]) {
    if input.len() > MAX_INPUT {
        return;
    }
    for closes in [false, true] {
        harness::with(|harness| {
            let answer = Answer {
                bytes: input.to_vec(),
                closes,
            };
            let first = harness.run(false, &[REQUEST], Some(answer));
            faithful(&first, input, closes);
            let second = harness.run(false, &[REQUEST], None);
            let Read::Whole(got) = http1::response(&second.output, second.is_closed) else {
                panic!("the second client got {:?}", text(&second.output));
            };
            let is_own = got.status() == 200 && got.body == b"recorded";
            assert!(
                is_own && got.used == second.output.len(),
                "the second client got {:?}",
                text(&second.output)
            );
        });
    }
}

fn faithful(outcome: &Outcome, sent: &[u8], closes: bool) {
    let got = match http1::response(&outcome.output, outcome.is_closed) {
        Read::Whole(got) => got,
        // Not answered yet, or cut: that is seen for what it is.
        Read::Partial | Read::Cut => return,
        Read::Invalid => panic!("the client got {:?}", text(&outcome.output)),
    };
    assert_eq!(
        got.used,
        outcome.output.len(),
        "more than one response to one request: {:?}",
        text(&outcome.output)
    );
    assert!(
        got.status() >= 200,
        "an interim response that nobody asked for: {:?}",
        text(&outcome.output)
    );
    if got.status() >= 500 {
        // The gateway's own, or the upstream's: neither is taken for the other's success.
        return;
    }
    if outcome.complete().count() > 1 {
        // Asked once more, on a connection that begins with the next answer.
        assert_eq!(text(&got.body), "recorded");
        return;
    }
    match http1::response(sent, closes) {
        Read::Whole(answered) => {
            assert_eq!(got.status(), answered.status());
            assert_eq!(
                text(&got.body),
                text(&answered.body),
                "another body than the upstream's"
            );
        }
        Read::Cut | Read::Partial => panic!(
            "A10: a cut response looks whole: {:?} of {:?}",
            text(&outcome.output),
            text(sent)
        ),
        Read::Invalid => panic!(
            "passed on although it is no response: {:?} of {:?}",
            text(&outcome.output),
            text(sent)
        ),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
