//! Projects of the examples, and components that were built before.
//!
//! A component is kept under a digest of everything that it is made of: the project, the SDK in it,
//! the program that builds it, and what the compilers' set-up says. It is a cache: what is not found
//! is built.

use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::Places;

/// What a build leaves in a project.
const LEFT: [&str; 4] = [".postern", "node_modules", "target", "__pycache__"];
/// What says which compilers there are.
const TOOLS: [&str; 3] = ["package.json", "requirements.txt", "setup.sh"];

/// Copies an example so that it builds in another place.
pub fn copy_example(root: &Path, language: &str, policy: &str, to: &Path) -> Result<(), String> {
    let sdk = if language == "ts" { "js" } else { language };
    let sdk = root.join("sdk").join(sdk);
    let from = root.join("examples").join(language).join(policy);
    let relative = sdk.strip_prefix(root).unwrap_or(&sdk);
    let there = format!("../../../{}", relative.display());
    for path in files(&from).map_err(|error| format!("{}: {error}", from.display()))? {
        let name = path.strip_prefix(&from).unwrap_or(&path);
        let target = to.join(name);
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let text = text.replace(&there, &sdk.display().to_string());
        let parent = target.parent().unwrap_or(to);
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&target, text));
        written.map_err(|error| format!("{}: {error}", target.display()))?;
    }
    Ok(())
}

/// The component of a project, from the cache or by `build`, where the project expects it.
pub fn find_or_build(
    places: &Places,
    project: &Path,
    policy: &str,
    build: impl FnOnce() -> Result<(), String>,
) -> Result<(PathBuf, bool), String> {
    let component = project.join(format!("{policy}.wasm"));
    let digest = digest(places, project).map_err(|error| error.to_string())?;
    let dir = places.cache.join("components");
    let kept = dir.join(format!("{digest:016x}.wasm"));
    if fs::copy(&kept, &component).is_ok() {
        return Ok((component, true));
    }
    build()?;
    // A cache that cannot be written costs time only.
    let _ = fs::create_dir_all(&dir).and_then(|()| fs::copy(&component, &kept));
    Ok((component, false))
}

fn digest(places: &Places, project: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let root = &places.root;
    for dir in ["sdk", "wit", "gateway/postern/src/plugin"].map(|dir| root.join(dir)) {
        hash(&dir, &files(&dir)?, &mut hasher)?;
    }
    for file in TOOLS.map(|file| root.join("tests/languages").join(file)) {
        fs::read(file)?.hash(&mut hasher);
    }
    // The path stands in the manifests of copied examples.
    for path in files(project)? {
        path.strip_prefix(project).ok().hash(&mut hasher);
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        text.replace(&root.display().to_string(), "")
            .hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn hash(root: &Path, files: &[PathBuf], hasher: &mut DefaultHasher) -> io::Result<()> {
    for path in files {
        path.strip_prefix(root).ok().hash(hasher);
        fs::read(path)?.hash(hasher);
    }
    Ok(())
}

/// Every file of a source folder, in order.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_left = LEFT.contains(&&*name) || name.ends_with(".wasm") || name.ends_with(".lock");
        if is_left {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
