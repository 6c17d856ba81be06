//! Gives each request an id, for the upstream and for the client.
//!
//! The id ends with the `request.id` of the access log, in hexadecimal; before that stands what
//! tells this process from every other.

use std::hash::BuildHasher as _;
use std::hash::RandomState;

use http::HeaderValue;
use postern_core::config::policy::answer::RequestIdSpec;

use super::native::Turn;

/// Longest id of a client's that is kept, in bytes.
const MAX_KEPT: usize = 128;

pub(super) struct RequestId {
    spec: RequestIdSpec,
    process: u64,
}

impl RequestId {
    pub(super) fn new(spec: RequestIdSpec) -> Self {
        Self {
            spec,
            // Seeded by the system's randomness.
            process: RandomState::new().hash_one(std::process::id()),
        }
    }

    pub(super) fn on_request(&self, turn: &mut Turn<'_>) {
        let name = &self.spec.header;
        let request = &mut turn.exchange.request;
        let sent = request.headers.get(name).filter(|_| self.spec.keeps);
        let kept = sent.filter(|value| {
            (1..=MAX_KEPT).contains(&value.len())
                && value.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        let id = match kept {
            Some(id) => id.clone(),
            None => {
                let id = format!("{:016x}{:016x}", self.process, turn.exchange.id);
                // Hexadecimal digits are a valid value.
                let Ok(id) = HeaderValue::try_from(id) else {
                    return;
                };
                id
            }
        };
        request.headers.insert(name, id.clone());
        turn.set_on_response(name.clone(), id);
    }
}
