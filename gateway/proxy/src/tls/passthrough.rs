//! Connections that are passed on by the server name that their client asks for, TLS and all.
//!
//! The name is looked at without taking a byte: a connection that stays here goes on as if nobody
//! had looked. What is in it the gateway never learns, so no rule and no policy applies.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;
use postern_core::config::listener::PassthroughSpec;
use postern_core::hostname::Hostname;
use postern_core::name::UpstreamName;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

use super::canonical;
use crate::error::ProxyError;
use crate::stream::Stream;
use crate::upstream::Addresses;
use crate::upstream::Ask;
use crate::upstream::Lease;
use crate::worker::Worker;

/// Longest first message that is waited for: a record, with its header.
const MAX_HELLO: usize = (16 << 10) + 5;
/// How long the rest of one is first left to arrive, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(160);
/// Bytes buffered for each direction.
const BUFFER_BYTES: usize = 16 << 10;

/// Where the connection is passed on to, if it is. The caller bounds the time.
pub(super) async fn upstream_of<'s>(
    stream: &TcpStream,
    specs: &'s [PassthroughSpec],
) -> io::Result<Option<&'s UpstreamName>> {
    let mut bytes = vec![0; MAX_HELLO];
    let mut seen = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let peeked = stream.peek(&mut bytes).await?;
        match server_name(&bytes[..peeked]) {
            Name::Is(name) => return Ok(find(specs, &name)),
            Name::Early if peeked > 0 && peeked < MAX_HELLO => {}
            // The handshake says what is wrong.
            Name::Early | Name::None => return Ok(None),
        }
        if peeked == seen {
            // The socket stays readable while the rest is on its way.
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LAST_PAUSE);
        }
        seen = peeked;
    }
}

enum Name {
    Is(std::sync::Arc<str>),
    None,
    /// The message is not whole.
    Early,
}

fn server_name(bytes: &[u8]) -> Name {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        let before = rest.len();
        if acceptor.read_tls(&mut rest).is_err() {
            return Name::None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return hello
                    .server_name()
                    .map_or(Name::None, |name| Name::Is(canonical(name)));
            }
            Ok(None) if rest.is_empty() || rest.len() == before => return Name::Early,
            Ok(None) => {}
            Err(_) => return Name::None,
        }
    }
}

/// An exact name before a wildcard, as for certificates.
fn find<'s>(specs: &'s [PassthroughSpec], name: &str) -> Option<&'s UpstreamName> {
    let find = |is_exact: bool| {
        specs.iter().find(|spec| {
            let mut hosts = spec.hosts.iter();
            hosts.any(|host| matches!(host, Hostname::Exact(_)) == is_exact && host.matches(name))
        })
    };
    find(true)
        .or_else(|| find(false))
        .map(|spec| &spec.upstream)
}

/// Joins the client to an endpoint until one of them closes.
pub(crate) async fn pass_on(
    worker: &Rc<Worker>,
    upstream: &UpstreamName,
    mut client: TcpStream,
    addresses: Addresses,
) -> Result<(), ProxyError> {
    let (mut endpoint, _lease) = connect(worker, upstream, addresses).await?;
    worker.stats.passed_through.add(1);
    let copied = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut endpoint,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    // Either side may leave as it likes.
    let _ = copied.await;
    Ok(())
}

/// One endpoint after the other, as many as the upstream's retries allow.
async fn connect(
    worker: &Rc<Worker>,
    upstream: &UpstreamName,
    addresses: Addresses,
) -> Result<(Stream, Lease), ProxyError> {
    let view = worker.view();
    // A configuration that names an upstream holds it.
    let index = view.snapshot.upstream_index(upstream.as_str());
    let ask = Ask {
        headers: &HeaderMap::new(),
        client: addresses.client.ip(),
    };
    let mut lease = view.pool(index.ok_or(ProxyError::NoRoute)?).lease(&ask)?;
    let retries = lease.upstream().spec.retries.count;
    let mut tried = Vec::new();
    loop {
        match lease.bare(addresses, &worker.clock).await {
            Ok(stream) => {
                lease.succeeded();
                return Ok((stream, lease));
            }
            Err(error) => {
                if error.blames_endpoint() {
                    lease.failed();
                }
                tried.push(lease.endpoint_index());
                lease.move_on(&tried);
                let is_new = !tried.contains(&lease.endpoint_index());
                if !is_new || tried.len() > retries as usize || !lease.pool().spend_retry() {
                    return Err(error);
                }
            }
        }
    }
}
