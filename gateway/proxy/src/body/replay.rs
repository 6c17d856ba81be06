//! The part of a request body that was sent, kept in case that it has to be sent again.
//!
//! Pieces are shared, not copied. A body that turns out to be larger than what is kept is let go of
//! as a whole: it can be sent once only.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http_body::Frame;

use super::Inbound;
use super::Limit;

/// Bytes of a request body that are kept.
const MAX_KEPT: usize = 64 << 10;

/// What outlives an attempt.
pub(crate) struct Kept {
    pieces: RefCell<Vec<Bytes>>,
    bytes: Cell<usize>,
    /// Everything that was read is in `pieces`.
    pub(super) is_whole: Cell<bool>,
    /// The rest, once the attempt has let go of it.
    pub(super) inbound: Cell<Option<Inbound>>,
    pub(super) limit: Cell<Option<Limit>>,
    /// The access record's count.
    pub(super) bytes_read: Rc<Cell<u64>>,
}

/// One attempt's place in what is kept.
pub(super) struct Replay {
    pub(super) kept: Rc<Kept>,
    next: usize,
}

impl Kept {
    pub(super) fn new(bytes_read: Rc<Cell<u64>>) -> Self {
        Self {
            pieces: RefCell::default(),
            bytes: Cell::new(0),
            is_whole: Cell::new(true),
            inbound: Cell::new(None),
            limit: Cell::new(None),
            bytes_read,
        }
    }

    /// Whether the attempt has let go of the body; whether another one can send it.
    pub(crate) fn is_back(&self) -> bool {
        let inbound = self.inbound.take();
        let is_back = inbound.is_some();
        self.inbound.set(inbound);
        is_back && self.is_whole.get()
    }

    fn let_go(&self) {
        self.is_whole.set(false);
        self.pieces.borrow_mut().clear();
    }
}

impl Replay {
    pub(super) fn of(kept: &Rc<Kept>) -> Self {
        Self {
            kept: Rc::clone(kept),
            next: 0,
        }
    }

    /// The next piece that an earlier attempt has read.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.kept.pieces.borrow().get(self.next).cloned()?;
        self.next += 1;
        Some(piece)
    }

    pub(super) fn is_over(&self) -> bool {
        self.next >= self.kept.pieces.borrow().len()
    }

    pub(super) fn bytes_left(&self) -> u64 {
        let pieces = self.kept.pieces.borrow();
        pieces
            .iter()
            .skip(self.next)
            .map(|piece| piece.len() as u64)
            .sum()
    }

    /// Keeps what this attempt has read.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        if !self.kept.is_whole.get() {
            return;
        }
        let bytes = self.kept.bytes.get();
        match frame.data_ref() {
            Some(data) if bytes + data.len() <= MAX_KEPT => {
                self.kept.bytes.set(bytes + data.len());
                self.kept.pieces.borrow_mut().push(data.clone());
                self.next += 1;
            }
            // Too much, or trailers.
            _ => self.kept.let_go(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(replay: &mut Replay, length: usize) {
        replay.read(&Frame::data(Bytes::from(vec![b'x'; length])));
    }

    #[test]
    fn what_was_read_is_replayed_up_to_the_limit() {
        let kept = Rc::new(Kept::new(Rc::default()));
        let mut first = Replay::of(&kept);
        read(&mut first, MAX_KEPT - 1);
        read(&mut first, 1);
        assert!(first.is_over() && kept.is_whole.get());
        let mut second = Replay::of(&kept);
        assert_eq!(second.bytes_left(), MAX_KEPT as u64);
        assert_eq!(second.next().unwrap().len(), MAX_KEPT - 1);
        assert_eq!(second.bytes_left(), 1);
        assert_eq!(second.next().unwrap().len(), 1);
        assert!(second.next().is_none() && second.is_over());
        read(&mut second, 1);
        assert!(!kept.is_whole.get(), "one byte too many");
        assert!(kept.pieces.borrow().is_empty());
    }

    #[test]
    fn a_body_with_trailers_is_not_replayed() {
        let kept = Rc::new(Kept::new(Rc::default()));
        let mut replay = Replay::of(&kept);
        replay.read(&Frame::trailers(http::HeaderMap::new()));
        assert!(!kept.is_whole.get());
    }
}
