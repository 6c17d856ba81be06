//! A new project: the header example of its language with another name, and the SDK beside it.
//!
//! All of it is in the binary, so that a project and the gateway that it is for agree, and nothing
//! has to be fetched. The files are the ones that the examples are tested with.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::bail;
use postern_wasm::interface;

use super::build::write;
use super::project::Language;
use super::project::SDK_DIR;
use super::project::check_name;

mod files;

/// The path of a file in its folder, and its text.
type File = (&'static str, &'static str);

/// The name that the examples have.
const EXAMPLE: &str = "headers";

/// Makes a project. Refuses a folder that is there: nothing of the author's is ever overwritten.
pub fn create(dir: &Path, language: Language, name: &str) -> anyhow::Result<()> {
    check_name(name)?;
    if dir.exists() {
        bail!("{} is already there", dir.display());
    }
    for (path, text) in template(language) {
        put(dir, path, &renamed(language, text, name))?;
    }
    write_sdk(&dir.join(SDK_DIR), language)
}

/// Writes the SDK of this version, over the one that is there.
pub fn write_sdk(dir: &Path, language: Language) -> anyhow::Result<()> {
    for (path, text) in sdk(language) {
        put(dir, path, text)?;
    }
    if language == Language::Rust {
        for (path, text) in interface::SOURCES {
            put(&dir.join("wit"), path, text)?;
        }
    }
    Ok(())
}

fn put(dir: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(path);
    let parent = path.parent().unwrap_or(dir);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    write(&path, text.as_bytes())
}

fn template(language: Language) -> &'static [File] {
    match language {
        Language::Rust => files::RUST,
        Language::Go => files::GO,
        Language::Js => files::JS,
        Language::Ts => files::TS,
        Language::Python => files::PYTHON,
        Language::C => files::C,
    }
}

/// The text of an example as that of a project: its name, and the SDK in its own folder.
fn renamed(language: Language, text: &str, name: &str) -> String {
    let sdk = match language {
        Language::Ts => "js",
        other => other.as_str(),
    };
    text.replace(&format!("../../../sdk/{sdk}"), &format!("./{SDK_DIR}"))
        .replace(&format!("\"example-{EXAMPLE}\""), &format!("\"{name}\""))
        .replace(&format!("example/{EXAMPLE}"), name)
        .replace(
            &format!("name = \"{EXAMPLE}\""),
            &format!("name = \"{name}\""),
        )
        .replace(&format!("{EXAMPLE}.wasm"), &format!("{name}.wasm"))
        .replace(&format!("/{EXAMPLE}/"), &format!("/{name}/"))
        .replace(&format!("# {EXAMPLE}\n"), &format!("# {name}\n"))
}

fn sdk(language: Language) -> &'static [File] {
    match language {
        Language::Rust => files::RUST_SDK,
        Language::Go => files::GO_SDK,
        Language::Js | Language::Ts => files::JS_SDK,
        Language::Python => files::PYTHON_SDK,
        Language::C => files::C_SDK,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::plugin::project::Manifest;

    /// What builds leave in these folders.
    const LEFT: [&str; 7] = [
        ".postern",
        "Cargo.lock",
        "__pycache__",
        "node_modules",
        "package-lock.json",
        "target",
        "wit",
    ];

    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_left = LEFT.contains(&name.as_str()) && !dir.ends_with("internal");
            if is_left || name.ends_with(".wasm") {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let path = path.strip_prefix(root).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_a_template_and_an_sdk_is_in_the_binary() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        for language in Language::ALL {
            let sdk_name = if language == Language::Ts {
                "js"
            } else {
                language.as_str()
            };
            for (dir, files) in [
                (format!("examples/{language}/{EXAMPLE}"), template(language)),
                (format!("sdk/{sdk_name}"), sdk(language)),
            ] {
                let dir = root.join(dir);
                let mut found = Vec::new();
                walk(&dir, &dir, &mut found);
                found.sort();
                let listed: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
                assert_eq!(listed, found, "{}", dir.display());
            }
        }
    }

    #[test]
    fn a_project_has_its_own_name_and_its_own_sdk() {
        for language in Language::ALL {
            let mut has_name = false;
            for (path, text) in template(language) {
                let text = renamed(language, text, "my-policy");
                assert!(!text.contains("../../.."), "{language} {path}");
                if *path == "plugin.toml" {
                    let manifest = Manifest::parse(&text).unwrap();
                    assert_eq!(manifest.name, "my-policy");
                    assert!(manifest.sdk.ends_with(SDK_DIR), "{language}");
                    has_name = true;
                }
            }
            assert!(has_name, "{language}");
        }
    }
}
