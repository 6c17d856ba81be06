//! Host names: the pattern a route declares, and the authority a request carries.
//!
//! Both are brought to one form (lower case, no trailing dot), so that comparing bytes is enough
//! afterwards. A wildcard stands for exactly one label, as in Ingress and in certificates: one
//! rule for what routes and for what TLS covers.

use std::fmt;
use std::net::Ipv6Addr;

use http::HeaderValue;

/// Longest host name in bytes (RFC 1035, 2.3.4, less the root label).
pub const MAX_HOSTNAME_LEN: usize = 253;
/// Longest label in bytes (RFC 1035, 2.3.4).
const MAX_LABEL_LEN: usize = 63;

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostnameError {
    #[error("a host name may not be empty")]
    Empty,
    #[error("a host name has at most {MAX_HOSTNAME_LEN} characters")]
    TooLong,
    #[error("a label has 1 to {MAX_LABEL_LEN} characters")]
    Label,
    #[error("a label may not begin or end with '-'")]
    Hyphen,
    #[error(
        "a host name holds letters, digits, '-', '_' and '.'; write other letters as punycode (xn--...)"
    )]
    Character,
    #[error("'*' may only be the whole first label, as in *.example.com")]
    Wildcard,
    #[error("an IPv6 address stands in brackets, as in [2001:db8::1]")]
    Ipv6,
    #[error("a port is a number from 1 to 65535")]
    Port,
    #[error("user information may not stand in a host")]
    UserInfo,
}

/// The host that a route or certificate is for: exact, or `*.` and a name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hostname {
    /// Matches this host.
    Exact(Box<str>),
    /// Holds what follows `*.`; matches one more label in front of it.
    Wildcard(Box<str>),
}

impl Hostname {
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        if let Some(parent) = text.strip_prefix("*.") {
            if parent.contains('*') {
                return Err(HostnameError::Wildcard);
            }
            return canonical_host(parent).map(|host| Self::Wildcard(host.into()));
        }
        if text.contains('*') {
            return Err(HostnameError::Wildcard);
        }
        canonical_host(text).map(|host| Self::Exact(host.into()))
    }

    /// Whether a host in canonical form (see [`Authority::host`]) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(parent) => parent_of(host) == Some(&**parent),
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// What follows the first label, if anything does: the part that a wildcard compares.
pub fn parent_of(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent)
}

/// The host, and port if given, that a request is for, checked and in canonical form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    /// `host` or `host:port`, ready to be sent as the `host` field.
    value: HeaderValue,
    host_len: usize,
    port: Option<u16>,
}

impl Authority {
    /// Parses a `Host` or `:authority` value (RFC 3986, 3.2, without user information).
    pub fn parse(value: &HeaderValue) -> Result<Self, HostnameError> {
        let text = value.to_str().map_err(|_| HostnameError::Character)?;
        let (host, port) = split_port(text)?;
        if is_canonical(host) && is_canonical_port(&text[host.len()..]) {
            return Ok(Self {
                host_len: host.len(),
                port,
                value: value.clone(),
            });
        }
        let host = canonical_host(host)?;
        let text = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        Ok(Self {
            host_len: host.len(),
            port,
            value: HeaderValue::try_from(text).map_err(|_| HostnameError::Character)?,
        })
    }

    /// A stand-in for a value that is moved out for a moment; no parsed request has it.
    pub fn unknown() -> Self {
        let value = HeaderValue::from_static("unknown");
        Self {
            host_len: value.len(),
            port: None,
            value,
        }
    }

    /// Lower case, without trailing dot and port; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        // `parse` let only ASCII through.
        std::str::from_utf8(&self.value.as_bytes()[..self.host_len]).unwrap_or_default()
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The canonical `host[:port]` as a field value.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.value.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), HostnameError> {
    if text.contains('@') {
        return Err(HostnameError::UserInfo);
    }
    let colon = match text.rfind(']') {
        Some(end) => match &text.as_bytes()[end + 1..] {
            [] => None,
            [b':', ..] => Some(end + 1),
            _ => return Err(HostnameError::Ipv6),
        },
        None => text.find(':'),
    };
    let Some(colon) = colon else {
        return Ok((text, None));
    };
    let digits = &text[colon + 1..];
    // RFC 3986 allows an empty port; `parse::<u16>` would also take a sign.
    if digits.is_empty() {
        return Ok((&text[..colon], None));
    }
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostnameError::Port);
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((&text[..colon], Some(port))),
        _ => Err(HostnameError::Port),
    }
}

