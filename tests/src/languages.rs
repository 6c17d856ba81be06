//! Every language from an empty folder to traffic: `new`, `build`, `test`, then the component in the
//! built gateway, which has to do what the example's README says.

pub mod components;
pub mod traffic;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;

use crate::scratch::Scratch;

/// The languages, by the names that `postern plugin new --lang` takes.
pub const LANGUAGES: [&str; 6] = ["rust", "go", "js", "ts", "python", "c"];
/// The policies that there are in each of them; the first is the template.
pub const POLICIES: [&str; 3] = ["headers", "ab-route", "token"];

/// Where compiled components are, in the folder of a run.
pub const COMPILED: &str = "compiled";

/// Where things are.
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    pub postern: PathBuf,
    /// What is built from the same source is not built again.
    pub cache: PathBuf,
    /// `PATH` with the guests' compilers first.
    pub path: std::ffi::OsString,
}

/// A built policy and its figures.
#[derive(Debug)]
pub struct Built {
    pub language: &'static str,
    pub policy: &'static str,
    pub component: PathBuf,
    pub bytes: u64,
    pub was_cached: bool,
    /// From source to component.
    pub build: Duration,
    /// From component to machine code.
    pub compile: Duration,
    /// The median of each phase, by its name.
    pub calls: Vec<(String, Duration)>,
    pub memory: u64,
}

impl Places {
    pub fn find() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().map_err(|error| error.to_string())?;
        let cache = root.join(".cache/guests");
        let mut path = vec![cache.join("bin")];
        let outer = std::env::var_os("PATH").unwrap_or_default();
        path.extend(std::env::split_paths(&outer));
        Ok(Self {
            postern: crate::process::postern()?,
            path: std::env::join_paths(path).map_err(|error| error.to_string())?,
            cache,
            root,
        })
    }

    /// A command of the program under test, with the compilers where it finds them.
    fn postern(&self, arguments: &[&str], dir: &Path) -> Command {
        let mut command = Command::new(&self.postern);
        command
            .args(arguments)
            .current_dir(dir)
            .env("PATH", &self.path)
            // Policies share what their languages build once: a standard library, a C library.
            .env("CARGO_TARGET_DIR", self.cache.join("target"))
            .env("ZIG_GLOBAL_CACHE_DIR", self.cache.join("zig"))
            .env("ZIG_LOCAL_CACHE_DIR", self.cache.join("zig"));
        command
    }
}

/// Makes, builds and tests the policies of one language, and measures them.
pub fn build(
    places: &Places,
    language: &'static str,
    scratch: &Scratch,
) -> Result<Vec<Built>, String> {
    let mut all = Vec::new();
    for policy in POLICIES {
        let place = |message: String| format!("{language} {policy}: {message}");
        let project = scratch.path().join(language).join(policy);
        let parent = project.parent().unwrap_or_else(|| scratch.path());
        std::fs::create_dir_all(parent).map_err(|error| place(error.to_string()))?;
        if policy == POLICIES[0] {
            let new = ["plugin", "new", "--lang", language, policy];
            run(&mut places.postern(&new, parent)).map_err(place)?;
        } else {
            // As an author would who looks at the examples: the same SDK, another policy.
            components::copy_example(&places.root, language, policy, &project).map_err(place)?;
        }
        let started = SystemTime::now();
        let (component, was_cached) = components::find_or_build(places, &project, policy, || {
            run(&mut places.postern(&["plugin", "build"], &project)).map(|_| ())
        })
        .map_err(place)?;
        let build = started.elapsed().unwrap_or_default();
        // It compiles, which the others then need not.
        let compiled = scratch.path().join(COMPILED).display().to_string();
        let bench = [
            "plugin",
            "bench",
            "--calls",
            "500",
            "--format",
            "json",
            "--cache-dir",
        ];
        let bench = [bench.as_slice(), &[&compiled]].concat();
        let bench = run(&mut places.postern(&bench, &project)).map_err(place)?;
        let test = ["plugin", "test", "--cache-dir", &compiled];
        run(&mut places.postern(&test, &project)).map_err(place)?;
        let bench: Value = serde_json::from_slice(&bench.stdout)
            .map_err(|error| place(format!("plugin bench printed no JSON: {error}")))?;
        all.push(Built {
            language,
            policy,
            bytes: bench["bytes"].as_u64().unwrap_or_default(),
            component,
            was_cached,
            build,
            compile: nanos(&bench["compile-ns"]),
            calls: calls(&bench["cases"]),
            memory: bench["cases"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|case| case["memory-bytes"].as_u64())
                .max()
                .unwrap_or_default(),
        });
    }
    Ok(all)
}

/// The medians of the first case that has each phase.
fn calls(cases: &Value) -> Vec<(String, Duration)> {
    let mut calls: Vec<(String, Duration)> = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        for phase in case["phases"].as_array().into_iter().flatten() {
            let name = phase["phase"].as_str().unwrap_or_default();
            if !calls.iter().any(|(known, _)| known == name) {
                calls.push((name.to_owned(), nanos(&phase["p50-ns"])));
            }
        }
    }
    calls
}

fn nanos(value: &Value) -> Duration {
    Duration::from_nanos(value.as_u64().unwrap_or_default())
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output);
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    Err(format!(
        "postern {} failed:\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.was_cached {
            "cached".to_owned()
        } else {
            format!("{:.1} s", self.build.as_secs_f64())
        };
        write!(
            f,
            "{:<8} {:<9} {:>8} KiB {:>8} {:>9.1} ms {:>6} KiB  ",
            self.language,
            self.policy,
            self.bytes.div_ceil(1024),
            build,
            self.compile.as_secs_f64() * 1e3,
            self.memory.div_ceil(1024),
        )?;
        for (index, (phase, time)) in self.calls.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{phase} {:.1} us", time.as_secs_f64() * 1e6)?;
        }
        Ok(())
    }
}

/// The heading of the lines that [`Built`] makes.
pub const HEADING: &str = "language policy        size    build    compile    memory  call (p50)";
