//! ACME HTTP-01 (RFC 8555, 8.3): the gateway's own challenges and then plugins are asked before
//! routing, so that no redirect and no login stands between a certificate authority and its answer.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use postern_core::config::route::PathMatch;
use postern_core::request::RequestHead;
use postern_wasm::Exchange;

use super::policies::introduce;
use crate::access_log::AccessRecord;
use crate::body::ResponseBody;
use crate::challenges::Challenges;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::policy::Policy;
use crate::policy::failed;
use crate::response;
use crate::snapshot::Snapshot;
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

/// Plugins answer where authorities ask first: in clear text.
pub(super) fn is_challenge(connection: &Connection, head: &RequestHead) -> bool {
    connection.tls.is_none() && head.method == Method::GET && token(head).is_some()
}

/// The answer to a challenge of an order of our own. Over TLS as well: an authority follows
/// redirects of what stands in front of us. A token that is not ours is for the routes.
pub(super) fn own(challenges: &Challenges, head: &RequestHead) -> Option<Response<ResponseBody>> {
    let token = token(head).filter(|_| head.method == Method::GET)?;
    challenges.answer(token).map(answered)
}

/// Whether it is for a token that another replica may have just begun to show. A rule for challenges,
/// such as that of another program that gets certificates, answers for tokens that are not ours.
pub(super) fn may_come(snapshot: &Snapshot, head: &RequestHead) -> bool {
    let is_asked = head.method == Method::GET && token(head).is_some();
    if !is_asked || !snapshot.challenges.is_expected(head.authority.host()) {
        return false;
    }
    let rule = snapshot.routes.find(head);
    let rule = rule.and_then(|id| snapshot.rule(id));
    !rule.is_some_and(|rule| match &rule.spec().matches.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => {
            path.starts_with(PREFIX.trim_end_matches('/'))
        }
        PathMatch::Regex(_) => false,
    })
}

/// The answer to a token that comes late; `None` if it does not come.
pub(super) async fn held(
    challenges: &Challenges,
    clock: &Clock,
    head: &RequestHead,
) -> Option<Response<ResponseBody>> {
    let answer = challenges.hold(token(head)?, clock).await;
    answer.map(answered)
}

fn answered(text: Bytes) -> Response<ResponseBody> {
    let mut response = response::of_parts(StatusCode::OK, text);
    let headers = response.headers_mut();
    // RFC 8555, 8.3.
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
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
                return Ok(Asked::Answered(answered(Bytes::from(text))));
            }
            Ok(None) => {}
            Err(error) => failed(live, error)?,
        }
    }
    Ok(Asked::NotOurs(exchange.request))
}
