//! Answers that the gateway makes itself.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use postern_core::header::X_REQUEST_ID;
use postern_wasm::exchange::LocalResponse;

use crate::body::ResponseBody;
use crate::error::ProxyError;

/// Seconds after which a gateway that was short of memory may have some again.
const RETRY_AFTER: &str = "5";

/// The page for an error: the status and the request's id. What happened stands in the log; a
/// client is not told.
pub(crate) fn of_error(error: &ProxyError, id: u64, is_h2: bool) -> Response<ResponseBody> {
    let status = error.status();
    let mut response = of_plugin(page(status, id));
    let headers = response.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110, 15.5.6 wants the field; which methods a route takes is not known here.
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    if matches!(error, ProxyError::MemoryShort) {
        let later = HeaderValue::from_static(RETRY_AFTER);
        headers.insert(header::RETRY_AFTER, later);
    }
    // A field of HTTP/1; in HTTP/2 it is malformed.
    if error.closes() && !is_h2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The page that says a status and no more.
pub(crate) fn page(status: StatusCode, id: u64) -> LocalResponse {
    let reason = status.canonical_reason().unwrap_or("error");
    let page = format!("{} {reason}\nrequest {id:016x}\n", status.as_u16());
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Ok(id) = HeaderValue::try_from(format!("{id:016x}")) {
        headers.insert(X_REQUEST_ID, id);
    }
    LocalResponse {
        status,
        headers,
        body: Bytes::from(page),
    }
}

pub(crate) fn of_parts(status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = status;
    response
}

pub(crate) fn of_plugin(local: LocalResponse) -> Response<ResponseBody> {
    let mut response = of_parts(local.status, local.body);
    *response.headers_mut() = local.headers;
    response
}
