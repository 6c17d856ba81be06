//! What the client's frames cost, and which of its streams are open.

use postern_core::config::listener::Http2Limits;

use super::Abuse;
use super::CONTINUATION;
use super::Cutter;
use super::DATA;
use super::END_HEADERS;
use super::END_STREAM;
use super::FrameHead;
use super::GOAWAY;
use super::HEADERS;
use super::PADDED;
use super::PING;
use super::PUSH_PROMISE;
use super::RST_STREAM;
use super::SETTINGS;
use super::WINDOW_UPDATE;
use super::budget::Credit;
use super::budget::Lately;
use super::fields::Fields;
use super::outbound::Sent;
use super::take;
use crate::clock::ticks;

/// CONTINUATION frames of one field section. No setting: the implementation above stops at six,
/// which hold more than any head may; this one does not depend on what it does.
const MAX_CONTINUATIONS: u32 = 20;
/// A head of more fields than a listener allows is answered 431; of so many times more, it ends the
/// connection before it is decoded.
const FIELDS_BEYOND: u32 = 2;
/// Bytes that a client says first (RFC 9113, 3.4); what they are is checked above.
const PREFACE: usize = 24;
/// A client of good will updates a window for no less than this; Go's does for 4 KiB, for the
/// stream and for the connection.
const BYTES_AN_UPDATE: u32 = 1 << 10;
/// Reasons for which a stream is reset that are the client's fault (RFC 9113, 7): PROTOCOL_ERROR,
/// FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM.
const FAULTS: [u32; 5] = [1, 3, 5, 6, 7];

pub(super) struct Frames {
    limits: Http2Limits,
    /// `limits.window` in ticks of the clock.
    window: u64,
    preface: usize,
    is_greeted: bool,
    cutter: Cutter<1>,
    fields: Fields,
    max_fields: u32,
    is_head_open: bool,
    continuations: u32,
    empty_data: u32,
    /// Unfinished streams in the order of their numbers. Its length is bounded by the streams that
    /// a client may have open, and by what one read holds beyond them. Those behind a GOAWAY, which
    /// nobody refuses, are not in it.
    streams: Vec<Open>,
    last_opened: u32,
    /// The last stream that is looked at above: that of the gateway's GOAWAY.
    last_taken: u32,
    resets: u32,
    faults: u32,
    data_sent: u64,
    /// For PING.
    pings: Credit,
    /// For WINDOW_UPDATE.
    updates: Credit,
    /// For PRIORITY and the like, heads behind a GOAWAY among them, and for resets of streams that
    /// are over.
    requests: Credit,
    late: Credit,
    lately: Lately5,
}

#[derive(Default)]
struct Lately5 {
    resets: Lately,
    settings: Lately,
    pings: Lately,
    priorities: Lately,
    updates: Lately,
}

struct Open {
    stream: u32,
    /// The head of its response was sent.
    is_answered: bool,
}

impl Frames {
    /// `head_fields`: how many fields a request may have.
    pub(super) fn new(limits: &Http2Limits, head_fields: u32) -> Self {
        Self {
            limits: *limits,
            window: ticks(limits.window),
            preface: PREFACE,
            is_greeted: false,
            cutter: Cutter::default(),
            fields: Fields::default(),
            max_fields: head_fields.saturating_mul(FIELDS_BEYOND),
            is_head_open: false,
            continuations: 0,
            empty_data: 0,
            streams: Vec::new(),
            last_opened: 0,
            last_taken: u32::MAX,
            resets: 0,
            faults: 0,
            data_sent: 0,
            pings: Credit::default(),
            updates: Credit::default(),
            requests: Credit::default(),
            late: Credit::default(),
            lately: Lately5::default(),
        }
    }

