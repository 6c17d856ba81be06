//! Rate limit: bounds how often a client may ask.
//!
//! The buckets are the gateway's, shared by all workers and bounded by the grant `shared-state`:
//! where there are more clients than it holds, those that were not seen for longest begin anew.

use std::net::IpAddr;

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::config::Item;
use postern_plugin::crypto;
use postern_plugin::crypto::DigestAlgorithm;
use postern_plugin::json::Value;
use postern_plugin::net::truncated;
use postern_plugin::shared;

/// Who has a network of IPv6 usually has a /64 of it, and all its addresses.
const DEFAULT_IPV6_PREFIX: u8 = 64;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Longer values are counted by their digest.
const MAX_PLAIN: usize = 64;

/// The policy, configured.
#[derive(Debug)]
pub struct RateLimit {
    rate: u32,
    per_ms: u32,
    burst: u32,
    by: By,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    status: u16,
    message: String,
    /// The value of `ratelimit-policy`, and its name for `ratelimit`.
    policy: String,
    name: String,
}

#[derive(Debug)]
enum By {
    Address,
    Header(String),
    Cookie(String),
    /// All clients together.
    All,
}

impl Plugin for RateLimit {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, |config| {
            let rate = config.need("rate").number(1..=1_000_000);
            let per = config.get("per").duration_ms(100..=DAY_MS);
            let burst = config.get("burst").number(1..=1_000_000);
            let by = config.get("by");
            let by = match by.is_given() {
                true => by_of(by),
                false => Some(By::Address),
            };
            let ipv4_prefix = config.get("ipv4-prefix").number(0..=32);
            let ipv6_prefix = config.get("ipv6-prefix").number(0..=128);
            let status = config.get("status").number(400..=599);
            let message = config.get("message").text();
            let name = config.get("name").parsed(|name| {
                let is_char = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                match !name.is_empty() && name.bytes().all(is_char) {
                    true => Ok(name.to_owned()),
                    false => Err("must be of letters, digits, `-`, `_` and `.`".to_owned()),
                }
            });
            let rate = u32::try_from(rate?).ok()?;
            let per_ms = u32::try_from(per.unwrap_or(1000)).ok()?;
            let narrow = |prefix: Option<u64>| prefix.and_then(|p| u8::try_from(p).ok());
            let name = name.unwrap_or_else(|| "default".to_owned());
            Some(Self {
                rate,
                per_ms,
                burst: burst.and_then(|b| b.try_into().ok()).unwrap_or(rate),
                by: by?,
                ipv4_prefix: narrow(ipv4_prefix).unwrap_or(32),
                ipv6_prefix: narrow(ipv6_prefix).unwrap_or(DEFAULT_IPV6_PREFIX),
                status: status.and_then(|s| s.try_into().ok()).unwrap_or(429),
                message: message.unwrap_or_else(|| "too many requests\n".to_owned()),
                policy: format!("\"{name}\";q={rate};w={}", per_ms.div_ceil(1000)),
                name,
            })
        })?;
        match &made.by {
            By::Address => setup.request_view(["@client-ip"]),
            By::Header(name) => setup.request_view([name.as_str(), "@client-ip"]),
            // A cookie has to be looked for, and the address only where there is none.
            By::Cookie(_) | By::All => {}
        }
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let key = self.key(request);
        let quota = shared::take(&key, 1, self.rate, self.per_ms, self.burst);
        if quota.allowed {
            return Ok(Action::Next);
        }
        // Rounded up: who comes back after it should not be told so again.
        let seconds = quota.retry_after_ms.div_ceil(1000).max(1);
        let reply = Reply::text(self.status, self.message.as_str())
            .header("retry-after", seconds.to_string())
            .header("ratelimit-policy", self.policy.as_str())
            .header(
                "ratelimit",
                format!("\"{}\";r={};t={seconds}", self.name, quota.remaining),
            )
            .header("cache-control", "no-store");
        Ok(reply.into())
    }
}

impl RateLimit {
    /// Begins with a letter for its kind, so that no value of a field is taken for an address.
    fn key(&self, request: &Request) -> String {
        let value = match &self.by {
            By::All => return "all".to_owned(),
            By::Address => None,
            By::Header(name) => request.get(name),
            By::Cookie(name) => request.cookie(name),
        };
        match value.filter(|value| !value.is_empty()) {
            Some(value) if value.len() <= MAX_PLAIN => format!("v{value}"),
            Some(value) => {
                let digest = crypto::digest(DigestAlgorithm::Sha256, value.as_bytes());
                let mut key = "d".to_owned();
                for byte in digest {
                    key.push_str(&format!("{byte:02x}"));
                }
                key
            }
            None => match self.client(request) {
                Some(addr) => format!("a{addr}"),
                // Together, rather than without a bound.
                None => "a".to_owned(),
            },
        }
    }

    fn client(&self, request: &Request) -> Option<IpAddr> {
        let addr = match self.by {
            By::Cookie(_) => postern_plugin::exchange::attribute("client.ip"),
            _ => request.get("@client-ip"),
        };
        let addr = addr?.parse::<IpAddr>().ok()?.to_canonical();
        let prefix = match addr {
            IpAddr::V4(_) => self.ipv4_prefix,
            IpAddr::V6(_) => self.ipv6_prefix,
        };
        Some(truncated(addr, prefix))
    }
}

