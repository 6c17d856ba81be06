//! Writes the bindings of the Go and C SDKs from `wit/`.
//!
//! Both are generated for a world with every phase: which of them a component has is decided when
//! it is encoded, and what a module imports by what its linker kept.

use std::error::Error;
use std::fs;
use std::path::Path;

use wit_bindgen_core::Files;
use wit_bindgen_core::WorldGenerator;
use wit_bindgen_core::wit_parser::Resolve;

const SOURCES: [&str; 4] = ["types.wit", "phases.wit", "host.wit", "worlds.wit"];
const WORLD: &str = "world postern {
  include full-plugin;
  export challenge-phase;
  export background;
  export dns-solver;
}";
/// What is different in our copy of the generated Go code.
const GO_CHANGES: [(&str, &str); 1] = [
    // Its runtime stands beside it, so that an author needs nothing from elsewhere.
    ("go.bytecodealliance.org/pkg/wit", "postern/internal/wit"),
];
/// Where it looks for a package a phase, it finds one with a variable a function: the SDK sets it.
const GO_EXPORTS: &str = "export_postern_plugin_";
/// Packages with nothing in them.
const GO_EMPTY: [&str; 7] = [
    "request_phase",
    "request_body_phase",
    "request_stream",
    "response_phase",
    "response_body_phase",
    "response_stream",
    "route_phase",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    for file in SOURCES {
        text += &fs::read_to_string(root.join("wit").join(file))?;
    }
    text += WORLD;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("postern.wit", &text)?;
    let world = resolve.select_world(&[package], Some("postern"))?;

    let mut c = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve.clone(), world, &mut c)?;
    for (name, bytes) in c.iter() {
        // The interface is put into a module when it is made a component.
        if !name.ends_with("_component_type.o") {
            write(&root.join("sdk/c/bind").join(name), bytes)?;
        }
    }

    let mut go = Files::default();
    let options = wit_bindgen_go::Opts {
        pkg_name: Some("postern/internal/bind".to_owned()),
        ..wit_bindgen_go::Opts::default()
    };
    options.build().generate(&mut resolve.clone(), world, &mut go)?;
    for (name, bytes) in go.iter() {
        let is_empty = |phase: &&str| name.starts_with(&format!("postern_plugin_{phase}/"));
        if !GO_EMPTY.iter().any(|phase| is_empty(&phase)) {
            let text = go_text(std::str::from_utf8(bytes)?);
            write(&root.join("sdk/go/internal/bind").join(name), text.as_bytes())?;
        }
    }
    Ok(())
}

fn go_text(text: &str) -> String {
    let mut out = String::new();
    let mut has_hooks = false;
    for line in text.lines() {
        let is_import = line.starts_with('\t') && line.ends_with('"');
        if is_import && line.contains(GO_EXPORTS) {
            if !has_hooks {
                out.push_str("\t\"postern/internal/hooks\"\n");
                has_hooks = true;
            }
            continue;
        }
        // `export_postern_plugin_PHASE.Function(...)`
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(GO_EXPORTS) {
            match after.split_once('.') {
                Some((phase, after)) if phase.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
                    out.push_str(before);
                    out.push_str("hooks.");
                    rest = after;
                }
                _ => {
                    out.push_str(before);
                    out.push_str(GO_EXPORTS);
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out.push('\n');
    }
    for (theirs, ours) in GO_CHANGES {
        out = out.replace(theirs, ours);
    }
    out
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, bytes)?;
    println!("{}", path.display());
    Ok(())
}
