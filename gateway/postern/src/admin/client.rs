//! Asks the admin listener of a running gateway, for commands.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const TIME: Duration = Duration::from_secs(10);
/// Largest answer in bytes. An explanation names each rule of a host, of which there may be
/// thousands.
const ANSWER_BYTES: usize = 16 << 20;

/// The answer to `GET path`.
pub async fn get(addr: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    match tokio::time::timeout(TIME, exchange(addr, path)).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {TIME:?}"),
    }
}

async fn exchange(addr: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(addr).await.context("no connection")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, addr.to_string())
        .body(Empty::<Bytes>::new())
        .context("the question is too long")?;
    let answering = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect();
        let body = body.await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(answering);
    // The connection makes progress only while it is polled, and ends when it wants.
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}
