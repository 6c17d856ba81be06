//! The gateway's own frames, as they are written.

use super::Cutter;
use super::FrameHead;
use super::GOAWAY;
use super::RST_STREAM;

/// Bytes of a payload that are looked at: RST_STREAM holds its code in the first four, GOAWAY
/// behind the number of a stream.
const KEPT: usize = 8;

/// A frame that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) head: FrameHead,
    /// Of RST_STREAM and GOAWAY.
    pub(super) code: u32,
    /// Of GOAWAY: the last stream that is looked at.
    pub(super) last_stream: u32,
}

#[derive(Default)]
pub(super) struct Outbound {
    cutter: Cutter<KEPT>,
    goaway: Option<u32>,
}

impl Outbound {
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Sent)) {
        while let Some((head, kept)) = self.cutter.next(&mut bytes, |_| {}) {
            let [a, b, c, d, e, f, g, h] = kept;
            let code = match head.kind {
                RST_STREAM => u32::from_be_bytes([a, b, c, d]),
                GOAWAY => u32::from_be_bytes([e, f, g, h]),
                _ => 0,
            };
            if head.kind == GOAWAY {
                self.goaway = Some(code);
            }
            // The first bit is reserved.
            let last_stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
            each(Sent {
                head,
                code,
                last_stream,
            });
        }
    }

    /// The code of the last GOAWAY.
    pub(super) fn goaway(&self) -> Option<u32> {
        self.goaway
    }

    pub(super) fn is_between_frames(&self) -> bool {
        self.cutter.is_between_frames()
    }
}
