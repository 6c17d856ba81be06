//! What was fetched, on disk, so that a start needs no server.
//!
//! Each file is named by the SHA-256 of what is in it and is checked against that whenever it is
//! read: a torn write, a failing disk and a forger all look the same, like nothing at all.
//!
//! A cache only saves the network: what goes wrong with it is logged, not returned.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use postern_core::config::source::Digest;
use sha2::Digest as _;
use sha2::Sha256;

use crate::source::file::read_small;

/// The folder in the cache directory.
const FOLDER: &str = "fetched";
/// Files kept; the ones used longest ago go first, those in use never.
const MAX_FILES: usize = 512;
/// Bytes kept, all files together; beyond it even those in use go. With the compiled components
/// beside them they have to fit into the volume that the manifests give a pod, which is evicted
/// otherwise.
const MAX_BYTES: u64 = 384 << 20;
/// Age of a temporary file that no living process can still be writing.
const ABANDONED: Duration = Duration::from_secs(600);

pub(super) struct Blobs {
    dir: PathBuf,
    /// What this process has read or written: it would be missed at the next start.
    used: Mutex<BTreeSet<Digest>>,
}

/// The SHA-256 of some bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

impl Blobs {
    /// A folder in the cache directory, made when something is first kept in it.
    pub(super) fn new(cache_dir: PathBuf) -> Self {
        Self {
            dir: cache_dir.join(FOLDER),
            used: Mutex::default(),
        }
    }

    /// Blocks, as does everything here.
    pub(super) fn load(&self, digest: &Digest, limit: usize) -> Option<Bytes> {
        let path = self.dir.join(digest.as_hex());
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let bytes = match read_small(&path, limit) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was fetched is unreadable");
                return None;
            }
        };
        if digest_of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "what was fetched is damaged; fetching again");
            return None;
        }
        // So that what is in use is not what goes first.
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(path = %path.display(), %error, "what was fetched keeps its age");
        }
        self.used().insert(digest.clone());
        Some(bytes.into())
    }

    /// Keeps bytes whose digest was checked.
    pub(super) fn store(&self, digest: &Digest, bytes: &[u8]) {
        self.used().insert(digest.clone());
        if let Err(error) = self.write(digest, bytes).and_then(|()| self.tidy()) {
            let dir = self.dir.display();
            tracing::warn!(path = %dir, %error, "what was fetched cannot be kept");
        }
    }

    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.dir)?;
        let number = getrandom::u64().unwrap_or_default();
        let temporary = format!("{}-{number:016x}.tmp", std::process::id());
        let temporary = self.dir.join(temporary);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&temporary, self.dir.join(digest.as_hex())));
        written.inspect_err(|_| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn tidy(&self) -> io::Result<()> {
        let used = self.used().clone();
        let mut files: Vec<(bool, SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (found, path) = (entry.metadata()?, entry.path());
            let age = found.modified()?;
            if path.extension().is_some_and(|extension| extension == "tmp") {
                if age.elapsed().is_ok_and(|age| age > ABANDONED) {
                    fs::remove_file(path)?;
                }
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str());
            let is_used = name
                .and_then(|name| Digest::parse(name).ok())
                .is_some_and(|digest| used.contains(&digest));
            files.push((is_used, age, found.len(), path));
        }
        files.sort_by_key(|(is_used, age, ..)| Reverse((*is_used, *age)));
        let mut bytes = 0;
        for (rank, (is_used, _, len, path)) in files.iter().enumerate() {
            let is_too_much = bytes + len > MAX_BYTES || (rank >= MAX_FILES && !is_used);
            match is_too_much {
                true => fs::remove_file(path)?,
                false => bytes += len,
            }
        }
        Ok(())
    }

    /// The lock is held for moments and nothing under it panics halfway.
    fn used(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::test_dir::TestDir;

    #[test]
    fn what_is_kept_is_what_was_fetched_or_nothing() {
        let dir = TestDir::new();
        let blobs = Blobs::new(dir.path(""));
        let digest = digest_of(b"component");
        assert_eq!(blobs.load(&digest, 100), None);
        blobs.store(&digest, b"component");
        assert_eq!(blobs.load(&digest, 100).as_deref(), Some(&b"component"[..]));
        assert_eq!(blobs.load(&digest, 8), None, "more than was asked for");

        let path = dir.path(FOLDER).join(digest.as_hex());
        for damage in [&b"componenT"[..], b"compo", b""] {
            fs::write(&path, damage).unwrap();
            assert_eq!(blobs.load(&digest, 100), None);
        }
        blobs.store(&digest, b"component");
        assert!(blobs.load(&digest, 100).is_some(), "it is put right");
        let files = fs::read_dir(dir.path(FOLDER)).unwrap().count();
        assert_eq!(files, 1, "nothing temporary is left");
    }

    #[test]
    fn what_is_used_stays_when_there_is_too_much() {
        let dir = TestDir::new();
        let old = Blobs::new(dir.path(""));
        for number in 0..MAX_FILES + 3 {
            let bytes = number.to_le_bytes();
            // Written by an earlier process: nobody misses them now.
            old.write(&digest_of(&bytes), &bytes).unwrap();
        }
        let blobs = Blobs::new(dir.path(""));
        let oldest = digest_of(&0_usize.to_le_bytes());
        blobs.used().insert(oldest.clone());
        let path = dir.path(FOLDER).join(oldest.as_hex());
        let file = File::open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        blobs.store(&digest_of(b"new"), b"new");
        let files = fs::read_dir(dir.path(FOLDER)).unwrap().count();
        assert_eq!(files, MAX_FILES, "the most, with what is in use");
        assert!(blobs.load(&oldest, 100).is_some());
        assert!(blobs.load(&digest_of(b"new"), 100).is_some());
    }

    #[test]
    fn what_is_used_goes_when_it_has_no_room() {
        let dir = TestDir::new();
        let blobs = Blobs::new(dir.path(""));
        blobs.store(&digest_of(b"first"), b"first");
        for name in [&b"a"[..], b"b", b"c", b"d"] {
            let digest = digest_of(name);
            let file = File::create(dir.path(FOLDER).join(digest.as_hex())).unwrap();
            // It takes no room here.
            file.set_len(MAX_BYTES / 3).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            blobs.used().insert(digest);
        }
        blobs.store(&digest_of(b"new"), b"new");
        let files = fs::read_dir(dir.path(FOLDER)).unwrap();
        let lens = files.map(|file| file.unwrap().metadata().unwrap().len());
        assert!(lens.sum::<u64>() <= MAX_BYTES);
        assert!(blobs.load(&digest_of(b"new"), 100).is_some());
        assert!(blobs.load(&digest_of(b"first"), 100).is_some());
    }
}
