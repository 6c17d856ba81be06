//! `request`: reading in every phase, editing in the request phase.

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use postern_core::hostname::Authority;
use postern_core::path::PathError;
use postern_core::path::RequestPath;

use crate::bindings::postern::plugin::request::Host;
use crate::bindings::postern::plugin::types::EditError;
use crate::component::Phase;
use crate::error::Breach;
use crate::host::HostState;
use crate::host::field;
use crate::limits::MAX_METHOD_LEN;
use crate::limits::MAX_PATH_LEN;
use crate::limits::breach;

impl HostState {
    /// Takes note of what was handed over and of the phase, before an edit.
    fn begin_edit(&mut self, bytes: usize) -> wasmtime::Result<Result<(), EditError>> {
        self.meter.take_bytes(bytes)?;
        Ok(match self.phase {
            Phase::Configure | Phase::Tick | Phase::Solver => return Err(breach(Breach::Phase)),
            Phase::Route | Phase::Challenge => Err(EditError::Forbidden),
            Phase::RequestStream
            | Phase::Response
            | Phase::ResponseBody
            | Phase::ResponseStream
            | Phase::Log => Err(EditError::TooLate),
            Phase::Request | Phase::RequestBody => {
                self.keep_request();
                Ok(())
            }
        })
    }

    fn read_request(&mut self, name: &str) -> wasmtime::Result<()> {
        self.meter.take_bytes(name.len())?;
        self.in_exchange()
    }
}

impl Host for HostState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.read_request(&name)?;
        let request = &self.exchange.request;
        Ok(if name.eq_ignore_ascii_case("host") {
            Some(request.authority.as_str().to_owned())
        } else {
            field::joined(&request.headers, &name)
        })
    }

    fn get_all(&mut self, name: String) -> wasmtime::Result<Vec<String>> {
        self.read_request(&name)?;
        Ok(field::all(&self.exchange.request.headers, &name))
    }

    fn get_bytes(&mut self, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        self.read_request(&name)?;
        Ok(field::all_bytes(&self.exchange.request.headers, &name))
    }

    fn names(&mut self) -> wasmtime::Result<Vec<String>> {
        self.in_exchange()?;
        Ok(field::names(&self.exchange.request.headers))
    }

    fn method(&mut self) -> wasmtime::Result<String> {
        self.in_exchange()?;
        Ok(self.exchange.request.method.as_str().to_owned())
    }

    fn path(&mut self) -> wasmtime::Result<String> {
        self.in_exchange()?;
        Ok(self.exchange.request.path.as_str().to_owned())
    }

    fn authority(&mut self) -> wasmtime::Result<String> {
        self.in_exchange()?;
        Ok(self.exchange.request.authority.as_str().to_owned())
    }

    fn scheme(&mut self) -> wasmtime::Result<String> {
        self.in_exchange()?;
        Ok(self.exchange.request.scheme.as_str().to_owned())
    }

    fn set(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(name.len() + value.len())?;
        let edit = begun.and_then(|()| self.request_fields().set(&name, value));
        Ok(self.note(edit, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
    }

    fn append(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(name.len() + value.len())?;
        let edit = begun.and_then(|()| self.request_fields().append(&name, value));
        Ok(self.note(edit, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
    }

    fn remove(&mut self, name: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(name.len())?;
        Ok(begun.and_then(|()| self.request_fields().remove(&name)))
    }

    fn set_method(&mut self, method: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(method.len())?;
        Ok(begun.and_then(|()| {
            self.exchange.request.method = parse_method(&method)?;
            Ok(())
        }))
    }

    fn set_path(&mut self, path: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(path.len())?;
        let edit = begun.and_then(|()| {
            if path.len() > MAX_PATH_LEN {
                return Err(EditError::TooLarge);
            }
            let path = RequestPath::from_text(&path, self.exchange.encoded_slash);
            self.exchange.request.path = path.map_err(|error| match error {
                PathError::TooLong => EditError::TooLarge,
                PathError::NotAbsolute
                | PathError::Escape
                | PathError::EncodedSlash
                | PathError::Backslash
                | PathError::Control
                | PathError::Character
                | PathError::Climbs => EditError::Invalid,
            })?;
            Ok(())
        });
        Ok(self.note(edit, StatusCode::URI_TOO_LONG))
    }

    fn set_authority(&mut self, authority: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(authority.len())?;
        Ok(begun.and_then(|()| {
            let value = HeaderValue::try_from(authority).map_err(|_| EditError::Invalid)?;
            let authority = Authority::parse(&value).map_err(|_| EditError::Invalid)?;
            self.exchange.request.authority = authority;
            Ok(())
        }))
    }

    fn set_upstream(&mut self, name: String) -> wasmtime::Result<Result<(), EditError>> {
        let begun = self.begin_edit(name.len())?;
        Ok(begun.and_then(|()| {
            let upstreams = self.exchange.upstreams.as_deref();
            let found = upstreams.and_then(|upstreams| upstreams.find(&name));
            let upstream = found.ok_or(EditError::UnknownUpstream)?.clone();
            self.exchange.upstream = Some(upstream);
            Ok(())
        }))
    }
}

pub(crate) fn parse_method(text: &str) -> Result<Method, EditError> {
    if text.len() > MAX_METHOD_LEN {
        return Err(EditError::TooLarge);
    }
    match Method::from_bytes(text.as_bytes()) {
        // Both make a tunnel or an echo of what the client sent (RFC 9110, 9.3.6 and 9.3.8).
        Ok(Method::CONNECT | Method::TRACE) => Err(EditError::Forbidden),
        Ok(method) => Ok(method),
        Err(_) => Err(EditError::Invalid),
    }
}
