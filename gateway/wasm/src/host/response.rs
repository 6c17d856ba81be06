//! `response`: for the response phase.

use http::StatusCode;

use crate::bindings::postern::plugin::response::Host;
use crate::bindings::postern::plugin::types::EditError;
use crate::component::Phase;
use crate::error::Breach;
use crate::exchange::ResponseHead;
use crate::host::HostState;
use crate::host::field;
use crate::host::field::Fields;
use crate::limits::breach;

impl HostState {
    /// Edits the response, after taking note of what was handed over.
    fn edit_response(
        &mut self,
        bytes: usize,
        edit: impl FnOnce(&mut Fields<'_>) -> Result<(), EditError>,
    ) -> wasmtime::Result<Result<(), EditError>> {
        self.meter.take_bytes(bytes)?;
        let (response, field_bytes) = self.response_for_edit()?;
        let edit = edit(&mut Fields::new(&mut response.headers, field_bytes));
        Ok(self.note(edit, StatusCode::BAD_GATEWAY))
    }

    fn response_for_edit(&mut self) -> wasmtime::Result<(&mut ResponseHead, &mut Option<usize>)> {
        self.response()?;
        self.keep_response();
        match &mut self.exchange.response {
            Some(response) => Ok((response, &mut self.field_bytes)),
            None => Err(breach(Breach::Phase)),
        }
    }
}

impl Host for HostState {
    fn status(&mut self) -> wasmtime::Result<u16> {
        match (self.phase, &self.exchange.response) {
            (Phase::ResponseStream, Some(response)) => Ok(response.status.as_u16()),
            _ => Ok(self.response()?.status.as_u16()),
        }
    }

    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.meter.take_bytes(name.len())?;
        Ok(field::joined(&self.response()?.headers, &name))
    }

    fn get_all(&mut self, name: String) -> wasmtime::Result<Vec<String>> {
        self.meter.take_bytes(name.len())?;
        Ok(field::all(&self.response()?.headers, &name))
    }

    fn get_bytes(&mut self, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        self.meter.take_bytes(name.len())?;
        Ok(field::all_bytes(&self.response()?.headers, &name))
    }

    fn names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(field::names(&self.response()?.headers))
    }

    fn set_status(&mut self, status: u16) -> wasmtime::Result<Result<(), EditError>> {
        let (response, _) = self.response_for_edit()?;
        Ok(parse_status(status).and_then(|status| {
            if status != response.status && (is_bodiless(status) || is_bodiless(response.status)) {
                return Err(EditError::Forbidden);
            }
            response.status = status;
            Ok(())
        }))
    }

    fn set(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), EditError>> {
        self.edit_response(name.len() + value.len(), |fields| fields.set(&name, value))
    }

    fn append(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), EditError>> {
        self.edit_response(name.len() + value.len(), |fields| {
            fields.append(&name, value)
        })
    }

    fn remove(&mut self, name: String) -> wasmtime::Result<Result<(), EditError>> {
        self.edit_response(name.len(), |fields| fields.remove(&name))
    }
}

/// A final status that a plugin may send.
pub(crate) fn parse_status(status: u16) -> Result<StatusCode, EditError> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..=599).contains(&status) => Ok(code),
        _ => Err(EditError::Invalid),
    }
}

/// No body follows this status whatever the fields say (RFC 9112, 6.3), nor may one (RFC 9110,
/// 15.3.6). A change to or from it would leave a body without a message or the other way round.
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}
