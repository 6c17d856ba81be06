//! The one normalised view of a request target that router, policies, upstream and log share.
//!
//! Published authorization bypasses of proxies come down to two parts of one system reading one
//! path differently. So a path is brought to one form when the request arrives and never decoded
//! again:
//! - a percent-encoded unreserved character is decoded once, other escapes get upper-case digits
//!   (RFC 3986, 6.2.2);
//! - `.` and `..` segments and doubled slashes are resolved;
//! - what an upstream could read as another path is refused: an encoded slash, backslash or NUL,
//!   a malformed escape, a `..` that climbs above the root, or one with something behind it that
//!   an upstream may cut off: a `;` parameter, or an encoded `;`, `?` or `#`. Where an encoded
//!   slash is kept, it must not stand beside dots.
//!
//! The query is passed on as it came, once it is known to hold no byte that may not stand there.

use std::fmt;

use http::uri::PathAndQuery;

/// What to do with `%2F` in a path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EncodedSlash {
    /// 400. An upstream that decodes it would see other segments than the router did.
    #[default]
    Reject,
    /// Passed on as `%2F`, one segment to the router. For upstreams that want it (GitLab, Nexus).
    Keep,
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    #[error("the path holds a percent sign without two hexadecimal digits")]
    Escape,
    #[error("the path holds an encoded slash")]
    EncodedSlash,
    #[error("the path holds a backslash")]
    Backslash,
    #[error("the path holds a control character")]
    Control,
    #[error("the path holds a character that has to be percent-encoded")]
    Character,
    #[error("the path climbs above the root")]
    Climbs,
    #[error("the target is too long")]
    TooLong,
}

/// A path in canonical form, with the query if there was one.
///
/// Invariants: the path begins with `/`, holds no `.` or `..` segment, no `//`, no `\`, no
/// escape of an unreserved character and only upper-case escapes; normalising it again changes
/// nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestPath {
    target: PathAndQuery,
}

impl RequestPath {
    /// Normalises an origin-form target (RFC 9112, 3.2.1).
    pub fn parse(target: &PathAndQuery, encoded_slash: EncodedSlash) -> Result<Self, PathError> {
        let path = target.path();
        if target.query().is_some_and(|query| !is_query(query)) {
            return Err(PathError::Character);
        }
        if is_canonical(path) {
            return Ok(Self {
                target: target.clone(),
            });
        }
        let mut text = normalise(path, encoded_slash)?;
        if let Some(query) = target.query() {
            text.push('?');
            text.push_str(query);
        }
        PathAndQuery::from_maybe_shared(text)
            .map(|target| Self { target })
            .map_err(|_| PathError::Character)
    }

    /// The same for a text, as a plugin, a rewrite rule or the command line gives it.
    pub fn from_text(text: &str, encoded_slash: EncodedSlash) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if text.contains('#') {
            return Err(PathError::Character);
        }
        let target = PathAndQuery::try_from(text).map_err(|_| {
            if text.len() >= usize::from(u16::MAX) {
                PathError::TooLong
            } else if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
                PathError::Control
            } else {
                PathError::Character
            }
        })?;
        Self::parse(&target, encoded_slash)
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// What follows the first `?`, if there was one.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// Path and query, as sent to an upstream.
    pub fn as_str(&self) -> &str {
        self.target.as_str()
    }

    pub fn as_target(&self) -> &PathAndQuery {
        &self.target
    }

    /// The same query with another path, which is normalised as well.
    pub fn with_path(&self, path: &str, encoded_slash: EncodedSlash) -> Result<Self, PathError> {
        match self.query() {
            Some(query) => Self::from_text(&format!("{path}?{query}"), encoded_slash),
            None => Self::from_text(path, encoded_slash),
        }
    }
}

