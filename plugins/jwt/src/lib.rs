//! JWT: lets requests with a signed token pass, and tells the application what the token says.
//!
//! Invariants:
//! - What is believed was signed by a key of the issuer, with an algorithm that the operator allows
//!   and that fits the key. There is no `none`, and no algorithm whose verifiers can sign.
//! - A field that a claim is to set never reaches the application as the client sent it.
//! - Nothing in a token ends the call: it is good, or the client gets 401 with the reason.

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::clock;
use postern_plugin::config;
use postern_plugin::config::Item;
use postern_plugin::config::Section;
use postern_plugin::exchange;
use postern_plugin::json::Value;

mod claims;
mod jwk;
mod keys;
mod token;

use claims::Claim;
use claims::Rules;
use keys::Keys;
use token::Algorithm;
use token::Denial;

/// The variable by which the access log sees why a token was refused.
const VARIABLE: &str = "jwt";

/// The policy, configured.
pub struct Jwt {
    source: Source,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    /// Fields of the request, and what sets them.
    set: Vec<(String, Claim)>,
    passes_without: bool,
    keeps_token: bool,
    realm: String,
    keys: Keys,
}

/// Where the token is.
enum Source {
    /// `authorization: Bearer TOKEN`.
    Bearer,
    Header(String),
    Cookie(String),
}

impl Plugin for Jwt {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, Self::read)?;
        match &made.source {
            Source::Bearer => setup.request_view(["authorization"]),
            Source::Header(name) => setup.request_view([name.as_str()]),
            Source::Cookie(_) => {}
        }
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let found = self.token(request);
        for (header, _) in &self.set {
            request.remove(header)?;
        }
        let checked = match &found {
            Some(token) => self.check(token),
            None if self.passes_without => return Ok(Action::Next),
            None => Err(Denial::Missing),
        };
        let claims = match checked {
            Ok(claims) => claims,
            Err(denial) => {
                exchange::set_var(VARIABLE, denial.label())?;
                return Ok(self.refusal(&denial).into());
            }
        };
        for (header, claim) in &self.set {
            if let Some(value) = claim.as_field(&claims) {
                request.set(header, &value)?;
            }
        }
        if !self.keeps_token {
            self.remove_token(request)?;
        }
        Ok(Action::Next)
    }
}

impl Jwt {
    fn read(config: &Section<'_>) -> Option<Self> {
        let keys = config.need("jwks").section(Keys::read);
        let algorithms = config.get("algorithms");
        let algorithms = match algorithms.is_given() {
            true => algorithms.list(|item| item.one_of(&Algorithm::NAMES)),
            false => Some(Algorithm::NAMES.map(|(_, algorithm)| algorithm).to_vec()),
        };
        let rules = Rules::read(config);
        let set = config.get("set-headers").pairs(|name, item| {
            let claim = Claim::read(item);
            config::field_name(name).map_or_else(
                |message| config.wrong(&format!("set-headers.{name}: {message}")),
                |name| Some((name, claim?)),
            )
        });
        let source = config.get("token");
        let source = match source.is_given() {
            true => source.section(source_of),
            false => Some(Source::Bearer),
        };
        let missing = config.get("on-missing");
        let missing = missing.one_of(&[("deny", false), ("pass", true)]);
        let keeps_token = config.get("keep-token").flag();
        let realm = config.get("realm").parsed(|realm| {
            let is_char = |c: char| c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\');
            match realm.chars().all(is_char) {
                true => Ok(realm.to_owned()),
                false => Err("must be ASCII without quotes and backslashes".to_owned()),
            }
        });
        if algorithms.as_ref().is_some_and(Vec::is_empty) {
            config.wrong::<()>("algorithms: without one no token is good");
        }
        Some(Self {
            source: source?,
            algorithms: algorithms?,
            rules: rules?,
            set: set.unwrap_or_default(),
            passes_without: missing.unwrap_or(false),
            keeps_token: keeps_token.unwrap_or(false),
            realm: realm.unwrap_or_else(|| "restricted".to_owned()),
            keys: keys?,
        })
    }

    /// The token of the request. A field of another scheme has none.
    fn token(&self, request: &Request) -> Option<String> {
        match &self.source {
            Source::Bearer => {
                let value = request.get("authorization")?;
                let (scheme, token) = value.split_once(' ')?;
                scheme
                    .eq_ignore_ascii_case("bearer")
                    .then(|| token.trim().to_owned())
            }
            Source::Header(name) => request.get(name),
            Source::Cookie(name) => request.cookie(name),
        }
        .filter(|token| !token.is_empty())
    }

    fn check(&self, text: &str) -> Result<Value, Denial> {
        let token = token::Token::parse(text, &self.algorithms)?;
        self.keys
            .verify(&token, clock::monotonic_ns() / 1_000_000)?;
        let claims = token.claims()?;
        self.rules.check(&claims, clock::now_ms() / 1000)?;
        Ok(claims)
    }

    fn refusal(&self, denial: &Denial) -> Reply {
        let realm = &self.realm;
        let challenge = match denial {
            Denial::NoKeys => {
                return Reply::text(503, "try again later\n")
                    .header("cache-control", "no-store")
                    .header("retry-after", "10");
            }
            // Who sent none is not told of an error (RFC 6750, 3.1).
            Denial::Missing => format!("Bearer realm=\"{realm}\""),
            denial => format!(
                "Bearer realm=\"{realm}\", error=\"{}\", error_description=\"{}\"",
                denial.code(),
                denial.description()
            ),
        };
        Reply::text(denial.status(), format!("{}\n", denial.description()))
            .header("www-authenticate", challenge)
            .header("cache-control", "no-store")
    }

    fn remove_token(&self, request: &mut Request) -> Result<(), Fault> {
        match &self.source {
            Source::Bearer => request.remove("authorization")?,
            Source::Header(name) => request.remove(name)?,
            Source::Cookie(name) => {
                let fields = request.get_all("cookie");
                let pairs = fields
                    .iter()
                    .flat_map(|field| field.split(';'))
                    .map(str::trim);
                let is_other =
                    |pair: &&str| pair.split('=').next() != Some(name) && !pair.is_empty();
                let others: Vec<&str> = pairs.filter(is_other).collect();
                match others.as_slice() {
                    [] => request.remove("cookie")?,
                    others => request.set("cookie", &others.join("; "))?,
                }
            }
        }
        Ok(())
    }
}

fn source_of(section: &Section<'_>) -> Option<Source> {
    let header = section.get("header").field_name();
    let cookie = section
        .get("cookie")
        .parsed(|name| match config::is_token(name) {
            true => Ok(name.to_owned()),
            false => Err("not the name of a cookie".to_owned()),
        });
    match (header, cookie) {
        (Some(header), None) if header == "authorization" => Some(Source::Bearer),
        (Some(header), None) if header != "set-cookie" => Some(Source::Header(header)),
        (None, Some(cookie)) => Some(Source::Cookie(cookie)),
        _ => section.wrong("must be { header = NAME } or { cookie = NAME }"),
    }
}

/// A text, or a list of them.
fn texts(item: Item<'_>) -> Option<Vec<String>> {
    match item.value()? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) if items.is_empty() => item.wrong("must not be empty"),
        Value::Array(_) => item.list(|item| item.text()),
        _ => item.wrong("must be a text or a list of texts"),
    }
}

postern_plugin::export!(Jwt: request);

#[cfg(test)]
mod tests;
