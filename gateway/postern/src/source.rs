//! Configuration from files: the main file, its drop-in folder, and every file that they refer to.
//!
//! The source is level-triggered. It says that something may have changed ([`FileSource::changed`])
//! and reads the whole state when asked; a lost event costs time and never a change, since a slow
//! poll looks as well.
//!
//! What is wrong costs as little as possible. On a reload, a file with problems is taken as it was
//! when it was last good, so that changes in other files still apply ([`Settling`]). A file that was
//! emptied and a folder that vanished are problems too, not instructions to drop every route: that
//! is what a crashed editor and a remounted volume look like. To delete is to remove one file from
//! the folder.

pub mod file;
#[cfg(test)]
pub(crate) mod test_dir;
pub mod watch;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_core::config::problem::Origin;

use file::FileReading;
use file::Reading;
use watch::Poke;
use watch::Watch;

/// The texts of a configuration that was accepted, by file.
pub type Good = BTreeMap<PathBuf, ConfigText>;

pub struct FileSource {
    main: PathBuf,
    watch: Watch,
    /// Files that the configuration refers to.
    materials: BTreeSet<PathBuf>,
    /// Files of the configuration as of the last reading.
    files: BTreeSet<PathBuf>,
}

impl FileSource {
    pub fn new(main: PathBuf) -> Self {
        let watch = Watch::new(file::folder_of(&main));
        Self {
            files: BTreeSet::from([main.clone()]),
            main,
            watch,
            materials: BTreeSet::new(),
        }
    }

    /// Resolves when something has changed, or may have, and nobody is writing any more.
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }

    /// Makes [`FileSource::changed`] resolve, from anywhere.
    pub fn poke(&self) -> Arc<dyn Poke> {
        self.watch.poke()
    }

    /// Reads every file of the configuration. Blocks.
    pub fn read(&mut self) -> Reading {
        // Watched before they are read: what changes in between is an event.
        self.watch.cover(self.paths());
        let reading = file::read(&self.main);
        self.files = reading.files.iter().map(|file| file.path.clone()).collect();
        self.watch.extend(self.paths());
        reading
    }

    /// Watches the files that the configuration refers to; call before reading them. Blocks.
    pub fn cover_materials(&mut self, materials: BTreeSet<PathBuf>) {
        self.materials = materials;
        self.watch.extend(self.paths());
    }

    /// Whether somebody has begun to write to one of the files: what was read may be half of it.
    pub fn is_being_written(&self) -> bool {
        self.watch.is_being_written()
    }

    /// Whether the files that the configuration refers to are still as they were before they were
    /// read. Blocks.
    pub fn are_materials_whole(&self) -> bool {
        self.watch.is_as_seen(&self.materials)
    }

    /// Whether something has happened since the last look.
    pub fn has_changed(&self) -> bool {
        self.watch.has_changed()
    }

    fn paths(&self) -> BTreeSet<PathBuf> {
        self.files.union(&self.materials).cloned().collect()
    }
}

/// Which texts to run with, found by taking back what is wrong.
pub struct Settling<'g> {
    good: &'g Good,
    texts: Vec<ConfigText>,
    /// Of the files as they are, not as they were.
    problems: Vec<Problem>,
    is_whole: bool,
}

impl<'g> Settling<'g> {
    pub fn new(reading: Reading, main: &Path, good: &'g Good) -> Self {
        let mut settling = Self {
            good,
            texts: Vec::with_capacity(reading.files.len()),
            problems: reading.problems,
            is_whole: true,
        };
        let folder = file::folder_of(main);
        for file in reading.files {
            settling.add(file, main);
        }
        let kept: Vec<&ConfigText> = good
            .values()
            .filter(|text| text.path.starts_with(&folder) && text.path != main)
            .collect();
        if !reading.has_folder && !kept.is_empty() {
            settling.texts.extend(kept.into_iter().cloned());
            if settling.problems.is_empty() {
                let message = "the folder is gone; what its files declared is kept";
                let problem = Problem::error(Origin::file(&folder), message);
                settling
                    .problems
                    .push(problem.with_help("make an empty folder to remove it"));
            }
        }
        settling
    }