impl Default for RequestPath {
    fn default() -> Self {
        Self {
            target: PathAndQuery::from_static("/"),
        }
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a configured path prefix covers the path: by whole elements, so that `/api` covers
/// `/api` and `/api/v1` but not `/apis`. `prefix` has no trailing slash; `""` covers everything.
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What follows a prefix in a path that it covers, as it was sent: in the path itself, or else in
/// its [`lenient_reading`].
pub fn after_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    if has_prefix(path, prefix) {
        return path.strip_prefix(prefix);
    }
    let mut read = String::with_capacity(path.len());
    let mut end = 0;
    for segment in path.split('/').skip(1) {
        end += "/".len() + segment.len();
        push_leniently(&mut read, segment);
        if read == prefix {
            return path.get(end..);
        }
        if read.len() > prefix.len() {
            break;
        }
    }
    None
}

/// The path as a lenient server reads it: such a one decodes it, cuts parameters off its segments
/// (RFC 3986, 3.3) and merges the slashes that a segment leaves that had nothing else. `/@x` of
/// `/%40x`, `/x` of `/x;a=1`, of `/x%3Ba`, of `/x%3Fa` and of `/;a/x`. `None` if that is the path
/// itself.
///
/// What may not stand in a path as it is stays encoded: no rule can name it otherwise.
pub fn lenient_reading(path: &str) -> Option<String> {
    if !path.bytes().any(|byte| matches!(byte, b'%' | b';')) {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut before = 0;
    for segment in path.split('/').skip(1) {
        before = out.len();
        push_leniently(&mut out, segment);
    }
    // Of the last one a slash stays, as at the end of any path.
    if out.len() == before {
        out.push('/');
    }
    (out != path).then_some(out)
}

/// A slash and what a lenient server sees of the segment, unless that is nothing.
fn push_leniently(out: &mut String, segment: &str) {
    let before = out.len();
    out.push('/');
    let mut rest = segment.as_bytes();
    // A canonical path is ASCII.
    while let [first, tail @ ..] = rest {
        let (byte, after) = match tail {
            [high, low, after @ ..] if *first == b'%' => {
                let byte = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
                match byte {
                    // Some look for the query in what they have decoded.
                    Some(b'?' | b'#') => break,
                    Some(byte) if is_path_byte(byte) => (byte, after),
                    _ => (b'%', tail),
                }
            }
            _ => (*first, tail),
        };
        if byte == b';' {
            break;
        }
        out.push(char::from(byte));
        rest = after;
    }
    if out.len() == before + "/".len() {
        out.truncate(before);
    }
}

/// What a byte of a path asks for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Class {
    /// Stands for itself.
    Plain,
    /// `/`: look at the next byte.
    Slash,
    /// `%`, or a byte that needs a decision: take the slow path.
    Special,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Special; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_path_byte(byte as u8) {
            classes[byte] = Class::Plain;
        }
        byte += 1;
    }
    classes[b'/' as usize] = Class::Slash;
    classes
};

/// `pchar` of RFC 3986 without escapes, and the characters that clients send raw although they
/// should not, and that no known server gives a meaning: `"<>^`{|}[]`. Not `\`, not `#`, not `?`.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'"'
                | b'^'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'['
                | b']'
        )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_query(query: &str) -> bool {
    query
        .bytes()
        .all(|byte| byte > 0x20 && byte < 0x7f && byte != b'#')
}

/// Whether [`normalise`] would change nothing. One pass, no allocation.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return false;
    }
    let mut index = 0;
    while index < bytes.len() {
        match CLASSES[usize::from(bytes[index])] {
            Class::Plain => {}
            Class::Special => return false,
            // A dot after a slash may still be a plain name, `/.well-known`.
            Class::Slash => match bytes.get(index + 1) {
                Some(b'/') => return false,
                Some(b'.') if is_dot_segment(&bytes[index + 1..]) => return false,
                _ => {}
            },
        }
        index += 1;
    }
    true
}

/// Whether the segment that begins here is `.`, `..`, or one of them with a `;` parameter.
fn is_dot_segment(rest: &[u8]) -> bool {
    let ([b'.', b'.', after @ ..] | [b'.', after @ ..]) = rest else {
        return false;
    };
    matches!(after.first(), None | Some(b'/' | b';'))
}

fn normalise(path: &str, encoded_slash: EncodedSlash) -> Result<String, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let decoded = decode_unreserved(path, encoded_slash)?;
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            ".." => {
                let parent = out.rfind('/').ok_or(PathError::Climbs)?;
                out.truncate(parent);
                if is_last {
                    out.push('/');
                }
            }
            "." | "" => {
                if is_last {
                    out.push('/');
                }
            }
            _ if segment.split("%2F").any(is_cut_to_dots) => return Err(PathError::Climbs),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    Ok(out)
}

/// Whether what stands between slashes, one of which may be encoded, is `.` or `..` to a server that
/// cuts off parameters, a query or a fragment, some after they have decoded the path, before it
/// resolves dots.
fn is_cut_to_dots(part: &str) -> bool {
    let Some(rest) = part.strip_prefix('.') else {
        return false;
    };
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    rest.is_empty()
        || [";", "%3B", "%3F", "%23"]
            .iter()
            .any(|cut| rest.starts_with(cut))
}

