//! Core module to component: what is left to do after a compiler that knows modules only.

use std::sync::OnceLock;

use wit_component::ComponentEncoder;
use wit_component::StringEncoding;
use wit_component::embed_component_metadata;
use wit_parser::Resolve;

use crate::error::Cause;
use crate::error::PluginError;
use crate::interface;

/// What a module that was compiled for WASI preview 1 imports, and what answers it.
const WASI: &str = "wasi_snapshot_preview1";
const SHIM: &str = include_str!("../../../../sdk/shim/wasi_snapshot_preview1.wat");

/// Makes a component of a core module that carries its interface in custom sections, as
/// `wit-bindgen` writes them.
///
/// WASI preview 1 is answered inside the component, so that a module may import it.
pub fn encode_component(core_module: &[u8]) -> Result<Vec<u8>, PluginError> {
    if !core_module.starts_with(b"\0asm") {
        return Err(PluginError::NotWasm);
    }
    ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|encoder| encoder.adapter(WASI, shim()))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| encode_error(&format!("{e:#}")))
}

/// As [`encode_component`], of a module that does not carry its interface: it exports the functions
/// of these phases, by the names of [`interface::PHASES`], and maybe of others, which are left out.
pub fn encode_plugin<'a>(
    core_module: &[u8],
    phases: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<u8>, PluginError> {
    if !core_module.starts_with(b"\0asm") {
        return Err(PluginError::NotWasm);
    }
    let mut text = String::new();
    for (_, source) in interface::SOURCES {
        text.push_str(source);
    }
    text.push_str(&interface::world(phases, interface::IMPORTS));
    let mut module = core_module.to_vec();
    embed(&mut module, &text, interface::WORLD).map_err(|message| encode_error(&message))?;
    encode_component(&module)
}

fn embed(module: &mut Vec<u8>, wit: &str, world: &str) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| format!("{e:#}");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", wit).map_err(|e| text(&e))?;
    let world = resolve
        .select_world(&[package], Some(world))
        .map_err(|e| text(&e))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8).map_err(|e| text(&e))
}

fn encode_error(message: &str) -> PluginError {
    PluginError::Encode(Cause::new(wasmtime::Error::msg(message.to_owned())))
}

/// The shim as a module that knows what its imports mean.
fn shim() -> &'static [u8] {
    static SHIM_MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    SHIM_MODULE.get_or_init(|| {
        let mut module = wat::parse_str(SHIM).expect("the shim is well formed");
        let sources: String = interface::SOURCES.map(|(_, source)| source).concat();
        // Of another name than the plugin's: worlds of one name in one package have to be the same.
        let world = "world shim { import random; import clock; }";
        embed(&mut module, &format!("{sources}{world}"), "shim")
            .expect("the interface is well formed");
        module
    })
}

#[cfg(test)]
mod tests;