    fn add(&mut self, file: FileReading, main: &Path) {
        let good = self.good.get(&file.path);
        let is_blank = |text: &ConfigText| text.text.trim().is_empty();
        let was_full = good.is_some_and(|good| !is_blank(good));
        let is_main = file.path == main;
        let problem = match file.text {
            Ok(text) if is_blank(&text) && (is_main || was_full) => {
                let problem = Problem::error(Origin::file(&file.path), "the file is empty");
                if is_main {
                    problem.with_help("write at least one [listeners.NAME]")
                } else {
                    problem.with_help("remove the file to remove what it declared")
                }
            }
            Ok(text) => {
                self.texts.push(text);
                return;
            }
            Err(problem) => problem,
        };
        self.problems.push(problem);
        match good {
            Some(good) => self.texts.push(good.clone()),
            None => self.is_whole &= !is_main,
        }
    }

    /// The configuration of the texts that are left; `None` if there is no sound one.
    pub fn load(&mut self) -> Option<Loaded> {
        if !self.is_whole {
            return None;
        }
        loop {
            match parse(&self.texts) {
                Ok(loaded) => return Some(loaded),
                Err(problems) => {
                    if !self.take_back(problems) {
                        return None;
                    }
                }
            }
        }
    }

    /// Replaces the texts that hold these problems by their last good ones, or leaves them out if
    /// they never had one. Returns whether that changed anything.
    pub fn take_back(&mut self, problems: Vec<Problem>) -> bool {
        let errors = problems.iter().filter(|problem| problem.is_error());
        let blamed: BTreeSet<PathBuf> = errors
            .map(|problem| problem.origin.file.to_path_buf())
            .collect();
        // Without anything to fall back on, a part of a configuration is no configuration.
        if self.good.is_empty() {
            self.problems.extend(problems);
            return false;
        }
        // Once a file is taken as it was, what it gets wrong beside newer ones would confuse.
        let known: BTreeSet<Arc<Path>> = self
            .problems
            .iter()
            .filter(|problem| problem.is_error())
            .map(|problem| Arc::clone(&problem.origin.file))
            .collect();
        let errors = problems.into_iter().filter(Problem::is_error);
        let new = errors.filter(|problem| !known.contains(&problem.origin.file));
        self.problems.extend(new);
        let mut has_changed = false;
        let good = self.good;
        self.texts.retain_mut(|text| {
            if !blamed.contains(&text.path) {
                return true;
            }
            match good.get(&text.path) {
                Some(good) if good.text == text.text => true,
                Some(good) => {
                    has_changed = true;
                    text.text.clone_from(&good.text);
                    true
                }
                None => {
                    has_changed = true;
                    false
                }
            }
        });
        has_changed
    }

    /// The texts in use, and every problem of the files as they are.
    pub fn finish(self) -> (Good, Vec<Problem>) {
        let texts = self.texts.into_iter();
        let good = texts.map(|text| (text.path.clone(), text)).collect();
        (good, self.problems)
    }
}

/// Warns of private keys that every user of the machine may read. A key that cannot be looked at
/// is a problem elsewhere.
pub fn key_warnings(loaded: &Loaded) -> Vec<Problem> {
    let certificates = loaded.config.certificates.iter();
    let readable = certificates.filter(|(_, spec)| {
        let found = std::fs::metadata(&spec.key_file);
        found.is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
    });
    let warnings = readable.map(|(name, spec)| {
        let origin = loaded
            .origins
            .find(&format!("certificates.{name}.key-file"));
        let file = spec.key_file.display();
        Problem::warning(
            origin,
            "every user of this machine can read the private key",
        )
        .with_help(format!("chmod o= {file}"))
    });
    warnings.collect()
}

#[cfg(test)]
mod tests;
