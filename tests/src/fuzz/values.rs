//! The pure parts: values in, values out, each against a model that is slow and plain.

use std::net::IpAddr;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_core::header::PeerFields;
use postern_core::header::TrustedProxies;
use postern_core::header::X_FORWARDED_FOR;
use postern_core::header::X_REAL_IP;
use postern_core::hostname::Authority;
use postern_core::hostname::Hostname;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_proxy::test_util;

/// Longest configuration; the time that it may take is for this.
const MAX_CONFIG: usize = 64 << 10;
/// On a busy machine and without optimization; a file of this size takes milliseconds.
const CONFIG_TIME: Duration = Duration::from_secs(10);

/// A target is normalised as the model does it, once and for all, and no upstream that decodes
/// more than it should reads another path in it.
pub fn request_path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for encoded_slash in [EncodedSlash::Reject, EncodedSlash::Keep] {
        let Ok(path) = RequestPath::from_text(text, encoded_slash) else {
            continue;
        };
        let again = RequestPath::from_text(path.as_str(), encoded_slash);
        assert_eq!(again.as_ref(), Ok(&path), "normalising twice");
        let (asked, query) = match text.split_once('?') {
            Some((asked, query)) => (asked, Some(query)),
            None => (text, None),
        };
        assert_eq!(path.query(), query);
        let keeps_slash = encoded_slash == EncodedSlash::Keep;
        let model = plain_path(asked, keeps_slash);
        assert_eq!(Some(path.path()), model.as_deref(), "of {asked:?}");
        if !keeps_slash {
            lenient_upstreams(path.path());
        }
    }
}

/// Segments of RFC 3986: split, decode what is unreserved, resolve dots, drop what is empty.
fn plain_path(text: &str, keeps_slash: bool) -> Option<String> {
    let mut stack: Vec<String> = Vec::new();
    let segments: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
    let mut ends_with_slash = false;
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        let decoded = plain_segment(segment, keeps_slash)?;
        ends_with_slash = is_last;
        match decoded.as_str() {
            "" | "." => {}
            ".." => {
                stack.pop()?;
            }
            _ => {
                stack.push(decoded);
                ends_with_slash = false;
            }
        }
    }
    let mut path = String::new();
    for segment in stack {
        path.push('/');
        path.push_str(&segment);
    }
    if ends_with_slash || path.is_empty() {
        path.push('/');
    }
    Some(path)
}

fn plain_segment(segment: &str, keeps_slash: bool) -> Option<String> {
    let mut out = String::new();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let (value, was_escaped) = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                // `from_str_radix` would take a sign.
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                (u8::from_str_radix(digits, 16).ok()?, true)
            }
            byte => (byte, false),
        };
        let is_unreserved = value.is_ascii_alphanumeric() || b"-._~".contains(&value);
        match value {
            0 | b'\\' => return None,
            b'/' if !keeps_slash => return None,
            _ if is_unreserved => out.push(char::from(value)),
            _ if was_escaped || value >= 0x80 => out.push_str(&format!("%{value:02X}")),
            _ => out.push(char::from(value)),
        }
    }
    Some(out)
}

/// Upstreams that decode a path and only then look at segments, parameters, queries or
/// fragments, and those that take `\` for `/`, find no way up in it and no more segments.
fn lenient_upstreams(path: &str) {
    let decoded: Vec<u8> = percent_decoded(path.as_bytes());
    let slashes = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'/' || b == b'\\').count();
    assert_eq!(slashes(path.as_bytes()), slashes(&decoded), "{path:?}");
    assert!(!decoded.contains(&0), "{path:?}");
    for segment in decoded.split(|&b| b == b'/') {
        for ends in [&b""[..], b";", b"?", b"#"] {
            let name = segment
                .split(|b| ends.contains(b))
                .next()
                .unwrap_or(segment);
            assert!(
                name != b"." && name != b"..",
                "{path:?} climbs when decoded"
            );
        }
    }
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    out
}

/// An authority and a pattern have one form each, and a pattern means what its text says.
pub fn hostname(input: &[u8]) {
    // The text of a pattern, a new line, and what a client says.
    let mut lines = input.splitn(2, |&b| b == b'\n');
    let pattern = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let pattern = pattern.and_then(|line| Hostname::parse(line).ok());
    let said = lines.next().unwrap_or(input);
    let authority = HeaderValue::from_bytes(said).ok();
    let authority = authority.and_then(|value| Authority::parse(&value).ok());
    if let Some(pattern) = &pattern {
        assert_eq!(Hostname::parse(&pattern.to_string()).as_ref(), Ok(pattern));
    }
    let Some(authority) = authority else {
        return;
    };
    assert_eq!(Authority::parse(authority.value()).as_ref(), Ok(&authority));
    let host = authority.host();
    let printed = match authority.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    assert_eq!(
        authority.as_str(),
        printed,
        "a second spelling of one authority"
    );
    assert!(
        !host.is_empty() && host.is_ascii() && !host.contains(['@', '/', ' ', '?', '#', ',']),
        "{host:?}"
    );
    assert_eq!(host, host.to_ascii_lowercase());
    if let Some(pattern) = pattern {
        let text = pattern.to_string();
        let model = match text.strip_prefix("*.") {
            Some(parent) => host
                .strip_suffix(parent)
                .and_then(|label| label.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
            None => text == host,
        };
        assert_eq!(pattern.matches(host), model, "{text} {host}");
    }
}

/// A file is taken or has problems, each at a place that is in it, in a bounded time.
pub fn config_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if text.len() > MAX_CONFIG {
        return;
    }
    let started = SystemTime::now();
    let loaded = parse(&[ConfigText {
        path: "fuzz.toml".into(),
        text: text.to_owned(),
    }]);
    let took = started.elapsed().unwrap_or_default();
    assert!(took < CONFIG_TIME, "{took:?}");
    let lines: Vec<&str> = text.split('\n').collect();
    let problems = match loaded {
        Ok(loaded) => {
            assert!(loaded.warnings.iter().all(|problem| !problem.is_error()));
            loaded.warnings
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.is_error()));
            problems
        }
    };
    for problem in problems {
        let origin = &problem.origin;
        let line = lines.get(origin.line.wrapping_sub(1));
        let columns = line.map_or(0, |line| line.chars().count());
        // One behind the end is where something is missing.
        assert!(
            line.is_some() && (1..=columns + 1).contains(&origin.column),
            "{origin} is not in the file: {problem:?}"
        );
        assert!(!problem.message.contains('\n'), "{problem:?}");
        let shown = problem.to_string();
        assert!(
            !shown.contains('\x1b') && !shown.contains('\r'),
            "{shown:?}"
        );
    }
}

