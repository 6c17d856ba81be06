//! Whether one rule accepts a request, and if not, which condition failed first.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::HeaderName;

use crate::config::route::FieldMatch;
use crate::config::route::MatchSpec;
use crate::config::route::PathMatch;
use crate::config::route::ValueMatch;
use crate::config::route::pattern;
use crate::path::has_prefix;
use crate::request::RequestHead;

/// The first condition that failed.
#[derive(Clone, Copy, Debug)]
pub enum Mismatch<'m> {
    Path(&'m PathMatch),
    Method,
    Header(&'m FieldMatch<HeaderName>),
    Query(&'m FieldMatch<String>),
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(_) => f.write_str("path"),
            Self::Method => f.write_str("method"),
            Self::Header(field) => write!(f, "header {} {}", field.name, field.value),
            Self::Query(field) => write!(f, "query {} {}", field.name, field.value),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {value:?}"),
            Self::Regex(regex) => write!(f, "~ {}", pattern(regex)),
            Self::Present => f.write_str("present"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// Every condition has to hold; they are asked in the order in which [`Mismatch`] lists them.
/// `path` is the request's, or its lenient reading.
pub(super) fn check<'m>(
    matches: &'m MatchSpec,
    request: &RequestHead,
    path: &str,
) -> Result<(), Mismatch<'m>> {
    let is_path = match &matches.path {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => has_prefix(path, prefix),
        PathMatch::Regex(regex) => regex.is_match(path),
    };
    if !is_path {
        return Err(Mismatch::Path(&matches.path));
    }
    if !matches.methods.is_empty() && !matches.methods.contains(&request.method) {
        return Err(Mismatch::Method);
    }
    for field in &matches.headers {
        if !header_matches(field, &request.headers) {
            return Err(Mismatch::Header(field));
        }
    }
    for field in &matches.query {
        if !query_matches(field, request.path.query().unwrap_or_default()) {
            return Err(Mismatch::Query(field));
        }
    }
    Ok(())
}

/// A field that came several times matches if one of its values does.
fn header_matches(field: &FieldMatch<HeaderName>, headers: &HeaderMap) -> bool {
    match &field.value {
        ValueMatch::Present => headers.contains_key(&field.name),
        ValueMatch::Absent => !headers.contains_key(&field.name),
        ValueMatch::Exact(wanted) => headers
            .get_all(&field.name)
            .iter()
            .any(|value| value.as_bytes() == wanted.as_bytes()),
        ValueMatch::Regex(regex) => headers
            .get_all(&field.name)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| regex.is_match(text))),
    }
}

/// Of a parameter that came several times, the first counts: what most upstreams take.
fn query_matches(field: &FieldMatch<String>, query: &str) -> bool {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let found = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name) == field.name.as_bytes()).then_some(value)
    });
    match (&field.value, found) {
        (ValueMatch::Present, found) => found.is_some(),
        (ValueMatch::Absent, found) => found.is_none(),
        (_, None) => false,
        (ValueMatch::Exact(wanted), Some(value)) => decode(value) == wanted.as_bytes(),
        (ValueMatch::Regex(regex), Some(value)) => {
            std::str::from_utf8(&decode(value)).is_ok_and(|text| regex.is_match(text))
        }
    }
}

/// `application/x-www-form-urlencoded`; a malformed escape stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = |offset: usize| {
            let digit = bytes.get(index + offset)?;
            char::from(*digit).to_digit(16)
        };
        match (bytes[index], hex(1), hex(2)) {
            (b'+', _, _) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                index += 2;
            }
            (byte, _, _) => out.push(byte),
        }
        index += 1;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_parameter_is_decoded_before_it_is_compared() {
        let field = |name: &str, value: ValueMatch| FieldMatch {
            name: name.to_owned(),
            value,
        };
        let exact = |text: &str| ValueMatch::Exact(text.to_owned());
        let cases = [
            ("a=1&b=2", field("b", exact("2")), true),
            ("b=1&b=2", field("b", exact("2")), false),
            ("q=x+y%20z", field("q", exact("x y z")), true),
            ("%71=1", field("q", exact("1")), true),
            ("q=%zz", field("q", exact("%zz")), true),
            ("q", field("q", ValueMatch::Present), true),
            ("", field("q", ValueMatch::Present), false),
            ("", field("q", ValueMatch::Absent), true),
            (
                "q=%ff",
                field("q", ValueMatch::Regex(".*".parse().unwrap())),
                false,
            ),
        ];
        for (query, field, want) in cases {
            assert_eq!(query_matches(&field, query), want, "{query} {field:?}");
        }
    }
}
