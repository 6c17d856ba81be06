//! Each budget at its limit and one past it, wherever the bytes are cut.

use postern_core::config::listener::Http2Limits;

use super::outbound::Outbound;
use super::*;

const WINDOW: u64 = 500;
const FIELDS: u32 = 100;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn greeted() -> Frames {
    let mut frames = Frames::new(&Http2Limits::default(), FIELDS);
    frames.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).unwrap();
    assert!(!frames.is_greeted());
    frames
}

/// How many of these in a row are let through, and what the next one is called.
fn let_through(frames: &mut Frames, now: u64, bytes: impl Fn(u32) -> Vec<u8>) -> (u32, Abuse) {
    for index in 0..100_000 {
        if let Err(abuse) = frames.feed(&bytes(index), now) {
            return (index, abuse);
        }
    }
    panic!("no limit was found");
}

#[test]
fn each_budget_is_let_through_and_not_one_more() {
    let ids = |index: u32| 2 * index + 1;
    let open_and_reset = |index| {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, ids(index), b"\x82");
        [head, frame(RST_STREAM, 0, ids(index), &[0, 0, 0, 8])].concat()
    };
    let cases: [(&str, &dyn Fn(u32) -> Vec<u8>, u32, Abuse); 11] = [
        ("rapid reset", &open_and_reset, 50, Abuse::Resets),
        (
            "resets of nothing",
            &|_| frame(RST_STREAM, 0, 1, &[0; 4]),
            100,
            Abuse::LateResets,
        ),
        (
            "settings",
            &|_| frame(SETTINGS, 0, 0, &[]),
            50,
            Abuse::Settings,
        ),
        ("ping", &|_| frame(PING, 0, 0, &[0; 8]), 100, Abuse::Pings),
        (
            "priority",
            &|_| frame(2, 0, 1, &[0; 5]),
            100,
            Abuse::Priorities,
        ),
        (
            "unknown",
            &|_| frame(0x77, 0, 0, b"x"),
            100,
            Abuse::Priorities,
        ),
        (
            "window update of the connection",
            &|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            100,
            Abuse::WindowUpdates,
        ),
        (
            "window update of a stream",
            &|_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            100,
            Abuse::WindowUpdates,
        ),
        (
            "continuation",
            &|_| frame(CONTINUATION, 0, 1, b""),
            20,
            Abuse::Continuations,
        ),
        (
            "fields, in one section",
            &|index| {
                let kind = if index == 0 { HEADERS } else { CONTINUATION };
                frame(kind, 0, 1, &[0x82; 20])
            },
            10,
            Abuse::Fields,
        ),
        (
            "empty data",
            &|_| frame(DATA, 0, 1, b""),
            100,
            Abuse::EmptyData,
        ),
    ];
    for (what, bytes, limit, abuse) in cases {
        let mut frames = greeted();
        assert_eq!(let_through(&mut frames, 0, bytes), (limit, abuse), "{what}");
    }
}

#[test]
fn a_budget_in_a_window_is_there_again_in_the_next() {
    let mut frames = greeted();
    for now in [0, 2 * WINDOW, 4 * WINDOW] {
        for _ in 0..100 {
            frames.feed(&frame(PING, 0, 0, &[0; 8]), now).unwrap();
        }
    }
}

#[test]
fn data_and_padding() {
    // Padding is no data.
    let mut frames = greeted();
    let padded = |_| frame(DATA, PADDED, 1, &[3, 0, 0, 0]);
    assert_eq!(let_through(&mut frames, 0, padded), (100, Abuse::EmptyData));
    // One byte is, and so is the end.
    let mut frames = greeted();
    for _ in 0..3 {
        for _ in 0..100 {
            frames.feed(&frame(DATA, 0, 1, b""), 0).unwrap();
        }
        frames.feed(&frame(DATA, PADDED, 1, &[1, 7, 0]), 0).unwrap();
        for _ in 0..100 {
            frames.feed(&frame(DATA, 0, 1, b""), 0).unwrap();
        }
        frames.feed(&frame(DATA, END_STREAM, 1, b""), 0).unwrap();
    }
}

#[test]
fn what_was_sent_entitles_to_answers() {
    let mut frames = greeted();
    let mut outbound = Outbound::default();
    for _ in 0..1000 {
        let piece = frame(DATA, 0, 1, &[0; 16384]);
        outbound.feed(&piece, |sent| frames.sent(sent));
    }
    for _ in 0..1000 {
        // As Go does: for each 4 KiB, for the stream and for the connection.
        for _ in 0..4 {
            frames
                .feed(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 16, 0]), 0)
                .unwrap();
            frames
                .feed(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 16, 0]), 0)
                .unwrap();
        }
        frames.feed(&frame(PING, 0, 0, &[0; 8]), 0).unwrap();
    }
}

