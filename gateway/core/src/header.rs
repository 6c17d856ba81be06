//! Which header fields a gateway takes out, and which it vouches for.
//!
//! Two kinds of field never pass as the sender wrote them: those that speak of one connection
//! (RFC 9110, 7.6.1), framing among them, and those by which a gateway tells an upstream who the
//! client is. The first are removed in both directions; the second are believed only from peers
//! that the operator lists, and are otherwise replaced by what the gateway saw itself.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use ipnet::IpNet;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many addresses of an `X-Forwarded-For` list are looked at, from the right. A longer chain
/// of trusted proxies does not exist; a longer list is a client's invention.
const MAX_FORWARDED_HOPS: usize = 32;

/// What a field name means to a gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldKind {
    /// Passes.
    EndToEnd,
    /// Speaks of this connection only: `connection`, `keep-alive`, `te`, `upgrade`, ...
    HopByHop,
    /// `content-length`, `transfer-encoding`: written by the gateway, never passed.
    Framing,
    /// `host`: taken from the canonical authority.
    Host,
    /// `expect`: answered by the gateway.
    Expect,
    /// Tells who the client is; believed only from a trusted proxy.
    Identity,
    /// Holds `_`, which many upstreams read as `-`: a second spelling of another field.
    Underscore,
}

impl FieldKind {
    /// `name` is in lower case, as `http` keeps it.
    pub fn of(name: &str) -> Self {
        match name {
            "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "upgrade"
            | "http2-settings" | "proxy-authenticate" | "proxy-authorization"
            // Read by CGI programs as the HTTP_PROXY variable (httpoxy).
            | "proxy" => Self::HopByHop,
            "content-length" | "transfer-encoding" => Self::Framing,
            "host" => Self::Host,
            "expect" => Self::Expect,
            "forwarded" | "x-real-ip" | "x-original-url" | "x-original-uri" | "x-rewrite-url"
            | "x-client-ip" | "x-cluster-client-ip" | "true-client-ip" => Self::Identity,
            _ if name.starts_with("x-forwarded-")
                || name.starts_with("x-envoy-")
                || name.starts_with("ssl-client-") =>
            {
                Self::Identity
            }
            _ if name.as_bytes().contains(&b'_') => Self::Underscore,
            _ => Self::EndToEnd,
        }
    }
}

/// Whether a field may be named, set or removed by a policy, a plugin or the configuration.
pub fn is_editable(name: &HeaderName) -> bool {
    !matches!(
        FieldKind::of(name.as_str()),
        FieldKind::HopByHop | FieldKind::Framing | FieldKind::Host | FieldKind::Expect
    )
}

/// Why a `Connection` field is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connection field names a field that may not be dropped")]
pub struct NominationError;

/// Removes what the `Connection` field nominates.
///
/// A client that nominates a field which decides about framing, routing, access or identity wants
/// the upstream not to see what this gateway saw: that is refused, not obeyed.
pub fn remove_nominated(headers: &mut HeaderMap) -> Result<(), NominationError> {
    let mut nominated: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|&b| b == b',') {
            let token = token.trim_ascii();
            // Nearly all that is ever sent. `keep-alive` goes in any case.
            let is_plain = [&b""[..], b"close", b"keep-alive"]
                .iter()
                .any(|plain| token.eq_ignore_ascii_case(plain));
            if is_plain {
                continue;
            }
            let name = HeaderName::from_bytes(token).map_err(|_| NominationError)?;
            match (name.as_str(), FieldKind::of(name.as_str())) {
                (_, FieldKind::HopByHop) => {}
                ("authorization" | "cookie", _) | (_, FieldKind::Framing | FieldKind::Host) => {
                    return Err(NominationError);
                }
                // Replaced by our own values in any case.
                (_, FieldKind::Identity) => {}
                _ => nominated.push(name),
            }
        }
    }
    for name in nominated {
        headers.remove(name);
    }
    Ok(())
}

/// Removes from a response, or from trailers, all that speaks of one connection.
///
/// `Content-Length` stays: only the caller knows whether it agrees with the body.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| FieldKind::of(name.as_str()) == FieldKind::EndToEnd)
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    // Most responses have none: one pass costs less than a look-up for each name.
    while let Some(name) = headers.keys().find(|name| is_of_connection(name)).cloned() {
        headers.remove(name);
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "transfer-encoding"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "proxy-authenticate"
    )
}

