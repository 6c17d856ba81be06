//! From the workers to the file: buffered, in order, and never in the way.
//!
//! A worker appends lines to its own buffer and hands whole buffers to one writer thread. If that
//! thread falls behind (a full disk, a pipe that nobody reads), buffers are dropped and their
//! lines counted; a request never waits for its log line.

use std::cell::RefCell;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::unix_seconds;
use crate::metrics::Counter;
use crate::metrics::WorkerStats;

/// A worker hands its buffer over at this size, in bytes...
const BUFFER_BYTES: usize = 32 << 10;
/// ...or when it is asked to, so that the lines of a quiet gateway appear.
pub(crate) const FLUSH_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);
/// Buffers that may wait for the writer, all workers together: 2 MiB of lines.
const QUEUED_BUFFERS: usize = 64;

enum Message {
    Lines(Vec<u8>),
    /// There is something in [`Wanted`]. It is looked at before any other message too, so that it
    /// costs nothing if this one finds the queue full.
    Open,
    /// Everything before this is to be on its way before the answer.
    Sync(mpsc::SyncSender<()>),
}

/// What is to be opened before anything more is written: another destination, or the same one
/// again after it was rotated. Of several, the last counts.
#[derive(Default)]
struct Wanted(Mutex<Option<Option<PathBuf>>>);

impl Wanted {
    fn put(&self, path: Option<PathBuf>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }

    fn take(&self) -> Option<Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The writer thread's end.
pub(crate) struct LogWriter {
    wanted: Arc<Wanted>,
    sender: Option<mpsc::SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// `path` is `None` for standard output.
    /// `lost` counts the lines that cannot be written.
    pub(crate) fn start(path: Option<PathBuf>, lost: Arc<Counter>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUED_BUFFERS);
        let wanted: Arc<Wanted> = Arc::default();
        let own = Arc::clone(&wanted);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(path, &receiver, &own, &lost))?;
        Ok(Self {
            wanted,
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    pub(crate) fn buffer(&self, stats: Arc<WorkerStats>) -> Option<LogBuffer> {
        self.sender.clone().map(|sender| LogBuffer {
            sender,
            stats,
            lines: RefCell::default(),
            second: RefCell::default(),
        })
    }

    /// Opens a path, or the one in use once more, before anything more is written.
    pub(crate) fn open(&self, path: Option<PathBuf>) {
        self.wanted.put(path);
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(Message::Open);
        }
    }

    /// Waits until what was handed over is written, but no longer than `limit`.
    pub(crate) fn sync(&self, limit: std::time::Duration) {
        let (answer, done) = mpsc::sync_channel(1);
        if let Some(sender) = &self.sender
            && sender.try_send(Message::Sync(answer)).is_ok()
        {
            let _ = done.recv_timeout(limit);
        }
    }
}

/// Where lines can be appended, or why not.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    append_to(path).map(drop)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(
    path: Option<PathBuf>,
    receiver: &mpsc::Receiver<Message>,
    wanted: &Wanted,
    lost: &Counter,
) {
    let mut out = open(path.as_deref());
    let mut is_failing = false;
    // Half a line is at the end of what was written.
    let mut is_cut = false;
    while let Ok(message) = receiver.recv() {
        if let Some(path) = wanted.take() {
            out = open(path.as_deref());
            is_cut = false;
        }
        match message {
            Message::Lines(lines) => {
                let (written, result) = write_lines(&mut *out, &lines, is_cut);
                let left = &lines[written..];
                lost.add(left.iter().filter(|&&byte| byte == b'\n').count() as u64);
                if written > 0 {
                    is_cut = lines[written - 1] != b'\n';
                }
                match result {
                    Ok(()) if is_failing => {
                        is_failing = false;
                        tracing::info!("the access log can be written again");
                    }
                    Ok(()) => {}
                    Err(error) if !is_failing => {
                        is_failing = true;
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the access log cannot be written");
                    }
                    Err(_) => {}
                }
            }
            Message::Open => {}
            Message::Sync(answer) => {
                let _ = answer.try_send(());
            }
        }
    }
}

