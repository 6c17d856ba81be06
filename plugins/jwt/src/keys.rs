//! The keys of the issuer: fetched when they are needed, kept, and fetched again.
//!
//! Each instance has its own, and an instance has one call at a time: so it never asks twice at
//! once. How often it asks does not depend on what clients send: a token with a key that is not
//! known makes it ask at most every [`MIN_INTERVAL_MS`].

use std::cell::RefCell;

use postern_plugin::callout::Call;
use postern_plugin::config::Section;
use postern_plugin::crypto;
use postern_plugin::crypto::Key;
use postern_plugin::json::Value;
use postern_plugin::log;

use crate::jwk::Jwk;
use crate::token::Denial;
use crate::token::Token;

/// Between two attempts, whatever the reason.
pub(crate) const MIN_INTERVAL_MS: u64 = 30_000;
/// After an attempt that failed, while there are no keys at all.
pub(crate) const RETRY_MS: u64 = 2_000;
const DEFAULT_REFRESH_MS: u64 = 10 * 60_000;
const DEFAULT_MAX_STALE_MS: u64 = 24 * 60 * 60_000;
const DAY_MS: u64 = 24 * 60 * 60_000;
/// Of the answer.
const MAX_SET: u32 = 256 << 10;
/// Keys of one set; further ones are not looked at.
const MAX_KEYS: usize = 64;
/// Keys that a token without `kid` is tried with.
const MAX_TRIED: usize = 4;

pub(crate) struct Keys {
    upstream: String,
    path: String,
    host: Option<String>,
    timeout_ms: u32,
    refresh_ms: u64,
    max_stale_ms: u64,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    keys: Vec<Jwk>,
    fetched_ms: Option<u64>,
    tried_ms: Option<u64>,
    is_out: bool,
}

impl Keys {
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let upstream = section.need("upstream").text();
        let path = section
            .need("path")
            .parsed(|path| match path.starts_with('/') {
                true => Ok(path.to_owned()),
                false => Err("must be a path that begins with `/`".to_owned()),
            });
        let host = section.get("host").field_value();
        let timeout = section.get("timeout").duration_ms(10..=60_000);
        let refresh = section.get("refresh").duration_ms(MIN_INTERVAL_MS..=DAY_MS);
        let max_stale = section
            .get("max-stale")
            .duration_ms(MIN_INTERVAL_MS..=30 * DAY_MS);
        Some(Self {
            upstream: upstream?,
            path: path?,
            host,
            timeout_ms: timeout.and_then(|ms| ms.try_into().ok()).unwrap_or(0),
            refresh_ms: refresh.unwrap_or(DEFAULT_REFRESH_MS),
            max_stale_ms: max_stale.unwrap_or(DEFAULT_MAX_STALE_MS),
            state: RefCell::default(),
        })
    }

    /// Whether a key of the issuer signed the token. `now_ms` is of a clock that never goes back.
    pub(crate) fn verify(&self, token: &Token<'_>, now_ms: u64) -> Result<(), Denial> {
        let mut state = self.state.borrow_mut();
        let is_fresh = state
            .fetched_ms
            .is_some_and(|at| now_ms.saturating_sub(at) < self.refresh_ms);
        let is_known = state.keys.iter().any(|key| fits(key, token));
        if !is_fresh || !is_known {
            self.refresh(&mut state, now_ms);
        }
        let is_usable = |at: u64| now_ms.saturating_sub(at) < self.max_stale_ms;
        if !state.fetched_ms.is_some_and(is_usable) {
            return Err(Denial::NoKeys);
        }
        let mut denial = Denial::UnknownKey;
        for key in state
            .keys
            .iter()
            .filter(|key| fits(key, token))
            .take(MAX_TRIED)
        {
            let spki = Key::Bytes(key.spki.clone());
            let signed = token.signed.as_bytes();
            let verified =
                crypto::verify(token.algorithm.signature(), &spki, signed, &token.signature);
            // An error is about the key: it is as good as none.
            match verified {
                Ok(true) => return Ok(()),
                Ok(false) => denial = Denial::Signature,
                Err(_) => {}
            }
        }
        Err(denial)
    }

    fn refresh(&self, state: &mut State, now_ms: u64) {
        let interval = if state.fetched_ms.is_some() {
            MIN_INTERVAL_MS
        } else {
            RETRY_MS
        };
        if state
            .tried_ms
            .is_some_and(|at| now_ms.saturating_sub(at) < interval)
        {
            return;
        }
        state.tried_ms = Some(now_ms);
        match self.fetch() {
            Ok(keys) => {
                state.keys = keys;
                state.fetched_ms = Some(now_ms);
                state.is_out = false;
            }
            Err(reason) => {
                if !std::mem::replace(&mut state.is_out, true) {
                    let fields = [
                        ("upstream", self.upstream.as_str()),
                        ("error", reason.as_str()),
                    ];
                    log::warn("the keys cannot be fetched", &fields);
                }
            }
        }
    }

    fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let mut call = Call::get(self.upstream.as_str(), self.path.as_str())
            .header("accept", "application/json")
            .timeout_ms(self.timeout_ms);
        if let Some(host) = &self.host {
            call = call.header("host", host.as_str());
        }
        call.max_response_bytes = MAX_SET;
        let answer = call.send().map_err(|error| error.message().to_owned())?;
        if answer.status != 200 {
            return Err(format!("it answered {}", answer.status));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| "it is not UTF-8")?;
        let set = Value::parse(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("it has no `keys`")?;
        let keys: Vec<Jwk> = keys.iter().take(MAX_KEYS).filter_map(Jwk::read).collect();
        if keys.is_empty() {
            return Err("it has no key that verifies signatures".to_owned());
        }
        Ok(keys)
    }
}

fn fits(key: &Jwk, token: &Token<'_>) -> bool {
    let is_it = token.key_id.is_none() || token.key_id == key.id;
    is_it && key.algorithms.contains(&token.algorithm)
}
