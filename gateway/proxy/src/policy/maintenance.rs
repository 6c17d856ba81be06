//! Answers everybody while something is repaired.

use bytes::Bytes;
use http::HeaderValue;
use http::header;
use postern_core::config::policy::answer::MaintenanceSpec;
use postern_core::policy::ip_access::AddressRanges;

use super::native::Reply;
use super::native::Turn;

const REASON: &str = "maintenance";

pub(super) struct Maintenance {
    allow: AddressRanges,
    body: Option<Bytes>,
    spec: MaintenanceSpec,
}

impl Maintenance {
    pub(super) fn new(spec: MaintenanceSpec) -> Self {
        Self {
            allow: AddressRanges::new(&spec.allow),
            body: spec.body.clone().map(Bytes::from),
            spec,
        }
    }

    pub(super) fn on_request(&self, turn: &Turn<'_>) -> Option<Reply> {
        if !self.spec.is_on || self.allow.contains(turn.client) {
            return None;
        }
        let (mut page, reason) = turn.refuse(self.spec.status, REASON);
        if let Some(body) = &self.body {
            page.body = body.clone();
        }
        let headers = &mut page.headers;
        headers.insert(header::CONTENT_TYPE, self.spec.content_type.clone());
        // Nobody is to keep the page for when everything works again.
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, no_store);
        if let Some(time) = self.spec.retry_after {
            // At least a second: zero would mean at once.
            let seconds = HeaderValue::from(time.as_secs().max(1));
            headers.insert(header::RETRY_AFTER, seconds);
        }
        Some((page, reason))
    }
}
