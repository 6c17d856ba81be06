//! Lets pages of other origins use a route, and answers their preflights.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use postern_core::config::policy::answer::CorsSpec;
use postern_core::policy::cors::CORS_FIELDS;
use postern_core::policy::cors::Cors;
use postern_core::policy::cors::is_preflight;
use postern_wasm::exchange::LocalResponse;

use super::native::Reply;
use super::native::Turn;

pub(super) struct CorsPolicy(Cors);

impl CorsPolicy {
    pub(super) fn new(spec: &CorsSpec) -> Self {
        Self(Cors::new(spec))
    }

    /// A preflight is answered here whatever its origin: one that is not allowed learns so from
    /// the fields that are missing.
    pub(super) fn on_request(&self, turn: &mut Turn<'_>) -> Option<Reply> {
        let allowed = self.0.allowed_origin(&turn.exchange.request.headers);
        let is_allowed = allowed.is_some();
        if let Some(origin) = allowed {
            turn.set_on_response(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            for (name, value) in self.0.response_fields() {
                turn.set_on_response(name, value);
            }
        }
        let request = &turn.exchange.request;
        if !is_preflight(&request.method, &request.headers) {
            return None;
        }
        if is_allowed {
            let fields: Vec<_> = self.0.preflight_fields(&request.headers).collect();
            for (name, value) in fields {
                turn.set_on_response(name, value);
            }
        }
        let answer = LocalResponse {
            status: StatusCode::NO_CONTENT,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        Some((answer, None))
    }

    /// The upstream's own word on origins is replaced, not mixed with this one.
    pub(super) fn on_response(&self, headers: &mut HeaderMap) {
        for name in CORS_FIELDS {
            headers.remove(name);
        }
        if self.0.varies() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}