/// Whether a message says in one way alone how long it is: one length in digits, or `chunked` and
/// no other coding, or nothing. Two readers could find different ends for any other.
pub fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let length = lengths.next();
    let coding = codings.next();
    let is_digits = |value: &HeaderValue| {
        let value = value.as_bytes();
        !value.is_empty() && value.iter().all(u8::is_ascii_digit)
    };
    length.is_none_or(is_digits)
        && coding.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && !(length.is_some() && coding.is_some())
        && lengths.next().is_none()
        && codings.next().is_none()
}

/// Removes from trailers what may carry no authority there (RFC 9110, 6.5.1): framing, routing,
/// authentication, cookies, identity.
pub fn retain_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            FieldKind::of(name.as_str()) != FieldKind::EndToEnd
                || matches!(
                    name.as_str(),
                    "authorization"
                        | "cookie"
                        | "set-cookie"
                        | "cache-control"
                        | "content-encoding"
                        | "content-type"
                        | "content-range"
                        | "www-authenticate"
                )
        })
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// The networks whose word about the client is believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        // A dual-stack listener shows an IPv4 peer as ::ffff:a.b.c.d.
        let addr = addr.to_canonical();
        self.0.iter().any(|network| network.contains(&addr))
    }

    /// The client that a trusted peer speaks for: the rightmost address in `X-Forwarded-For` that
    /// is not itself a trusted proxy, else the peer. Any other peer is the client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        let mut hops = 0;
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            let Ok(text) = value.to_str() else {
                return client;
            };
            for entry in text.rsplit(',') {
                hops += 1;
                // What stands left of an unreadable entry came from whoever wrote that entry.
                let Some(addr) = parse_forwarded_addr(entry.trim()) else {
                    return client;
                };
                client = addr;
                if hops == MAX_FORWARDED_HOPS || !self.contains(addr) {
                    return client;
                }
            }
        }
        client
    }
}

/// An address, or one with a port; an IPv6 address may stand in brackets (RFC 7239, 6).
fn parse_forwarded_addr(text: &str) -> Option<IpAddr> {
    let in_brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    let addr = text.parse().ok().or_else(with_port).or_else(in_brackets);
    addr.map(|addr: IpAddr| addr.to_canonical())
}

/// What the gateway itself saw of the peer, as field values that are made once a connection.
#[derive(Clone, Debug)]
pub struct PeerFields {
    pub peer: IpAddr,
    pub addr: HeaderValue,
    pub proto: HeaderValue,
    pub port: HeaderValue,
}

impl PeerFields {
    pub fn new(peer: IpAddr, is_tls: bool, port: u16) -> Self {
        let peer = peer.to_canonical();
        Self {
            peer,
            addr: addr_value(peer),
            proto: HeaderValue::from_static(if is_tls { "https" } else { "http" }),
            port: HeaderValue::from(port),
        }
    }

    /// Writes who the client is, for a request whose identity fields were removed or, from a
    /// trusted peer, kept. `trusted` is the client that a trusted peer speaks for.
    pub fn write(&self, headers: &mut HeaderMap, host: &HeaderValue, trusted: Option<IpAddr>) {
        if let Some(client) = trusted {
            self.extend(headers, host, client);
            return;
        }
        headers.insert(X_FORWARDED_FOR, self.addr.clone());
        headers.insert(X_FORWARDED_PROTO, self.proto.clone());
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(X_FORWARDED_PORT, self.port.clone());
        headers.insert(X_REAL_IP, self.addr.clone());
    }

