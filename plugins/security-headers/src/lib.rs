//! Security headers: fields by which a browser protects its user.
//!
//! Where the content security policy has `{nonce}`, each request gets a nonce of its own: the
//! application reads it in a request field and writes it on its scripts, and the response's policy
//! has the same one.

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Request;
use postern_plugin::Response;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::config::Section;
use postern_plugin::exchange;
use postern_plugin::random;

const CSP: &str = "content-security-policy";
const CSP_REPORT_ONLY: &str = "content-security-policy-report-only";
const HSTS: &str = "strict-transport-security";
const DEFAULT_NONCE_HEADER: &str = "x-csp-nonce";
const DEFAULT_REFERRER_POLICY: &str = "strict-origin-when-cross-origin";
/// Stands for the nonce in a policy.
const NONCE: &str = "{nonce}";
/// 128 bits, as the specification of CSP asks for, in 24 characters.
const NONCE_BYTES: u32 = 18;
/// What browsers want before they keep a name in their own list: a year.
const PRELOAD_MS: u64 = 365 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The policy, configured.
#[derive(Debug)]
pub struct SecurityHeaders {
    /// Names and values, HSTS apart.
    fields: Vec<(String, String)>,
    hsts: Option<String>,
    remove: Vec<String>,
    overwrites: bool,
    /// The request field of the nonce, if there is one.
    nonce: Option<String>,
}

impl Plugin for SecurityHeaders {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, Self::read)?;
        let mut view: Vec<&str> = vec!["req.:scheme", "@state", HSTS];
        view.extend(made.fields.iter().map(|(name, _)| name.as_str()));
        view.extend(made.remove.iter().map(String::as_str));
        // Asked for one by one, as it cannot be joined.
        view.retain(|name| *name != "set-cookie");
        view.sort_unstable();
        view.dedup();
        setup.response_view(view);
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        if let Some(header) = &self.nonce {
            let nonce = nonce();
            request.set(header, &nonce)?;
            exchange::set_state(nonce.as_bytes())?;
        }
        Ok(Action::Next)
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        for name in &self.remove {
            if response.get(name).is_some() || name == "set-cookie" {
                response.remove(name)?;
            }
        }
        if let Some(hsts) = &self.hsts
            // Over clear text a browser has to ignore it (RFC 6797, 8.1).
            && response.get("req.:scheme").as_deref() == Some("https")
            && (self.overwrites || response.get(HSTS).is_none())
        {
            response.set(HSTS, hsts)?;
        }
        for (name, value) in &self.fields {
            if !self.overwrites && response.get(name).is_some() {
                continue;
            }
            if value.contains(NONCE) {
                // Empty if another policy answered before this one saw the request.
                let known = response.get("@state").filter(|state| !state.is_empty());
                let nonce = known.unwrap_or_else(nonce);
                response.set(name, &value.replace(NONCE, &nonce))?;
            } else {
                response.set(name, value)?;
            }
        }
        Ok(Action::Next)
    }
}

impl SecurityHeaders {
    fn read(config: &Section<'_>) -> Option<Self> {
        let mut fields = Vec::new();
        let mut push = |name: &str, value: Option<String>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let csp = config.get(CSP).field_value();
        let report = config.get(CSP_REPORT_ONLY).field_value();
        let has_nonce = [&csp, &report]
            .into_iter()
            .flatten()
            .any(|policy| policy.contains(NONCE));
        push(CSP, csp);
        push(CSP_REPORT_ONLY, report);
        let nosniff = config.get("nosniff").flag().unwrap_or(true);
        push(
            "x-content-type-options",
            nosniff.then(|| "nosniff".to_owned()),
        );
        let frames = config.get("frame-options");
        let frames = frames.one_of(&[("deny", "DENY"), ("sameorigin", "SAMEORIGIN")]);
        push("x-frame-options", frames.map(str::to_owned));
        let referrer = config.get("referrer-policy");
        let referrer = match referrer.is_given() {
            true => referrer.field_value(),
            false => Some(DEFAULT_REFERRER_POLICY.to_owned()),
        };
        push(
            "referrer-policy",
            referrer.filter(|value| !value.is_empty()),
        );
        push(
            "permissions-policy",
            config.get("permissions-policy").field_value(),
        );
        for name in [
            "cross-origin-opener-policy",
            "cross-origin-embedder-policy",
            "cross-origin-resource-policy",
        ] {
            push(name, config.get(name).field_value());
        }
        let nonce_header = config.get("nonce-header");
        if nonce_header.is_given() && !has_nonce {
            nonce_header.wrong::<()>("there is no `{nonce}` in a content-security-policy");
        }
        let nonce_header = nonce_header.field_name();
        let hsts = config.get("hsts").section(hsts);
        let remove = config.get("remove").list(|item| item.field_name());
        let overwrites = config.get("overwrite").flag();
        Some(Self {
            fields,
            hsts,
            remove: remove.unwrap_or_default(),
            overwrites: overwrites.unwrap_or(false),
            nonce: has_nonce
                .then(|| nonce_header.unwrap_or_else(|| DEFAULT_NONCE_HEADER.to_owned())),
        })
    }
}

