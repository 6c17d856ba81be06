//! How many fields a field section holds, before anything is made of them.
//!
//! One byte can name a field that takes a hundred times as much memory once it is decoded
//! (RFC 7541, 6.1), cookie crumbs included. So representations are counted as they come, without
//! decoding any: a section is measured before the implementation above has read its end.
//!
//! What is malformed is not noticed here; the implementation above ends such a connection.

use super::FrameHead;
use super::PADDED;

const PRIORITY: u8 = 0x20;
/// Bytes of the PRIORITY part of a HEADERS frame (RFC 9113, 6.2).
const PRIORITY_BYTES: usize = 5;
/// Bytes of an integer behind its prefix that can matter: 28 bits, more than a frame holds.
const MAX_INTEGER_BYTES: u32 = 4;

/// The field section that is being received, wherever its bytes are cut.
#[derive(Default)]
pub(super) struct Fields {
    /// Representations of fields so far.
    count: u32,
    /// Bytes of the frame in front of its fragment.
    skip: usize,
    /// Bytes of the frame's fragment that are to come.
    fragment: usize,
    next: Next,
}

/// What the next byte of a section is.
#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Representation,
    /// A further byte of an integer, and what follows it.
    Integer { value: usize, byte: u32, then: Then },
    /// The first byte of a string, and how many strings follow it.
    Length { strings: u8 },
    /// Of a string, and how many strings follow it.
    Bytes { left: usize, strings: u8 },
    /// Where the next field begins is not known any more.
    Lost,
}

#[derive(Clone, Copy)]
enum Then {
    /// So many strings.
    Strings(u8),
    /// A string as long as the integer, then so many strings.
    Bytes(u8),
}

impl Then {
    fn next(self, integer: usize) -> Next {
        match self {
            Self::Strings(0) => Next::Representation,
            Self::Strings(more) => Next::Length { strings: more - 1 },
            Self::Bytes(strings) => Next::bytes(integer, strings),
        }
    }
}

impl Next {
    fn bytes(left: usize, strings: u8) -> Self {
        if left > 0 {
            Self::Bytes { left, strings }
        } else {
            Then::Strings(strings).next(0)
        }
    }

    /// The integer that begins in the low bits of `byte` (RFC 7541, 5.1).
    fn integer(byte: u8, mask: u8, then: Then) -> Self {
        let value = byte & mask;
        if value < mask {
            then.next(usize::from(value))
        } else {
            Self::Integer {
                value: usize::from(mask),
                byte: 0,
                then,
            }
        }
    }
}

impl Fields {
    /// A HEADERS frame whose payload begins with `first`.
    pub(super) fn begin(&mut self, head: FrameHead, first: u8) {
        *self = Self::default();
        let is_padded = head.has(PADDED);
        let padding = if is_padded { 1 + usize::from(first) } else { 0 };
        let priority = if head.has(PRIORITY) {
            PRIORITY_BYTES
        } else {
            0
        };
        self.skip = usize::from(is_padded) + priority;
        self.fragment = (head.length as usize).saturating_sub(padding + priority);
        self.feed(&[first][..usize::from(head.length > 0)]);
    }

    /// A CONTINUATION frame whose payload begins with `first`.
    pub(super) fn go_on(&mut self, head: FrameHead, first: u8) {
        self.skip = 0;
        self.fragment = head.length as usize;
        self.feed(&[first][..usize::from(head.length > 0)]);
    }

    /// Any other frame: its payload holds no fields.
    pub(super) fn end(&mut self) {
        self.fragment = 0;
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// More of the payload of the frame.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.skip -= super::take(&mut bytes, self.skip).len();
        let mut bytes = super::take(&mut bytes, self.fragment);
        self.fragment -= bytes.len();
        while let Some(&byte) = bytes.first() {
            if let Next::Bytes { left, strings } = self.next {
                let taken = super::take(&mut bytes, left).len();
                self.next = Next::bytes(left - taken, strings);
                continue;
            }
            bytes = &bytes[1..];
            self.next = self.after(byte);
        }
    }

