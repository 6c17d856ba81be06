//! CORS: says which pages of other origins may use a route, as the Fetch standard has it.
//!
//! The fields of CORS are this policy's alone: what an upstream says about origins is removed, so
//! that there are no two answers to one question. It keeps nobody out: what is not a browser does
//! not ask.

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Response;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::exchange;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";
const FIELDS: [&str; 6] = [
    ALLOW_ORIGIN,
    ALLOW_CREDENTIALS,
    ALLOW_METHODS,
    ALLOW_HEADERS,
    EXPOSE_HEADERS,
    MAX_AGE,
];
const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";
/// The state of an exchange whose answer is already whole.
const PREFLIGHT: &[u8] = b"preflight";

const DEFAULT_MAX_AGE_MS: u64 = 2 * 60 * 60 * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The policy, configured.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    methods: String,
    /// None: what the preflight asks for.
    headers: Option<String>,
    expose: String,
    credentials: bool,
    max_age: String,
}

#[derive(Debug, PartialEq)]
enum Origin {
    Any,
    /// In lower case.
    Exact(String),
    /// `https://*.example.com`: what stands before and behind one label.
    Subdomain {
        before: String,
        behind: String,
    },
}

impl Plugin for Cors {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view([":method", "origin", REQUEST_METHOD]);
        setup.response_view(
            FIELDS
                .iter()
                .copied()
                .chain(["req.origin", "vary", "@state"]),
        );
        config::read(config, |config| {
            let origins = config.need("origins").list(|item| item.parsed(origin));
            let methods = config.get("methods").list(|item| {
                item.parsed(|method| match config::is_token(method) {
                    true => Ok(method.to_owned()),
                    false => Err("not a method".to_owned()),
                })
            });
            let names = |key| config.get(key).list(|item| item.field_name());
            let (headers, expose) = (names("headers"), names("expose"));
            let credentials = config.get("credentials").flag().unwrap_or(false);
            let max_age = config.get("max-age").duration_ms(0..=DAY_MS);
            let origins = origins?;
            if origins.is_empty() {
                return config.wrong("origins: without one the policy says nothing");
            }
            if credentials && origins.contains(&Origin::Any) {
                return config.wrong(
                    "credentials: not with the origin \"*\", which would let any page act for a user \
                     who is logged in; name the origins",
                );
            }
            Some(Self {
                origins,
                methods: methods.map_or_else(|| "GET, HEAD, POST".to_owned(), |m| m.join(", ")),
                headers: headers.map(|names| names.join(", ")),
                expose: expose.unwrap_or_default().join(", "),
                credentials,
                max_age: (max_age.unwrap_or(DEFAULT_MAX_AGE_MS) / 1000).to_string(),
            })
        })
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let Some(origin) = request.get("origin") else {
            return Ok(Action::Next);
        };
        if request.method() != "OPTIONS" || request.get(REQUEST_METHOD).is_none() {
            return Ok(Action::Next);
        }
        // Whoever answers is shown its own answer.
        exchange::set_state(PREFLIGHT)?;
        let mut reply = Reply::new(204);
        if self.allowed(&origin).is_some() {
            reply = reply
                .header(ALLOW_METHODS, self.methods.as_str())
                .header(MAX_AGE, self.max_age.as_str());
            let headers = self
                .headers
                .clone()
                .or_else(|| request.get(REQUEST_HEADERS));
            // Joined from several fields it may end with a space, which no field does.
            if let Some(headers) = headers.as_deref().map(str::trim).filter(|h| !h.is_empty()) {
                reply = reply.header(ALLOW_HEADERS, headers);
            }
            reply = self.add_to(reply, &origin);
        }
        let varies = match self.headers {
            Some(_) => "Origin, Access-Control-Request-Method",
            None => "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        };
        Ok(reply.header("vary", varies).into())
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        if response
            .get("@state")
            .is_some_and(|state| state.as_bytes() == PREFLIGHT)
        {
            return Ok(Action::Next);
        }
        let origin = response.get("req.origin");
        let allowed = origin.as_deref().and_then(|origin| self.allowed(origin));
        for name in FIELDS {
            if response.get(name).is_some() {
                response.remove(name)?;
            }
        }
        if let Some(allowed) = allowed {
            response.set(ALLOW_ORIGIN, allowed)?;
            if self.credentials {
                response.set(ALLOW_CREDENTIALS, "true")?;
            }
            if !self.expose.is_empty() {
                response.set(EXPOSE_HEADERS, &self.expose)?;
            }
        }
        // A cache must not give one origin's answer to another, nor that without an origin.
        if !self.origins.contains(&Origin::Any) && !varies_by_origin(response) {
            response.append("vary", "Origin")?;
        }
        Ok(Action::Next)
    }
}

