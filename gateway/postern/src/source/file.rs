//! Reading configuration files: what is there now, each file a text or the reason why it is none.
//!
//! Invariants:
//! - Reading never waits for another process: what is no regular file is refused before it is
//!   opened, since opening a FIFO blocks until somebody writes.
//! - What is read is bounded, one file and all of them together.

use std::fs;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use postern_core::config::Problem;
use postern_core::config::parse::MAX_FILE_BYTES;
use postern_core::config::problem::ConfigText;
use postern_core::config::problem::Lines;
use postern_core::config::problem::Origin;

/// The folder beside the main file whose `*.toml` belong to the configuration.
pub const DROP_IN_FOLDER: &str = "routes.d";
/// Drop-in files that are read.
const MAX_FILES: usize = 4096;
/// Bytes of all files together.
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// How often a file is read that changes while it is read.
const TRIES: usize = 3;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            identity: Identity {
                device: found.dev(),
                inode: found.ino(),
            },
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Every file of a configuration as it is now.
#[derive(Debug)]
pub struct Reading {
    /// The main file, then the drop-in files by name.
    pub files: Vec<FileReading>,
    /// Whether there is a drop-in folder.
    pub has_folder: bool,
    /// What is wrong with the folder itself.
    pub problems: Vec<Problem>,
    /// A file changed each time it was read: what was read may be parts of two states.
    pub is_torn: bool,
}

#[derive(Debug)]
pub struct FileReading {
    pub path: PathBuf,
    pub text: Result<ConfigText, Problem>,
}

pub fn read(main: &Path) -> Reading {
    let folder = folder_of(main);
    let mut problems = Vec::new();
    let (names, has_folder) = match list(&folder) {
        Ok(names) => (names, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
        Err(error) => {
            let message = format!("the folder cannot be read: {}", reason(&error));
            problems.push(Problem::error(Origin::file(&folder), message));
            (Vec::new(), false)
        }
    };
    if names.len() > MAX_FILES {
        let message = format!("the folder holds more than {MAX_FILES} files");
        problems.push(Problem::error(Origin::file(&folder), message));
    }
    let mut left = MAX_TOTAL_BYTES;
    let mut is_torn = false;
    let paths = std::iter::once(main.to_owned()).chain(names.into_iter().take(MAX_FILES));
    let files = paths
        .map(|path| {
            let (text, is_whole) = read_whole(&path, left);
            is_torn |= !is_whole;
            left -= text.as_ref().map_or(0, |text| text.text.len()).min(left);
            FileReading { path, text }
        })
        .collect();
    Reading {
        files,
        has_folder,
        problems,
        is_torn,
    }
}

/// A file that belongs to no configuration text but is read for one: a password, roots, something
/// that was fetched. Refused where reading could block, or would not end.
pub fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        let message = format!("it is {}, not a file", kind_of(found.file_type()));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > limit) {
        let message = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

pub fn folder_of(main: &Path) -> PathBuf {
    main.with_file_name(DROP_IN_FOLDER)
}

/// Whether a file of this name belongs to the configuration. Hidden files do not, which covers
/// `.#x.toml` and `.x.toml.swp`; `x.toml~`, `x.toml.tmp` and the like have another ending.
pub fn is_drop_in(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| {
        name.ends_with(".toml") && !name.starts_with('.') && !name.starts_with('#')
    })
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = folder.join(entry?.file_name());
        if is_drop_in(&path) {
            paths.push(path);
        }
        // One more than is read, so that the excess is noticed.
        if paths.len() > MAX_FILES {
            break;
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads until the file is the same before and after.
fn read_whole(path: &Path, left: usize) -> (Result<ConfigText, Problem>, bool) {
    let mut before = Stamp::of(path);
    let mut tries = TRIES;
    loop {
        let text = read_text(path, left);
        let after = Stamp::of(path);
        tries -= 1;
        if before == after || tries == 0 {
            return (text, before == after);
        }
        before = after;
    }
}

fn read_text(path: &Path, left: usize) -> Result<ConfigText, Problem> {
    let problem = |message: String| Problem::error(Origin::file(path), message);
    let cannot = |error: io::Error| {
        let problem = problem(format!("the file cannot be read: {}", reason(&error)));
        match error.kind() {
            io::ErrorKind::NotFound => {
                problem.with_help("check the name, and the directory that it is in")
            }
            _ => problem,
        }
    };
    let found = fs::metadata(path).map_err(cannot)?;
    if !found.is_file() {
        let kind = kind_of(found.file_type());
        return Err(problem(format!("this is {kind}, not a file")));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    let limit = MAX_FILE_BYTES.min(left);
    // The limit is far below 2^64.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > limit {
        let message = if limit < MAX_FILE_BYTES {
            let total = MAX_TOTAL_BYTES >> 20;
            format!("with this file, the configuration is larger than {total} MiB")
        } else {
            format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20)
        };
        return Err(problem(message));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(ConfigText {
            path: path.to_owned(),
            text,
        }),
        Err(error) => Err(not_text(path, error.as_bytes(), error.utf8_error())),
    }
}

fn not_text(path: &Path, bytes: &[u8], error: std::str::Utf8Error) -> Problem {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Problem::error(Origin::file(path), "the file is UTF-16, not UTF-8")
            .with_help("save it as UTF-8");
    }
    let at = error.valid_up_to();
    let lossy = ConfigText {
        path: path.to_owned(),
        text: String::from_utf8_lossy(bytes).into_owned(),
    };
    // Everything before the fault is as long in the lossy text as in the file.
    let origin = Lines::new(&lossy).origin(at..at + 1);
    let message = format!(
        "the byte 0x{:02x} is not UTF-8",
        bytes.get(at).unwrap_or(&0)
    );
    Problem::error(origin, message).with_help("save the file as UTF-8")
}

