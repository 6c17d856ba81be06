//! From whoever logs to standard error, without waiting for it.
//!
//! Standard error is a pipe to somebody who may have stopped reading. A thread of its own writes;
//! when it falls behind, lines are dropped, and their number is the first line after.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 1024;

enum Message {
    Line(Vec<u8>),
    /// Everything before this has been written when the answer comes.
    Sync(mpsc::SyncSender<()>),
}

/// Gives lines to the thread that writes them.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    sender: mpsc::SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread, which ends with the process.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUED_LINES);
        let dropped = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &receiver, &counted))?;
        Ok(Self { sender, dropped })
    }

    /// Waits until what was logged is written, but no longer than `limit`.
    pub(super) fn sync(&self, limit: Duration) {
        let (answer, done) = mpsc::sync_channel(1);
        if self.sender.try_send(Message::Sync(answer)).is_ok() {
            let _ = done.recv_timeout(limit);
        }
    }
}

fn write_all(mut out: impl Write, receiver: &mpsc::Receiver<Message>, dropped: &AtomicU64) {
    while let Ok(message) = receiver.recv() {
        match message {
            // Nobody is left who could be told that this failed.
            Message::Line(line) => drop(out.write_all(&line).and_then(|()| out.flush())),
            Message::Sync(answer) => drop(answer.try_send(())),
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(
                out,
                "{count} lines of the log were dropped: it was not read"
            );
        }
    }
}

/// One line; the subscriber writes it in one piece.
impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Message::Line(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes nothing before it is told to.
    struct Stuck {
        released: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.released.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_not_time() {
        let (release, released) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let mut writer = LogWriter::start(Stuck { released, written }).unwrap();
        for _ in 0..3 * QUEUED_LINES {
            writer.write_all(b"line\n").unwrap();
        }
        writer.sync(Duration::from_millis(1));
        drop(release);
        let first = lines.recv().unwrap();
        assert_eq!(first, b"line\n");
        drop(writer);
        let rest = lines.iter().flatten().collect::<Vec<u8>>();
        let text = String::from_utf8(rest).unwrap();
        assert!(text.contains(" lines of the log were dropped"), "{text}");
        assert!(text.matches("line\n").count() <= QUEUED_LINES + 1, "{text}");
    }
}