impl Cors {
    /// What the response says of an origin.
    fn allowed<'o>(&self, origin: &'o str) -> Option<&'o str> {
        if self.origins.contains(&Origin::Any) {
            return Some("*");
        }
        let lower = origin.to_ascii_lowercase();
        self.origins
            .iter()
            .any(|allowed| allowed.allows(&lower))
            .then_some(origin)
    }

    fn add_to(&self, mut reply: Reply, origin: &str) -> Reply {
        if let Some(allowed) = self.allowed(origin) {
            reply = reply.header(ALLOW_ORIGIN, allowed);
        }
        if self.credentials {
            reply = reply.header(ALLOW_CREDENTIALS, "true");
        }
        reply
    }
}

fn varies_by_origin(response: &Response) -> bool {
    let vary = response.get("vary").unwrap_or_default();
    vary.split(',')
        .map(str::trim)
        .any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
}

impl Origin {
    fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::Subdomain { before, behind } => {
                let label = origin.strip_prefix(before.as_str());
                let label = label.and_then(|rest| rest.strip_suffix(behind.as_str()));
                let is_char = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(is_char))
            }
        }
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    if text == "*" {
        return Ok(Origin::Any);
    }
    let form = || {
        format!(
            "\"{text}\" must be \"*\" or an origin without a path, as in \"https://app.example.com\" \
             or \"https://*.example.com\""
        )
    };
    let lower = text.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(form)?;
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
    let name = host.strip_prefix("*.");
    let plain = name.unwrap_or(host);
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_scheme || plain.is_empty() || !plain.bytes().all(is_char) {
        return Err(form());
    }
    Ok(match name {
        Some(name) => Origin::Subdomain {
            before: format!("{scheme}://"),
            behind: format!(".{name}"),
        },
        None => Origin::Exact(lower),
    })
}

