//! Sends a client elsewhere unless it is there already.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::header;
use postern_core::config::route::PathMatch;
use postern_core::config::route::RedirectSpec;
use postern_core::policy::redirect::redirects;
use postern_core::route::redirect_location;
use postern_wasm::exchange::LocalResponse;

use super::native::Reply;
use super::native::Turn;

pub(super) fn on_request(spec: &RedirectSpec, turn: &Turn<'_>) -> Option<Reply> {
    let request = &turn.exchange.request;
    if !redirects(spec, request, turn.scheme()) {
        return None;
    }
    // A policy replaces no prefix, so what its rule matched is nothing to it.
    let location = redirect_location(request, &PathMatch::Prefix(String::new()), spec).ok()?;
    // The path is canonical and the host checked: always a valid value.
    let location = HeaderValue::try_from(location).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, location);
    let answer = LocalResponse {
        status: spec.status,
        headers,
        body: Bytes::new(),
    };
    Some((answer, None))
}
