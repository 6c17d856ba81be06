//! A small client of the API server: one HTTP/2 connection, JSON in and out. For set-up of many
//! objects, where a process for each would take minutes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use http::request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::certs::Authority;
use crate::client::Reply;
use crate::client::Tls;
use crate::upstream::Body;
use crate::upstream::full;

/// A connection as somebody. Its clones share it.
#[derive(Clone)]
pub struct Api {
    sender: http2::SendRequest<Body>,
    addr: SocketAddr,
    token: &'static str,
}

impl Api {
    pub(super) async fn connect(
        addr: SocketAddr,
        authority: &Authority,
        token: &'static str,
    ) -> Result<Self, String> {
        let tls = Tls {
            alpn: &["h2"],
            ..Tls::to(authority, "localhost")
        };
        let stream = tls.connect(addr).await.map_err(|error| error.to_string())?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            addr,
            token,
        })
    }

    pub async fn get(&self, path: &str) -> Result<String, String> {
        self.send(Method::GET, path, "", String::new()).await
    }

    /// A GET whose answer is JSON.
    pub async fn read(&self, path: &str) -> Result<Value, String> {
        let text = self.get(path).await?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Creates an object in the collection at `path`.
    pub async fn create(&self, path: &str, object: &Value) -> Result<(), String> {
        let kind = "application/json";
        self.send(Method::POST, path, kind, object.to_string())
            .await
            .map(|_| ())
    }

    /// Merges a patch into the object at `path`.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<(), String> {
        let kind = "application/merge-patch+json";
        self.send(Method::PATCH, path, kind, patch.to_string())
            .await
            .map(|_| ())
    }

    pub async fn delete(&self, path: &str) -> Result<(), String> {
        self.send(Method::DELETE, path, "", String::new())
            .await
            .map(|_| ())
    }

    /// Sends somebody else's request as this client's own.
    pub async fn forward(
        &self,
        parts: request::Parts,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(parts.method)
            .uri(format!("https://{}{path}", self.addr))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            if let Some(value) = parts.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let request = request
            .body(full(body))
            .map_err(|error| error.to_string())?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        parts.headers.remove(header::TRANSFER_ENCODING);
        Ok(Response::from_parts(parts, body))
    }

    /// `Err` is a connection that broke or a status that is no success, with what was said.
    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> Result<String, String> {
        let what = format!("{method} {path}");
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.addr))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request
            .body(full(body))
            .map_err(|error| error.to_string())?;
        let mut sender = self.sender.clone();
        sender
            .ready()
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| format!("{what}: {error}"))?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        let reply = Reply {
            status: parts.status,
            headers: parts.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        };
        match reply.status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(reply.text()),
            status => Err(format!("{what}: {status}: {}", reply.text())),
        }
    }
}
