//! Policies that bound what clients may ask for.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::StatusCode;

use crate::balance::cookie;

/// Keys that one policy tells apart at a time, unless it says otherwise.
pub const DEFAULT_KEYS: u32 = 64 << 10;
/// Most keys that one policy may be given room for: 128 MiB.
pub const MAX_KEYS: i64 = 16 << 20;

/// How many requests of one key pass in a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RateLimitSpec {
    pub rate: Rate,
    /// Requests that may come at once after a quiet time. At least 1.
    pub burst: u32,
    pub key: LimitKey,
    /// Keys that are told apart at a time.
    pub keys: u32,
    /// The answer to a request too many.
    pub status: StatusCode,
    /// Whether responses say what is left.
    pub headers: bool,
}

/// How many requests may be in flight at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConcurrencySpec {
    /// Of one key. At least 1.
    pub requests: u32,
    pub key: LimitKey,
    /// Keys that are told apart at a time.
    pub keys: u32,
    /// The answer to a request too many.
    pub status: StatusCode,
}

/// How large a request body may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodySizeSpec {
    /// Bytes.
    pub limit: u64,
}

/// So many in a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    pub period: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// What requests have in common that share a limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LimitKey {
    /// Everything that passes the policy.
    All,
    /// The client's address; an IPv6 client is its /64, which is what one customer has.
    Address,
    /// The value of a field; without it, the address.
    Header(HeaderName),
    /// The value of a cookie; without it, the address.
    Cookie(String),
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Address => f.write_str("address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl LimitKey {
    /// The bytes that stand for the request's key, with what they are, so that an address in a
    /// header is not the address.
    pub fn of<'k>(&self, headers: &'k HeaderMap, client: IpAddr) -> KeyBytes<'k> {
        let named = match self {
            Self::All => return KeyBytes::All,
            Self::Address => None,
            Self::Header(name) => headers.get(name).map(|value| value.as_bytes()),
            Self::Cookie(name) => cookie(headers, name),
        };
        named.map_or_else(|| KeyBytes::of_address(client), KeyBytes::Value)
    }
}

/// A key as it is hashed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyBytes<'k> {
    All,
    V4([u8; 4]),
    /// The upper half of the address.
    V6([u8; 8]),
    Value(&'k [u8]),
}

impl KeyBytes<'_> {
    fn of_address(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(addr) => Self::V4(addr.octets()),
            IpAddr::V6(addr) => {
                let [a, b, c, d, e, f, g, h, ..] = addr.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header;

    use super::*;

    #[test]
    fn a_key_is_what_the_spec_names_or_the_address() {
        let mut headers = HeaderMap::new();
        let cookies = "ab=0; a=1; a=2;b=";
        headers.insert(header::COOKIE, HeaderValue::from_static(cookies));
        headers.insert("x-key", HeaderValue::from_static("k"));
        let v4 = "192.0.2.7".parse().unwrap();
        let address = KeyBytes::V4([192, 0, 2, 7]);
        let cases = [
            (LimitKey::All, KeyBytes::All),
            (LimitKey::Address, address),
            (LimitKey::Cookie("a".into()), KeyBytes::Value(b"1")),
            (LimitKey::Cookie("b".into()), KeyBytes::Value(b"")),
            (LimitKey::Cookie("c".into()), address),
            (
                LimitKey::Header(HeaderName::from_static("x-key")),
                KeyBytes::Value(b"k"),
            ),
            (LimitKey::Header(HeaderName::from_static("x-no")), address),
        ];
        for (key, want) in cases {
            assert_eq!(key.of(&headers, v4), want, "{key}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let headers = HeaderMap::new();
        let of = |text: &str| LimitKey::Address.of(&headers, text.parse().unwrap());
        let first = KeyBytes::V6([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1]);
        assert_eq!(of("2001:db8:0:1::1"), first);
        assert_eq!(of("2001:db8:0:1:ffff::"), first);
        assert_ne!(of("2001:db8:0:2::1"), first);
        assert_eq!(of("::ffff:192.0.2.7"), KeyBytes::V4([192, 0, 2, 7]));
    }
}
