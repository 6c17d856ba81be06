//! The cache finds what it stored, and takes nothing else.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::component::Component;
use crate::component::tests::plugin;
use crate::engine::PluginEngine;

/// A directory that is gone after the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("postern-{}", unique_name()));
        Self(dir)
    }

    fn engine(&self) -> Arc<PluginEngine> {
        PluginEngine::new(Some(self.0.clone())).unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A test that failed early has not made it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_component_is_compiled_once() {
    let dir = TempDir::new();
    let first = Component::load(&dir.engine(), &plugin()).unwrap();
    let second = Component::load(&dir.engine(), &plugin()).unwrap();
    assert!(!first.was_cached() && second.was_cached());
    let entries = dir.entries();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let name = entries[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("{}-{WASMTIME_VERSION}-", first.digest())));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.0), mode(&entries[0])), (0o700, 0o600));
}

#[test]
fn a_damaged_entry_is_compiled_again() {
    let dir = TempDir::new();
    Component::load(&dir.engine(), &plugin()).unwrap();
    let path = dir.entries().remove(0);
    let sound = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        ("empty", Vec::new()),
        ("short", sound[..10].to_vec()),
        ("truncated", sound[..sound.len() - 1].to_vec()),
        ("one bit of the code", flipped(sound.len() / 2)),
        ("one bit of the digest", flipped(sound.len() - 1)),
    ];
    for (what, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let again = Component::load(&dir.engine(), &plugin()).unwrap();
        assert!(!again.was_cached(), "{what}");
        assert_eq!(fs::read(&path).unwrap().len(), sound.len(), "{what}");
    }
    assert!(
        Component::load(&dir.engine(), &plugin())
            .unwrap()
            .was_cached()
    );
}

#[test]
fn an_entry_that_others_may_write_is_not_run() {
    let dir = TempDir::new();
    Component::load(&dir.engine(), &plugin()).unwrap();
    let path = dir.entries().remove(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(
        !Component::load(&dir.engine(), &plugin())
            .unwrap()
            .was_cached()
    );
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let dir = TempDir::new();
    fs::create_dir(&dir.0).unwrap();
    for mode in [0o720, 0o702, 0o777] {
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(mode)).unwrap();
        let error = PluginEngine::new(Some(dir.0.clone())).err().unwrap();
        assert!(
            matches!(error, PluginError::CacheNotPrivate { .. }),
            "{mode:o}"
        );
    }
}

#[test]
fn the_entries_used_longest_ago_go_first() {
    let dir = TempDir::new();
    let engine = dir.engine();
    let old = SystemTime::now() - Duration::from_secs(3600);
    for n in 0..MAX_ENTRIES + 3 {
        let file = private_file(&dir.0.join(format!("{n}.cwasm"))).unwrap();
        file.set_modified(old + Duration::from_secs(n as u64))
            .unwrap();
    }
    let abandoned = private_file(&dir.0.join("1-1.tmp")).unwrap();
    abandoned.set_modified(old).unwrap();
    Component::load(&engine, &plugin()).unwrap();
    let left = dir.entries();
    assert_eq!(left.len(), MAX_ENTRIES);
    for gone in ["0.cwasm", "3.cwasm", "1-1.tmp"] {
        assert!(!left.contains(&dir.0.join(gone)), "{gone}");
    }
    assert!(left.contains(&dir.0.join("4.cwasm")));
}

#[test]
fn the_version_in_the_names_is_that_of_the_engine() {
    let lock = include_str!("../../../../../Cargo.lock");
    let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"");
    assert!(lock.contains(&entry));
}