/// The client is whom the model finds, whatever stands left of an address that is not trusted;
/// what goes on says so once.
pub fn forwarded_headers(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else {
        return;
    };
    let networks = ["10.0.0.0/8", "192.168.1.0/24", "2001:db8::/32"];
    let networks = networks.map(|network| network.parse().expect("a network"));
    let trusted = TrustedProxies::new(networks.to_vec());
    let peers = ["10.0.0.1", "203.0.113.9", "::ffff:10.1.2.3", "2001:db8::7"];
    let peer: IpAddr = peers[usize::from(first) % peers.len()]
        .parse()
        .expect("an address");
    let peer = peer.to_canonical();

    let mut headers = HeaderMap::new();
    for line in rest.split(|&b| b == b'\n').take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(X_FORWARDED_FOR, value);
        }
    }
    let client = trusted.client(peer, &headers);
    let entries: Vec<Option<String>> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| match value.to_str() {
            Ok(text) => text.split(',').map(|e| Some(e.trim().to_owned())).collect(),
            Err(_) => vec![None],
        })
        .collect();
    assert_eq!(client, plain_client(peer, &entries, &trusted));

    // What an untrusted client writes in front changes nothing.
    if !trusted.contains(client) {
        let mut invented = HeaderMap::new();
        invented.append(
            X_FORWARDED_FOR,
            HeaderValue::from_static("6.6.6.6, 10.0.0.9"),
        );
        for value in headers.get_all(X_FORWARDED_FOR) {
            invented.append(X_FORWARDED_FOR, value.clone());
        }
        assert_eq!(trusted.client(peer, &invented), client);
    }

    let fields = PeerFields::new(peer, false, 80);
    let host = HeaderValue::from_static("a.test");
    let is_trusted = trusted.contains(peer);
    fields.write(&mut headers, &host, is_trusted.then_some(client));
    assert_eq!(headers[X_REAL_IP], client.to_string().as_str());
    let own = peer.to_string();
    let all: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let [value] = all.as_slice() else {
        panic!("x-forwarded-for {all:?}");
    };
    let last = value
        .as_bytes()
        .rsplit(|&b| b == b',')
        .next()
        .unwrap_or_default();
    assert_eq!(last.trim_ascii(), own.as_bytes());
    if !is_trusted {
        assert_eq!(value.as_bytes(), own.as_bytes());
    }
}

/// From the right, the first that is not trusted or the last that can be read.
fn plain_client(peer: IpAddr, entries: &[Option<String>], trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    if !trusted.contains(peer) {
        return client;
    }
    for entry in entries.iter().rev().take(32) {
        let Some(addr) = entry.as_deref().and_then(plain_addr) else {
            return client;
        };
        client = addr;
        if !trusted.contains(addr) {
            return client;
        }
    }
    client
}

fn plain_addr(text: &str) -> Option<IpAddr> {
    let addr: Option<IpAddr> = text.parse().ok();
    let with_port = || {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|addr| addr.ip())
    };
    let in_brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
    };
    addr.or_else(with_port)
        .or_else(in_brackets)
        .map(|addr| addr.to_canonical())
}

/// One line in either format; the JSON is JSON, and both hold the values and nothing else.
pub fn access_log(input: &[u8]) {
    let values: Vec<&[u8]> = input.split(|&b| b == 0xfe).take(8).collect();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let fields: Vec<(&str, &[u8])> = names.into_iter().zip(values).collect();
    for is_json in [true, false] {
        let line = test_util::access_line(is_json, &fields);
        let line = String::from_utf8(line).expect("a line is text");
        let line = line.strip_suffix('\n').expect("a line has an end");
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line:?}");
        let read = if is_json {
            let parsed: serde_json::Map<_, _> = serde_json::from_str(line).expect("JSON");
            let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
            let pairs = parsed
                .iter()
                .map(|(name, value)| (name.clone(), text(value)));
            pairs.collect::<Vec<_>>()
        } else {
            words(line)
        };
        let latin = |bytes: &[u8]| Some(bytes.iter().map(|&b| char::from(b)).collect::<String>());
        let want = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), latin(value)));
        assert_eq!(read, want.collect::<Vec<_>>(), "{line}");
    }
}

/// `name=value` with a space between; a value may stand in quotes, with the escapes of JSON.
fn words(line: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = if after.starts_with('"') {
            let mut stream = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = stream.next().and_then(Result::ok);
            (value, &after[stream.byte_offset()..])
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (Some(after[..end].to_owned()), &after[end..])
        };
        found.push((name.to_owned(), value));
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    found
}
