//! ACME HTTP-01 (RFC 8555, 8.3): plugins are asked before routing, so that no redirect and no login
//! stands between a certificate authority and its answer.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use postern_core::request::RequestHead;
use postern_wasm::Exchange;

use super::policies::introduce;
use crate::access_log::AccessRecord;
use crate::body::ResponseBody;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::policy::Policy;
use crate::policy::failed;
use crate::response;
use crate::worker::View;

const PREFIX: &str = "/.well-known/acme-challenge/";
/// Longest token. RFC 8555 asks for 128 bits at least, which are 22 characters.
const MAX_TOKEN: usize = 256;

/// What became of the question.
pub(super) enum Asked {
    Answered(Response<ResponseBody>),
    /// No plugin knows the token.
    NotOurs(RequestHead),
}

pub(super) fn is_challenge(connection: &Connection, head: &RequestHead) -> bool {
    connection.tls.is_none() && head.method == Method::GET && token(head).is_some()
}

/// Base64url without padding (RFC 8555, 8.3), and nothing behind it.
fn token(head: &RequestHead) -> Option<&str> {
    let token = head.path.as_str().strip_prefix(PREFIX)?;
    let is_token = (1..=MAX_TOKEN).contains(&token.len())
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_token.then_some(token)
}

/// Asks the plugins by name, until one knows the token.
pub(super) async fn answer(
    view: &View,
    connection: &Connection,
    head: RequestHead,
    client: std::net::IpAddr,
    version: Version,
    record: &mut AccessRecord,
) -> Result<Asked, ProxyError> {
    let host = head.authority.host().to_string();
    let token = token(&head).unwrap_or_default().to_owned();
    let mut exchange = Exchange::new(head);
    exchange.id = record.id();
    introduce(&mut exchange, view, connection, client, version);
    for &index in &view.challengers {
        let (Policy::Plugin(live), Some(worker)) =
            (&*view.snapshot.policies[index], &view.plugins[index])
        else {
            continue;
        };
        match worker.key_authorization(&mut exchange, &host, &token).await {
            Ok(Some(text)) => {
                record.answered_by(&live.name, None);
                let mut response = response::of_parts(StatusCode::OK, Bytes::from(text));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    // RFC 8555, 8.3.
                    HeaderValue::from_static("application/octet-stream"),
                );
                return Ok(Asked::Answered(response));
            }
            Ok(None) => {}
            Err(error) => failed(live, error)?,
        }
    }
    Ok(Asked::NotOurs(exchange.request))
}
