//! What stands in for WASI: enough to link, nothing to use.
//!
//! A language's runtime imports interfaces that a policy never calls: files for a panic's message,
//! an environment for `main`. They exist here so that such a component can run, and a call of one
//! ends the instance. Nothing of the machine is behind them.

use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime::component::ResourceType;
use wasmtime::component::types::ComponentInstance;
use wasmtime::component::types::ComponentItem;

use crate::error::Breach;
use crate::host::HostState;
use crate::limits::breach;

/// Packages of WASI that runtimes import for themselves. Others, `wasi:http` among them, are only
/// imported by who means to use them, and are refused when the component is loaded.
const STUBBED: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

pub(super) fn is_stubbed(import: &str) -> bool {
    STUBBED.iter().any(|package| import.starts_with(package))
}

/// Adds one interface, every function of which ends the guest.
pub(super) fn stub(
    linker: &mut Linker<HostState>,
    engine: &Engine,
    name: &str,
    interface: &ComponentInstance,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(name)?;
    for (item, export) in interface.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => {
                instance.func_new(item, |_, _, _, _| Err(breach(Breach::Stubbed)))?;
            }
            ComponentItem::Resource(_) => {
                // No function makes one, so none is ever dropped.
                instance.resource(item, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            // Types need no definition; what else there may be fails to link, by its name.
            _ => {}
        }
    }
    Ok(())
}
