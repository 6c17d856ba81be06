//! What a request with policies has beside one without: an introduction, and a way back.

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use postern_wasm::Exchange;
use postern_wasm::exchange::ResponseHead;

use super::Answer;
use crate::access_log::AccessRecord;
use crate::body::ResponseBody;
use crate::body::filter::Direction;
use crate::body::filter::Filter;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::policy::PolicyChain;
use crate::response;
use crate::worker::View;

/// Tells plugins what they may ask about.
pub(super) fn introduce(
    exchange: &mut Exchange,
    view: &View,
    connection: &Connection,
    client: std::net::IpAddr,
    version: http::Version,
) {
    exchange.version = version;
    exchange.peer = Some(connection.peer);
    exchange.client = Some(client);
    exchange.sni = connection.tls.as_ref().and_then(|tls| tls.sni.clone());
    exchange.listener = Some(connection.listener.name.clone());
    exchange.encoded_slash = connection.rules.encoded_slash;
    exchange.upstreams = Some(view.upstreams.clone());
    let traceparent = exchange.request.headers.get("traceparent");
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    exchange.traceparent = traceparent.map(Into::into);
}

/// The policies on the response.
pub(super) async fn respond(
    chain: &mut PolicyChain<'_>,
    exchange: &mut Exchange,
    answer: &mut Answer,
    record: &mut AccessRecord,
) -> Result<(), ProxyError> {
    let response = answer.response_mut();
    exchange.response = Some(ResponseHead {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
    });
    let nothing = ResponseBody::full(bytes::Bytes::new());
    let mut body = std::mem::replace(response.body_mut(), nothing);
    let replaced_by = chain.on_response(exchange, &mut body).await?;
    let Some(ResponseHead { status, headers }) = exchange.response.take() else {
        return Ok(());
    };
    if let Some(policy) = replaced_by {
        record.answered_by(&policy, None);
        *answer = Answer::Response(response::of_parts(status, bytes::Bytes::new()));
    }
    let response = answer.response_mut();
    // A switch of protocols is between client and upstream; nobody may rename it.
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = status;
    }
    *response.headers_mut() = headers;
    *response.body_mut() = body;
    Ok(())
}

/// Puts the plugins that want to see the response's body on its way.
pub(super) fn filter_response(
    chain: &PolicyChain<'_>,
    mut exchange: Exchange,
    answer: &mut Answer,
) {
    let stages = chain.response_stages();
    let Answer::Response(response) = answer else {
        return;
    };
    if stages.is_empty() || response.body().is_over() || exchange.request.method == Method::HEAD {
        return;
    }
    // Nobody knows how long it will be.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    exchange.response = Some(ResponseHead {
        status: response.status(),
        headers: HeaderMap::new(),
    });
    let filter = Filter::new(Direction::Response, exchange, stages);
    response.body_mut().filter(filter);
}
