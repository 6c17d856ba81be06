//! An upstream that looks like a gRPC server: HTTP/2 in clear text, a status in the trailers.

use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Body;
use super::Upstream;
use super::channel;

impl Upstream {
    /// Sends every piece of a request back as it comes, then `grpc-status: 0` as a trailer.
    pub async fn grpc_echo() -> Self {
        Self::http2(|request| async move { echo(request) }).await
    }
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let (mut pieces, body) = channel();
    let te = request.headers().get(header::TE).cloned();
    // Ends with the request's body or when the answer is no longer wanted.
    tokio::spawn(async move {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(piece) = frame.into_data()
                && pieces.send_data(piece).await.is_err()
            {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = pieces.send_trailers(trailers).await;
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    // What a server insists on, shown to the test.
    if let Some(te) = te {
        headers.insert("x-te", te);
    }
    response
}