fn kind_of(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// An I/O error in the words of an operator, without the number that the system gives it.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotADirectory => "a part of its path is no directory".to_owned(),
        _ => {
            let text = error.to_string();
            let end = text.find(" (os error").unwrap_or(text.len());
            text[..end].to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::test_dir::TestDir;

    fn messages(reading: &Reading) -> Vec<String> {
        let failed = reading
            .files
            .iter()
            .filter_map(|file| file.text.as_ref().err());
        failed
            .chain(&reading.problems)
            .map(|problem| problem.message.clone())
            .collect()
    }

    #[test]
    fn the_folder_is_read_by_name_and_without_what_editors_leave() {
        let dir = TestDir::new();
        let names = [
            "b.toml",
            "a.toml",
            ".a.toml.swp",
            ".#a.toml",
            "#a.toml#",
            "a.toml~",
            "c.toml.tmp",
            "d.txt",
            ".h.toml",
        ];
        let main = dir.write("postern.toml", "");
        for name in names {
            dir.write(&format!("routes.d/{name}"), "");
        }
        let reading = read(&main);
        let read: Vec<_> = reading
            .files
            .iter()
            .map(|file| file.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(read, ["postern.toml", "a.toml", "b.toml"]);
        assert!(reading.has_folder && messages(&reading).is_empty());
    }

    #[test]
    fn what_is_no_text_file_is_refused_without_waiting() {
        let dir = TestDir::new();
        let main = dir.write("postern.toml", "");
        fs::create_dir_all(dir.path("routes.d/1-dir.toml")).unwrap();
        let fifo = dir.path("routes.d/2-fifo.toml");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, dir.path(&format!("routes.d/{name}"))).unwrap();
        };
        link("/dev/zero", "3-device.toml");
        link("4-loop.toml", "4-loop.toml");
        link("nowhere", "5-dangling.toml");
        let large = fs::File::create(dir.path("routes.d/6-large.toml")).unwrap();
        large.set_len(100 << 20).unwrap();
        fs::write(dir.path("routes.d/7-latin.toml"), b"x = 1\n# caf\xe9\n").unwrap();
        fs::write(dir.path("routes.d/8-utf16.toml"), b"\xff\xfex\0").unwrap();

        let reading = read(&main);
        assert_eq!(
            messages(&reading),
            [
                "this is a directory, not a file",
                "this is a FIFO, not a file",
                "this is a device, not a file",
                "the file cannot be read: too many levels of symbolic links",
                "the file cannot be read: it does not exist",
                "the file is larger than 16 MiB",
                "the byte 0xe9 is not UTF-8",
                "the file is UTF-16, not UTF-8",
            ]
        );
        let latin = reading.files[7].text.as_ref().unwrap_err();
        assert_eq!((latin.origin.line, latin.origin.column), (2, 6));
    }

    #[test]
    fn all_files_together_are_bounded() {
        let dir = TestDir::new();
        let main = dir.write("postern.toml", "");
        fs::create_dir_all(dir.path("routes.d")).unwrap();
        for name in ["1", "2", "3", "4", "5"] {
            let file = fs::File::create(dir.path(&format!("routes.d/{name}.toml"))).unwrap();
            file.set_len(15 << 20).unwrap();
        }
        let got = messages(&read(&main));
        assert_eq!(
            got,
            ["with this file, the configuration is larger than 64 MiB"]
        );
    }
}
