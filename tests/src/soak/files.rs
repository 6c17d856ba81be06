//! The ways in which a configuration file changes, and in which it goes wrong.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

/// How a new configuration gets into place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Written beside, renamed over: editors, package managers.
    Rename,
    /// Written into the file that is there.
    InPlace,
    /// The folder behind `..data` is exchanged: Kubernetes.
    Link,
}

impl Change {
    /// Thirds, one after the other.
    pub(crate) fn nth(n: u32, of: u32) -> Self {
        match (n - 1) * 3 / of {
            0 => Self::Rename,
            1 => Self::InPlace,
            _ => Self::Link,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rename => "renamed into place",
            Self::InPlace => "written in place",
            Self::Link => "..data link swapped",
        })
    }
}

/// A change that must change nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    Broken,
    Truncated,
    Deleted,
    LinkToBroken,
}

impl Refused {
    pub(crate) const ALL: [Self; 4] = [
        Self::Broken,
        Self::Truncated,
        Self::Deleted,
        Self::LinkToBroken,
    ];

    /// Whether a problem was printed with file, line and column.
    pub(crate) fn is_reported(self, printed: &str) -> bool {
        printed.lines().any(|line| {
            let Some((_, rest)) = line.split_once("postern.toml:") else {
                return false;
            };
            let mut place = rest.splitn(3, ':');
            let is_number = |part: Option<&str>| {
                part.is_some_and(|part| {
                    let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
                    !digits.is_empty()
                })
            };
            is_number(place.next()) && is_number(place.next())
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken file",
            Self::Truncated => "truncated file",
            Self::Deleted => "deleted file",
            Self::LinkToBroken => "..data link to a broken file",
        })
    }
}

/// The file that the gateway watches.
pub(crate) struct Live {
    dir: PathBuf,
    generations: u32,
}

impl Live {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            generations: 0,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("postern.toml")
    }

    pub(crate) fn apply(&mut self, change: Change, text: &str) {
        match change {
            Change::Rename => self.replace(text),
            Change::InPlace => fs::write(self.path(), text).unwrap(),
            Change::Link => self.swap(text),
        }
    }

    pub(crate) fn replace(&mut self, text: &str) {
        let beside = self.dir.join("postern.toml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path()).unwrap();
    }

    /// As the kubelet does: a new folder, then one rename of the link to it.
    fn swap(&mut self, text: &str) {
        self.generations += 1;
        let folder = format!("..generation-{}", self.generations);
        fs::create_dir(self.dir.join(&folder)).unwrap();
        fs::write(self.dir.join(&folder).join("postern.toml"), text).unwrap();
        let beside = self.dir.join("..data_tmp");
        symlink(&folder, &beside).unwrap();
        fs::rename(&beside, self.dir.join("..data")).unwrap();
        if !self.path().is_symlink() {
            symlink("..data/postern.toml", &beside).unwrap();
            fs::rename(beside, self.path()).unwrap();
        }
    }

    pub(crate) fn refuse(&mut self, how: Refused, text: &str) {
        let broken = text.replace("[[routes]]", "[[routes]");
        match how {
            Refused::Broken => self.replace(&broken),
            Refused::Truncated => {
                let half = &text[..text.find("upstream = ").unwrap_or(text.len() / 2)];
                fs::write(self.path(), half).unwrap();
            }
            Refused::Deleted => fs::remove_file(self.path()).unwrap(),
            Refused::LinkToBroken => self.swap(&broken),
        }
    }

    pub(crate) fn recover(&mut self, text: &str) {
        self.replace(text);
    }
}
