//! Reads the PROXY protocol header in front of a connection, and not one byte more.
//!
//! What follows is TLS or HTTP and is read by others, so bytes are looked at in the socket and
//! taken only when they are known to belong to a header.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use postern_core::config::listener::ProxyProtocolSpec;
use postern_core::proxy_protocol::MAX_V1;
use postern_core::proxy_protocol::MAX_V2;
use postern_core::proxy_protocol::Parsed;
use postern_core::proxy_protocol::ProxyHeader;
use postern_core::proxy_protocol::ProxyHeaderError;
use postern_core::proxy_protocol::parse;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// How long to wait for more where what is there may be a header or not: the socket stays readable
/// meanwhile, so there is no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// No line begins like this.
const V2_START: &[u8] = b"\r";

/// Why a connection ends before its first byte.
#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error("the peer closed without a word")]
    Silence,
    #[error("the peer may not say who the client is")]
    Stranger,
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Absent,
    #[error("the header of the PROXY protocol is malformed")]
    Malformed(#[source] ProxyHeaderError),
}

impl From<HeaderError> for io::Error {
    fn from(error: HeaderError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Whether the peer opened the connection and closed it, as health checks do.
pub(super) fn is_silence(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let inner = inner.and_then(|error| error.downcast_ref::<HeaderError>());
    matches!(inner, Some(HeaderError::Silence))
}

/// The client and the address that it connected to, if a header says so. The caller bounds the
/// time.
pub(super) async fn read(
    stream: &mut TcpStream,
    peer: IpAddr,
    spec: &ProxyProtocolSpec,
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    if !spec.from.contains(peer) {
        return if spec.is_required {
            Err(HeaderError::Stranger.into())
        } else {
            Ok(None)
        };
    }
    let Some(first) = first_bytes(stream).await? else {
        return if spec.is_required {
            Err(HeaderError::Absent.into())
        } else {
            Ok(None)
        };
    };
    let mut header = first;
    loop {
        match parse(&header).map_err(HeaderError::Malformed)? {
            Parsed::Complete(ProxyHeader::Local, _) => return Ok(None),
            Parsed::Complete(
                ProxyHeader::Proxied {
                    source,
                    destination,
                },
                _,
            ) => return Ok(Some((source, destination))),
            Parsed::Partial(more) if header.starts_with(V2_START) => {
                take(stream, &mut header, more).await?;
            }
            Parsed::Partial(_) => take_line(stream, &mut header).await?,
            // `first_bytes` has decided.
            Parsed::Absent | Parsed::Undecided => return Err(HeaderError::Absent.into()),
        }
    }
}

/// Waits until it is decided whether a header begins, and takes as much as surely belongs to it.
/// `None`: it does not, and nothing was taken.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut seen = [0; 16];
    let mut before = 0;
    loop {
        let len = stream.peek(&mut seen).await?;
        if len == 0 {
            return Err(HeaderError::Silence.into());
        }
        match parse(&seen[..len]) {
            Ok(Parsed::Absent) => return Ok(None),
            Ok(Parsed::Undecided) => {
                if len == before {
                    // The peer has ended its direction, or the rest is on its way.
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                before = len;
            }
            Err(error) => return Err(HeaderError::Malformed(error).into()),
            // The shortest header of either version is longer than what decides.
            Ok(Parsed::Partial(_) | Parsed::Complete(..)) => {
                let mut header = Vec::with_capacity(128);
                take(stream, &mut header, decided(&seen[..len])).await?;
                return Ok(Some(header));
            }
        }
    }
}

/// So many of these bytes belong to the header.
fn decided(seen: &[u8]) -> usize {
    match parse(seen) {
        Ok(Parsed::Complete(_, len)) => len,
        _ => seen.len(),
    }
}

/// Takes what is there of the line.
async fn take_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<()> {
    let mut seen = [0; MAX_V1];
    let len = stream.peek(&mut seen).await?;
    let end = seen[..len].iter().position(|&b| b == b'\n');
    take(stream, header, end.map_or(len, |end| end + 1).max(1)).await
}

/// Takes at least one byte and no more than `most`, nor than belong to the header.
async fn take(stream: &mut TcpStream, header: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let before = header.len();
    header.resize(before + most.min(MAX_V2), 0);
    let read = stream.read(&mut header[before..]).await?;
    header.truncate(before + read);
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
