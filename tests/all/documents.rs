//! What documents and examples say can be done.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn assert_is_accepted(path: &Path, text: &str, what: &str) {
    let source = ConfigText {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    if let Err(problems) = parse(&[source]) {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{what}:\n{}", problems.join("\n"));
    }
}

/// Every file below `folder` with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_toml_block_of_the_readmes_is_a_configuration() {
    let mut documents = vec![root().join("README.md")];
    documents.extend(files(&root().join("examples"), "md"));
    documents.extend(files(&root().join("plugins"), "md"));
    documents.extend(files(&root().join("config"), "md"));
    let mut blocks = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let what = format!("{}:\n{block}", document.display());
            assert_is_accepted(Path::new("README.toml"), block, &what);
            blocks += 1;
        }
    }
    assert!(blocks > 0);
}

#[test]
fn every_reason_for_no_certificate_is_documented() {
    let text = fs::read_to_string(root().join("config/certificates.md")).unwrap();
    for reason in postern_acme::Reason::ALL {
        assert!(text.contains(&format!("\n| `{reason}` | ")), "{reason}");
    }
}

#[test]
fn every_example_and_default_is_a_configuration() {
    let mut configs = files(&root().join("examples"), "toml");
    configs.extend(files(&root().join("config"), "toml"));
    // Manifests of plugins and their test cases are read by `postern plugin`.
    let is_config = |path: &PathBuf| {
        let is_manifest = path.ends_with("Cargo.toml") || path.ends_with("plugin.toml");
        let is_case = path
            .parent()
            .is_some_and(|parent| parent.ends_with("tests"));
        !is_manifest && !is_case
    };
    configs.retain(is_config);
    assert!(!configs.is_empty());
    for config in configs {
        let text = fs::read_to_string(&config).unwrap();
        assert_is_accepted(&config, &text, &config.display().to_string());
    }
}
