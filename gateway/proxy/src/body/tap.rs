//! A copy of a request body, made while it passes by.

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::oneshot;

/// Keeps what passes, up to a limit, for who waits for the whole of it.
pub(crate) struct Tap {
    kept: BytesMut,
    limit: u64,
    /// `None` once there is nobody who waits, or too much.
    whole: Option<oneshot::Sender<Bytes>>,
}

impl Tap {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            kept: BytesMut::new(),
            limit,
            whole: None,
        }
    }

    /// Completes with the body, or fails if it was too large or did not end.
    pub(super) fn whole(&mut self) -> oneshot::Receiver<Bytes> {
        let (whole, passed) = oneshot::channel();
        self.whole = Some(whole);
        passed
    }

    pub(super) fn passed(&mut self, bytes: &[u8]) {
        if self.kept.len() as u64 + bytes.len() as u64 > self.limit {
            *self = Self::new(0);
        } else if self.whole.is_some() {
            self.kept.extend_from_slice(bytes);
        }
    }

    pub(super) fn ended(&mut self) {
        if let Some(whole) = self.whole.take() {
            // Nobody may wait any more.
            let _ = whole.send(std::mem::take(&mut self.kept).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_is_kept_and_not_one_byte_more() {
        for (pieces, want) in [
            (vec![3, 5], Some(8)),
            (vec![], Some(0)),
            (vec![3, 6], None),
            (vec![9, 0], None),
        ] {
            let mut tap = Tap::new(8);
            let mut passed = tap.whole();
            for length in &pieces {
                tap.passed(&vec![b'x'; *length]);
            }
            tap.ended();
            let got = passed.try_recv().ok().map(|bytes| bytes.len());
            assert_eq!(got, want, "{pieces:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_no_body() {
        let mut tap = Tap::new(8);
        let mut passed = tap.whole();
        tap.passed(b"half");
        drop(tap);
        assert!(passed.try_recv().is_err());
    }
}
