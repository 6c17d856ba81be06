//! From source to component, with the compilers that authors have anyway.
//!
//! Compilers are found by their names in `PATH`, and what is missing is said with the command that
//! installs it. Everything between source and component is left in the project's work folder.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::bail;
use postern_wasm::encode_component;
use postern_wasm::encode_plugin;
use postern_wasm::interface;

use super::project::Language;
use super::project::Project;

const RUST_TARGET: &str = "wasm32-unknown-unknown";
/// The stack of a module that is linked by us: with it, a small plugin fits into one page of
/// 64 KiB, and a fresh instance is cheap to clear.
const STACK_BYTES: u32 = 32 << 10;

/// Builds the project's component and says where it is.
pub fn build(project: &Project) -> anyhow::Result<PathBuf> {
    let work = project.work_dir();
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    // Git is told here and not in the project's own file, which is the author's.
    write(&work.join(".gitignore"), b"*\n")?;
    let output = project.component();
    match project.manifest.language {
        Language::Rust => {
            let core = rust(project)?;
            let component = encode_component(&read(&core)?);
            write(&output, &component.with_context(|| in_file(&core))?)?;
        }
        Language::Go => encode(project, &go(project)?)?,
        Language::C => encode(project, &c(project)?)?,
        Language::Js | Language::Ts => script(project)?,
        Language::Python => python(project)?,
    }
    Ok(output)
}

/// Writes a file in one step: a gateway that watches it must never see half of it.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn in_file(path: &Path) -> String {
    path.display().to_string()
}

/// A module without its interface, as the SDKs of Go and C make them.
fn encode(project: &Project, core: &Path) -> anyhow::Result<()> {
    let phases = project.manifest.phases.iter().map(String::as_str);
    let component = encode_plugin(&read(core)?, phases).with_context(|| in_file(core))?;
    write(&project.component(), &component)
}

fn rust(project: &Project) -> anyhow::Result<PathBuf> {
    let metadata = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(&project.dir)
        .stderr(Stdio::inherit())
        .output()
        .context("there is no `cargo`; install Rust from https://rustup.rs")?;
    if !metadata.status.success() {
        bail!("`cargo metadata` failed");
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).context("cargo metadata")?;
    let core = rust_module(&metadata).with_context(|| {
        format!(
            "{}: no library with `crate-type = [\"cdylib\"]`",
            project.dir.join("Cargo.toml").display()
        )
    })?;

    let mut cargo = match rust_compiler()? {
        RustCompiler::Rustup => Command::new("cargo"),
        RustCompiler::Debian => {
            // It has no standard library for the target, but the source of one.
            let mut cargo = Command::new("/usr/bin/cargo");
            cargo
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC", "/usr/bin/rustc")
                .arg("-Zbuild-std=std,panic_abort");
            cargo
        }
    };
    cargo
        .args(["build", "--release", "--target", RUST_TARGET])
        .current_dir(&project.dir);
    if std::env::var_os("RUSTFLAGS").is_none() {
        cargo.env(
            "RUSTFLAGS",
            format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
        );
    }
    run(cargo, "install Rust from https://rustup.rs")?;
    Ok(core)
}

/// Where cargo will put the module.
fn rust_module(metadata: &serde_json::Value) -> Option<PathBuf> {
    let targets = metadata["packages"].as_array()?.iter();
    let targets = targets.filter_map(|package| package["targets"].as_array());
    let is_module = |target: &&serde_json::Value| {
        let kinds = target["crate_types"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
    };
    let name = targets.flatten().find(is_module)?["name"].as_str()?;
    let dir = Path::new(metadata["target_directory"].as_str()?);
    let file = format!("{}.wasm", name.replace('-', "_"));
    Some(dir.join(RUST_TARGET).join("release").join(file))
}

enum RustCompiler {
    Rustup,
    /// Debian's packages for the web, which stand beside another compiler.
    Debian,
}

fn rust_compiler() -> anyhow::Result<RustCompiler> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "list", "--installed"]);
    let installed = rustup.stderr(Stdio::null()).output();
    if installed.is_ok_and(|out| lines(&out.stdout).any(|line| line == RUST_TARGET)) {
        return Ok(RustCompiler::Rustup);
    }
    let sysroot = Command::new("/usr/bin/rustc")
        .args(["--print", "sysroot"])
        .stderr(Stdio::null())
        .output();
    let has_source = sysroot.is_ok_and(|out| {
        let source = "lib/rustlib/src/rust/library/std";
        let mut lines = lines(&out.stdout);
        lines.any(|sysroot| Path::new(&sysroot).join(source).is_dir())
    });
    if has_source {
        return Ok(RustCompiler::Debian);
    }
    bail!(
        "there is no Rust compiler for {RUST_TARGET}: run `rustup target add {RUST_TARGET}` \
         (Debian: `apt-get install rustc-web cargo-web rust-web-src rust-web-llvm`)"
    )
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.into_iter()
}

