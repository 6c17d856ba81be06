//! The PROXY protocol header, as it is sent to endpoints that want one.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use postern_core::config::upstream::ProxyProtocol;

/// What begins a header of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and that the connection is for somebody else.
const V2_PROXY: u8 = 0x21;

/// Who the client is, and where it connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) listener: SocketAddr,
}

impl Addresses {
    /// Of a request that the gateway makes itself.
    pub(crate) const NOBODY: Self = Self {
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        listener: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    };
}

/// The header's bytes. Both addresses are of one family: where they differ, IPv4 is mapped.
pub(super) fn encode(version: ProxyProtocol, addresses: Addresses) -> Vec<u8> {
    let Addresses { client, listener } = addresses;
    let (from, to) = match (client.ip().to_canonical(), listener.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        (from, to) => (from, to),
    };
    let (from_port, to_port) = (client.port(), listener.port());
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut header = Vec::with_capacity(52);
            header.extend_from_slice(V2_SIGNATURE);
            let (family, length) = if from.is_ipv4() {
                (0x11, 12)
            } else {
                (0x21, 36)
            };
            header.extend_from_slice(&[V2_PROXY, family, 0, length]);
            for addr in [from, to] {
                match addr {
                    IpAddr::V4(addr) => header.extend_from_slice(&addr.octets()),
                    IpAddr::V6(addr) => header.extend_from_slice(&addr.octets()),
                }
            }
            header.extend_from_slice(&from_port.to_be_bytes());
            header.extend_from_slice(&to_port.to_be_bytes());
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_who_and_where() {
        let cases = [
            (
                "192.0.2.1:5",
                "10.0.0.1:80",
                "PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n",
                28,
            ),
            (
                "[2001:db8::1]:5",
                "[::]:80",
                "PROXY TCP6 2001:db8::1 :: 5 80\r\n",
                52,
            ),
            (
                "192.0.2.1:5",
                "[::1]:80",
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 5 80\r\n",
                52,
            ),
            (
                "[::ffff:192.0.2.1]:5",
                "10.0.0.1:80",
                "PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n",
                28,
            ),
        ];
        for (client, listener, v1, v2_bytes) in cases {
            let addresses = Addresses {
                client: client.parse().unwrap(),
                listener: listener.parse().unwrap(),
            };
            let text = encode(ProxyProtocol::V1, addresses);
            assert_eq!(String::from_utf8(text).unwrap(), v1);
            let bytes = encode(ProxyProtocol::V2, addresses);
            assert_eq!(bytes.len(), v2_bytes, "{client}");
            assert_eq!(usize::from(bytes[15]), v2_bytes - 16, "{client}");
            assert_eq!(&bytes[v2_bytes - 4..], [0, 5, 0, 80], "{client}");
        }
    }
}
