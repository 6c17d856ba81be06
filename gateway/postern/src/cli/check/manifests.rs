//! `postern check` on manifests of Kubernetes: files and folders of them, all together one cluster.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use postern_core::config::Config;
use postern_core::config::Problem;
use postern_core::config::problem::ConfigText;
use postern_core::config::problem::Origin;
use postern_kube::Settings;
use postern_kube::offline;

use crate::source::file::read_small;

/// Files that are read.
const MAX_FILES: usize = 10_000;
/// How deep folders may be nested.
const MAX_DEPTH: usize = 32;
/// Largest file, in bytes.
const MAX_BYTES: u64 = 64 << 20;
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) summary: String,
}

/// Whether a path is for manifests, and not a configuration file.
pub(super) fn is_manifest(path: &Path) -> bool {
    path.is_dir() || has_ending(path)
}

fn has_ending(path: &Path) -> bool {
    let ending = path.extension();
    ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

pub(super) fn check(paths: &[&PathBuf], settings: &Settings) -> Checked {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        collect(path, 0, &mut files, &mut problems);
    }
    files.sort();
    files.dedup();
    let mut texts = Vec::with_capacity(files.len());
    for path in files {
        let text = read_small(&path, MAX_BYTES).and_then(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
        });
        match text {
            Ok(text) => texts.push(ConfigText { path, text }),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                problems.push(Problem::error(Origin::file(&path), message));
            }
        }
    }
    let checked = offline::check(&texts, settings);
    problems.extend(checked.problems);
    let ingresses = checked.translation.statuses.iter();
    let ingresses = ingresses.filter(|s| s.object.kind == postern_kube::Kind::Ingress);
    let count = |count: usize, what: &str| match (count, what) {
        (1, what) => format!("1 {what}"),
        (count, "Ingress") => format!("{count} Ingresses"),
        (count, what) => format!("{count} {what}s"),
    };
    let mut summary = format!(
        "{} in {}, {} served",
        count(checked.objects, "object"),
        count(texts.len(), "file"),
        count(ingresses.count(), "Ingress"),
    );
    if checked.neighbors > 0 {
        summary.push_str(&format!(
            ", {} left to other controllers",
            checked.neighbors
        ));
    }
    Checked {
        config: checked.translation.config,
        problems,
        summary,
    }
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    if !path.is_dir() {
        if files.len() == MAX_FILES {
            let message = format!("there are more than {MAX_FILES} files; the rest is not read");
            problems.push(Problem::error(Origin::file(path), message));
        }
        if files.len() <= MAX_FILES {
            files.push(path.to_owned());
        }
        return;
    }
    if depth > MAX_DEPTH {
        let message = "folders are nested too deeply";
        problems.push(Problem::error(Origin::file(path), message));
        return;
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("cannot be read: {error}");
            problems.push(Problem::error(Origin::file(path), message));
            return;
        }
    };
    for entry in entries.flatten() {
        let inner = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && is_manifest(&inner) {
            collect(&inner, depth + 1, files, problems);
        }
    }
}
