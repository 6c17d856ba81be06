//! The plugins that ship: their cases in the real host, what they cost, and then all of them in the
//! built gateway, each with the configuration that its README shows, asked for what that promises.

pub mod traffic;

use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process;
use crate::scratch::Scratch;

/// Where compiled components are, in the folder of a run.
const COMPILED: &str = "compiled";
/// Largest component that ships: what is larger has a dependency that it should not have.
const MAX_BYTES: u64 = 300 << 10;

/// A plugin that ships, and its figures.
#[derive(Debug)]
pub struct Bundled {
    pub name: String,
    pub component: PathBuf,
    /// What its README shows.
    pub config: String,
    bytes: u64,
    phases: Vec<String>,
    grants: Vec<String>,
    compile_ms: u64,
    /// The median of each phase, by its name, in nanoseconds.
    calls: Vec<(String, u64)>,
}

/// Every plugin in `plugins/`, tested and measured with `calls` calls a case.
pub fn find(scratch: &Scratch, calls: u32) -> Result<Vec<Bundled>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let postern = process::postern()?;
    let entries = fs::read_dir(root.join("plugins")).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.join("Cargo.toml").is_file() {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let bundled = measure(&root, &postern, &name, scratch, calls);
        all.push(bundled.map_err(|message| format!("{name}: {message}"))?);
    }
    Ok(all)
}

fn measure(
    root: &Path,
    postern: &Path,
    name: &str,
    scratch: &Scratch,
    calls: u32,
) -> Result<Bundled, String> {
    let project = root.join("plugins").join(name);
    let component = root.join(format!("dev/{name}.wasm"));
    if !component.is_file() {
        return Err(format!(
            "there is no {}; `make guests` builds it",
            component.display()
        ));
    }
    let run = |arguments: &[&str]| run(Command::new(postern).arg("plugin").args(arguments));
    let (project_arg, file) = (
        project.display().to_string(),
        component.display().to_string(),
    );
    let compiled = scratch.path().join(COMPILED).display().to_string();
    let subject = ["--component", &file, "--cache-dir", &compiled, &project_arg];
    let inspected = run(&["inspect", "--format", "json", &file])?;
    run(&[["test"].as_slice(), &subject].concat())?;
    let count = calls.to_string();
    let bench = ["bench", "--calls", &count, "--format", "json"];
    let bench = run(&[bench.as_slice(), &subject].concat())?;
    let (inspected, bench) = (json(&inspected)?, json(&bench)?);
    let bytes = inspected["bytes"].as_u64().unwrap_or_default();
    if bytes > MAX_BYTES {
        return Err(format!("{bytes} bytes are more than {MAX_BYTES}"));
    }
    let readme =
        fs::read_to_string(project.join("README.md")).map_err(|error| error.to_string())?;
    let example = readme
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    Ok(Bundled {
        name: name.to_owned(),
        component,
        config: example
            .ok_or("its README shows no configuration")?
            .to_owned(),
        bytes,
        phases: texts(&inspected["phases"]),
        grants: texts(&inspected["grants"]),
        compile_ms: inspected["compile-milliseconds"]
            .as_u64()
            .unwrap_or_default(),
        calls: medians(&bench["cases"]),
    })
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// Of the first case that has each phase, which is what the plugin is there for.
fn medians(cases: &Value) -> Vec<(String, u64)> {
    let mut calls: Vec<(String, u64)> = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        for phase in case["phases"].as_array().into_iter().flatten() {
            let name = phase["phase"].as_str().unwrap_or_default();
            let median = phase["p50-ns"].as_u64().unwrap_or_default();
            if !calls.iter().any(|(known, _)| known == name) {
                calls.push((name.to_owned(), median));
            }
        }
    }
    calls
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!(
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn json(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).map_err(|error| format!("it printed no JSON: {error}"))
}

/// The heading of the lines that [`Bundled`] makes, which are a table in Markdown.
pub const HEADING: &str =
    "| name | phases | grants | size | compiles in | a call takes |\n|---|---|---|---|---|---|";

impl fmt::Display for Bundled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.calls.iter();
        let calls: Vec<String> = calls
            .map(|(phase, ns)| format!("{phase} {:.1} us", *ns as f64 / 1e3))
            .collect();
        let grant = |grant: &String| {
            let key = grant.split(" =").next().unwrap_or_default();
            format!(
                "`{}`",
                key.trim_start_matches("grants.").trim_end_matches(".NAME")
            )
        };
        let grants: Vec<String> = self.grants.iter().map(grant).collect();
        write!(
            f,
            "| [{0}]({0}/README.md) | {1} | {2} | {3} KiB | {4} ms | {5} |",
            self.name,
            self.phases.join(", "),
            grants.join(", "),
            self.bytes.div_ceil(1024),
            self.compile_ms,
            calls.join(", ")
        )
    }
}
