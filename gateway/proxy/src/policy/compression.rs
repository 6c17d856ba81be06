//! Makes responses smaller for clients that can read that.
//!
//! What the client takes is looked at on the request. What becomes of the response is decided when
//! every policy has had its say on it, since one of them may answer with another body.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use http::Method;
use http::Response;
use http_body::Body as _;
use postern_core::config::policy::body::CompressionSpec;
use postern_core::policy::compression::Coding;
use postern_core::policy::compression::Fate;
use postern_core::policy::compression::announce;
use postern_core::policy::compression::negotiate;
use postern_core::policy::compression::vary;

use super::native::Turn;
use crate::body::ResponseBody;

pub(super) struct Compression(Arc<Shared>);

struct Shared {
    spec: CompressionSpec,
    /// Responses that are compressed now.
    responses: AtomicU32,
}

/// What a policy has found out about the client of one request.
pub(crate) struct Compress {
    shared: Arc<Shared>,
    method: Method,
    coding: Option<Coding>,
}

/// Counts a response among those that are compressed.
pub(crate) struct Compressing(Arc<Shared>);

impl Drop for Compressing {
    fn drop(&mut self) {
        self.0.responses.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Compression {
    pub(super) fn new(spec: &CompressionSpec) -> Self {
        Self(Arc::new(Shared {
            spec: spec.clone(),
            responses: AtomicU32::new(0),
        }))
    }

    pub(super) fn on_request(&self, turn: &mut Turn<'_>) {
        let request = &turn.exchange.request;
        turn.effects.compress = Some(Rc::new(Compress {
            shared: Arc::clone(&self.0),
            method: request.method.clone(),
            coding: negotiate(&request.headers, &self.0.spec.codings),
        }));
    }
}

impl Compress {
    /// Compresses the body if it may and should be.
    pub(crate) fn apply(&self, response: &mut Response<ResponseBody>) {
        let body = response.body();
        // Without a body there is nothing to say about it, unless it was asked for nothing more.
        if body.is_over() && self.method != Method::HEAD {
            return;
        }
        let length = body
            .size_hint()
            .exact()
            .filter(|_| self.method != Method::HEAD);
        let status = response.status();
        let spec = &self.shared.spec;
        let fate = spec.fate(
            &self.method,
            status,
            response.headers(),
            length,
            self.coding,
        );
        if fate == Fate::Leave {
            return;
        }
        vary(response.headers_mut());
        if let (Fate::Compress, Some(coding), Some(place)) = (fate, self.coding, self.place())
            && response.body_mut().encode(coding, place)
        {
            announce(response.headers_mut(), coding);
        }
    }

    fn place(&self) -> Option<Compressing> {
        let before = self.shared.responses.fetch_add(1, Ordering::Relaxed);
        // Dropping it takes the count back.
        let place = Compressing(Arc::clone(&self.shared));
        (before < self.shared.spec.responses).then_some(place)
    }
}

#[cfg(test)]
impl Compressing {
    pub(crate) fn for_test() -> Self {
        Self(Arc::new(Shared {
            spec: CompressionSpec::default(),
            responses: AtomicU32::new(1),
        }))
    }
}
