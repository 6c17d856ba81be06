//! `body`: the body that is held while its plugin decides.

use bytes::Bytes;

use crate::bindings::postern::plugin::body::Host;
use crate::bindings::postern::plugin::types::EditError;
use crate::error::Breach;
use crate::exchange::HeldBody;
use crate::host::HostState;
use crate::limits::breach;

impl HostState {
    /// There only in the phases that it is for.
    fn held(&mut self) -> wasmtime::Result<&mut HeldBody> {
        self.body.as_mut().ok_or_else(|| breach(Breach::Phase))
    }
}

impl Host for HostState {
    fn read(&mut self, offset: u64, length: u32) -> wasmtime::Result<Vec<u8>> {
        let bytes = &self.held()?.bytes;
        let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        let end = bytes.len().min(start.saturating_add(length as usize));
        Ok(bytes[start..end].to_vec())
    }

    fn replace(&mut self, body: Vec<u8>) -> wasmtime::Result<Result<(), EditError>> {
        let limit = self.meter.limits().body;
        let held = self.held()?;
        if held.is_truncated {
            return Ok(Err(EditError::Forbidden));
        }
        if body.len() as u64 > limit {
            return Ok(Err(EditError::TooLarge));
        }
        held.bytes = Bytes::from(body);
        held.is_replaced = true;
        Ok(Ok(()))
    }
}
