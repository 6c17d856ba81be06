//! What a token has to say, and what is made of it.

use postern_plugin::config::Item;
use postern_plugin::config::Section;
use postern_plugin::json::Value;

use crate::texts;
use crate::token::Denial;

const DEFAULT_LEEWAY_MS: u64 = 60_000;
const MAX_LEEWAY_MS: u64 = 300_000;
/// Longest field that is made of a claim.
const MAX_FIELD: usize = 4 << 10;

/// What every token has to say.
#[derive(Debug)]
pub(crate) struct Rules {
    issuers: Vec<String>,
    /// None: any.
    audiences: Option<Vec<String>>,
    leeway: u64,
    /// Claims that have to have one of these values.
    require: Vec<(Claim, Vec<String>)>,
}

/// Where a value is in a token: a name, or names through objects in each other.
#[derive(Debug)]
pub(crate) struct Claim(Vec<String>);

impl Rules {
    pub(crate) fn read(config: &Section<'_>) -> Option<Self> {
        let issuers = texts(config.need("issuer"));
        let audience = config.need("audience");
        let audiences = match audience.value() {
            Some(Value::Bool(false)) => Some(None),
            Some(Value::Bool(true)) => {
                audience.wrong("must be a text, a list of texts, or false to take any")
            }
            _ => texts(audience).map(Some),
        };
        let leeway = config.get("leeway").duration_ms(0..=MAX_LEEWAY_MS);
        let require = config.get("require").pairs(|name, item| {
            let values = texts(item)?;
            Some((Claim(vec![name.to_owned()]), values))
        });
        Some(Self {
            issuers: issuers?,
            audiences: audiences?,
            leeway: leeway.unwrap_or(DEFAULT_LEEWAY_MS) / 1000,
            require: require.unwrap_or_default(),
        })
    }

    /// `now` in seconds of Unix time.
    pub(crate) fn check(&self, claims: &Value, now: u64) -> Result<(), Denial> {
        let issuer = claims
            .get("iss")
            .and_then(Value::as_str)
            .ok_or(Denial::Issuer)?;
        if !self.issuers.iter().any(|known| known == issuer) {
            return Err(Denial::Issuer);
        }
        if let Some(audiences) = &self.audiences {
            let is_known = |audience: &str| audiences.iter().any(|known| known == audience);
            let is_for_us = match claims.get("aud") {
                Some(Value::String(audience)) => is_known(audience),
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(is_known),
                _ => false,
            };
            if !is_for_us {
                return Err(Denial::Audience);
            }
        }
        // A token without an end would be good for ever.
        let expiry = claims.get("exp").ok_or(Denial::Expired)?;
        let expiry = seconds(expiry).ok_or(Denial::Malformed)?;
        if now > expiry.saturating_add(self.leeway) {
            return Err(Denial::Expired);
        }
        if let Some(start) = claims.get("nbf") {
            let start = seconds(start).ok_or(Denial::Malformed)?;
            if now.saturating_add(self.leeway) < start {
                return Err(Denial::NotYet);
            }
        }
        for (claim, wanted) in &self.require {
            if !claim.has_one_of(claims, wanted) {
                return Err(Denial::Claim);
            }
        }
        Ok(())
    }
}

/// RFC 7519, 2: a number that may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let Value::Number(text) = value else {
        return None;
    };
    let whole = text.split('.').next()?;
    if text.contains(['e', 'E']) {
        return None;
    }
    whole.parse().ok()
}

impl Claim {
    pub(crate) fn read(item: Item<'_>) -> Option<Self> {
        texts(item).map(Self)
    }

    fn find<'v>(&self, claims: &'v Value) -> Option<&'v Value> {
        self.0
            .iter()
            .try_fold(claims, |value, name| value.get(name))
    }

    /// A list has one of its items, a scope (RFC 8693, 4.2) one of its words.
    fn has_one_of(&self, claims: &Value, wanted: &[String]) -> bool {
        let is_wanted = |text: &str| wanted.iter().any(|known| known == text);
        let is_scope = matches!(self.0.as_slice(), [name] if name == "scope" || name == "scp");
        match self.find(claims) {
            Some(Value::String(text)) if is_scope => text.split(' ').any(is_wanted),
            Some(Value::Array(items)) => {
                items.iter().filter_map(scalar).any(|text| is_wanted(&text))
            }
            Some(value) => scalar(value).is_some_and(|text| is_wanted(&text)),
            None => false,
        }
    }

    /// The value as a field has it: a list with commas between, without the items that would look
    /// like two. None for what is no value of a field.
    pub(crate) fn as_field(&self, claims: &Value) -> Option<String> {
        let text = match self.find(claims)? {
            Value::Array(items) => {
                let items = items.iter().filter_map(scalar);
                let whole = items.filter(|item| !item.is_empty() && !item.contains(','));
                whole.collect::<Vec<_>>().join(",")
            }
            value => scalar(value)?,
        };
        let text = text.trim();
        let is_field =
            !text.is_empty() && text.len() <= MAX_FIELD && !text.contains(char::is_control);
        is_field.then(|| text.to_owned())
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) | Value::Number(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
