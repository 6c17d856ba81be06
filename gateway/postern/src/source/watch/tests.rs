//! The ways in which files change, each seen by its event or, where there is none, by the poll.

use std::os::unix::fs::symlink;

use super::*;
use crate::source::test_dir::TestDir;

/// Far above what an event takes, below what would let the slow poll pass for it.
const BY_EVENT: Duration = Duration::from_secs(4);
const BY_POLL: Duration = Duration::from_secs(20);

struct Case {
    dir: TestDir,
    main: PathBuf,
    watch: Watch,
}

impl Case {
    fn new(prepare: impl FnOnce(&TestDir)) -> Self {
        let dir = TestDir::new();
        prepare(&dir);
        let main = dir.path("etc/postern.toml");
        let watch = Watch::new(dir.path("etc/routes.d"));
        let mut case = Self { dir, main, watch };
        case.cover();
        case
    }

    fn plain() -> Self {
        Self::new(|dir| {
            dir.write("etc/postern.toml", "one");
        })
    }

    fn cover(&mut self) {
        self.watch.cover(BTreeSet::from([self.main.clone()]));
    }

    /// Waits until the file reads like this, looking only when the watch says so.
    async fn sees(&mut self, want: Option<&str>, within: Duration) {
        let seen = tokio::time::timeout(within, async {
            loop {
                self.watch.changed().await;
                self.cover();
                if fs::read_to_string(&self.main).ok().as_deref() == want {
                    return;
                }
            }
        });
        assert!(seen.await.is_ok(), "{want:?} was not seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen() {
    let mut case = Case::plain();
    case.dir.write("etc/postern.toml", "two");
    case.sees(Some("two"), BY_EVENT).await;
    case.dir.write("etc/postern.toml", "three");
    case.sees(Some("three"), BY_EVENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_the_file_is_seen_each_time() {
    let mut case = Case::plain();
    for text in ["two", "three", "four"] {
        let new = case.dir.write("etc/.postern.toml.tmp", text);
        fs::rename(new, &case.main).unwrap();
        case.sees(Some(text), BY_EVENT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_volume_swap_is_seen_each_time() {
    let mut case = Case::new(|dir| {
        dir.write("etc/..1/postern.toml", "one");
        symlink("..1", dir.path("etc/..data")).unwrap();
        symlink("..data/postern.toml", dir.path("etc/postern.toml")).unwrap();
    });
    for number in 2..6 {
        // As kubelet's AtomicWriter does it: new directory, new link, rename, remove the old.
        let text = number.to_string();
        case.dir
            .write(&format!("etc/..{number}/postern.toml"), &text);
        symlink(format!("..{number}"), case.dir.path("etc/..data_tmp")).unwrap();
        fs::rename(case.dir.path("etc/..data_tmp"), case.dir.path("etc/..data")).unwrap();
        fs::remove_dir_all(case.dir.path(&format!("etc/..{}", number - 1))).unwrap();
        case.sees(Some(&text), BY_EVENT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_and_made_again_is_seen() {
    let mut case = Case::plain();
    for text in ["two", "three"] {
        fs::remove_dir_all(case.dir.path("etc")).unwrap();
        case.sees(None, BY_EVENT).await;
        case.dir.write("etc/postern.toml", text);
        case.sees(Some(text), BY_EVENT).await;
    }
    // And replaced by another under the same name.
    let new = case.dir.write("new/postern.toml", "four");
    fs::rename(case.dir.path("etc"), case.dir.path("old")).unwrap();
    fs::rename(new.parent().unwrap(), case.dir.path("etc")).unwrap();
    case.sees(Some("four"), BY_EVENT).await;
    case.dir.write("etc/postern.toml", "five");
    case.sees(Some("five"), BY_EVENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_elsewhere_is_seen_through_its_link() {
    let mut case = Case::new(|dir| {
        let real = dir.write("real/file.toml", "one");
        fs::create_dir_all(dir.path("etc")).unwrap();
        symlink(real, dir.path("etc/postern.toml")).unwrap();
    });
    case.dir.write("real/file.toml", "two");
    case.sees(Some("two"), BY_EVENT).await;
    let other = case.dir.write("other/file.toml", "three");
    fs::remove_file(&case.main).unwrap();
    symlink(other, &case.main).unwrap();
    case.sees(Some("three"), BY_EVENT).await;
    case.dir.write("other/file.toml", "four");
    case.sees(Some("four"), BY_EVENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drop_in_folder_is_seen_when_it_appears_and_when_it_changes() {
    let mut case = Case::plain();
    let wait = |watch: &mut Watch| {
        let paths = watch.paths.clone();
        watch.cover(paths);
    };
    for text in ["one", "two"] {
        case.dir.write("etc/routes.d/a.toml", text);
        let seen = tokio::time::timeout(BY_EVENT, case.watch.changed()).await;
        assert!(seen.is_ok(), "{text}");
        wait(&mut case.watch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_not_looked_at_while_it_is_written() {
    use std::io::Write as _;

    let mut case = Case::plain();
    let mut file = fs::File::create(&case.main).unwrap();
    for part in ["t", "w", "o"] {
        file.write_all(part.as_bytes()).unwrap();
        // Longer than the quiet time: only the open file keeps the watch waiting.
        let early = tokio::time::timeout(QUIET * 4, case.watch.changed()).await;
        assert!(early.is_err(), "looked at half a file");
    }
    drop(file);
    case.sees(Some("two"), BY_EVENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_never_closes_is_not_waited_for_forever() {
    use std::io::Write as _;

    let mut case = Case::plain();
    let mut file = fs::File::create(&case.main).unwrap();
    file.write_all(b"two").unwrap();
    case.sees(Some("two"), STALLED_WRITER * 2).await;
    drop(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_changes_is_looked_at_all_the_same() {
    let mut case = Case::plain();
    let path = case.main.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = tokio::task::spawn_blocking(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            fs::write(&path, "storm").unwrap();
            std::thread::yield_now();
        }
    });
    let looked = tokio::time::timeout(BY_EVENT, case.watch.changed()).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    assert!(looked.is_ok(), "starved");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poll_sees_what_no_event_tells() {
    let mut case = Case::plain();
    case.watch.watcher = None;
    case.cover();
    case.dir.write("etc/postern.toml", "two");
    case.sees(Some("two"), BY_POLL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poke_is_answered_at_once() {
    let mut case = Case::plain();
    case.watch.poke().poke();
    let poked = tokio::time::timeout(BY_EVENT, case.watch.changed()).await;
    assert!(poked.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_matter_are_not_looked_at() {
    let mut case = Case::plain();
    case.dir.write("etc/other.toml", "x");
    case.dir.write("etc/routes.d/.hidden.toml", "x");
    // Seen after the others, and alone.
    let looked = tokio::time::timeout(QUIET * 4, case.watch.changed()).await;
    // The folder itself is new, which matters.
    assert!(looked.is_ok());
    case.cover();
    case.dir.write("etc/routes.d/.hidden.toml", "y");
    case.dir.write("etc/routes.d/a.toml~", "y");
    let looked = tokio::time::timeout(QUIET * 4, case.watch.changed()).await;
    assert!(looked.is_err(), "looked for nothing");
}
