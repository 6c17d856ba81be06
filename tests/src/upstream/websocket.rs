//! An upstream that echoes WebSocket messages.

use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::Body;
use super::Upstream;
use super::empty;
use crate::websocket;

impl Upstream {
    /// Takes every upgrade and sends back each message; refuses everything else with 426.
    pub async fn websocket() -> Self {
        Self::http1(|request| async move { upgrade(request) }).await
    }
}

fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(empty());
    if request.headers().get(header::UPGRADE) != Some(&HeaderValue::from_static("websocket")) {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    }
    // Ends when the other side closes.
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        while let Ok(text) = websocket::receive(&mut stream).await {
            if websocket::reply(&mut stream, &text).await.is_err() {
                return;
            }
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // The answer to the key that our own client sends.
    let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}
