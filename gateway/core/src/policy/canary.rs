//! Whether a request is among those that try something new.
//!
//! The choice by weight is a pure function of the policy's name and of what the client is known
//! by, so that a visitor stays on one side: over requests, replicas and restarts. A higher weight
//! moves visitors to the new side and none back.

use std::net::IpAddr;

use http::HeaderMap;

use crate::balance::cookie;
use crate::balance::fnv;
use crate::config::policy::limit::KeyBytes;
use crate::config::policy::limit::LimitKey;
use crate::config::policy::traffic::CanarySpec;

/// Whether the request goes to the canary. `turn` counts requests, for those without a key.
pub fn is_chosen(
    spec: &CanarySpec,
    name: &str,
    headers: &HeaderMap,
    client: IpAddr,
    turn: u64,
) -> bool {
    if let Some((field, wanted)) = &spec.header
        && let Some(value) = headers.get(field)
    {
        match (wanted, value.as_bytes()) {
            (Some(wanted), value) if wanted.as_bytes() == value => return true,
            (None, b"always") => return true,
            (None, b"never") => return false,
            _ => {}
        }
    }
    match spec.cookie.as_ref().and_then(|name| cookie(headers, name)) {
        Some(b"always") => return true,
        Some(b"never") => return false,
        _ => {}
    }
    let number = match &spec.by {
        // Spread evenly: each hundred turns in a row come to every number once.
        LimitKey::All => turn.wrapping_mul(61) % 100,
        by => stable_number(name, by.of(headers, client)),
    };
    number < u64::from(spec.weight)
}

/// From 0 to 99, the same for ever: FNV-1a, and a finishing step that mixes its weak lower bits.
fn stable_number(name: &str, key: KeyBytes<'_>) -> u64 {
    let key = match &key {
        KeyBytes::All => &[][..],
        KeyBytes::V4(bytes) => bytes,
        KeyBytes::V6(bytes) => bytes,
        KeyBytes::Value(bytes) => bytes,
    };
    let hash = fnv(name.as_bytes().iter().chain(&[0]).chain(key));
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> 32) % 100
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;
    use http::header;

    use super::*;
    use crate::name::UpstreamName;

    fn spec(weight: u8, by: LimitKey) -> CanarySpec {
        CanarySpec {
            upstream: UpstreamName::parse("v2").unwrap(),
            weight,
            header: Some((HeaderName::from_static("x-canary"), None)),
            cookie: Some("canary".to_owned()),
            by,
        }
    }

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0A00_0000 + number).into()
    }

    #[test]
    fn a_field_decides_before_a_cookie_and_a_cookie_before_the_weight() {
        let named = CanarySpec {
            header: Some((
                HeaderName::from_static("x-canary"),
                Some(HeaderValue::from_static("blue")),
            )),
            ..spec(0, LimitKey::All)
        };
        let cases = [
            (&spec(0, LimitKey::All), "", "", false),
            (&spec(100, LimitKey::All), "", "", true),
            (&spec(0, LimitKey::All), "always", "canary=never", true),
            (&spec(100, LimitKey::All), "never", "canary=always", false),
            (&spec(0, LimitKey::All), "other", "canary=always", true),
            (&spec(100, LimitKey::All), "", "canary=never", false),
            (&spec(100, LimitKey::All), "", "canary=maybe", true),
            (&named, "blue", "", true),
            (&named, "always", "", false),
        ];
        for (spec, field, cookie, want) in cases {
            let mut headers = HeaderMap::new();
            if !field.is_empty() {
                headers.insert("x-canary", HeaderValue::from_static(field));
            }
            headers.insert(header::COOKIE, HeaderValue::from_static(cookie));
            let got = is_chosen(spec, "c", &headers, client(1), 0);
            assert_eq!(got, want, "{spec:?} {field} {cookie}");
        }
    }

    #[test]
    fn weights_are_met_and_more_weight_takes_nobody_back() {
        let headers = HeaderMap::new();
        let mut before = vec![false; 10_000];
        for weight in [0, 1, 10, 50, 99, 100] {
            let spec = spec(weight, LimitKey::Address);
            let now: Vec<bool> = (0..10_000)
                .map(|n| is_chosen(&spec, "c", &headers, client(n), 0))
                .collect();
            let chosen = now.iter().filter(|chosen| **chosen).count();
            assert!(
                chosen.abs_diff(usize::from(weight) * 100) <= 150,
                "{weight}: {chosen}"
            );
            assert!(before.iter().zip(&now).all(|(before, now)| !before || *now));
            before = now;
        }
        let spec = spec(10, LimitKey::All);
        let chosen = (0..1000).filter(|turn| is_chosen(&spec, "c", &headers, client(1), *turn));
        assert_eq!(chosen.count(), 100);
    }

    #[test]
    fn the_choice_is_the_same_for_ever() {
        // Of another build, another machine: a change here moves visitors.
        let numbers: Vec<u64> = ["", "a", "visitor-17"]
            .iter()
            .map(|key| stable_number("canary", KeyBytes::Value(key.as_bytes())))
            .collect();
        assert_eq!(numbers, [66, 1, 96]);
    }
}
