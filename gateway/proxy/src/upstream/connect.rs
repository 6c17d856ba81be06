//! One new connection to an endpoint: name, TCP, PROXY protocol, TLS.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use postern_core::address::is_local;
use postern_core::config::upstream::EndpointSpec;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;

use super::ConnectError;
use super::Upstream;
use super::proxy_header;
use super::proxy_header::Addresses;
use crate::clock::Clock;
use crate::stream::Stream;
use crate::stream::tcp_keepalive;

/// Connects within the upstream's connect timeout, which covers all steps.
pub(super) async fn connect(
    upstream: &Upstream,
    endpoint: &EndpointSpec,
    addresses: Addresses,
    clock: &Clock,
) -> Result<Stream, ConnectError> {
    let limit = upstream.spec.timeouts.connect;
    #[cfg(feature = "test-util")]
    if let Some(stream) = crate::test_util::connect(endpoint) {
        return Ok(Stream::Memory(stream));
    }
    let connecting = dial(upstream, endpoint, addresses);
    match clock.timeout(limit, connecting).await {
        Some(connected) => connected,
        None => Err(ConnectError::TimedOut),
    }
}

/// The same without TLS, whatever the upstream speaks.
pub(super) async fn connect_bare(
    upstream: &Upstream,
    endpoint: &EndpointSpec,
    addresses: Addresses,
    clock: &Clock,
) -> Result<Stream, ConnectError> {
    let limit = upstream.spec.timeouts.connect;
    let connecting = dial_bare(upstream, endpoint, addresses);
    match clock.timeout(limit, connecting).await {
        Some(connected) => connected.map(Stream::Plain),
        None => Err(ConnectError::TimedOut),
    }
}

async fn dial_bare(
    upstream: &Upstream,
    endpoint: &EndpointSpec,
    addresses: Addresses,
) -> Result<TcpStream, ConnectError> {
    let refuses_local = upstream.spec.refuses_local;
    let mut stream = tcp(endpoint, refuses_local)
        .await
        .map_err(ConnectError::Failed)?;
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    SockRef::from(&stream)
        .set_tcp_keepalive(&tcp_keepalive())
        .map_err(ConnectError::Failed)?;
    if let Some(version) = upstream.spec.proxy_protocol {
        let header = proxy_header::encode(version, addresses);
        let written = stream.write_all(&header).await;
        written.map_err(ConnectError::Failed)?;
    }
    Ok(stream)
}

/// Connects without a limit of time.
pub(super) async fn dial(
    upstream: &Upstream,
    endpoint: &EndpointSpec,
    addresses: Addresses,
) -> Result<Stream, ConnectError> {
    let stream = dial_bare(upstream, endpoint, addresses).await?;
    let Some(config) = &upstream.tls else {
        return Ok(Stream::Plain(stream));
    };
    let tls = upstream.spec.tls.as_ref();
    let name = tls.and_then(|tls| tls.server_name.as_deref());
    let name = ServerName::try_from(name.unwrap_or(&endpoint.host).to_owned())
        .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let connector = TlsConnector::from(Arc::clone(config));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Stream::Client(Box::new(stream))),
        Err(error) => Err(ConnectError::Tls(error)),
    }
}

async fn tcp(endpoint: &EndpointSpec, refuses_local: bool) -> io::Result<TcpStream> {
    if let Ok(addr) = endpoint.host.parse::<IpAddr>() {
        return TcpStream::connect(SocketAddr::new(addr, endpoint.port)).await;
    }
    // Resolved each time: a name whose addresses change must not be remembered for ever.
    let name = (endpoint.host.as_str(), endpoint.port);
    if !refuses_local {
        return TcpStream::connect(name).await;
    }
    let message = "the name leads to addresses that only this machine may reach";
    let mut failed = io::Error::new(io::ErrorKind::PermissionDenied, message);
    for addr in lookup_host(name).await? {
        if is_local(addr.ip()) {
            continue;
        }
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_here_is_followed_only_where_that_was_meant() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = EndpointSpec {
            host: "localhost".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        assert!(tcp(&endpoint, false).await.is_ok());
        let error = tcp(&endpoint, true).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }
}
