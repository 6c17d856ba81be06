//! A folder of one machine: a folder for each kind, a file for each document.
//!
//! Folders have mode 0700 and files 0600, whatever the umask: they hold private keys. A file is
//! written beside its place, synced, and renamed into it. One process at a time writes: it holds a
//! lock on the folder, which ends with it however it ends.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::Kind;
use super::Store;
use super::StoreError;

/// Largest document: a chain of certificates with its key takes a hundredth of it.
const MAX_DOCUMENT: u64 = 1 << 20;
const LOCK: &str = "lock";
const ENDING: &str = ".json";
/// What a write that was cut short leaves.
const UNFINISHED: &str = ".part";

#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "its descriptor is the lock")] File);

impl DirectoryStore {
    /// Makes the folders that are not there. Blocks.
    pub fn open(root: PathBuf) -> Result<Self, StoreError> {
        let store = Self { root };
        let folders = Kind::ALL.map(|kind| store.root.join(kind.as_str()));
        for folder in std::iter::once(&store.root).chain(&folders) {
            make_folder(folder).map_err(|error| at(folder, &error))?;
        }
        Ok(store)
    }

    /// `None` if another process has it. Blocks for a moment.
    pub fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        let path = self.root.join(LOCK);
        let failed = |error: &io::Error| at(&path, error);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    /// One document, for a start that has to know before it serves. Blocks.
    pub fn read(&self, kind: Kind, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read(&self.path(kind, name))
    }

    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        let folder = self.root.join(kind.as_str());
        folder.join(file_name(name) + ENDING)
    }
}

impl Store for DirectoryStore {
    fn load<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let path = self.path(kind, name);
        Box::pin(blocking(move || read(&path)))
    }

    fn save<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let path = self.path(kind, name);
        Box::pin(blocking(move || {
            write(&path, &bytes).map_err(|error| at(&path, &error))
        }))
    }

    fn delete<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let path = self.path(kind, name);
        Box::pin(blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, &error)),
            _ => Ok(()),
        }))
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let folder = self.root.join(kind.as_str());
        Box::pin(blocking(move || {
            let failed = |error: io::Error| at(&folder, &error);
            let mut names = Vec::new();
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(ENDING));
                names.extend(name.and_then(document_name));
            }
            names.sort();
            Ok(names)
        }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(StoreError {
            place: "state".to_owned(),
            error: "the gateway is ending".to_owned(),
        })
    })
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    match builder.mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path)?;
            if !metadata.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            // It is about to hold private keys.
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, &error)),
    };
    let mut bytes = Vec::new();
    let mut file = file.take(MAX_DOCUMENT + 1);
    file.read_to_end(&mut bytes)
        .map_err(|error| at(path, &error))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(at(path, &io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(UNFINISHED);
    let part = PathBuf::from(part);
    // One that is left over may have another mode.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // The rename is in the folder.
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn at(path: &Path, error: &io::Error) -> StoreError {
    StoreError {
        place: path.display().to_string(),
        error: error.to_string(),
    }
}

/// Letters, digits, '-', '_' and '.' stand for themselves, but no '.' in front.
fn file_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if is_plain || byte == b'.' && index > 0 {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Back again; `None` for a file that is not ours.
fn document_name(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("postern-store-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[tokio::test]
    async fn a_document_is_kept_under_any_name_and_for_its_owner_alone() {
        let root = folder("kept");
        let store = DirectoryStore::open(root.clone()).unwrap();
        for name in ["a.test", "*.b.test", "ns/name:1", ".hidden", "%41"] {
            let bytes = name.as_bytes().to_vec();
            store
                .save(Kind::Certificate, name, bytes.clone())
                .await
                .unwrap();
            store
                .save(Kind::Certificate, name, bytes.clone())
                .await
                .unwrap();
            let loaded = store.load(Kind::Certificate, name).await.unwrap();
            assert_eq!(loaded, Some(bytes), "{name}");
            let mode = fs::metadata(store.path(Kind::Certificate, name)).unwrap();
            assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
        }
        let mut names = store.list(Kind::Certificate).await.unwrap();
        names.sort();
        assert_eq!(names, ["%41", "*.b.test", ".hidden", "a.test", "ns/name:1"]);
        assert_eq!(store.list(Kind::Order).await.unwrap(), [""; 0]);
        store.delete(Kind::Certificate, "a.test").await.unwrap();
        store.delete(Kind::Certificate, "a.test").await.unwrap();
        let gone = store.load(Kind::Certificate, "a.test").await.unwrap();
        assert_eq!(gone, None);
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn one_party_writes_at_a_time() {
        let root = folder("lock");
        let store = DirectoryStore::open(root.clone()).unwrap();
        let lock = store.try_lock().unwrap();
        assert!(lock.is_some());
        assert!(store.try_lock().unwrap().is_none());
        drop(lock);
        assert!(store.try_lock().unwrap().is_some());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_used_is_named() {
        let root = folder("none/below");
        let error = DirectoryStore::open(root.clone()).unwrap_err();
        assert_eq!(error.place, root.display().to_string());
    }
}
