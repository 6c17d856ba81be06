//! The meaning of policies that bound what clients may ask for.

use std::time::Duration;

use http::HeaderName;
use http::StatusCode;
use ipnet::IpNet;

use super::super::item::parse_network;
use super::FileReader;
use crate::config::parse::raw::At;
use crate::config::parse::raw::RawBodySize;
use crate::config::parse::raw::RawConcurrency;
use crate::config::parse::raw::RawRateLimit;
use crate::config::policy::limit::BodySizeSpec;
use crate::config::policy::limit::ConcurrencySpec;
use crate::config::policy::limit::DEFAULT_KEYS;
use crate::config::policy::limit::LimitKey;
use crate::config::policy::limit::MAX_KEYS;
use crate::config::policy::limit::Rate;
use crate::config::policy::limit::RateLimitSpec;

/// Highest rate: above it, the time between two requests is too short to be counted.
const MAX_RATE: u64 = 1_000_000;
const MAX_BURST: i64 = 10_000_000;
const MAX_REQUESTS: i64 = 1_000_000;
/// Bounds of a body limit. Zero is no limit, which is having no policy.
const BODY_BYTES: std::ops::RangeInclusive<u64> = (1 << 10)..=(1 << 40);

impl FileReader<'_> {
    pub(super) fn body_size(&mut self, raw: &RawBodySize) -> Option<BodySizeSpec> {
        let limit = self.size(&raw.limit, BODY_BYTES)?;
        Some(BodySizeSpec { limit })
    }

    pub(super) fn concurrency(&mut self, raw: &RawConcurrency) -> Option<ConcurrencySpec> {
        let mut requests = 1;
        self.count(Some(&raw.requests), "requests", MAX_REQUESTS, &mut requests);
        let key = self.limit_key(raw.key.as_ref(), LimitKey::All);
        let mut keys = DEFAULT_KEYS;
        self.count(raw.keys.as_ref(), "keys", MAX_KEYS, &mut keys);
        let status = self.error_status(raw.status.as_ref(), StatusCode::SERVICE_UNAVAILABLE);
        Some(ConcurrencySpec {
            requests,
            key: key?,
            keys,
            status,
        })
    }

    pub(in crate::config::parse) fn networks(&mut self, texts: &[At<String>]) -> Vec<IpNet> {
        let networks = texts.iter();
        networks
            .filter_map(|text| self.text(text, "network", parse_network))
            .collect()
    }

    pub(super) fn rate_limit(&mut self, raw: &RawRateLimit) -> Option<RateLimitSpec> {
        let rate = self.text(&raw.rate, "rate", parse_rate);
        let mut burst = rate.map_or(1, |rate| rate.count);
        self.count(raw.burst.as_ref(), "burst", MAX_BURST, &mut burst);
        let key = self.limit_key(raw.key.as_ref(), LimitKey::Address);
        let mut keys = DEFAULT_KEYS;
        self.count(raw.keys.as_ref(), "keys", MAX_KEYS, &mut keys);
        let status = self.error_status(raw.status.as_ref(), StatusCode::TOO_MANY_REQUESTS);
        Some(RateLimitSpec {
            rate: rate?,
            burst,
            key: key?,
            keys,
            status,
            headers: raw.headers.unwrap_or(true),
        })
    }

    fn limit_key(&mut self, text: Option<&At<String>>, default: LimitKey) -> Option<LimitKey> {
        match text {
            Some(text) => self.text(text, "key", parse_key),
            None => Some(default),
        }
    }
}

fn parse_rate(text: &str) -> Result<Rate, &'static str> {
    const FORM: &str = "write a number and a time: \"100/s\", \"1000/m\", \"20/h\" or \"5/d\"";
    let (count, unit) = text.split_once('/').ok_or(FORM)?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(FORM),
    };
    let count: u32 = count.trim().parse().map_err(|_| FORM)?;
    if count == 0 {
        return Err("it lets nothing through; use a maintenance or ip-access policy for that");
    }
    if u64::from(count) > MAX_RATE * seconds {
        return Err("more than a million requests a second cannot be told apart");
    }
    Ok(Rate {
        count,
        period: Duration::from_secs(seconds),
    })
}

pub(super) fn parse_key(text: &str) -> Result<LimitKey, &'static str> {
    const FORM: &str = "write \"address\", \"header:NAME\", \"cookie:NAME\" or \"all\"";
    match text.split_once(':') {
        None if text == "address" => Ok(LimitKey::Address),
        None if text == "all" => Ok(LimitKey::All),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(LimitKey::Header)
            .map_err(|_| "the field name is no token"),
        Some(("cookie", name)) if is_token(name) => Ok(LimitKey::Cookie(name.to_owned())),
        Some(("cookie", _)) => Err("the cookie's name is no token"),
        _ => Err(FORM),
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}