#[test]
fn a_reset_after_the_response_began_is_not_an_early_one() {
    let mut frames = greeted();
    let mut outbound = Outbound::default();
    for index in 0..1000 {
        let id = 2 * index + 1;
        let head = frame(HEADERS, END_HEADERS, id, b"\x82");
        frames.feed(&head, 0).unwrap();
        assert_eq!(frames.unfinished(), 1);
        outbound.feed(&frame(HEADERS, END_HEADERS, id, b"\x88"), |s| {
            frames.sent(s)
        });
        if index % 2 == 0 {
            outbound.feed(&frame(DATA, END_STREAM, id, b"ok"), |s| frames.sent(s));
            assert_eq!(frames.unfinished(), 0);
        }
        frames
            .feed(&frame(RST_STREAM, 0, id, &[0, 0, 0, 8]), 0)
            .unwrap();
        assert_eq!(frames.unfinished(), 0);
    }
}

#[test]
fn streams_behind_a_goaway_are_not_remembered_and_cost_the_client() {
    let mut frames = greeted();
    let mut outbound = Outbound::default();
    frames
        .feed(&frame(HEADERS, END_HEADERS, 1, b"\x82"), 0)
        .unwrap();
    // The first of two says that a last one follows (RFC 9113, 6.8).
    let goaway = |last: u32| {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        frame(GOAWAY, 0, 0, &payload)
    };
    outbound.feed(&goaway(0x7fff_ffff), |sent| frames.sent(sent));
    frames
        .feed(&frame(HEADERS, END_HEADERS, 3, b"\x82"), 0)
        .unwrap();
    outbound.feed(&goaway(3), |sent| frames.sent(sent));
    assert_eq!(frames.unfinished(), 2);
    let ignored = |index| frame(HEADERS, END_HEADERS, 2 * index + 5, b"\x82");
    // The two before bring in one each.
    assert_eq!(
        let_through(&mut frames, 0, ignored),
        (102, Abuse::Priorities)
    );
    assert_eq!(frames.unfinished(), 2);
    assert_eq!(frames.last_opened(), 3);
}

#[test]
fn resets_that_were_provoked_are_counted_and_others_not() {
    let mut frames = greeted();
    let mut outbound = Outbound::default();
    for index in 0..201 {
        assert_eq!(frames.abuse_by_answers(), None, "{index}");
        for code in [7, 8, 2, 0] {
            let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, code]);
            outbound.feed(&reset, |sent| frames.sent(sent));
        }
    }
    assert_eq!(frames.abuse_by_answers(), Some(Abuse::Faults));
}

#[test]
fn frames_are_found_wherever_the_bytes_are_cut() {
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[0; 12]),
        frame(HEADERS, END_STREAM, 1, b"\x82\x86"),
        frame(CONTINUATION, END_HEADERS, 1, b"\x84"),
        frame(HEADERS, END_HEADERS, 3, b"\x82"),
        frame(DATA, PADDED, 3, &[2, 1, 0, 0]),
    ]
    .concat();
    for step in 1..=bytes.len() {
        let mut frames = Frames::new(&Http2Limits::default(), FIELDS);
        let mut was_open = false;
        for part in bytes.chunks(step) {
            frames.feed(part, 0).unwrap();
            was_open |= frames.is_head_open();
        }
        assert!(frames.is_greeted(), "{step}");
        assert_eq!(frames.unfinished(), 2, "{step}");
        assert_eq!(frames.last_opened(), 3, "{step}");
        assert!(!frames.is_head_open(), "{step}");
        assert!(was_open || step > 11, "{step}");
    }
}

#[test]
fn what_is_sent_is_read_wherever_it_is_cut() {
    let bytes = [
        frame(SETTINGS, 0, 0, &[0; 6]),
        frame(DATA, 0, 1, b"twelve bytes"),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11, 100, 101]),
    ]
    .concat();
    for step in 1..=bytes.len() {
        let mut outbound = Outbound::default();
        let mut kinds = Vec::new();
        for part in bytes.chunks(step) {
            outbound.feed(part, |sent| kinds.push(sent.head.kind));
        }
        assert_eq!(kinds, [SETTINGS, DATA, GOAWAY], "{step}");
        assert_eq!(outbound.goaway(), Some(11), "{step}");
        assert!(outbound.is_between_frames(), "{step}");
        outbound.feed(&bytes[..10], |_| {});
        assert!(!outbound.is_between_frames(), "{step}");
    }
}