postern_plugin::export!(Cors: request, response);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    const NAMED: &str = r#"{
        "origins": ["https://a.test", "https://*.b.test:8443"],
        "credentials": true, "methods": ["GET", "PUT"], "expose": ["X-Total"]
    }"#;

    fn told(config: &str, origin: &str) -> Option<String> {
        let cors = mock::configure::<Cors>(config).unwrap();
        let mut exchange = Exchange::new("GET", "/").header("origin", origin);
        exchange
            .response
            .append(ALLOW_ORIGIN, "https://upstream.test");
        assert_eq!(cors.on_request(&mut exchange), Ok(Action::Next));
        assert_eq!(cors.on_response(&mut exchange), Ok(Action::Next));
        exchange.response.get(ALLOW_ORIGIN).map(str::to_owned)
    }

    #[test]
    fn an_origin_is_allowed_whole_or_by_one_label() {
        let cases = [
            ("https://a.test", true),
            ("HTTPS://A.test", true),
            ("https://a.test.evil.test", false),
            ("https://evila.test", false),
            ("http://a.test", false),
            ("https://a.test:8443", false),
            ("https://x.b.test:8443", true),
            ("https://b.test:8443", false),
            ("https://x.y.b.test:8443", false),
            ("https://.b.test:8443", false),
            ("https://evil.test/.b.test:8443", false),
            ("null", false),
            ("", false),
        ];
        for (origin, want) in cases {
            assert_eq!(
                told(NAMED, origin).as_deref(),
                want.then_some(origin),
                "{origin}"
            );
        }
        assert_eq!(
            told(r#"{ "origins": ["*"] }"#, "https://x.test").as_deref(),
            Some("*")
        );
    }

    fn preflight(config: &str, origin: &str) -> Reply {
        let cors = mock::configure::<Cors>(config).unwrap();
        let mut exchange = Exchange::new("OPTIONS", "/")
            .header("origin", origin)
            .header(REQUEST_METHOD, "PUT")
            .header(REQUEST_HEADERS, "x-a, x-b");
        let Action::Respond(reply) = cors.on_request(&mut exchange).unwrap() else {
            panic!("not a reply");
        };
        // The gateway shows the answer to who made it; nothing is to be added or taken away.
        for (name, value) in &reply.headers {
            exchange.response.append(name, value);
        }
        let before = exchange.response.clone();
        cors.on_response(&mut exchange).unwrap();
        assert_eq!(exchange.response, before);
        reply
    }

    #[test]
    fn a_preflight_is_answered_and_goes_no_further() {
        let reply = preflight(NAMED, "https://a.test");
        let field = |name: &str| {
            let found = reply.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(reply.status, 204);
        assert_eq!(field(ALLOW_ORIGIN), Some("https://a.test"));
        assert_eq!(field(ALLOW_METHODS), Some("GET, PUT"));
        assert_eq!(field(ALLOW_HEADERS), Some("x-a, x-b"));
        assert_eq!(field(ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(field(MAX_AGE), Some("7200"));
        let fixed = r#"{ "origins": ["*"], "headers": ["X-A"] }"#;
        let reply = preflight(fixed, "https://x.test");
        assert!(
            reply
                .headers
                .contains(&(ALLOW_HEADERS.into(), "x-a".into()))
        );

        let refused = preflight(NAMED, "https://evil.test");
        assert_eq!(refused.status, 204);
        assert!(
            refused.headers.iter().all(|(name, _)| name == "vary"),
            "{refused:?}"
        );
    }

    #[test]
    fn a_plain_options_request_is_the_applications() {
        let cors = mock::configure::<Cors>(NAMED).unwrap();
        for exchange in [
            Exchange::new("OPTIONS", "/").header("origin", "https://a.test"),
            Exchange::new("OPTIONS", "/").header(REQUEST_METHOD, "PUT"),
            Exchange::new("PUT", "/")
                .header("origin", "x")
                .header(REQUEST_METHOD, "PUT"),
        ] {
            assert_eq!(cors.on_request(&mut exchange.clone()), Ok(Action::Next));
        }
    }

    #[test]
    fn caches_are_told_that_answers_differ() {
        let cors = mock::configure::<Cors>(NAMED).unwrap();
        for (vary, want) in [
            (None, vec!["Origin"]),
            (Some("accept"), vec!["accept", "Origin"]),
            (Some("accept, origin"), vec!["accept, origin"]),
            (Some("*"), vec!["*"]),
        ] {
            // Of a request without an origin, too: its answer is no answer for one with.
            let mut exchange = Exchange::new("GET", "/");
            if let Some(vary) = vary {
                exchange.response.append("vary", vary);
            }
            cors.on_response(&mut exchange).unwrap();
            let got: Vec<&str> = exchange.response.all("vary").collect();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            ("{}", "origins: is missing"),
            (r#"{ "origins": [] }"#, "origins: without one"),
            (
                r#"{ "origins": ["a.test"] }"#,
                "origins[0]: \"a.test\" must be",
            ),
            (r#"{ "origins": ["https://a.test/"] }"#, "without a path"),
            (r#"{ "origins": ["https://*"] }"#, "without a path"),
            (r#"{ "origins": ["null"] }"#, "origins[0]"),
            (
                r#"{ "origins": ["*"], "credentials": true }"#,
                "credentials: not with",
            ),
            (
                r#"{ "origins": ["*"], "methods": ["GE T"] }"#,
                "methods[0]: not a method",
            ),
            (
                r#"{ "origins": ["*"], "maxage": 1 }"#,
                "maxage: is not known",
            ),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<Cors>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