/// How many bytes of the lines were written, and what became of the rest. What follows half a line
/// begins a new one.
fn write_lines(out: &mut dyn Write, lines: &[u8], is_cut: bool) -> (usize, io::Result<()>) {
    if is_cut && let Err(error) = out.write_all(b"\n") {
        return (0, Err(error));
    }
    let mut written = 0;
    while written < lines.len() {
        match out.write(&lines[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}

fn open(path: Option<&Path>) -> Box<dyn Write> {
    let Some(path) = path else {
        return Box::new(io::stdout());
    };
    match append_to(path) {
        Ok(file) => Box::new(file),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(path = %path.display(), error, "the access log cannot be opened");
            Box::new(Nowhere)
        }
    }
}

/// In the place of a log that cannot be opened: what is written is lost, and counted as such.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One worker's lines.
pub(crate) struct LogBuffer {
    sender: mpsc::SyncSender<Message>,
    stats: Arc<WorkerStats>,
    lines: RefCell<Lines>,
    /// The text of a second, made once for all lines in it.
    second: RefCell<(i64, String)>,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
}

impl LogBuffer {
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lines.borrow_mut();
        if lines.bytes.capacity() == 0 {
            // A line is some 300 bytes: room for the last one without growing.
            lines.bytes.reserve_exact(BUFFER_BYTES + 1024);
        }
        write(&mut lines.bytes);
        lines.count += 1;
        if lines.bytes.len() >= BUFFER_BYTES {
            drop(lines);
            self.flush();
        }
    }

    pub(crate) fn flush(&self) {
        let Lines { bytes, count } = std::mem::take(&mut *self.lines.borrow_mut());
        if count > 0 && self.sender.try_send(Message::Lines(bytes)).is_err() {
            self.stats.log_lines_dropped.add(count);
        }
    }

    /// RFC 3339 with milliseconds, UTC.
    pub(crate) fn write_time(&self, line: &mut Vec<u8>, time: SystemTime) {
        let seconds = unix_seconds(time);
        let mut second = self.second.borrow_mut();
        if second.0 != seconds || second.1.is_empty() {
            let text = jiff::Timestamp::from_second(seconds)
                .map(|stamp| stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string());
            *second = (seconds, text.unwrap_or_default());
        }
        line.extend_from_slice(second.1.as_bytes());
        let since = time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let milliseconds = since.subsec_millis();
        line.push(b'.');
        for divisor in [100, 10, 1] {
            // One decimal digit.
            line.push(b'0' + (milliseconds / divisor % 10) as u8);
        }
        line.push(b'Z');
    }
}

/// Ends the thread once every buffer is gone as well.
impl Drop for LogWriter {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stuck_writer_costs_lines_and_not_time() {
        let (sender, receiver) = mpsc::sync_channel(1);
        let stats: Arc<WorkerStats> = Arc::default();
        let buffer = LogBuffer {
            sender,
            stats,
            lines: RefCell::default(),
            second: RefCell::default(),
        };
        for _ in 0..3 {
            buffer.line(|line| line.extend_from_slice(b"one\n"));
            buffer.line(|line| line.extend_from_slice(b"two\n"));
            buffer.flush();
        }
        let Ok(Message::Lines(kept)) = receiver.try_recv() else {
            panic!("the first buffer was queued");
        };
        assert_eq!(kept, b"one\ntwo\n");
        assert!(receiver.try_recv().is_err(), "the others were dropped");
    }

    /// Takes so many bytes, then nothing more until there is room.
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_cuts_one_at_most() {
        let disk = Arc::new(Mutex::new((Vec::new(), 6)));
        let mut out = Disk(Arc::clone(&disk));
        let (written, result) = write_lines(&mut out, b"one\ntwo\n", false);
        assert_eq!(written, 6);
        assert!(result.is_err());
        assert_eq!(write_lines(&mut out, b"three\n", true).0, 0);
        disk.lock().unwrap().1 = 100;
        assert_eq!(write_lines(&mut out, b"four\n", true).0, 5);
        assert_eq!(disk.lock().unwrap().0, b"one\ntw\nfour\n");
    }

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let name = format!("postern-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// A writer whose queue is full of one buffer, and what its thread would read.
    fn stuck() -> (LogWriter, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::sync_channel(1);
        sender.try_send(Message::Lines(b"one\n".into())).unwrap();
        let writer = LogWriter {
            wanted: Arc::default(),
            sender: Some(sender),
            thread: None,
        };
        (writer, receiver)
    }

    #[test]
    fn a_destination_is_not_forgotten_while_the_writer_is_stuck() {
        let folder = folder("log-wanted");
        let (writer, receiver) = stuck();
        writer.open(Some(folder.join("passing")));
        writer.open(Some(folder.join("wanted")));
        let wanted = Arc::clone(&writer.wanted);
        drop(writer);
        let before = Some(folder.join("before"));
        write_all(before, &receiver, &wanted, &Counter::default());
        let written = std::fs::read(folder.join("wanted")).unwrap();
        assert_eq!(written, b"one\n");
        assert!(!folder.join("passing").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn lines_for_a_log_that_cannot_be_opened_are_counted() {
        let (writer, receiver) = stuck();
        let wanted = Arc::clone(&writer.wanted);
        drop(writer);
        let lost = Counter::default();
        let path = std::env::temp_dir().join("postern-no-such-folder/log");
        write_all(Some(path), &receiver, &wanted, &lost);
        assert_eq!(lost.value(), 1);
    }

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let (sender, _receiver) = mpsc::sync_channel(1);
        let buffer = LogBuffer {
            sender,
            stats: Arc::default(),
            lines: RefCell::default(),
            second: RefCell::default(),
        };
        let mut line = Vec::new();
        let time = std::time::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        buffer.write_time(&mut line, time);
        assert_eq!(line, b"2023-11-14T22:13:20.042Z");
    }
}
