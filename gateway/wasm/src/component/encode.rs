//! Core module to component: what is left to do after a compiler that knows modules only.

use wit_component::ComponentEncoder;

use crate::error::Cause;
use crate::error::PluginError;

/// Makes a component of a core module that carries its interface in custom sections, as
/// `wit-bindgen` writes them.
pub fn encode_component(core_module: &[u8]) -> Result<Vec<u8>, PluginError> {
    if !core_module.starts_with(b"\0asm") {
        return Err(PluginError::NotWasm);
    }
    ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| PluginError::Encode(Cause::new(wasmtime::Error::msg(format!("{e:#}")))))
}