    fn extend(&self, headers: &mut HeaderMap, host: &HeaderValue, client: IpAddr) {
        let mut chain: Vec<u8> = Vec::new();
        for value in headers.get_all(X_FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(self.addr.as_bytes());
        // Joining valid values with ", " is valid.
        if let Ok(value) = HeaderValue::from_bytes(&chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
        let keep_first = |headers: &mut HeaderMap, name: HeaderName, own: &HeaderValue| {
            let value = headers.get(&name).unwrap_or(own).clone();
            headers.insert(name, value);
        };
        keep_first(headers, X_FORWARDED_PROTO, &self.proto);
        keep_first(headers, X_FORWARDED_HOST, host);
        keep_first(headers, X_FORWARDED_PORT, &self.port);
        // A proxy that writes X-Forwarded-For may pass this one on as the client sent it.
        headers.insert(X_REAL_IP, addr_value(client));
    }
}

fn addr_value(addr: IpAddr) -> HeaderValue {
    // The text of an address is a valid value.
    HeaderValue::try_from(addr.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn every_field_has_its_kind() {
        use FieldKind as K;
        let cases = [
            ("accept", K::EndToEnd),
            ("connection", K::HopByHop),
            ("proxy", K::HopByHop),
            ("content-length", K::Framing),
            ("host", K::Host),
            ("x-forwarded-tls-client-cert", K::Identity),
            ("x-envoy-internal", K::Identity),
            ("x_forwarded_for", K::Underscore),
            ("x-forwardedfor", K::EndToEnd),
        ];
        for (name, want) in cases {
            assert_eq!(FieldKind::of(name), want, "{name}");
        }
    }

    #[test]
    fn nominated_fields_go_unless_they_must_not() {
        let mut map = headers(&[
            ("connection", "close, X-Custom , keep-alive"),
            ("x-custom", "v"),
            ("x-other", "v"),
        ]);
        assert_eq!(remove_nominated(&mut map), Ok(()));
        assert!(!map.contains_key("x-custom") && map.contains_key("x-other"));
        for name in ["content-length", "Host", "authorization", "cookie", "a b"] {
            let mut map = headers(&[("connection", name)]);
            assert_eq!(remove_nominated(&mut map), Err(NominationError), "{name}");
        }
        let mut map = headers(&[
            ("connection", "x-forwarded-for"),
            ("x-forwarded-for", "1.2.3.4"),
        ]);
        assert_eq!(remove_nominated(&mut map), Ok(()));
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_address() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let peer = "10.0.0.1".parse().unwrap();
        let cases: [(&[&str], &str); 9] = [
            (&[], "10.0.0.1"),
            (&["203.0.113.7, [2001:db8::1]x"], "10.0.0.1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["6.6.6.6, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            (&["6.6.6.6, nonsense, 10.9.9.9"], "10.9.9.9"),
            (&["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["203.0.113.7:1234"], "203.0.113.7"),
        ];
        for (values, want) in cases {
            let fields: Vec<_> = values.iter().map(|v| ("x-forwarded-for", *v)).collect();
            let got = trusted.client(peer, &headers(&fields));
            assert_eq!(got, want.parse::<IpAddr>().unwrap(), "{values:?}");
            let stranger = "192.0.2.1".parse().unwrap();
            assert_eq!(trusted.client(stranger, &headers(&fields)), stranger);
        }
    }

    #[test]
    fn a_trusted_peers_word_is_extended_and_anyone_elses_replaced() {
        let fields = PeerFields::new("::ffff:10.0.0.1".parse().unwrap(), true, 443);
        let host = HeaderValue::from_static("a.test");
        let sent = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "6.6.6.6"),
        ];
        let client = "203.0.113.7".parse().unwrap();

        let mut map = headers(&sent);
        fields.write(&mut map, &host, Some(client));
        assert_eq!(map["x-forwarded-for"], "203.0.113.7, 10.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "a.test");
        assert_eq!(map["x-real-ip"], "203.0.113.7");

        let mut map = headers(&sent);
        fields.write(&mut map, &host, None);
        assert_eq!(map["x-forwarded-for"], "10.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-real-ip"], "10.0.0.1");
    }

    #[test]
    fn trailers_carry_no_authority() {
        let mut map = headers(&[
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("authorization", "x"),
            ("x-forwarded-for", "x"),
            ("set-cookie", "a=b"),
        ]);
        retain_trailers(&mut map);
        assert_eq!(
            map.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["grpc-status"]
        );
    }

    #[test]
    fn a_length_is_stated_in_one_way_alone() {
        let cases: [(&[(&str, &str)], bool); 10] = [
            (&[], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "+5")], false),
            (&[("content-length", "")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
            ),
            (
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                false,
            ),
        ];
        for (fields, want) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(has_plain_framing(&headers), want, "{fields:?}");
        }
    }
}
