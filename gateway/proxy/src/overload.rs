//! What the process may take of the machine: file descriptors and memory.
//!
//! Connections are counted where they are accepted, and closed there when there are too many: a
//! tenth of what could be had is kept for upstreams and for the admin listener. Memory is looked at
//! by a thread of its own, since the answer is in a file; workers read a number, and add what they
//! have taken on since: see [`share`].

mod memory;
mod share;

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use postern_core::config::DEFAULT_CONNECTIONS;
use postern_core::config::MemorySteps;

use self::memory::ControlGroup;
pub(crate) use self::share::Begun;
use self::share::Book;
use self::share::Reserved;
pub(crate) use self::share::Share;

/// How often memory is looked at while there is enough of it...
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// ...and from so many percent on, when the rest may be used up within one look.
const CLOSE_LOOK_PERCENT: u8 = 60;
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long something is young, at least: by then it has taken the memory that it takes, or waits
/// for something else.
const PERIOD: Duration = Duration::from_secs(1);
/// Percent of the file descriptors that are reckoned with...
const FILES_PERCENT: u64 = 80;
/// ...and percent of those that clients get.
const CLIENTS_PERCENT: u64 = 90;

/// What all workers have taken so far.
pub(crate) struct Overload {
    /// Open connections of all listeners.
    connections: AtomicU32,
    /// Unless it is configured.
    most_connections: u32,
    /// Percent of the control group's memory in use; zero where there is no limit.
    memory: AtomicU8,
    book: Book,
}

impl Overload {
    /// Looks at the limits of the process, and from then on at its memory.
    pub(crate) fn start(workers: usize) -> Arc<Self> {
        let files = open_files_limit();
        let overload = Self::with(most_connections(files, open_files()), workers);
        tracing::debug!(
            connections = overload.most_connections,
            files,
            "limits of the process"
        );
        if let Some(group) = ControlGroup::find() {
            let watched = Arc::downgrade(&overload);
            // Ends with the data plane. Without the thread, memory is not looked at, which is how
            // a process without a control group runs.
            let started = thread::Builder::new()
                .name("memory".to_owned())
                .spawn(move || watch(&group, &watched));
            if let Err(error) = started {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "memory is not watched");
            }
        }
        overload
    }

    fn with(most_connections: u32, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicU32::new(0),
            most_connections,
            memory: AtomicU8::new(0),
            book: Book::new(workers),
        })
    }

    pub(crate) fn memory_percent(&self) -> u8 {
        self.memory.load(Ordering::Relaxed)
    }
}

/// Bytes of memory that the process may have: its control group's limit, else what the machine has.
/// `None` if neither can be read.
pub fn memory_limit() -> Option<u64> {
    let of_group = ControlGroup::find().and_then(|group| group.usage());
    let of_group = of_group.map(|usage| usage.limit);
    of_group
        .filter(|&limit| limit > 0)
        .or_else(memory::of_machine)
}

/// Counts an open connection, from accept to close.
pub(crate) struct Place {
    overload: Arc<Overload>,
    _reserved: Reserved,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.overload.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn watch(group: &ControlGroup, overload: &Weak<Overload>) {
    let mut was_high = false;
    let mut period = Duration::ZERO;
    while let Some(overload) = overload.upgrade() {
        if let Some(usage) = group.usage() {
            let percent = usage.percent();
            overload.book.looked(usage);
            overload.memory.store(percent, Ordering::Relaxed);
            let is_high = percent >= MemorySteps::default().close;
            if is_high != was_high {
                was_high = is_high;
                if is_high {
                    tracing::warn!(percent, "memory is nearly used up");
                } else {
                    tracing::info!(percent, "there is memory again");
                }
            }
        }
        let is_close = overload.memory_percent() >= CLOSE_LOOK_PERCENT;
        let interval = match is_close {
            true => CLOSE_LOOK_INTERVAL,
            false => LOOK_INTERVAL,
        };
        period += interval;
        if period >= PERIOD {
            period = Duration::ZERO;
            overload.book.age();
        }
        drop(overload);
        thread::park_timeout(interval);
    }
}

/// How many connections clients may have, of the files that the process may open and has open
/// already.
fn most_connections(limit: Option<u64>, open: u64) -> u32 {
    let Some(limit) = limit else {
        return DEFAULT_CONNECTIONS;
    };
    let reckoned = (limit * FILES_PERCENT / 100).saturating_sub(open.min(limit / 2));
    let clients = (reckoned * CLIENTS_PERCENT / 100).max(1);
    u32::try_from(clients)
        .unwrap_or(u32::MAX)
        .min(DEFAULT_CONNECTIONS)
}

/// The soft limit on file descriptors, if the system has one and tells.
fn open_files_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    parse_limit(&limits)
}

fn parse_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use postern_core::config::LimitsSpec;

    use super::*;

    #[test]
    fn a_tenth_is_kept_and_what_is_open_already_too() {
        let cases = [
            (None, 10, DEFAULT_CONNECTIONS),
            (Some(1_000_000), 10, DEFAULT_CONNECTIONS),
            (Some(25_000), 0, 18_000),
            (Some(1024), 0, 737),
            (Some(64), 21, 27),
            (Some(64), 60, 17),
            (Some(1), 1, 1),
        ];
        for (limit, open, want) in cases {
            assert_eq!(most_connections(limit, open), want, "{limit:?} {open}");
        }
    }

    #[test]
    fn the_limit_on_files_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(parse_limit(text), Some(1024));
        assert_eq!(parse_limit(&text.replace("1024 ", "unlimited ")), None);
        assert!(open_files_limit().is_some() && open_files() > 0);
    }

    #[test]
    fn the_last_place_is_given_and_not_one_more() {
        let overload = Overload::with(2, 1);
        let share = Share::new(&overload, 0);
        let spec = LimitsSpec::default();
        let first = share.admit(&spec);
        let second = share.admit(&spec);
        assert!(first.is_some() && second.is_some());
        assert!(share.admit(&spec).is_none());
        drop(first);
        assert!(share.admit(&spec).is_some());
        let one = LimitsSpec {
            connections: Some(1),
            ..spec
        };
        assert!(share.admit(&one).is_none(), "a setting counts instead");
    }
}