fn go(project: &Project) -> anyhow::Result<PathBuf> {
    let core = absolute(&project.work_dir().join("core.wasm"))?;
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-buildmode=c-shared"])
        // The memory that Go has before its runtime is up is taken by name.
        .arg("-ldflags=-s -w -checklinkname=0")
        .arg("-o")
        .arg(&core)
        .arg(".")
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .current_dir(&project.dir);
    run(go, "install Go 1.24 or newer from https://go.dev/dl")?;
    Ok(core)
}

fn c(project: &Project) -> anyhow::Result<PathBuf> {
    let core = project.work_dir().join("core.wasm");
    let sdk = project.sdk();
    let mut sources = ["postern.c", "json.c", "bind/postern.c"]
        .map(|file| sdk.join(file))
        .to_vec();
    let source_dir = project.dir.join("src");
    let entries = fs::read_dir(&source_dir).with_context(|| in_file(&source_dir))?;
    for entry in entries {
        let path = entry.with_context(|| in_file(&source_dir))?.path();
        if path.extension() == Some(OsStr::new("c")) {
            sources.push(path);
        }
    }
    // The order of a folder is the file system's; that of a link should be the same each time.
    sources.sort();
    const INSTALL: &str = "install Zig from https://ziglang.org/download (or: pip install \
                           ziglang), or set WASI_SDK_PATH to a wasi-sdk";
    let mut compiler = match std::env::var_os("WASI_SDK_PATH") {
        Some(sdk) => Command::new(Path::new(&sdk).join("bin/clang")),
        None => {
            let found = ["zig", "python-zig"]
                .into_iter()
                .find(|name| is_found(name));
            let name =
                found.with_context(|| format!("there is no C compiler for Wasm; {INSTALL}"))?;
            let mut zig = Command::new(name);
            zig.arg("cc");
            zig
        }
    };
    compiler
        .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2"])
        .args(["-std=c17", "-Wall", "-Wextra"])
        .arg(format!("-Wl,-z,stack-size={STACK_BYTES}"))
        .arg("-Wl,--strip-all")
        .arg("-I")
        .arg(&sdk)
        .args(&sources)
        .arg("-o")
        .arg(&core);
    run(compiler, INSTALL)?;
    Ok(core)
}

const NODE_INSTALL: &str = "run `npm install` in the project, or `npm install --global \
                            componentize-qjs esbuild`";

fn script(project: &Project) -> anyhow::Result<()> {
    let work = project.work_dir();
    let extension = project.manifest.language.as_str();
    let phases = &project.manifest.phases;
    let mut entry = format!(
        "import plugin from \"../src/plugin.{extension}\";\n\
         import {{ phases }} from \"postern-plugin/phases\";\n\
         const all = phases(plugin);\n\
         export const lifecycle = all.lifecycle;\n"
    );
    for phase in phases {
        let name = camel(interface_of(phase));
        entry.push_str(&format!("export const {name} = all.{name};\n"));
    }
    write(&work.join("entry.js"), entry.as_bytes())?;

    let bundle = work.join("bundle.js");
    let sdk = absolute(&project.sdk())?;
    let mut esbuild = Command::new(node_tool(project, "esbuild"));
    esbuild
        .arg(work.join("entry.js"))
        .args([
            "--bundle",
            "--format=esm",
            "--target=es2023",
            "--platform=neutral",
        ])
        .args(["--external:postern:*", "--log-level=warning"])
        .arg(joined("--alias:postern-plugin=", &sdk))
        .arg(joined("--outfile=", &bundle));
    run(esbuild, NODE_INSTALL)?;

    // What is imported is what an operator has to grant, so it has to be what is used.
    let text = fs::read_to_string(&bundle).with_context(|| in_file(&bundle))?;
    let is_imported = |name: &&&str| text.contains(&format!("\"postern:plugin/{name}@"));
    let plain = interface::PLAIN_IMPORTS.iter();
    let imports = interface::IMPORTS.iter().filter(is_imported);
    write_wit(project, plain.chain(imports).copied())?;

    let mut componentize = Command::new(node_tool(project, "componentize-qjs"));
    componentize
        .arg("--wit")
        .arg(work.join("wit"))
        .args(["--world", interface::WORLD, "--sync", "--stub-wasi", "--js"])
        .arg(&bundle)
        .arg("--output")
        .arg(work.join("plugin.wasm"))
        .stdout(Stdio::null());
    run(componentize, NODE_INSTALL)?;
    write(&project.component(), &read(&work.join("plugin.wasm"))?)
}

