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

/// The path of a file in its folder, and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($dir:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../", $dir, "/", $path)))),+]
    };
}

/// The name that the examples have.
const EXAMPLE: &str = "headers";

const RUST: &[File] = files!("examples/rust/headers":
    ".gitignore", "Cargo.toml", "README.md", "plugin.toml", "src/lib.rs", "tests/headers.toml");
const GO: &[File] = files!("examples/go/headers":
    ".gitignore", "README.md", "go.mod", "main.go", "plugin.toml", "tests/headers.toml");
const JS: &[File] = files!("examples/js/headers":
    ".gitignore", "README.md", "package.json", "plugin.toml", "src/plugin.js",
    "tests/headers.toml");
const TS: &[File] = files!("examples/ts/headers":
    ".gitignore", "README.md", "package.json", "plugin.toml", "src/plugin.ts",
    "tests/headers.toml", "tsconfig.json");
const PYTHON: &[File] = files!("examples/python/headers":
    ".gitignore", "README.md", "plugin.toml", "src/plugin.py", "tests/headers.toml");
const C: &[File] = files!("examples/c/headers":
    ".gitignore", "README.md", "plugin.toml", "src/plugin.c", "tests/headers.toml");

const RUST_SDK: &[File] = files!("sdk/rust":
    "Cargo.toml", "README.md", "src/bindings.rs", "src/glue.rs", "src/host.rs", "src/lib.rs",
    "src/message.rs", "src/mock.rs", "src/mock/functions.rs", "src/mock/tests.rs",
    "src/plugin.rs");
const GO_SDK: &[File] = files!("sdk/go":
    "LICENSE", "README.md", "background.go", "callout.go", "crypto.go", "exchange.go", "glue.go",
    "go.mod", "metrics.go", "plugin.go", "request.go", "response.go", "shared.go",
    "internal/bind/export_postern_plugin_background/export.go",
    "internal/bind/export_postern_plugin_challenge_phase/export.go",
    "internal/bind/export_postern_plugin_dns_solver/export.go",
    "internal/bind/export_postern_plugin_lifecycle/export.go",
    "internal/bind/export_postern_plugin_log_phase/export.go",
    "internal/bind/export_postern_plugin_request_body_phase/export.go",
    "internal/bind/export_postern_plugin_request_phase/export.go",
    "internal/bind/export_postern_plugin_request_stream/export.go",
    "internal/bind/export_postern_plugin_response_body_phase/export.go",
    "internal/bind/export_postern_plugin_response_phase/export.go",
    "internal/bind/export_postern_plugin_response_stream/export.go",
    "internal/bind/export_postern_plugin_route_phase/export.go");

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
        Language::Rust => RUST,
        Language::Go => GO,
        Language::Js => JS,
        Language::Ts => TS,
        Language::Python => PYTHON,
        Language::C => C,
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
        .replace(&format!("name = \"{EXAMPLE}\""), &format!("name = \"{name}\""))
        .replace(&format!("{EXAMPLE}.wasm"), &format!("{name}.wasm"))
        .replace(&format!("/{EXAMPLE}/"), &format!("/{name}/"))
        .replace(&format!("# {EXAMPLE}\n"), &format!("# {name}\n"))
}
