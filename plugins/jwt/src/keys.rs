//! The keys of the issuer: fetched when they are needed, kept, and fetched again.
//!
//! Instances come and go, so the set is in the shared state as well: one that is new takes it from
//! there, also while the issuer is out. How often it is asked does not depend on what clients send:
//! a token with a key that is not known makes one of all instances ask at most every
//! [`MIN_INTERVAL_MS`].

use std::cell::RefCell;

use postern_plugin::callout::Call;
use postern_plugin::config::Section;
use postern_plugin::crypto;
use postern_plugin::crypto::Key;
use postern_plugin::json::Value;
use postern_plugin::log;
use postern_plugin::shared;

use crate::jwk::Jwk;
use crate::token::Denial;
use crate::token::Token;

/// Between two attempts, whatever the reason.
pub(crate) const MIN_INTERVAL_MS: u64 = 30_000;
/// After an attempt that failed, while there are no keys at all.
pub(crate) const RETRY_MS: u64 = 2_000;
/// Less than a call may take, so that the answer to a client is the plugin's own.
const DEFAULT_TIMEOUT_MS: u32 = 500;
const DEFAULT_REFRESH_MS: u64 = 10 * 60_000;
const DEFAULT_MAX_STALE_MS: u64 = 24 * 60 * 60_000;
const DAY_MS: u64 = 24 * 60 * 60_000;
/// Of the answer.
const MAX_SET: u32 = 256 << 10;
/// Keys of one set; further ones are not looked at.
const MAX_KEYS: usize = 64;
/// Keys that a token without `kid` is tried with.
const MAX_TRIED: usize = 4;

/// In the shared state, which outlives a change of the configuration: the set with where it is
/// from, when that was fetched, and when it was last asked for.
const SET: &str = "set";
const FETCHED: &str = "fetched";
const ASKED: &str = "asked";

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
            timeout_ms: timeout
                .and_then(|ms| ms.try_into().ok())
                .unwrap_or(DEFAULT_TIMEOUT_MS),
            refresh_ms: refresh.unwrap_or(DEFAULT_REFRESH_MS),
            max_stale_ms: max_stale.unwrap_or(DEFAULT_MAX_STALE_MS),
            state: RefCell::default(),
        })
    }

    /// Whether a key of the issuer signed the token. `now_ms` is of a clock that never goes back.
    pub(crate) fn verify(&self, token: &Token<'_>, now_ms: u64) -> Result<(), Denial> {
        let mut state = self.state.borrow_mut();
        let is_enough = |state: &State| {
            let fetched = state.fetched_ms;
            let is_fresh = fetched.is_some_and(|at| now_ms.saturating_sub(at) < self.refresh_ms);
            is_fresh && state.keys.iter().any(|key| fits(key, token))
        };
        if !is_enough(&state) {
            self.adopt(&mut state);
        }
        if !is_enough(&state) {
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

    /// Takes over what another instance has fetched since.
    fn adopt(&self, state: &mut State) {
        // The set is looked at only if it is newer: it is large, and clients can make this happen.
        let fetched = shared::get(FETCHED).and_then(|bytes| bytes.try_into().ok());
        let fetched = fetched.map(u64::from_le_bytes);
        if fetched <= state.fetched_ms {
            return;
        }
        let set = shared::get(SET).and_then(|bytes| String::from_utf8(bytes).ok());
        let text = set.as_deref().and_then(|set| set.split_once('\n'));
        if let Some((source, text)) = text
            && *source == self.source()
            && let Ok(keys) = read(text)
        {
            state.keys = keys;
            state.fetched_ms = fetched;
        }
    }

    /// One line: a set from elsewhere is none of this issuer's.
    fn source(&self) -> String {
        let host = self.host.as_deref().unwrap_or_default();
        let source = format!("{} {} {host}", self.upstream, self.path);
        source.replace('\n', " ")
    }

    fn refresh(&self, state: &mut State, now_ms: u64) {
        let may_ask = match state.fetched_ms {
            Some(_) => is_turn(now_ms),
            // There is nothing to go on with, so each tries for itself.
            None => {
                let tried = state.tried_ms;
                tried.is_none_or(|at| now_ms.saturating_sub(at) >= RETRY_MS)
            }
        };
        if !may_ask {
            return;
        }
        state.tried_ms = Some(now_ms);
        shared::set(ASKED, &now_ms.to_le_bytes(), DAY_MS);
        let fetched = self
            .fetch()
            .and_then(|text| read(&text).map(|keys| (text, keys)));
        match fetched {
            Ok((text, keys)) => {
                let set = format!("{}\n{text}", self.source());
                if shared::set(SET, set.as_bytes(), self.max_stale_ms) {
                    shared::set(FETCHED, &now_ms.to_le_bytes(), self.max_stale_ms);
                }
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

    fn fetch(&self) -> Result<String, String> {
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
        String::from_utf8(answer.body).map_err(|_| "it is not UTF-8".to_owned())
    }
}

/// Whether this is the one of all instances that asks now.
fn is_turn(now_ms: u64) -> bool {
    let asked = shared::get(ASKED);
    let at = asked.clone().and_then(|bytes| bytes.try_into().ok());
    let at = at.map(u64::from_le_bytes);
    at.is_none_or(|at| now_ms.saturating_sub(at) >= MIN_INTERVAL_MS)
        && shared::compare_and_set(ASKED, asked.as_deref(), &now_ms.to_le_bytes(), DAY_MS)
}

fn read(text: &str) -> Result<Vec<Jwk>, String> {
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

fn fits(key: &Jwk, token: &Token<'_>) -> bool {
    let is_it = token.key_id.is_none() || token.key_id == key.id;
    is_it && key.algorithms.contains(&token.algorithm)
}