fn decode_unreserved(path: &str, encoded_slash: EncodedSlash) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        index += 1;
        match byte {
            b'%' => {
                let digits = bytes.get(index..index + 2).ok_or(PathError::Escape)?;
                let high = hex(digits[0]).ok_or(PathError::Escape)?;
                let low = hex(digits[1]).ok_or(PathError::Escape)?;
                index += 2;
                match high << 4 | low {
                    0 => return Err(PathError::Control),
                    b'/' if encoded_slash == EncodedSlash::Reject => {
                        return Err(PathError::EncodedSlash);
                    }
                    b'\\' => return Err(PathError::Backslash),
                    value if is_unreserved(value) => out.push(char::from(value)),
                    value => push_escape(&mut out, value),
                }
            }
            b'/' => out.push('/'),
            b'\\' => return Err(PathError::Backslash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            // UTF-8 that was sent raw: encode it, so that there is one spelling of it.
            0x80.. => push_escape(&mut out, byte),
            byte if is_path_byte(byte) => out.push(char::from(byte)),
            _ => return Err(PathError::Character),
        }
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, PathError> {
        RequestPath::from_text(text, EncodedSlash::Reject).map(|path| path.to_string())
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        let cases = [
            ("/", "/"),
            ("/a/b?c=%2F..//", "/a/b?c=%2F..//"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/public//admin", "/public/admin"),
            ("/%61dmin", "/admin"),
            ("/public/%252e%252e/admin", "/public/%252e%252e/admin"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/api../secret", "/api../secret"),
            (
                "/.well-known/acme-challenge/x",
                "/.well-known/acme-challenge/x",
            ),
            ("/...", "/..."),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/%e4%f6", "/%E4%F6"),
            ("/a%3Bb", "/a%3Bb"),
            ("/...%3B", "/...%3B"),
            ("/ä", "/%C3%A4"),
            ("//", "/"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        use PathError as E;
        let cases = [
            ("/a%2fb", E::EncodedSlash),
            ("/a%5cb", E::Backslash),
            ("/a\\..\\b", E::Backslash),
            ("/admin%00.png", E::Control),
            ("/a\u{1}b", E::Control),
            ("/a%zz", E::Escape),
            ("/a%2", E::Escape),
            ("/a%", E::Escape),
            ("/..", E::Climbs),
            ("/a/../../etc/passwd", E::Climbs),
            ("/public/..;/admin", E::Climbs),
            ("/a/.;x/b", E::Climbs),
            ("/public/..%3b/admin", E::Climbs),
            ("/public/%2e%2E%3fx", E::Climbs),
            ("/public/..%23", E::Climbs),
            ("/a#b", E::Character),
            ("/a b", E::Character),
            ("a", E::NotAbsolute),
            ("", E::NotAbsolute),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn an_encoded_slash_can_be_kept_as_one_segment() {
        let path = RequestPath::from_text("/a%2f.b..%2Fc", EncodedSlash::Keep).unwrap();
        assert_eq!(path.path(), "/a%2F.b..%2Fc");
    }

    #[test]
    fn an_encoded_slash_that_is_kept_helps_nobody_up() {
        for text in [
            "/a%2f..%2Fb",
            "/..%2fb",
            "/a%2F%2e%2E",
            "/a%2f.",
            "/x/a%2f..;v/b",
            "/x/..%3b%2fb",
        ] {
            let path = RequestPath::from_text(text, EncodedSlash::Keep);
            assert_eq!(path, Err(PathError::Climbs), "{text}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_elements() {
        let cases = [
            ("/api", "/api", true),
            ("/api/", "/api", true),
            ("/api/v1", "/api", true),
            ("/apis", "/api", false),
            ("/", "", true),
            ("/x", "", true),
        ];
        for (path, prefix, want) in cases {
            assert_eq!(has_prefix(path, prefix), want, "{path} {prefix}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            text in r"/([a-z./;%A-F0-9 \\?#{}äé]|%2e|%2f|%61|\.\./|//){0,30}",
        ) {
            if let Ok(once) = RequestPath::from_text(&text, EncodedSlash::Reject) {
                let twice = RequestPath::from_text(once.as_str(), EncodedSlash::Reject).unwrap();
                prop_assert_eq!(&once, &twice);
                let path = once.path();
                prop_assert!(path.starts_with('/'), "{}", path);
                prop_assert!(!path.contains("//") && !path.contains('\\'), "{}", path);
                prop_assert!(path.split('/').all(|s| s != "." && s != ".."), "{}", path);
                prop_assert!(!path.to_lowercase().contains("%2e"), "{}", path);
            }
        }

        #[test]
        fn the_fast_path_agrees_with_the_slow_one(text in r"/([a-c./;%0-9A\\]|\.\.|//){0,20}") {
            let unchanged = normalise(&text, EncodedSlash::Reject).is_ok_and(|out| out == text);
            // The fast path leaves every escape to the slow one.
            prop_assert_eq!(is_canonical(&text), unchanged && !text.contains('%'));
        }
    }
}