fn python(project: &Project) -> anyhow::Result<()> {
    let work = project.work_dir();
    let mut entry = String::from(
        "import plugin\n\
         from postern_plugin import phases\n\
         \n\
         phases.start(plugin)\n\
         Lifecycle = phases.Lifecycle\n",
    );
    for phase in &project.manifest.phases {
        let name = pascal(interface_of(phase));
        entry.push_str(&format!("{name} = phases.{name}\n"));
    }
    write(&work.join("entry.py"), entry.as_bytes())?;
    let uses = project.manifest.uses.iter().map(String::as_str);
    write_wit(project, interface::PLAIN_IMPORTS.into_iter().chain(uses))?;

    let mut componentize = Command::new("componentize-py");
    componentize
        .arg("--wit-path")
        .arg(work.join("wit"))
        .args(["--world", interface::WORLD, "componentize", "--stub-wasi"])
        .arg("--python-path")
        .arg(&work)
        .arg("--python-path")
        .arg(project.dir.join("src"))
        .arg("--python-path")
        .arg(project.sdk())
        .arg("entry")
        .arg("--output")
        .arg(work.join("plugin.wasm"))
        .stdout(Stdio::null());
    run(componentize, "run `pip install componentize-py`")?;
    write(&project.component(), &read(&work.join("plugin.wasm"))?)
}

/// The interface, for compilers that read it themselves.
fn write_wit<'a>(
    project: &Project,
    imports: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<()> {
    let dir = project.work_dir().join("wit");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, source) in interface::SOURCES {
        write(&dir.join(name), source.as_bytes())?;
    }
    let mut unique: Vec<&str> = Vec::new();
    for import in imports {
        if !unique.contains(&import) {
            unique.push(import);
        }
    }
    let phases = project.manifest.phases.iter().map(String::as_str);
    let world = interface::world(phases, unique);
    write(&dir.join("plugin.wit"), world.as_bytes())
}

/// `request-phase` of `request`; the manifest was checked for other names.
fn interface_of(phase: &str) -> &str {
    let found = interface::PHASES.iter().find(|(name, _)| *name == phase);
    found.map_or(phase, |(_, interface)| interface)
}

fn pascal(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut chars = word.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    });
    words.collect()
}

fn camel(name: &str) -> String {
    let mut text = pascal(name);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

/// The project's own, if it has one, or the one in `PATH`.
fn node_tool(project: &Project, name: &str) -> OsString {
    let own = project.dir.join("node_modules/.bin").join(name);
    // A relative path would be looked for in `PATH`.
    match fs::canonicalize(own) {
        Ok(path) => path.into(),
        Err(_) => name.into(),
    }
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(path);
    text
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| in_file(path))
}

fn is_found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a compiler, whose messages go where ours go.
fn run(mut command: Command, install: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status();
    let status = status.with_context(|| format!("cannot run `{program}`; {install}"))?;
    if !status.success() {
        bail!("`{program}` failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_habits_of_the_language() {
        assert_eq!(camel(interface_of("request-body")), "requestBodyPhase");
        assert_eq!(pascal(interface_of("dns-solver")), "DnsSolver");
    }

    #[test]
    fn the_module_is_where_cargo_says() {
        let metadata = serde_json::json!({
            "target_directory": "/t",
            "packages": [{ "targets": [
                { "name": "build", "crate_types": ["bin"] },
                { "name": "my-plugin", "crate_types": ["cdylib", "rlib"] },
            ] }],
        });
        let want = Path::new("/t/wasm32-unknown-unknown/release/my_plugin.wasm");
        assert_eq!(rust_module(&metadata).as_deref(), Some(want));
        assert_eq!(rust_module(&serde_json::json!({})), None);
    }
}
