//! HTTP/2 from the client: frames that an input describes, then whatever it likes.

use super::harness;
use super::oracle::HOST;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames of one input.
const MAX_FRAMES: usize = 512;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// An input is a list of operations, each a byte that says which and those that it takes; see
/// [`Writer::operation`]. The connection ends, what goes upstream is canonical, and no more
/// requests go there than heads were sent.
pub fn h2_frames(input: &[u8]) {
    let mut writer = Writer {
        input,
        bytes: PREFACE.to_vec(),
        pieces: Vec::new(),
        stream: 1,
        heads: 0,
    };
    writer.frame(SETTINGS, 0, 0, &[]);
    for _ in 0..MAX_FRAMES {
        if writer.operation().is_none() {
            break;
        }
    }
    // What the operations have left is sent as it is.
    writer.bytes.extend_from_slice(writer.input);
    writer.cut();
    let pieces: Vec<&[u8]> = writer.pieces.iter().map(Vec::as_slice).collect();
    let outcome = harness::with(|harness| harness.run(true, &pieces, None));
    // A raw tail can hold heads of its own: one takes ten bytes at least.
    let most = writer.heads + writer.input.len() / 10;
    assert!(
        outcome.requests.len() <= most,
        "V1: {} requests of {most} heads",
        outcome.requests.len()
    );
}

struct Writer<'i> {
    input: &'i [u8],
    bytes: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    /// The next that a client may open.
    stream: u32,
    heads: usize,
}

impl<'i> Writer<'i> {
    /// One operation; `None` at the end, or at a byte that is none: the rest is raw.
    fn operation(&mut self) -> Option<()> {
        let &operation = self.input.first()?;
        if operation > 15 {
            return None;
        }
        self.take(1);
        match operation {
            0 => self.head("GET", b"/", &[], true),
            1 => self.head("POST", b"/", &[], false),
            // A target of the input's.
            2 => {
                let path = self.text();
                self.head("GET", path, &[], true);
            }
            // A field of the input's, as often as it says.
            3 => {
                let (name, value) = (self.text(), self.text());
                let count = usize::from(self.byte()) % 128;
                let fields = vec![(name, value); count + 1];
                let ends = self.byte() & 1 == 1;
                self.head("POST", b"/", &fields, ends);
            }
            // A block that is nothing but the input's.
            4 => {
                let block = self.text();
                let flags = self.byte();
                self.open(flags, block);
            }
            5 => {
                let body = self.text();
                let (stream, ends) = (self.old_stream(), self.byte() & 1);
                self.frame(DATA, ends, stream, body);
            }
            6 => {
                let (stream, code) = (self.old_stream(), self.byte());
                self.frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
            }
            7 => {
                let settings = self.text();
                let flags = self.byte() & 1;
                self.frame(SETTINGS, flags, 0, settings);
            }
            8 => {
                let flags = self.byte() & 1;
                self.frame(PING, flags, 0, b"pingpong");
            }
            9 => {
                let (stream, step) = (self.old_stream(), self.text());
                self.frame(WINDOW_UPDATE, 0, stream, step);
            }
            10 => {
                let (stream, priority) = (self.old_stream(), self.text());
                self.frame(PRIORITY, 0, stream, priority);
            }
            11 => {
                let (stream, block) = (self.old_stream(), self.text());
                let flags = self.byte();
                self.frame(CONTINUATION, flags, stream, block);
            }
            12 => self.frame(GOAWAY, 0, 0, &[0; 8]),
            // Any frame at all.
            13 => {
                let (kind, flags) = (self.byte(), self.byte());
                let (stream, payload) = (self.old_stream(), self.text());
                self.frame(kind, flags, stream, payload);
            }
            // A head that comes without its end, and trailers.
            14 => {
                let stream = self.old_stream();
                let mut block = Vec::new();
                literal(&mut block, self.text(), b"t");
                self.frame(HEADERS, 0x5, stream, &block);
            }
            _ => self.cut(),
        }
        Some(())
    }

    fn head(&mut self, method: &str, path: &[u8], fields: &[(&[u8], &[u8])], ends: bool) {
        let mut block = Vec::new();
        literal(&mut block, b":method", method.as_bytes());
        literal(&mut block, b":scheme", b"http");
        literal(&mut block, b":authority", HOST.as_bytes());
        literal(&mut block, b":path", path);
        for (name, value) in fields {
            literal(&mut block, name, value);
        }
        // END_HEADERS, and END_STREAM.
        self.open(0x4 | u8::from(ends), &block);
    }

    fn open(&mut self, flags: u8, block: &[u8]) {
        self.frame(HEADERS, flags, self.stream, block);
        self.stream += 2;
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.heads += usize::from(kind == HEADERS);
        let len = u32::try_from(payload.len())
            .unwrap_or_default()
            .to_be_bytes();
        self.bytes.extend_from_slice(&len[1..]);
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// What follows is sent later.
    fn cut(&mut self) {
        let piece = std::mem::take(&mut self.bytes);
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// The connection, a stream that was opened, or one that was not.
    fn old_stream(&mut self) -> u32 {
        u32::from(self.byte()) % (self.stream + 3)
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Its length, then it.
    fn text(&mut self) -> &'i [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    fn take(&mut self, len: usize) -> &'i [u8] {
        let (taken, rest) = self.input.split_at(len.min(self.input.len()));
        self.input = rest;
        taken
    }
}

/// A field without index and without Huffman coding (RFC 7541, 6.2.2).
fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        integer(block, text.len());
        block.extend_from_slice(text);
    }
}

/// With a prefix of 7 bits (RFC 7541, 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest > 127 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}
