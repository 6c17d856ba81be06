//! Every input that the fuzzers were given to begin with, or found, without a fuzzer.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use postern_tests::fuzz::TARGETS;

/// Fewer would mean that the corpus is not where it is looked for.
const LEAST: usize = 3;

#[test]
fn what_fuzzers_found_stays_fixed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    // Targets keep a gateway or a plugin host for each thread, so each has a thread.
    let running = TARGETS.map(|(name, target)| {
        let inputs = inputs(&corpus.join(name));
        assert!(inputs.len() >= LEAST, "{name}: {} inputs", inputs.len());
        (
            name,
            std::thread::spawn(move || first_failure(&inputs, target)),
        )
    });
    let failed: Vec<_> = running
        .into_iter()
        .filter_map(|(name, thread)| Some((name, thread.join().unwrap()?)))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// What the target keeps is in an unknown state afterwards, so the first is the last.
fn first_failure(inputs: &[PathBuf], target: fn(&[u8])) -> Option<PathBuf> {
    let fails = |input: &&PathBuf| {
        let bytes = fs::read(input).unwrap();
        std::panic::catch_unwind(|| target(&bytes)).is_err()
    };
    inputs.iter().find(fails).cloned()
}

#[test]
fn every_target_is_fuzzed_and_has_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let mut names: Vec<String> = inputs(&fuzz.join(folder))
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