    /// Takes what the client sent at `now`, in ticks.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: u64) -> Result<(), Abuse> {
        self.preface -= take(&mut bytes, self.preface).len();
        loop {
            let fields = &mut self.fields;
            let next = self.cutter.next(&mut bytes, |part| fields.feed(part));
            let Some((head, [first])) = next else {
                break;
            };
            self.received(head, first, now)?;
        }
        within(self.fields.count() <= self.max_fields, Abuse::Fields)
    }

    fn received(&mut self, head: FrameHead, first: u8, now: u64) -> Result<(), Abuse> {
        let Self {
            limits,
            window,
            lately,
            ..
        } = self;
        let window = *window;
        match head.kind {
            HEADERS => {
                within(self.fields.count() <= self.max_fields, Abuse::Fields)?;
                self.fields.begin(head, first);
            }
            CONTINUATION => self.fields.go_on(head, first),
            _ => self.fields.end(),
        }
        let is_within = match head.kind {
            DATA => return self.data(head, first),
            HEADERS => {
                self.continuations = 0;
                self.is_head_open = !head.has(END_HEADERS);
                if head.stream <= self.last_taken {
                    self.headers(head);
                    return Ok(());
                }
                // Ignored above (RFC 9113, 6.8), as what is not known is.
                (
                    self.requests.spend()
                        || lately.priorities.count(now, window, limits.priorities),
                    Abuse::Priorities,
                )
            }
            CONTINUATION => {
                self.continuations += 1;
                self.is_head_open &= !head.has(END_HEADERS);
                return within(
                    self.continuations <= MAX_CONTINUATIONS,
                    Abuse::Continuations,
                );
            }
            RST_STREAM => return self.reset(head.stream, now),
            SETTINGS => {
                self.is_greeted = true;
                (
                    lately.settings.count(now, window, limits.settings),
                    Abuse::Settings,
                )
            }
            PING => (
                self.pings.spend() || lately.pings.count(now, window, limits.pings),
                Abuse::Pings,
            ),
            WINDOW_UPDATE => (
                self.updates.spend() || lately.updates.count(now, window, limits.window_updates),
                Abuse::WindowUpdates,
            ),
            // Each of these ends the connection, or nearly so, above.
            GOAWAY | PUSH_PROMISE => return Ok(()),
            // PRIORITY, and types that are not known (RFC 9113, 5.5), browsers' grease among them.
            _ => (
                self.requests.spend() || lately.priorities.count(now, window, limits.priorities),
                Abuse::Priorities,
            ),
        };
        within(is_within.0, is_within.1)
    }

    fn headers(&mut self, head: FrameHead) {
        // Otherwise these are trailers.
        if head.stream > self.last_opened {
            self.last_opened = head.stream;
            self.streams.push(Open {
                stream: head.stream,
                is_answered: false,
            });
            self.requests.earn(1);
            self.late.earn(1);
            // Some clients open the window of each stream.
            self.updates.earn(1);
        }
    }

    fn data(&mut self, head: FrameHead, first: u8) -> Result<(), Abuse> {
        let padding = if head.has(PADDED) {
            1 + u32::from(first)
        } else {
            0
        };
        if head.length > padding || head.has(END_STREAM) {
            self.empty_data = 0;
            return Ok(());
        }
        self.empty_data += 1;
        within(self.empty_data <= self.limits.empty_data, Abuse::EmptyData)
    }

    fn reset(&mut self, stream: u32, now: u64) -> Result<(), Abuse> {
        let was_answered = self.close(stream);
        let is_early = was_answered == Some(false);
        if !is_early && self.late.spend() {
            return Ok(());
        }
        let limit = self.limits.resets_in_window;
        let is_within = self.lately.resets.count(now, self.window, limit);
        if !is_early {
            return within(is_within, Abuse::LateResets);
        }
        self.resets += 1;
        within(
            is_within && self.resets <= self.limits.resets,
            Abuse::Resets,
        )
    }

    /// Forgets a stream; whether its response had begun, if it was open.
    fn close(&mut self, stream: u32) -> Option<bool> {
        let found = self.streams.binary_search_by_key(&stream, |s| s.stream);
        Some(self.streams.remove(found.ok()?).is_answered)
    }

    /// Takes a frame of the gateway's own.
    pub(super) fn sent(&mut self, sent: Sent) {
        let Sent {
            head,
            code,
            last_stream,
        } = sent;
        match head.kind {
            DATA => {
                self.data_sent += u64::from(head.length);
                self.pings.earn(1);
                // One for the stream, one for the connection.
                self.updates.earn(2 * (1 + head.length / BYTES_AN_UPDATE));
            }
            HEADERS => {
                let found = self
                    .streams
                    .binary_search_by_key(&head.stream, |s| s.stream);
                if let Ok(index) = found {
                    self.streams[index].is_answered = true;
                }
            }
            RST_STREAM => {
                self.close(head.stream);
                self.faults += u32::from(FAULTS.contains(&code));
            }
            GOAWAY => self.last_taken = self.last_taken.min(last_stream),
            _ => return,
        }
        if matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            self.close(head.stream);
        }
    }

    /// Whether the client made the gateway reset too many streams.
    pub(super) fn abuse_by_answers(&self) -> Option<Abuse> {
        (self.faults > self.limits.faults).then_some(Abuse::Faults)
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    pub(super) fn is_head_open(&self) -> bool {
        self.is_head_open
    }

    pub(super) fn unfinished(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn data_sent(&self) -> u64 {
        self.data_sent
    }

    pub(super) fn last_opened(&self) -> u32 {
        self.last_opened
    }
}

fn within(is_within: bool, otherwise: Abuse) -> Result<(), Abuse> {
    if is_within { Ok(()) } else { Err(otherwise) }
}
