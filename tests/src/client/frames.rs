//! An HTTP/2 client that sends frames as they are told, valid or not, and reads what comes back; or
//! a server that does so.
//!
//! Fields are written as literals without compression, so that a test says exactly which bytes go
//! out. Of what is read, only the status of a response is decoded.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// RFC 9113, 7.
pub const CALM: u32 = 11;
pub const CANCEL: u32 = 8;
pub const REFUSED: u32 = 7;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A gateway that has neither answered nor closed by then hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// One frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap();
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4);
        u32::from_be_bytes(code.unwrap_or_default().try_into().unwrap_or_default())
    }

    pub fn ends(&self) -> bool {
        self.kind == RST_STREAM
            || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    Frame {
        kind,
        flags,
        stream,
        payload: payload.to_vec(),
    }
    .bytes()
}

/// What a client begins with: the preface and its settings.
pub fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, value) in settings {
        payload.extend(number.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// The bytes of a HEADERS frame with these fields, in this order, as they are.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &[u8])]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields))
}

/// A GET of a path of `a.test`, whole.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM | END_HEADERS, &request("GET", path))
}

/// The fields of a request to `a.test`.
pub fn request<'f>(method: &'f str, path: &'f str) -> [(&'f str, &'f [u8]); 4] {
    [
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"a.test"),
        (":path", path.as_bytes()),
    ]
}

/// A field section of literals that no table keeps (RFC 7541, 6.2.2).
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// RFC 7541, 5.1, with seven bits.
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    block.push(value as u8);
}

/// A connection to the gateway.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, and says the preface and SETTINGS.
    pub async fn open(addr: SocketAddr) -> Self {
        Self::with_settings(addr, &[]).await
    }

    /// The same with settings: pairs of a number and a value.
    pub async fn with_settings(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut connection = Self::bare(addr).await;
        connection.send(&opening(settings)).await;
        connection
    }

    /// Connects and says nothing.
    pub async fn bare(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The other side of a connection that the gateway made, up to the settings.
    pub async fn accepted(mut stream: TcpStream) -> Self {
        let mut preface = [0; PREFACE.len()];
        // One that says nothing gives no frames either.
        let _ = stream.read_exact(&mut preface).await;
        let mut connection = Self {
            stream,
            buffer: Vec::new(),
        };
        let greeting = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])];
        connection.send(&greeting.concat()).await;
        connection
    }

    /// Reads up to the head of the next request, and gives its stream; `None` once the gateway has
    /// closed. Waits for ever.
    pub async fn asked(&mut self) -> Option<u32> {
        loop {
            let frame = self.read().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    /// Sends bytes; `false` if the gateway has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` once the gateway has closed. Panics if it does neither.
    pub async fn next(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(LIMIT, self.read());
        next.await.expect("the gateway answers or closes")
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<9>() {
                let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = *head;
                let end = 9 + u32::from_be_bytes([0, l1, l2, l3]) as usize;
                if self.buffer.len() >= end {
                    let frame = Frame {
                        kind,
                        flags,
                        stream: u32::from_be_bytes([s1, s2, s3, s4]),
                        payload: self.buffer[9..end].to_vec(),
                    };
                    self.buffer.drain(..end);
                    return Some(frame);
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Every frame until the gateway closes.
    pub async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Reads until the stream or the connection ends.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let Some(frame) = self.next().await else {
                outcome.is_closed = true;
                return outcome;
            };
            if frame.kind == GOAWAY {
                outcome.goaway = Some(frame.code());
            }
            if frame.stream != stream || frame.kind == WINDOW_UPDATE {
                continue;
            }
            match frame.kind {
                HEADERS if outcome.status.is_none() => {
                    outcome.status = Some(status(&frame.payload));
                }
                DATA => outcome.body.extend(&frame.payload),
                RST_STREAM => outcome.reset = Some(frame.code()),
                _ => {}
            }
            if frame.ends() {
                return outcome;
            }
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// 0 if it could not be decoded.
    pub status: Option<u16>,
    pub body: Vec<u8>,
    /// The code of RST_STREAM.
    pub reset: Option<u32>,
    /// The code of GOAWAY.
    pub goaway: Option<u32>,
    /// The connection ended first.
    pub is_closed: bool,
}

impl Outcome {
    /// The gateway said no, in whatever way.
    pub fn is_refused(&self) -> bool {
        self.reset.is_some()
            || self.is_closed
            || self
                .status
                .is_some_and(|status| (400..600).contains(&status))
    }
}

/// The status in the first field of a section, where it has to stand: an entry of the static
/// table, or a literal of three digits that may be Huffman coded.
fn status(block: &[u8]) -> u16 {
    // A change of the dynamic table's size may come first.
    let skipped = block
        .iter()
        .take_while(|&&byte| byte & 0xe0 == 0x20)
        .count();
    let digits = match &block[skipped..] {
        [0x88, ..] => return 200,
        [0x89, ..] => return 204,
        [0x8a, ..] => return 206,
        [0x8b, ..] => return 304,
        [0x8c, ..] => return 400,
        [0x8d, ..] => return 404,
        [0x8e, ..] => return 500,
        // Name 8, value literal: with indexing, without, never.
        [0x48 | 0x08 | 0x18, 0x03, digits @ ..] => {
            String::from_utf8_lossy(&digits[..3]).into_owned()
        }
        [0x48 | 0x08 | 0x18, length, coded @ ..] if length & 0x80 != 0 => {
            huffman_digits(&coded[..usize::from(length & 0x7f)])
        }
        _ => String::new(),
    };
    digits.parse().unwrap_or(0)
}

/// RFC 7541, appendix B: the digits 0 to 2 have five bits, the others six.
fn huffman_digits(coded: &[u8]) -> String {
    let bits: Vec<u8> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let number = |bits: &[u8]| {
        bits.iter()
            .fold(0, |number, bit| number << 1 | u32::from(*bit))
    };
    let mut digits = String::new();
    let mut at = 0;
    while digits.len() < 3 {
        let (digit, used) = match (bits.get(at..at + 5), bits.get(at..at + 6)) {
            (Some(five), _) if number(five) <= 2 => (number(five), 5),
            (_, Some(six)) if (0x19..=0x1f).contains(&number(six)) => (number(six) - 0x19 + 3, 6),
            _ => return String::new(),
        };
        digits.extend(char::from_digit(digit, 10));
        at += used;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_decoded_in_every_form() {
        assert_eq!(status(&[0x88]), 200);
        assert_eq!(status(&[0x20, 0x8d]), 404);
        assert_eq!(status(&[0x48, 3, b'4', b'3', b'1']), 431);
        // RFC 7541, C.6.1: "302" in two bytes.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
        assert_eq!(status(&[0xbf]), 0);
    }
}
