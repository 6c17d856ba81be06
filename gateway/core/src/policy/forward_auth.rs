//! What an authorization service's answer means, and where a client signs in.

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;
use http::header;

/// How long an answer may be remembered: no longer than `most`, nor than it says itself
/// (RFC 9111, 5.2.2). `None`: not at all.
pub fn max_age(headers: &HeaderMap, most: Duration) -> Option<Duration> {
    let mut time = most;
    for value in headers.get_all(header::CACHE_CONTROL) {
        // What cannot be read may forbid it.
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            match directive.split_once('=') {
                None if matches!(directive.as_str(), "no-store" | "no-cache") => return None,
                Some(("max-age" | "s-maxage", seconds)) => {
                    let seconds = seconds.trim_matches('"').parse().ok()?;
                    time = time.min(Duration::from_secs(seconds));
                }
                Some(("no-cache", _)) => return None,
                _ => {}
            }
        }
    }
    Some(time).filter(|time| !time.is_zero())
}

/// The sign-in page, told where to send the client back to, unless it is told already.
pub fn signin_location(signin: &str, parameter: &str, url: &str) -> String {
    let query = signin.split_once('?').map(|(_, query)| query);
    let mut pairs = query.into_iter().flat_map(|query| query.split('&'));
    let is_told = pairs.any(|pair| pair.split('=').next() == Some(parameter));
    if is_told {
        return signin.to_owned();
    }
    let mut location = String::with_capacity(signin.len() + parameter.len() + url.len() + 16);
    location.push_str(signin);
    location.push(if query.is_some() { '&' } else { '?' });
    location.push_str(parameter);
    location.push('=');
    for byte in url.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            location.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(location, "%{byte:02X}");
        }
    }
    location
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_answer_is_remembered_as_long_as_it_allows() {
        let seconds = Duration::from_secs;
        let cases = [
            (&[][..], Some(60)),
            (&["max-age=5"], Some(5)),
            (&["max-age=500"], Some(60)),
            (&["private, Max-Age=5"], Some(5)),
            (&["private", "max-age=7"], Some(7)),
            (&["max-age=0"], None),
            (&["max-age=x"], None),
            (&["no-store"], None),
            (&["no-cache"], None),
            (&["no-cache=\"x\""], None),
            (&["public, no-store"], None),
        ];
        for (values, want) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_static(value);
                headers.append(header::CACHE_CONTROL, value);
            }
            let got = max_age(&headers, seconds(60));
            assert_eq!(got, want.map(seconds), "{values:?}");
        }
    }

    #[test]
    fn a_sign_in_page_is_told_where_to_send_the_client_back() {
        let url = "https://a.test/x?y=1&z";
        let escaped = "https%3A%2F%2Fa.test%2Fx%3Fy%3D1%26z";
        let cases = [
            (
                "https://b.test/in",
                format!("https://b.test/in?rd={escaped}"),
            ),
            (
                "https://b.test/in?a=b",
                format!("https://b.test/in?a=b&rd={escaped}"),
            ),
            (
                "https://b.test/in?rd=/x",
                "https://b.test/in?rd=/x".to_owned(),
            ),
        ];
        for (signin, want) in cases {
            assert_eq!(signin_location(signin, "rd", url), want);
        }
    }
}
