//! `plugin.toml`: which language a plugin is written in, and what its component has.

use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use clap::ValueEnum;
use postern_core::name::PolicyName;
use postern_wasm::interface;
use serde::Deserialize;

/// The file that makes a folder a plugin's project.
pub const MANIFEST: &str = "plugin.toml";
/// Where the SDK stands in a new project, and where it is looked for unless the manifest says
/// otherwise.
pub const SDK_DIR: &str = "postern-sdk";
/// What a build leaves between its steps.
pub const WORK_DIR: &str = ".postern";

/// A folder with a plugin in it.
#[derive(Clone, Debug)]
pub struct Project {
    pub dir: PathBuf,
    pub manifest: Manifest,
}

/// What `plugin.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// The component is NAME.wasm.
    pub name: String,
    pub language: Language,
    /// The phases that the gateway calls. Not in Rust, where `export!` says it.
    #[serde(default)]
    pub phases: Vec<String>,
    /// Interfaces beside those that every plugin may import. In Python only: for every other
    /// language it is seen from the code.
    #[serde(default)]
    pub uses: Vec<String>,
    /// The SDK's folder, from the project's.
    #[serde(default = "sdk_dir")]
    pub sdk: PathBuf,
}

fn sdk_dir() -> PathBuf {
    SDK_DIR.into()
}

/// A language that has an SDK.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Rust,
    Go,
    Js,
    Ts,
    Python,
    C,
}

impl Language {
    pub const ALL: [Self; 6] = [
        Self::Rust,
        Self::Go,
        Self::Js,
        Self::Ts,
        Self::Python,
        Self::C,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Js => "js",
            Self::Ts => "ts",
            Self::Python => "python",
            Self::C => "c",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Project {
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; `postern plugin new` makes a project",
                path.display()
            )
        })?;
        let manifest = Manifest::parse(&text).with_context(|| path.display().to_string())?;
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }

    /// The component that a build writes.
    pub fn component(&self) -> PathBuf {
        self.dir.join(format!("{}.wasm", self.manifest.name))
    }

    pub fn sdk(&self) -> PathBuf {
        self.dir.join(&self.manifest.sdk)
    }

    pub fn work_dir(&self) -> PathBuf {
        self.dir.join(WORK_DIR)
    }
}

impl Manifest {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let manifest: Self = toml::from_str(text)?;
        check_name(&manifest.name)?;
        let phases = interface::PHASES.map(|(name, _)| name);
        known("phases", &manifest.phases, &phases)?;
        known("uses", &manifest.uses, &interface::IMPORTS)?;
        match manifest.language {
            Language::Rust if !manifest.phases.is_empty() => {
                bail!("phases: in Rust the phases stand in `export!`; remove this key")
            }
            Language::Go | Language::Js | Language::Ts | Language::Python | Language::C
                if manifest.phases.is_empty() =>
            {
                let all = phases.join(", ");
                bail!("phases: name those that the gateway is to call, out of {all}")
            }
            _ => {}
        }
        if manifest.language != Language::Python && !manifest.uses.is_empty() {
            bail!("uses: only in Python; elsewhere it is seen from the code. Remove this key")
        }
        Ok(manifest)
    }
}

/// A plugin's name is a file's, a policy's, a crate's and a Go module's.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    PolicyName::parse(name).with_context(|| format!("name: `{name}`"))?;
    let is_simple = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_simple {
        bail!("name: `{name}` is not lower-case letters, digits and `-`, beginning with a letter")
    }
    Ok(())
}

fn known(key: &str, names: &[String], known: &[&str]) -> anyhow::Result<()> {
    for name in names {
        if !known.contains(&name.as_str()) {
            bail!(
                "{key}: there is no `{name}`; known are {}",
                known.join(", ")
            )
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_taken_or_refused_for_its_reason() {
        let cases = [
            ("name = 'a'\nlanguage = 'rust'", ""),
            ("name = 'a-1'\nlanguage = 'go'\nphases = ['request']", ""),
            (
                "name = 'a'\nlanguage = 'python'\nphases = ['log']\nuses = ['callout']",
                "",
            ),
            ("name = 'a'\nlanguage = 'cobol'", "line 2"),
            ("name = 'a'\nlanguage = 'rust'\nlimits = 1", "line 3"),
            ("name = 'A'\nlanguage = 'rust'", "lower-case"),
            ("name = '../a'\nlanguage = 'rust'", "name: `../a`"),
            (
                "name = 'a'\nlanguage = 'rust'\nphases = ['request']",
                "export!",
            ),
            ("name = 'a'\nlanguage = 'go'", "phases: name those"),
            (
                "name = 'a'\nlanguage = 'go'\nphases = ['reqest']",
                "there is no `reqest`; known are route, request,",
            ),
            (
                "name = 'a'\nlanguage = 'c'\nphases = ['log']\nuses = ['crypto']",
                "only in Python",
            ),
        ];
        for (text, want) in cases {
            match Manifest::parse(text) {
                Ok(_) => assert_eq!(want, "", "{text}"),
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(!want.is_empty() && error.contains(want), "{text}: {error}");
                }
            }
        }
    }
}
