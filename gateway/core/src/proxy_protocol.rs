//! The header by which a TCP load balancer says whose connection it passes on: PROXY protocol,
//! versions 1 and 2.
//!
//! Read strictly, since whoever wrote it decides who the client is: what is not exactly as the
//! specification has it ends the connection.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// Longest header of version 1, with its line end (specification, 2.1).
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is read: addresses and what a load balancer adds to them.
pub const MAX_V2: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const V2_FIXED: usize = 16;
/// The record that holds a checksum of the whole header.
const TLV_CRC32C: u8 = 3;

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyHeader {
    /// The load balancer speaks for itself (a health check), or cannot say for whom.
    Local,
    Proxied {
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// No header: these bytes cannot begin one.
    Absent,
    /// Perhaps a header; perhaps something else.
    Undecided,
    /// A header that is not complete. So many bytes more belong to it, and perhaps others.
    Partial(usize),
    /// A header of so many bytes.
    Complete(ProxyHeader, usize),
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the header is longer than {0} bytes")]
    TooLong(usize),
    #[error("the line is malformed")]
    Line,
    #[error("the version or command is unknown")]
    Command,
    #[error("the address family or transport is not served")]
    Family,
    #[error("the header is too short for what it says it holds")]
    Length,
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads a header from the start of a connection's bytes. Never looks beyond its end.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    if starts(bytes, V1_START) {
        return match bytes.len() {
            len if len < V1_START.len() => Ok(Parsed::Undecided),
            _ => parse_v1(bytes),
        };
    }
    if starts(bytes, V2_SIGNATURE) {
        return match bytes.len() {
            len if len < V2_SIGNATURE.len() => Ok(Parsed::Undecided),
            _ => parse_v2(bytes),
        };
    }
    Ok(Parsed::Absent)
}

/// Whether one is the start of the other.
fn starts(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let seen = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = seen.iter().position(|&b| b == b'\n') else {
        if seen.len() == MAX_V1 {
            return Err(ProxyHeaderError::TooLong(MAX_V1));
        }
        return Ok(Parsed::Partial(1));
    };
    let line = bytes[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.contains('\r'))
        .ok_or(ProxyHeaderError::Line)?;
    let header = parse_line(line).ok_or(ProxyHeaderError::Line)?;
    Ok(Parsed::Complete(header, end + 1))
}

fn parse_line(line: &str) -> Option<ProxyHeader> {
    let rest = line.strip_prefix("PROXY ")?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(ProxyHeader::Local);
    }
    let mut words = rest.split(' ');
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut addr = || -> Option<IpAddr> {
        let addr = words.next()?.parse::<IpAddr>().ok()?;
        (addr.is_ipv4() == is_v4).then_some(addr)
    };
    let (source, destination) = (addr()?, addr()?);
    let mut port = || parse_port(words.next()?);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return None;
    }
    Some(ProxyHeader::Proxied {
        source: (source, source_port).into(),
        destination: (destination, destination_port).into(),
    })
}

/// Digits only, no zeros before them.
fn parse_port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    if bytes.len() < V2_FIXED {
        // What is there already can be wrong.
        if bytes
            .get(12)
            .is_some_and(|byte| !matches!(byte, 0x20 | 0x21))
        {
            return Err(ProxyHeaderError::Command);
        }
        return Ok(Parsed::Partial(V2_FIXED - bytes.len()));
    }
    let is_local = match bytes[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyHeaderError::Command),
    };
    let family = bytes[13];
    let len = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if len > MAX_V2 {
        return Err(ProxyHeaderError::TooLong(MAX_V2));
    }
    let addresses = match family {
        // The addresses of a local command are to be ignored, whatever they are.
        _ if is_local => 0,
        0x11 => 12,
        0x21 => 36,
        _ => return Err(ProxyHeaderError::Family),
    };
    if len < V2_FIXED + addresses {
        return Err(ProxyHeaderError::Length);
    }
    if bytes.len() < len {
        return Ok(Parsed::Partial(len - bytes.len()));
    }
    let header = &bytes[..len];
    if is_local {
        return Ok(Parsed::Complete(ProxyHeader::Local, len));
    }
    check_records(header, V2_FIXED + addresses)?;
    let body = &header[V2_FIXED..];
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (source, destination): ((IpAddr, u16), (IpAddr, u16)) = if addresses == 12 {
        let addr = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
        ((addr(0).into(), port(8)), (addr(4).into(), port(10)))
    } else {
        let addr = |at: usize| {
            let octets: [u8; 16] = std::array::from_fn(|index| body[at + index]);
            Ipv6Addr::from(octets)
        };
        ((addr(0).into(), port(32)), (addr(16).into(), port(34)))
    };
    let header = ProxyHeader::Proxied {
        source: source.into(),
        destination: destination.into(),
    };
    Ok(Parsed::Complete(header, len))
}

/// The records after the addresses have to fill the header exactly.
fn check_records(header: &[u8], mut at: usize) -> Result<(), ProxyHeaderError> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return Err(ProxyHeaderError::Length);
        };
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = header.get(value..end) else {
            return Err(ProxyHeaderError::Length);
        };
        if kind == TLV_CRC32C {
            let content: [u8; 4] = content.try_into().map_err(|_| ProxyHeaderError::Length)?;
            // The checksum is made with zeros in its own place.
            let zeros = [0; 4];
            let parts = [&header[..value], &zeros, &header[end..]];
            if crc32c(parts) != u32::from_be_bytes(content) {
                return Err(ProxyHeaderError::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// Bit by bit: one short header a connection does not earn a table.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = 0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1);
            (crc >> 1) ^ carry
        })
    })
}

#[cfg(test)]
mod tests;
