//! The two messages of the exchange that a phase is about.
//!
//! Both answer from the values that came with the call where [`Setup`](crate::Setup) named them,
//! and ask the gateway for everything else. An edit makes such a value stale, so the gateway is asked
//! for it after one: what is read is always what the next plugin would see.

use crate::EditError;
use crate::host::raw;

/// The request of the current exchange.
///
/// It can be edited in `on_request` and `on_request_body`; elsewhere an edit is refused.
#[derive(Debug)]
pub struct Request {
    view: Given,
}

/// The response of the current exchange.
#[derive(Debug)]
pub struct Response {
    view: Given,
    request: Request,
}

impl Request {
    /// The value of a field; none if it is absent or not UTF-8. Several values are joined with
    /// ", ". Also takes the other names of `request-view`, if [`Setup`](crate::Setup) named them.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.view.find(name) {
            Some(value) => value.map(str::to_owned),
            None => raw::request::get(name),
        }
    }

    /// Every value of the field that is UTF-8, in order.
    pub fn get_all(&self, name: &str) -> Vec<String> {
        raw::request::get_all(name)
    }

    /// Every value of the field as the bytes that were sent.
    pub fn get_bytes(&self, name: &str) -> Vec<Vec<u8>> {
        raw::request::get_bytes(name)
    }

    /// The names of all fields, each once, in lower case.
    pub fn names(&self) -> Vec<String> {
        raw::request::names()
    }

    /// The value of a cookie: the first of this name.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let is_cookie = |pair: &str| {
            let (n, value) = pair.trim().split_once('=')?;
            (n == name).then(|| value.to_owned())
        };
        let fields = self.get_all("cookie");
        fields
            .iter()
            .find_map(|field| field.split(';').find_map(is_cookie))
    }

    pub fn method(&self) -> String {
        self.given_or(":method", raw::request::method)
    }

    /// Path and query.
    pub fn path(&self) -> String {
        self.given_or(":path", raw::request::path)
    }

    /// Host and, if the client gave one, port.
    pub fn authority(&self) -> String {
        self.given_or(":authority", raw::request::authority)
    }

    /// "http" or "https".
    pub fn scheme(&self) -> String {
        self.given_or(":scheme", raw::request::scheme)
    }

    fn given_or(&self, name: &str, ask: impl FnOnce() -> String) -> String {
        match self.view.find(name) {
            Some(Some(value)) => value.to_owned(),
            _ => ask(),
        }
    }

    /// Replaces every value of the field by this one.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::request::set(name, value)
    }

    /// Adds a value, keeping those that are there.
    pub fn append(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::request::append(name, value)
    }

    /// Removes every value of the field. Removing an absent field is no error.
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::request::remove(name)
    }

    pub fn set_method(&mut self, method: &str) -> Result<(), EditError> {
        self.view.forget(":method");
        raw::request::set_method(method)
    }

    /// Path and query in origin form, as "/a/b?c=d".
    pub fn set_path(&mut self, path: &str) -> Result<(), EditError> {
        self.view.forget(":path");
        raw::request::set_path(path)
    }

    /// Host and optional port that the upstream sees.
    pub fn set_authority(&mut self, authority: &str) -> Result<(), EditError> {
        self.view.forget(":authority");
        self.view.forget("host");
        raw::request::set_authority(authority)
    }

    /// Sends the request to this upstream, by its configured name.
    pub fn set_upstream(&mut self, name: &str) -> Result<(), EditError> {
        raw::request::set_upstream(name)
    }

    pub(crate) fn new(names: &'static [String], values: Vec<Option<String>>) -> Self {
        Self {
            view: Given {
                names,
                values,
                stale: 0,
            },
        }
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        let given = self.view.find(":status").flatten();
        let status = given.and_then(|status| status.parse().ok());
        status.unwrap_or_else(raw::response::status)
    }

    /// As [`Request::get`], for the names of `response-view`.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.view.find(name) {
            Some(value) => value.map(str::to_owned),
            None => raw::response::get(name),
        }
    }

    /// As [`Request::get_all`].
    pub fn get_all(&self, name: &str) -> Vec<String> {
        raw::response::get_all(name)
    }

    /// As [`Request::get_bytes`].
    pub fn get_bytes(&self, name: &str) -> Vec<Vec<u8>> {
        raw::response::get_bytes(name)
    }

    /// As [`Request::names`].
    pub fn names(&self) -> Vec<String> {
        raw::response::names()
    }

    /// The request that this answers, to be read.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// 200 to 599. A change to or from 204, 205 and 304 is refused.
    pub fn set_status(&mut self, status: u16) -> Result<(), EditError> {
        self.view.forget(":status");
        raw::response::set_status(status)
    }

    /// As [`Request::set`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::response::set(name, value)
    }

    /// As [`Request::append`].
    pub fn append(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::response::append(name, value)
    }

    /// As [`Request::remove`].
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        self.view.forget(name);
        raw::response::remove(name)
    }

    pub(crate) fn new(names: &'static [String], values: Vec<Option<String>>) -> Self {
        Self {
            view: Given {
                names,
                values,
                stale: 0,
            },
            request: Request::new(&[], Vec::new()),
        }
    }
}

/// Values that came with the call, in the order in which they were named.
#[derive(Debug)]
struct Given {
    names: &'static [String],
    values: Vec<Option<String>>,
    /// A bit for each value that an edit has changed. A view has 64 names at most.
    stale: u64,
}

impl Given {
    /// None: the gateway has to be asked. Some(None): there is no such value.
    fn find(&self, name: &str) -> Option<Option<&str>> {
        let at = self.names.iter().position(|n| n == name)?;
        if self.stale & bit(at) != 0 {
            return None;
        }
        Some(self.values.get(at)?.as_deref())
    }

    fn forget(&mut self, name: &str) {
        let is_it = |n: &String| n.eq_ignore_ascii_case(name);
        if let Some(at) = self.names.iter().position(is_it) {
            self.stale |= bit(at);
        }
    }
}

fn bit(at: usize) -> u64 {
    u32::try_from(at).map_or(0, |at| 1u64.checked_shl(at).unwrap_or(0))
}
