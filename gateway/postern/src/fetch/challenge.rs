//! How a registry asks for a login: the `WWW-Authenticate` of a 401, and the token that it leads to
//! (RFC 7235, and the token authentication of the distribution project).

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use serde_json::Value;

/// Longest challenge that is read.
const MAX_CHALLENGE_LEN: usize = 4 << 10;

#[derive(Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The first challenge of a kind that is known.
pub(super) fn parse(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .filter(|text| text.len() <= MAX_CHALLENGE_LEN)
        .find_map(parse_one)
}

fn parse_one(text: &str) -> Option<Challenge> {
    let (kind, rest) = text
        .trim()
        .split_once(' ')
        .unwrap_or_else(|| (text.trim(), ""));
    if kind.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    let mut rest = rest.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
    })
}

pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut url = realm.to_owned();
    url.push(if realm.contains('?') { '&' } else { '?' });
    if let Some(service) = service {
        url.push_str("service=");
        push_encoded(&mut url, service);
        url.push('&');
    }
    url.push_str("scope=");
    push_encoded(&mut url, scope);
    url
}

/// The field of requests that the token is for.
pub(super) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let token = ["token", "access_token"]
        .into_iter()
        .find_map(|name| answer.get(name).and_then(Value::as_str))?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 3986, 2.3: what is not unreserved is escaped.
fn push_encoded(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_where_the_token_is() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
            })
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.test/token",service="reg",scope="a:b,c:d""#,
                bearer("https://auth.test/token", Some("reg")),
            ),
            (
                r#"bearer scope="x", realm=https://a.test/t"#,
                bearer("https://a.test/t", None),
            ),
            (r#"Basic realm="reg""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Bearer service="reg""#, None),
            (r#"Bearer realm="https://a.test"#, None),
            ("Negotiate", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_one(text), want, "{text}");
        }
    }

    #[test]
    fn a_token_is_asked_for_the_repository() {
        let url = token_url(
            "https://a.test/token",
            Some("my reg"),
            "repository:a/b:pull",
        );
        let want = "https://a.test/token?service=my%20reg&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(url, want);
        assert!(token_url("https://a.test/t?x=1", None, "s").contains("?x=1&scope=s"));
    }

    #[test]
    fn a_token_is_a_field_value_or_nothing() {
        let value = |text: &str| bearer(text.as_bytes()).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(value(r#"{"token": "t"}"#).as_deref(), Some("Bearer t"));
        assert_eq!(
            value(r#"{"access_token": "t"}"#).as_deref(),
            Some("Bearer t")
        );
        for bad in [r#"{"token": "a\r\nb"}"#, r#"{"token": 1}"#, "{}", ""] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }
}
