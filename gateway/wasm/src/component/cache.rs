//! Compiled components on disk, so that a restart does not compile again.
//!
//! What stands here is machine code that the gateway runs as its own. So the directory and the
//! entries must belong to this user and be writable by no one else, and each entry ends with a
//! digest of itself, which finds torn writes and failing disks (a forger who can write here has
//! won anyway). An entry that is not as it should be is compiled again, never repaired.
//!
//! A cache only saves time: what goes wrong after it was opened is logged, not returned.

use std::cmp::Reverse;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use sha2::Digest;
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::component::hex;
use crate::error::PluginError;

/// Entries kept; the ones used longest ago go first.
const MAX_ENTRIES: usize = 64;
/// Bytes kept, all entries together.
const MAX_BYTES: u64 = 512 << 20;
/// In the names of entries, for the eyes of an operator. The engine checks its own version again.
const WASMTIME_VERSION: &str = "48.0.8";
const DIGEST_LEN: u64 = 32;
/// Age of a temporary file that no living process can still be writing.
const ABANDONED: Duration = Duration::from_secs(600);
/// Write permission of group and others.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// A directory of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    uid: u32,
    /// Code is good for one version of the engine with one configuration on one processor.
    config: String,
}

impl Cache {
    pub(crate) fn open(dir: PathBuf, engine: &Engine) -> Result<Self, PluginError> {
        let failed = |source| PluginError::Cache {
            path: dir.clone(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&dir).map_err(failed)?;
        let found = fs::symlink_metadata(&dir).map_err(failed)?;
        let uid = own_uid(&dir).map_err(failed)?;
        if !found.is_dir() || found.uid() != uid || found.mode() & OTHERS_MAY_WRITE != 0 {
            return Err(PluginError::CacheNotPrivate { path: dir });
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let config = hex(&hasher.0.finalize()[..8]);
        Ok(Self { dir, uid, config })
    }

    /// The compiled form of the component with this digest, if it is here and sound.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached component is unreadable");
                return None;
            }
        };
        if let Err(error) = self.check(&file) {
            tracing::warn!(path = %path.display(), %error, "cached component is not sound");
            return None;
        }
        // So that what is in use is not what goes first.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!(path = %path.display(), %error, "cached component keeps its age");
        }
        #[allow(
            unsafe_code,
            reason = "compiled components are loaded, not compiled, at start-up"
        )]
        // SAFETY: the file must be what `Component::serialize` wrote, and must not change while
        // it is mapped. `open` saw that the directory belongs to this user and that nobody else
        // may write to it, `check` the same of the file; `store` alone puts files there, under
        // this name only what this engine made, whole (rename) and never modified afterwards; the
        // digest at the end of the file rules out that it was damaged since.
        let code = unsafe { Component::deserialize_file(engine, &path) };
        code.inspect_err(|error| {
            tracing::warn!(
                path = %path.display(),
                error = format!("{error:#}"),
                "cached component does not load"
            );
        })
        .ok()
    }

    /// Keeps a compiled component, and removes what is too much.
    pub(crate) fn store(&self, digest: &str, code: &Component) {
        let stored = code
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|bytes| self.write(&self.path(digest), &bytes));
        let tidied = stored.and_then(|()| self.tidy());
        if let Err(error) = tidied {
            tracing::warn!(path = %self.dir.display(), %error, "compile cache is not writable");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        let config = &self.config;
        self.dir
            .join(format!("{digest}-{WASMTIME_VERSION}-{config}.cwasm"))
    }

    fn check(&self, mut file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != self.uid || found.mode() & OTHERS_MAY_WRITE != 0 {
            return Err(io::Error::other("others may write to it"));
        }
        let Some(len) = found.len().checked_sub(DIGEST_LEN) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut content = (&mut file).take(len);
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let mut digest = [0; DIGEST_LEN as usize];
        file.read_exact(&mut digest)?;
        if digest[..] != hasher.finalize()[..] {
            return Err(io::Error::other("its digest is another"));
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(unique_name());
        let mut file = private_file(&temporary)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.write_all(&Sha256::digest(bytes)))
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&temporary, path));
        written.inspect_err(|_| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn tidy(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (found, path) = (entry.metadata()?, entry.path());
            let age = found.modified()?;
            match path.extension().and_then(|e| e.to_str()) {
                Some("cwasm") => entries.push((age, found.len(), path)),
                Some("tmp") if age.elapsed().is_ok_and(|age| age > ABANDONED) => {
                    fs::remove_file(path)?;
                }
                _ => {}
            }
        }
        entries.sort_by_key(|(age, ..)| Reverse(*age));
        let mut bytes = 0;
        for (rank, (_, len, path)) in entries.iter().enumerate() {
            bytes += len;
            // The newest stays, however large: it was just compiled.
            if rank > 0 && (rank >= MAX_ENTRIES || bytes > MAX_BYTES) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The user that this process writes files as: asked of the file system itself, since the
/// standard library has no other way.
fn own_uid(dir: &Path) -> io::Result<u32> {
    let path = dir.join(unique_name());
    let uid = private_file(&path)?.metadata()?.uid();
    fs::remove_file(&path)?;
    Ok(uid)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Two gateways may share a directory, so the name says who is writing.
fn unique_name() -> String {
    let number = getrandom::u64().unwrap_or_default();
    format!("{}-{number:016x}.tmp", std::process::id())
}

/// Hashes that must be the same in another process, which the standard hashers do not promise.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest[..8]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests;