/// The value of `strict-transport-security`.
fn hsts(section: &Section<'_>) -> Option<String> {
    let max_age = section
        .get("max-age")
        .duration_ms(0..=2 * PRELOAD_MS)
        .unwrap_or(PRELOAD_MS);
    let subdomains = section.get("subdomains").flag().unwrap_or(false);
    let preload = section.get("preload").flag().unwrap_or(false);
    if preload && (!subdomains || max_age < PRELOAD_MS) {
        return section.wrong("preload: needs `subdomains = true` and a max-age of 365d or more");
    }
    let mut value = format!("max-age={}", max_age / 1000);
    if subdomains {
        value.push_str("; includeSubDomains");
    }
    if preload {
        value.push_str("; preload");
    }
    Some(value)
}

/// Random, in base64url.
fn nonce() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes = random::bytes(NONCE_BYTES);
    let mut text = String::with_capacity(bytes.len() / 3 * 4);
    for three in bytes.chunks_exact(3) {
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(bits >> shift & 63) as usize]));
        }
    }
    text
}

postern_plugin::export!(SecurityHeaders: request, response);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    fn exchange(scheme: &str) -> Exchange {
        let mut exchange = Exchange::new("GET", "/");
        exchange.scheme = scheme.to_owned();
        exchange
    }

    #[test]
    fn fields_are_added_and_those_of_the_upstream_stand_unless_told_otherwise() {
        for (config, want) in [
            ("{}", "same-origin"),
            (r#"{"overwrite":true}"#, DEFAULT_REFERRER_POLICY),
        ] {
            let plugin = mock::configure::<SecurityHeaders>(config).unwrap();
            let mut exchange = exchange("http");
            exchange.response.append("referrer-policy", "same-origin");
            plugin.on_request(&mut exchange).unwrap();
            plugin.on_response(&mut exchange).unwrap();
            assert_eq!(
                exchange.response.get("referrer-policy"),
                Some(want),
                "{config}"
            );
            assert_eq!(
                exchange.response.get("x-content-type-options"),
                Some("nosniff")
            );
        }
    }

    #[test]
    fn transport_security_is_spoken_of_over_tls_only() {
        let config = r#"{ "hsts": { "max-age": "730d", "subdomains": true, "preload": true } }"#;
        let plugin = mock::configure::<SecurityHeaders>(config).unwrap();
        let want = "max-age=63072000; includeSubDomains; preload";
        for (scheme, want) in [("http", None), ("https", Some(want))] {
            let mut exchange = exchange(scheme);
            plugin.on_response(&mut exchange).unwrap();
            assert_eq!(exchange.response.get(HSTS), want, "{scheme}");
        }
    }

    #[test]
    fn each_request_has_a_nonce_of_its_own() {
        let config = r#"{ "content-security-policy": "script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'" }"#;
        let plugin = mock::configure::<SecurityHeaders>(config).unwrap();
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let mut exchange = exchange("https").header("x-csp-nonce", "the client's own");
            plugin.on_request(&mut exchange).unwrap();
            plugin.on_response(&mut exchange).unwrap();
            let nonces_sent: Vec<&str> = exchange.request.all("x-csp-nonce").collect();
            let nonce = nonces_sent[0].to_owned();
            assert_eq!((nonces_sent.len(), nonce.len()), (1, 24));
            assert_eq!(
                exchange.response.get(CSP).unwrap(),
                format!("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'")
            );
            nonces.push(nonce);
        }
        assert_ne!(nonces[0], nonces[1]);
    }

    #[test]
    fn fields_that_say_too_much_are_removed() {
        let config =
            r#"{ "remove": ["Server", "x-powered-by"], "nosniff": false, "referrer-policy": "" }"#;
        let plugin = mock::configure::<SecurityHeaders>(config).unwrap();
        let mut exchange = exchange("http");
        exchange.response.append("server", "app/1.0");
        plugin.on_response(&mut exchange).unwrap();
        assert_eq!(exchange.response, mock::Message::default());
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            (r#"{ "hsts": { "preload": true } }"#, "preload: needs"),
            (
                r#"{ "hsts": { "max-age": "999d" } }"#,
                "hsts.max-age: must be from 0ms to 730d",
            ),
            (
                r#"{ "nonce-header": "x-nonce" }"#,
                "nonce-header: there is no `{nonce}`",
            ),
            (
                r#"{ "frame-options": "allow" }"#,
                "frame-options: must be one of",
            ),
            (r#"{ "csp": "x" }"#, "csp: is not known"),
            (
                r#"{ "permissions-policy": "a\nb" }"#,
                "permissions-policy: a value has no control",
            ),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<SecurityHeaders>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
