//! Notices that files have changed, in all the ways in which files really change.
//!
//! Directories are watched, never files: an editor that renames over a file, `sed -i` and a
//! Kubernetes volume (where `..data`, a link to a directory, is swapped) all leave the watched file
//! behind, while the directory sees the new one. For each file, every directory is watched in which
//! a change could make its path mean something else: its own, the one above, and those of all
//! symbolic links on the way.
//!
//! A file that somebody writes to without having closed it is not looked at, since a half-written
//! file may well be valid. That wait is bounded: a writer that stands still, or never ends, does not
//! keep other changes out.
//!
//! A poll is the net for what no event tells: network file systems, a directory that vanished with
//! its watch, too many watches.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use notify::EventKind;
use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher as _;
use notify::event::AccessKind;
use notify::event::AccessMode;
use notify::event::CreateKind;
use notify::event::ModifyKind;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::file::Identity;
use super::file::Stamp;
use super::file::is_drop_in;

/// A change is looked at once nothing has happened for this long...
const QUIET: Duration = Duration::from_millis(50);
/// ...and after this long in any case, so that a storm of changes does not keep all of them out.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// A writer that has stood still for this long, with the file open, is taken to have finished.
const STALLED_WRITER: Duration = Duration::from_secs(3);
/// A writer that has gone on for this long keeps other changes out no longer.
const ENDLESS_WRITER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(5);
/// While a file or directory is missing, so that its return is seen soon.
const POLL_MISSING: Duration = Duration::from_millis(500);
/// Symbolic links on one path; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Asks for a look at the files.
pub trait Poke: Send + Sync {
    fn poke(&self);
}

pub struct Watch {
    /// `None` if the system has no watch to give: the poll remains.
    watcher: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
    folder: PathBuf,
    paths: BTreeSet<PathBuf>,
    /// Watched directories, and which they were: another one may stand in their place.
    dirs: BTreeMap<PathBuf, Identity>,
    is_incomplete: bool,
    /// Of every path, taken before it was read.
    seen: BTreeMap<PathBuf, Option<Stamp>>,
    /// What the last poll found, if it was not what was seen.
    suspect: Option<BTreeMap<PathBuf, Option<Stamp>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Files and links whose change matters.
    names: BTreeSet<PathBuf>,
    /// Watched directories.
    dirs: BTreeSet<PathBuf>,
    /// Those in which every drop-in file matters.
    folders: BTreeSet<PathBuf>,
    /// Watched directories of which an event said that they are gone.
    lost: BTreeSet<PathBuf>,
    /// Files that were written to and not closed, and when they were last written to.
    writing: HashMap<PathBuf, Instant>,
    /// The first and the last change since the files were read.
    changed: Option<(Instant, Instant)>,
    is_poked: bool,
}

