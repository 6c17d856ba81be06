//! `secrets`: what the operator granted by name, and nothing else.

use crate::bindings::postern::plugin::secrets::Host;
use crate::host::HostState;

impl Host for HostState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.meter.take_bytes(name.len())?;
        let secret = self.powers.secrets.get(&name);
        Ok(secret.map(|secret| secret.to_vec()))
    }
}
