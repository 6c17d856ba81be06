//! The header by which a load balancer says who the client is.

use std::net::SocketAddr;

use postern_core::proxy_protocol::MAX_V1;
use postern_core::proxy_protocol::MAX_V2;
use postern_core::proxy_protocol::Parsed;
use postern_core::proxy_protocol::ProxyHeader;
use postern_core::proxy_protocol::parse;

/// Longer inputs show nothing that shorter ones do not, but the end of the longest header.
const MAX_INPUT: usize = MAX_V2 + 64;

/// However the bytes arrive, the header is the same one, what follows it plays no part, and a line
/// says what a plain reading of it says.
pub fn proxy_protocol(input: &[u8]) {
    let input = &input[..input.len().min(MAX_INPUT)];
    let whole = parse(input);
    for end in 0..input.len() {
        let part = parse(&input[..end]);
        match (part, whole) {
            // Decided before the end: with the rest it is the same.
            (Err(_) | Ok(Parsed::Absent | Parsed::Complete(..)), _) => {
                assert_eq!(part, whole, "after {end} bytes");
            }
            (Ok(Parsed::Partial(more)), Ok(Parsed::Complete(_, length))) => {
                assert!(more > 0 && end + more <= length, "{end} {more} {length}");
            }
            (Ok(Parsed::Partial(more)), _) => assert!(more > 0, "after {end} bytes"),
            (Ok(Parsed::Undecided), _) => assert!(end < 12, "after {end} bytes"),
        }
    }
    let Ok(Parsed::Complete(header, length)) = whole else {
        return;
    };
    let is_line = input.starts_with(b"PROXY");
    assert!(length <= if is_line { MAX_V1 } else { MAX_V2 });
    if is_line {
        assert_eq!(Some(header), plain_line(&input[..length]));
    }
    let alone = parse(&input[..length]);
    assert_eq!(alone, whole, "what follows was looked at");
}

/// Version 1, as its specification describes it (2.1).
fn plain_line(line: &[u8]) -> Option<ProxyHeader> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let words: Vec<&str> = line.split(' ').collect();
    let (family, rest) = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Some(ProxyHeader::Local),
        ["PROXY", family, rest @ ..] => (*family, rest),
        _ => return None,
    };
    let [source, destination, source_port, destination_port] = rest else {
        return None;
    };
    let addr = |addr: &str, port: &str| -> Option<SocketAddr> {
        let addr = SocketAddr::new(addr.parse().ok()?, port.parse().ok()?);
        (addr.is_ipv4() == (family == "TCP4") && addr.port().to_string() == port).then_some(addr)
    };
    Some(ProxyHeader::Proxied {
        source: addr(source, source_port)?,
        destination: addr(destination, destination_port)?,
    })
}