/// "address", "all", or an object with `header` or `cookie`.
fn by_of(item: Item<'_>) -> Option<By> {
    const FORM: &str = "must be \"address\", \"all\", { header = NAME } or { cookie = NAME }";
    match item.value()? {
        Value::String(text) if text == "address" => Some(By::Address),
        Value::String(text) if text == "all" => Some(By::All),
        Value::Object(_) => item.section(|by| {
            let header = by.get("header").field_name();
            let cookie = by
                .get("cookie")
                .parsed(|name| match config::is_token(name) {
                    true => Ok(name.to_owned()),
                    false => Err("not the name of a cookie".to_owned()),
                });
            match (header, cookie) {
                (Some(header), None) if header == "set-cookie" => by.wrong(FORM),
                (Some(header), None) => Some(By::Header(header)),
                (None, Some(cookie)) => Some(By::Cookie(cookie)),
                _ => by.wrong(FORM),
            }
        }),
        _ => item.wrong(FORM),
    }
}

postern_plugin::export!(RateLimit: request);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    fn from(client: &str) -> Exchange {
        let mut exchange = Exchange::new("GET", "/");
        exchange
            .attributes
            .insert("client.ip".into(), client.into());
        exchange
    }

    /// Whether the second request shares the bucket of the first.
    fn share(config: &str, one: &Exchange, two: &Exchange) -> bool {
        mock::gateway(|gateway| gateway.shared.clear());
        let plugin = mock::configure::<RateLimit>(config).unwrap();
        assert_eq!(plugin.on_request(&mut one.clone()), Ok(Action::Next));
        plugin.on_request(&mut two.clone()).unwrap() != Action::Next
    }

    #[test]
    fn a_client_is_what_the_configuration_says() {
        let address = r#"{ "rate": 1 }"#;
        let wide = r#"{ "rate": 1, "ipv4-prefix": 24, "ipv6-prefix": 48 }"#;
        let header = r#"{ "rate": 1, "by": { "header": "X-Key" } }"#;
        let cookie = r#"{ "rate": 1, "by": { "cookie": "sid" } }"#;
        let all = r#"{ "rate": 1, "by": "all" }"#;
        let a = "192.0.2.1";
        let key = |value: &str| from(a).header("x-key", value);
        let sid = |value: &str| from(a).header("cookie", &format!("x=1; sid={value}"));
        let long = "x".repeat(4000);
        let cases = [
            (address, from(a), from(a), true),
            (address, from(a), from("192.0.2.2"), false),
            (address, from("2001:db8::1"), from("2001:db8::ffff:1"), true),
            (address, from("2001:db8::1"), from("2001:db8:0:1::1"), false),
            (address, from("::ffff:192.0.2.1"), from(a), true),
            (wide, from(a), from("192.0.2.200"), true),
            (wide, from("2001:db8::1"), from("2001:db8:0:1::1"), true),
            (header, key("k"), key("k"), true),
            (header, key("k"), key("l"), false),
            (header, from(a), from(a), true),
            (header, from(a), from("192.0.2.2"), false),
            // What a client says it is cannot use up the bucket of an address.
            (header, key("192.0.2.1"), from(a), false),
            (header, key(&long), key(&long), true),
            (header, key(&long), key(&long[1..]), false),
            (cookie, sid("k"), sid("k"), true),
            (cookie, sid("k"), sid("l"), false),
            (cookie, from(a), from("192.0.2.2"), false),
            (all, from(a), from("2001:db8::1"), true),
        ];
        for (config, one, two, want) in cases {
            assert_eq!(share(config, &one, &two), want, "{config} {one:?} {two:?}");
        }
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        let config = r#"{ "rate": 60, "per": "1m", "burst": 2, "name": "api" }"#;
        let plugin = mock::configure::<RateLimit>(config).unwrap();
        for _ in 0..2 {
            assert_eq!(plugin.on_request(&mut from("192.0.2.1")), Ok(Action::Next));
        }
        let Ok(Action::Respond(reply)) = plugin.on_request(&mut from("192.0.2.1")) else {
            panic!("not a reply");
        };
        let field = |name: &str| {
            let found = reply.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(reply.status, 429);
        assert_eq!(field("retry-after"), Some("60"));
        assert_eq!(field("ratelimit-policy"), Some("\"api\";q=60;w=60"));
        assert_eq!(field("ratelimit"), Some("\"api\";r=0;t=60"));
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            ("{}", "rate: is missing"),
            (r#"{ "rate": 0 }"#, "rate: must be"),
            (
                r#"{ "rate": 1, "per": "2d" }"#,
                "per: must be from 100ms to 1d",
            ),
            (r#"{ "rate": 1, "by": "ip" }"#, "by: must be \"address\""),
            (r#"{ "rate": 1, "by": {} }"#, "by: must be \"address\""),
            (
                r#"{ "rate": 1, "by": { "cookie": "a b" } }"#,
                "by.cookie: not the name",
            ),
            (
                r#"{ "rate": 1, "name": "a\"b" }"#,
                "name: must be of letters",
            ),
            (r#"{ "rate": 1, "brust": 2 }"#, "brust: is not known"),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<RateLimit>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
