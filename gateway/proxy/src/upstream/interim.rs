//! How many interim responses are in the bytes of an HTTP/1 connection to an endpoint.
//!
//! The HTTP implementation reads past interim responses for as long as there are some. Here they
//! are counted before it sees them: one comparison for a response that is none.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Interim responses (1xx) before a response. More than a hint or two is no use to anybody.
const MAX_INTERIM: u32 = 16;

#[derive(Debug, thiserror::Error)]
#[error("too many interim responses")]
struct TooMany;

/// Looks at what begins each response.
pub(super) struct Interim {
    /// A request was sent whose response has not been looked at.
    is_next: Arc<AtomicBool>,
    count: Count,
}

impl Interim {
    pub(super) fn new(is_next: Arc<AtomicBool>) -> Self {
        Self {
            is_next,
            count: Count::default(),
        }
    }

    /// The next bytes of the connection. An error if there are too many interim responses in them.
    #[inline]
    pub(super) fn see(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_next.load(Ordering::Relaxed) {
            self.is_next.store(false, Ordering::Relaxed);
            self.count.begin();
        }
        self.count.feed(bytes).map_err(io::Error::other)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    /// A response that is no interim one has begun, or none is waited for.
    #[default]
    Past,
    /// So many bytes of a status line have been seen.
    Start(usize),
    /// Inside an interim response; so much of an empty line has been seen.
    Inside(Line),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    Begun,
    Ended,
    Returned,
}

#[derive(Debug, Default)]
struct Count {
    place: Place,
    seen: u32,
}

/// A status line of an interim response; `?` is any byte.
const INTERIM: &[u8] = b"HTTP/1.? 1";

impl Count {
    fn begin(&mut self) {
        *self = Self {
            place: Place::Start(0),
            seen: 0,
        };
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), TooMany> {
        for &byte in bytes {
            self.place = match self.place {
                Place::Past => return Ok(()),
                Place::Start(at) if INTERIM[at] != byte && INTERIM[at] != b'?' => Place::Past,
                Place::Start(at) if at + 1 < INTERIM.len() => Place::Start(at + 1),
                Place::Start(_) => {
                    self.seen += 1;
                    if self.seen > MAX_INTERIM {
                        return Err(TooMany);
                    }
                    Place::Inside(Line::Begun)
                }
                Place::Inside(line) => match (line, byte) {
                    (Line::Ended | Line::Returned, b'\n') => Place::Start(0),
                    (Line::Ended, b'\r') => Place::Inside(Line::Returned),
                    (_, b'\n') => Place::Inside(Line::Ended),
                    _ => Place::Inside(Line::Begun),
                },
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes: &[u8], step: usize) -> Result<Count, TooMany> {
        let mut count = Count::default();
        count.begin();
        for part in bytes.chunks(step) {
            count.feed(part)?;
        }
        Ok(count)
    }

    #[test]
    fn interim_responses_are_counted_wherever_they_are_cut() {
        let last = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n";
        for interim in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.0 103 Early\r\nLink: </a>\r\n\r\n",
            "HTTP/1.1 103 Early\nLink: </a>\n\n",
        ] {
            for (count, is_let_through) in [(0, true), (16, true), (17, false)] {
                let bytes = interim.repeat(count) + last;
                for step in 1..40 {
                    let fed = feed(bytes.as_bytes(), step);
                    assert_eq!(fed.is_ok(), is_let_through, "{count} {interim:?} {step}");
                    if let Ok(fed) = fed {
                        assert_eq!(fed.seen as usize, count);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_waited_for_is_not_counted() {
        let mut count = Count::default();
        let bytes = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        assert!(count.feed(bytes.as_bytes()).is_ok());
    }
}
