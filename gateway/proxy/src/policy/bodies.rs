//! A plugin that asked for a body gets it: held within its limit, shown, and perhaps replaced.

use http::StatusCode;
use http::header;
use postern_wasm::Action;
use postern_wasm::Exchange;
use postern_wasm::PluginError;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::BodyRequest;
use postern_wasm::exchange::Overflow;

use crate::body::BodyError;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::error::ProxyError;

/// The outer error ends the request whatever the plugin's `on-error` is: there is no whole body.
pub(super) async fn on_request_body(
    worker: &PluginWorker,
    exchange: &mut Exchange,
    body: &mut RequestBody,
    wish: BodyRequest,
) -> Result<Result<Action, PluginError>, ProxyError> {
    let held = body.hold(wish.limit).await;
    let mut held = held.map_err(|error| match error {
        BodyError::Idle => ProxyError::RequestBodySlow,
        _ => ProxyError::RequestBody,
    })?;
    if held.is_truncated && wish.on_overflow == Overflow::Reject {
        let plugin = worker.plugin().name().clone();
        return Err(ProxyError::RequestBodySize { plugin });
    }
    let acted = worker.on_request_body(exchange, &mut held).await;
    // What a failed call replaced is not sent.
    if acted.is_ok() && held.is_replaced {
        body.replace(held.bytes);
    }
    Ok(acted)
}

/// As [`on_request_body`], for the response.
pub(super) async fn on_response_body(
    worker: &PluginWorker,
    exchange: &mut Exchange,
    body: &mut ResponseBody,
    wish: BodyRequest,
) -> Result<Result<Action, PluginError>, ProxyError> {
    let plugin = || worker.plugin().name().clone();
    let held = body.hold(wish.limit).await;
    let mut held = held.map_err(|_| ProxyError::ResponseBody { plugin: plugin() })?;
    if held.is_truncated && wish.on_overflow == Overflow::Reject {
        return Err(ProxyError::ResponseBodySize { plugin: plugin() });
    }
    let acted = worker.on_response_body(exchange, &mut held).await;
    if acted.is_ok()
        && held.is_replaced
        && let Some(response) = &mut exchange.response
        && may_have_body(response.status)
    {
        // Written anew, from the body.
        response.headers.remove(header::CONTENT_LENGTH);
        body.replace(held.bytes);
    }
    Ok(acted)
}

/// RFC 9110, 15.3.5, 15.3.6 and 15.4.5: nothing follows these, whatever a plugin would like.
fn may_have_body(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}
