//! The cookie that keeps a client at its endpoint.
//!
//! Its value is made of the names of upstream and endpoint alone, so that every gateway with the
//! same configuration understands it, after a restart too. It is a digest: it does not show the
//! address, though one who can guess the address can check the guess. It is not signed: a client
//! that makes one up chooses among endpoints that it could be sent to anyway.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderMap;
use http::HeaderValue;
use postern_core::balance;
use postern_core::config::UpstreamSpec;
use postern_core::config::upstream::SameSite;
use postern_core::config::upstream::StickySpec;
use postern_core::name::UpstreamName;

/// Bytes of the digest that the cookie holds.
const DIGEST_BYTES: usize = 8;

pub(super) struct Sticky {
    cookie: String,
    /// By endpoint: the cookie's value, and the field that sets it, in clear text and over TLS.
    endpoints: Vec<Named>,
}

struct Named {
    value: String,
    plain: HeaderValue,
    tls: HeaderValue,
}

impl Sticky {
    pub(super) fn new(name: &UpstreamName, spec: &UpstreamSpec) -> Option<Self> {
        let sticky = spec.sticky.as_ref()?;
        let endpoints = spec.endpoints.iter().map(|endpoint| {
            let value = value(name, &endpoint.to_string());
            Named {
                plain: field(sticky, &value, sticky.secure.unwrap_or(false)),
                tls: field(sticky, &value, sticky.secure.unwrap_or(true)),
                value,
            }
        });
        Some(Self {
            cookie: sticky.cookie.clone(),
            endpoints: endpoints.collect(),
        })
    }

    /// The endpoint that a request's cookie names.
    pub(super) fn endpoint(&self, headers: &HeaderMap) -> Option<usize> {
        let value = balance::cookie(headers, &self.cookie)?;
        let mut endpoints = self.endpoints.iter();
        endpoints.position(|named| named.value.as_bytes() == value)
    }

    pub(super) fn set_cookie(&self, endpoint: usize, is_tls: bool) -> &HeaderValue {
        let named = &self.endpoints[endpoint];
        if is_tls { &named.tls } else { &named.plain }
    }
}

fn value(upstream: &UpstreamName, endpoint: &str) -> String {
    let text = format!("postern sticky\0{upstream}\0{endpoint}");
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut value = String::with_capacity(2 * DIGEST_BYTES);
    for byte in &digest.as_ref()[..DIGEST_BYTES] {
        // Writing to a string does not fail.
        let _ = write!(value, "{byte:02x}");
    }
    value
}

fn field(spec: &StickySpec, value: &str, is_secure: bool) -> HeaderValue {
    let mut text = format!("{}={value}; Path=/; HttpOnly", spec.cookie);
    text.push_str(match spec.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    if is_secure {
        text.push_str("; Secure");
    }
    if let Some(max_age) = spec.max_age {
        let _ = write!(text, "; Max-Age={}", max_age.as_secs());
    }
    // A token and hexadecimal digits: always a valid value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