/// Whether the name is valid and already in the form that [`canonical_host`] gives. Brackets are
/// left to the slow path.
fn is_canonical(host: &str) -> bool {
    if host.is_empty() || host.len() > MAX_HOSTNAME_LEN {
        return false;
    }
    let mut label_len = 0;
    let mut last = b'-';
    for byte in host.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => label_len += 1,
            b'-' if label_len > 0 => label_len += 1,
            b'.' if label_len > 0 && last != b'-' => label_len = 0,
            _ => return false,
        }
        if label_len > MAX_LABEL_LEN {
            return false;
        }
        last = byte;
    }
    last != b'-' && last != b'.'
}

/// Whether what follows the host is nothing, or a port as a number is written. `a.test:` and
/// `a.test:080` are second spellings, which a cache behind the gateway could take for other hosts.
fn is_canonical_port(text: &str) -> bool {
    text.is_empty() || (text.len() > 1 && !text.starts_with(":0"))
}

fn canonical_host(text: &str) -> Result<String, HostnameError> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(HostnameError::Ipv6)?;
        let addr: Ipv6Addr = inner.parse().map_err(|_| HostnameError::Ipv6)?;
        return Ok(format!("[{addr}]"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(HostnameError::Empty);
    }
    if name.len() > MAX_HOSTNAME_LEN {
        return Err(HostnameError::TooLong);
    }
    if name.contains(':') {
        return Err(HostnameError::Ipv6);
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_LEN {
            return Err(HostnameError::Label);
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(HostnameError::Character);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(HostnameError::Hyphen);
        }
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(text: &str) -> Result<Authority, HostnameError> {
        Authority::parse(&HeaderValue::from_bytes(text.as_bytes()).unwrap())
    }

    #[test]
    fn an_authority_has_one_form() {
        let cases = [
            ("a.test", "a.test", None),
            ("A.TEST.", "a.test", None),
            ("a.test:8443", "a.test", Some(8443)),
            ("a.test:", "a.test", None),
            ("a.test:0080", "a.test", Some(80)),
            ("my_app", "my_app", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
        ];
        for (text, host, port) in cases {
            let got = authority(text).unwrap();
            assert_eq!((got.host(), got.port()), (host, port), "{text}");
            let value = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            assert_eq!(got.as_str(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        use HostnameError as E;
        let cases = [
            ("", E::Empty),
            (".", E::Empty),
            ("a.test, b.test", E::Character),
            ("a.test/x", E::Character),
            ("u@a.test", E::UserInfo),
            ("a.test:99999", E::Port),
            ("a.test:0", E::Port),
            ("a.test:+80", E::Port),
            ("a..test", E::Label),
            ("-a.test", E::Hyphen),
            ("*.a.test", E::Character),
            ("::1", E::Port),
            ("[::1", E::Port),
            ("[::1]x", E::Ipv6),
            ("[::g]", E::Ipv6),
        ];
        for (text, want) in cases {
            assert_eq!(authority(text).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn a_wildcard_is_one_whole_label() {
        let wildcard = Hostname::parse("*.Example.com").unwrap();
        let cases = [
            ("a.example.com", true),
            ("example.com", false),
            ("a.b.example.com", false),
            ("aexample.com", false),
        ];
        for (host, want) in cases {
            assert_eq!(wildcard.matches(host), want, "{host}");
        }
        for text in ["*", "a.*.com", "*a.com", "*.*.com"] {
            assert_eq!(
                Hostname::parse(text),
                Err(HostnameError::Wildcard),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_what_was_printed_changes_nothing(text in "[a-zA-Z0-9._:\\[\\]-]{0,40}") {
            if let Ok(first) = authority(&text) {
                prop_assert_eq!(authority(first.as_str()).unwrap(), first);
            }
            if let Ok(first) = Hostname::parse(&text) {
                prop_assert_eq!(Hostname::parse(&first.to_string()).unwrap(), first);
            }
        }

        #[test]
        fn the_fast_path_agrees_with_the_slow_one(text in "[a-c0_.A-]{0,12}") {
            let canonical = canonical_host(&text).is_ok_and(|host| host == text);
            prop_assert_eq!(is_canonical(&text), canonical);
        }
    }
}