impl Watch {
    pub fn new(folder: PathBuf) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Notify::new(),
        });
        let handler = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event| handler.handle(event));
        let watcher = watcher.inspect_err(|error| {
            let error: &dyn std::error::Error = error;
            tracing::warn!(
                error,
                "files cannot be watched; changes are seen within seconds"
            );
        });
        Self {
            watcher: watcher.ok(),
            shared,
            folder,
            paths: BTreeSet::new(),
            dirs: BTreeMap::new(),
            is_incomplete: false,
            seen: BTreeMap::new(),
            suspect: None,
        }
    }

    pub fn poke(&self) -> Arc<dyn Poke> {
        Arc::clone(&self.shared) as Arc<dyn Poke>
    }

    /// Watches these paths and no others, from their state now.
    pub fn cover(&mut self, paths: BTreeSet<PathBuf>) {
        self.paths = paths;
        self.arm();
        self.seen = self.stamps();
        self.suspect = None;
    }

    /// Watches these paths as well; of those watched already, the state remains that of
    /// [`Watch::cover`].
    pub fn extend(&mut self, paths: BTreeSet<PathBuf>) {
        if paths == self.paths {
            return;
        }
        self.paths = paths;
        self.arm();
        let mut stamps = self.stamps();
        for (path, stamp) in &mut stamps {
            if let Some(seen) = self.seen.get(path) {
                *stamp = *seen;
            }
        }
        self.seen = stamps;
    }

    pub fn is_being_written(&self) -> bool {
        !self.shared.lock().writing.is_empty()
    }

    /// Whether these files are as they were when the watch began to cover them. Blocks.
    pub fn is_as_seen(&self, paths: &BTreeSet<PathBuf>) -> bool {
        let is_as_seen = |path: &PathBuf| self.seen.get(path) == Some(&Stamp::of(path));
        paths.iter().all(is_as_seen)
    }

    pub fn has_changed(&self) -> bool {
        let state = self.shared.lock();
        state.is_poked || state.changed.is_some()
    }

    /// Resolves after a change, when it is time to look.
    pub async fn changed(&mut self) {
        let mut next_poll = Instant::now() + self.poll_interval();
        loop {
            let due = self.shared.due(Instant::now());
            if due.is_some_and(|due| due <= Instant::now()) {
                self.shared.take();
                return;
            }
            let wake_at = due.map_or(next_poll, |due| due.min(next_poll));
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
            if Instant::now() >= next_poll {
                tokio::task::block_in_place(|| self.poll());
                next_poll = Instant::now() + self.poll_interval();
            }
        }
    }

    fn poll_interval(&self) -> Duration {
        if self.is_incomplete || self.suspect.is_some() {
            POLL_MISSING
        } else {
            POLL
        }
    }

    /// Looks for changes that no event told of. One that is still going on is left alone until
    /// two looks see the same.
    fn poll(&mut self) {
        if self.arm() {
            self.shared.note_change();
        }
        let now = self.stamps();
        if now == self.seen {
            self.suspect = None;
        } else if self.suspect.as_ref() == Some(&now) {
            self.suspect = None;
            self.seen = now;
            self.shared.note_change();
        } else {
            self.suspect = Some(now);
        }
    }

    fn stamps(&self) -> BTreeMap<PathBuf, Option<Stamp>> {
        // The folder itself stands for its list of names.
        let paths = self.paths.iter().chain([&self.folder]);
        paths.map(|path| (path.clone(), Stamp::of(path))).collect()
    }

    /// Brings the watches in line with the paths. Returns whether a watched directory has been
    /// replaced.
    fn arm(&mut self) -> bool {
        let mut chain = Chain::default();
        for path in &self.paths {
            chain.follow(path);
        }
        self.is_incomplete = chain.is_incomplete;
        // Without a folder nothing is missing: an event tells when there is one.
        let folders: BTreeSet<PathBuf> = chain.follow(&self.folder).into_iter().collect();
        chain.dirs.extend(folders.iter().cloned());

        let lost = {
            let mut state = self.shared.lock();
            state.names = chain.names;
            state.dirs.clone_from(&chain.dirs);
            state.folders = folders;
            std::mem::take(&mut state.lost)
        };
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut is_replaced = false;
        self.dirs.retain(|dir, identity| {
            let is_same = Identity::of(dir) == Some(*identity) && !lost.contains(dir);
            is_replaced |= !is_same;
            let is_kept = is_same && chain.dirs.contains(dir);
            if !is_kept {
                // Fails if the directory is gone, and the watch with it.
                let _ = watcher.unwatch(dir);
            }
            is_kept
        });
        for dir in chain.dirs {
            if self.dirs.contains_key(&dir) {
                continue;
            }
            // Identified before it is watched: if it is replaced in between, the next look tells.
            let Some(identity) = Identity::of(&dir) else {
                self.is_incomplete = true;
                continue;
            };
            match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.dirs.insert(dir, identity);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, dir = %dir.display(), "directory not watched");
                    self.is_incomplete = true;
                }
            }
        }
        is_replaced
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through an update.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs in the watcher's own thread.
    fn handle(&self, event: notify::Result<notify::Event>) {
        let now = Instant::now();
        let mut state = self.lock();
        let is_relevant = match event {
            Ok(event) if event.need_rescan() => {
                // Events were lost; among them, perhaps, the end of a write.
                state.writing.clear();
                true
            }
            Ok(event) => state.apply(&event, now),
            Err(_) => true,
        };
        if is_relevant {
            state.note_change(now);
            drop(state);
            self.wake.notify_one();
        }
    }

    fn note_change(&self) {
        self.lock().note_change(Instant::now());
        self.wake.notify_one();
    }

    /// When to look, if there is anything to look at.
    fn due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if state.is_poked {
            return Some(now);
        }
        let (first, last) = state.changed?;
        let settled = (last + QUIET).min(first + LONGEST_WAIT);
        state.writing.retain(|_, at| *at + STALLED_WRITER > now);
        let written = state.writing.values().max();
        let written = written.map(|at| (*at + STALLED_WRITER).min(first + ENDLESS_WRITER));
        Some(written.map_or(settled, |written| written.max(settled)))
    }

    fn take(&self) {
        let mut state = self.lock();
        state.changed = None;
        state.is_poked = false;
        let now = Instant::now();
        // Those that were waited for in vain are not waited for again.
        state.writing.retain(|_, at| *at >= now);
    }
}

