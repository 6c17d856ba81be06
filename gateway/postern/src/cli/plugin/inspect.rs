//! `inspect`: what can be known of a component without running it.

use std::path::Path;

use anyhow::Context as _;
use postern_core::config::plugin::Grants;
use postern_wasm::Component;
use postern_wasm::PluginEngine;
use serde_json::json;

use super::super::Format;
use super::super::print;
use super::read;

/// The name under which a core module asks for WASI; in a component of ours, what answers it stands
/// beside it.
const WASI: &[u8] = b"wasi_snapshot_preview1";

pub(super) fn run(file: &Path, format: Format) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let engine = PluginEngine::new(None)?;
    let component = Component::load(&engine, &bytes).with_context(|| file.display().to_string())?;
    let phases = component.phases();
    let phases = phases
        .names()
        .map(|name| name.strip_suffix("-phase").unwrap_or(name));
    let phases: Vec<&str> = phases.collect();
    let grants = component.missing_grants(&Grants::default());
    let grants: Vec<&str> = grants.iter().map(|missing| missing.grant).collect();
    let has_wasi = bytes.windows(WASI.len()).any(|window| window == WASI);
    let milliseconds = component.compile_time().as_millis();
    if format == Format::Json {
        let value = json!({
            "file": file.to_string_lossy(),
            "digest": format!("sha256:{}", component.digest()),
            "bytes": component.size(),
            "phases": phases,
            "imports": component.imports(),
            "grants": grants,
            "stubbed": component.stubbed(),
            "wasi-preview-1": has_wasi,
            "compile-milliseconds": u64::try_from(milliseconds).unwrap_or(u64::MAX),
        });
        print(format_args!("{value:#}"));
        return Ok(());
    }
    print(format_args!("file     {}", file.display()));
    print(format_args!("digest   sha256:{}", component.digest()));
    print(format_args!("size     {} bytes", component.size()));
    print(format_args!("phases   {}", phases.join(", ")));
    list("imports", component.imports());
    list("grants", &grants);
    // Linked to nothing: a call of one ends the instance.
    list("stubbed", component.stubbed());
    if has_wasi {
        let what = "answered inside the component: no files, sockets, environment or arguments";
        print(format_args!("wasi     {what}"));
    }
    print(format_args!("compile  {milliseconds} ms"));
    Ok(())
}

fn list(label: &str, items: &[impl AsRef<str>]) {
    for (index, item) in items.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        print(format_args!("{label:<8} {}", item.as_ref()));
    }
}
