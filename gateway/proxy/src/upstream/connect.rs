//! One new connection to an endpoint: name, TCP, TLS.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use postern_core::config::upstream::EndpointSpec;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ConnectError;
use super::Upstream;
use crate::clock::Clock;
use crate::stream::Stream;

/// Connects within the upstream's connect timeout, which covers all three steps.
pub(super) async fn connect(
    upstream: &Upstream,
    endpoint: &EndpointSpec,
    clock: &Clock,
) -> Result<Stream, ConnectError> {
    let limit = upstream.spec.timeouts.connect;
    #[cfg(feature = "test-util")]
    if let Some(stream) = crate::test_util::connect(endpoint) {
        return Ok(Stream::Memory(stream));
    }
    let connecting = async {
        let stream = tcp(endpoint).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &upstream.tls else {
            return Ok(Stream::Plain(stream));
        };
        let tls = upstream.spec.tls.as_ref();
        let name = tls.and_then(|tls| tls.server_name.as_deref());
        let name = ServerName::try_from(name.unwrap_or(&endpoint.host).to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await?;
        Ok(Stream::Client(Box::new(stream)))
    };
    match clock.timeout(limit, connecting).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(error)) => Err(ConnectError::Failed(error)),
        None => Err(ConnectError::TimedOut),
    }
}

async fn tcp(endpoint: &EndpointSpec) -> io::Result<TcpStream> {
    if let Ok(addr) = endpoint.host.parse::<IpAddr>() {
        return TcpStream::connect(SocketAddr::new(addr, endpoint.port)).await;
    }
    // Resolved each time: a name whose addresses change must not be remembered for ever.
    TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await
}