impl Poke for Shared {
    fn poke(&self) {
        self.lock().is_poked = true;
        self.wake.notify_one();
    }
}

impl State {
    fn note_change(&mut self, now: Instant) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// Whether the event is about anything that matters.
    fn apply(&mut self, event: &notify::Event, now: Instant) -> bool {
        let mut is_relevant = false;
        for path in &event.paths {
            let is_folder = path.parent().is_some_and(|dir| self.folders.contains(dir));
            let is_file = self.names.contains(path) || (is_folder && is_drop_in(path));
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.writing.remove(path);
                    is_relevant |= is_file;
                }
                // Our own reading is among these.
                EventKind::Access(_) => {}
                EventKind::Modify(ModifyKind::Data(_)) if is_file => {
                    self.writing.insert(path.clone(), now);
                    is_relevant = true;
                }
                // A new file that is empty is about to be written, or is closed at once. Links and
                // what was renamed are whole.
                EventKind::Create(CreateKind::File) if is_file => {
                    let found = fs::symlink_metadata(path);
                    if found.is_ok_and(|found| found.is_file() && found.len() == 0) {
                        self.writing.insert(path.clone(), now);
                    }
                    is_relevant = true;
                }
                EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                    self.writing.remove(path);
                    is_relevant |= is_file;
                    if self.dirs.contains(path) {
                        // The watch has ended, or has moved away with the directory.
                        self.lost.insert(path.clone());
                        is_relevant = true;
                    }
                }
                _ => is_relevant |= is_file,
            }
        }
        is_relevant
    }
}

/// What has to be watched so that no change of what some paths lead to is missed.
#[derive(Default)]
struct Chain {
    dirs: BTreeSet<PathBuf>,
    /// Files, links and directories in `dirs` that the paths lead through.
    names: BTreeSet<PathBuf>,
    is_incomplete: bool,
}

impl Chain {
    /// Adds a path. Returns the place that it leads to, without any links, if it leads anywhere.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let place = self.walk(path);
        self.is_incomplete |= place.is_none();
        place
    }

    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut left: VecDeque<OsString> = names_of(&std::path::absolute(path).ok()?).collect();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let found = fs::symlink_metadata(&next);
            let is_link = found.as_ref().is_ok_and(fs::Metadata::is_symlink);
            if is_link || found.is_err() || left.is_empty() {
                self.names.insert(next.clone());
                self.watch(&at);
            }
            if found.is_err() {
                return None;
            }
            if !is_link {
                at = next;
                continue;
            }
            links += 1;
            let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            left = names_of(&target).chain(left).collect();
        }
        Some(at)
    }

    /// The directory, and the one above, which sees it come back after it was removed.
    fn watch(&mut self, dir: &Path) {
        self.dirs.insert(dir.to_owned());
        self.names.insert(dir.to_owned());
        self.dirs.extend(dir.parent().map(Path::to_owned));
    }
}

fn names_of(path: &Path) -> impl Iterator<Item = OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    parts.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests;