    fn after(&mut self, byte: u8) -> Next {
        match self.next {
            Next::Representation => self.representation(byte),
            Next::Integer {
                byte: MAX_INTEGER_BYTES..,
                ..
            } => Next::Lost,
            Next::Integer {
                value,
                byte: index,
                then,
            } => {
                let value = value + (usize::from(byte & 0x7f) << (7 * index));
                if byte & 0x80 == 0 {
                    return then.next(value);
                }
                Next::Integer {
                    value,
                    byte: index + 1,
                    then,
                }
            }
            Next::Length { strings } => Next::integer(byte, 0x7f, Then::Bytes(strings)),
            lost @ (Next::Bytes { .. } | Next::Lost) => lost,
        }
    }

    /// RFC 7541, 6.
    fn representation(&mut self, byte: u8) -> Next {
        // A new size of the table is no field.
        if byte & 0xe0 == 0x20 {
            return Next::integer(byte, 0x1f, Then::Strings(0));
        }
        self.count = self.count.saturating_add(1);
        if byte & 0x80 != 0 {
            return Next::integer(byte, 0x7f, Then::Strings(0));
        }
        let mask = if byte & 0x40 != 0 { 0x3f } else { 0x0f };
        // Without the index of a name, the name comes first.
        let strings = if byte & mask == 0 { 2 } else { 1 };
        Next::integer(byte, mask, Then::Strings(strings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload in one HEADERS frame, cut after each so many bytes.
    fn counted(payload: &[u8], flags: u8, step: usize) -> u32 {
        let head = FrameHead {
            length: payload.len() as u32,
            kind: super::super::HEADERS,
            flags,
            stream: 1,
        };
        let mut fields = Fields::default();
        fields.begin(head, payload.first().copied().unwrap_or(0));
        for part in payload.get(1..).unwrap_or(&[]).chunks(step) {
            fields.feed(part);
        }
        fields.count()
    }

    #[test]
    fn each_representation_is_one_field_wherever_it_is_cut() {
        let long = [&[0x40, 1, b'x', 0x7f, 0xd0, 0x0f][..], &[b'v'; 127 + 2000]].concat();
        let cases: [(&str, &[u8], u32); 9] = [
            ("nothing", &[], 0),
            ("indexed", &[0x82, 0x86, 0x84], 3),
            ("an index of several bytes", &[0xff, 0x80, 0x01, 0x82], 2),
            ("a size of the table", &[0x3f, 0xe1, 0x1f, 0x82], 1),
            ("name and value", b"\x40\x03foo\x03bar\x82", 2),
            ("a known name", b"\x41\x03bar\x04\x83abc\x14\x00", 3),
            ("empty strings", b"\x00\x00\x00\x10\x00\x00\x82", 3),
            ("a long value", &[&long[..], &[0x82]].concat(), 2),
            ("indices with four bits", b"\x0f\x22\x01v\x1f\x20\x01v", 2),
        ];
        for (what, payload, count) in cases {
            for step in [1, 2, 3, 7, 4096] {
                assert_eq!(counted(payload, 0, step), count, "{what}, cut after {step}");
            }
        }
    }

    #[test]
    fn padding_and_priority_are_no_fields() {
        let padded = [3, 0x82, 0x86, 0x80, 0x80, 0x80];
        let priority = [0, 0, 0, 0, 200, 0x82, 0x86];
        let both = [2, 0x80, 0, 0, 0, 200, 0x82, 0x86, 0x84, 0x80, 0x80];
        // The padding is longer than the frame.
        let broken = [200, 0x82, 0x82];
        for step in [1, 2, 4096] {
            assert_eq!(counted(&padded, PADDED, step), 2);
            assert_eq!(counted(&priority, PRIORITY, step), 2);
            assert_eq!(counted(&both, PADDED | PRIORITY, step), 3);
            assert_eq!(counted(&broken, PADDED, step), 0);
        }
    }

    #[test]
    fn an_integer_without_end_is_not_followed() {
        let endless = [&[0xff][..], &[0xff; 100], &[0x82; 100]].concat();
        assert_eq!(counted(&endless, 0, 1), 1);
    }
}
