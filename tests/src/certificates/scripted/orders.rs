//! Orders of the scripted authority, one authorization a name.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rcgen::CertificateParams;
use rcgen::KeyPair;
use rcgen::PublicKeyData;
use rcgen::SerialNumber;
use rcgen::SignatureAlgorithm;
use serde_json::Value;
use serde_json::json;
use std::time::SystemTime;

use super::Answer;
use super::LOOK;
use super::Shared;
use super::Signed;
use super::State;
use super::located;
use super::problem;
use super::reply;
use crate::client;

/// What stands before the point of a key on P-256 in a request for a certificate.
const POINT: &[u8] = &[0x03, 0x42, 0x00];

pub(super) struct Order {
    account: usize,
    names: Vec<String>,
    /// Whether each name was validated; `None`: that was tried, and failed.
    valid: Vec<Option<bool>>,
    /// The public key that was finalized with.
    key: Option<Vec<u8>>,
    chain: Option<String>,
}

impl Shared {
    pub(super) fn new_order(&self, signed: &Signed) -> Answer {
        let mut state = self.lock();
        if let Some((kind, words)) = state.script.refuses_orders {
            return problem(if kind == "rateLimited" { 429 } else { 403 }, kind, words);
        }
        let replaces = signed.payload["replaces"].is_string();
        if let Some(kind) = state.script.refuses_replacement.filter(|_| replaces) {
            return problem(409, kind, "this certificate cannot be replaced");
        }
        let identifiers = signed.payload["identifiers"].as_array().cloned();
        let names: Vec<String> = identifiers
            .unwrap_or_default()
            .iter()
            .filter_map(|identifier| identifier["value"].as_str().map(str::to_owned))
            .collect();
        let account = signed.account.unwrap_or_default();
        let known = state.orders.iter().position(|order| {
            order.account == account
                && order.names == names
                && order.key.is_none()
                && !order.valid.contains(&None)
        });
        let index = known.unwrap_or_else(|| {
            state.counts.orders += 1;
            state.counts.replacements += usize::from(replaces);
            let is_known = state.script.knows_names;
            state.orders.push(Order {
                account,
                valid: vec![Some(is_known); names.len()],
                names,
                key: None,
                chain: None,
            });
            state.orders.len() - 1
        });
        let value = self.view(&state, index);
        located(201, &value, &self.base, "order", index)
    }

    pub(super) fn order(&self, rest: &str) -> Answer {
        let mut state = self.lock();
        let Some(index) = index(rest, &state) else {
            return problem(404, "malformed", "not found");
        };
        self.work(&mut state, index);
        let mut answer = reply(200, &self.view(&state, index));
        if let Some(seconds) = state.script.retry_after {
            let value = seconds.to_string().parse().unwrap();
            answer.headers_mut().insert("retry-after", value);
        }
        answer
    }

    fn view(&self, state: &State, index: usize) -> Value {
        let order = &state.orders[index];
        let url = |kind: &str, rest: String| format!("{}/{kind}/{rest}", self.base);
        let status = if order.valid.contains(&None) {
            "invalid"
        } else if order.chain.is_some() {
            "valid"
        } else if order.key.is_some() {
            "processing"
        } else if order.valid.iter().all(|valid| *valid == Some(true)) {
            "ready"
        } else {
            "pending"
        };
        let names = 0..order.names.len();
        let mut value = json!({
            "status": status,
            "authorizations": names
                .map(|name| url("authorization", format!("{index}-{name}")))
                .collect::<Vec<_>>(),
            "finalize": url("finalize", index.to_string()),
        });
        if order.chain.is_some() {
            value["certificate"] = json!(url("certificate", index.to_string()));
        }
        value
    }

    pub(super) fn authorization(&self, rest: &str) -> Answer {
        let state = self.lock();
        let Some((order, name)) = pair(rest, &state) else {
            return problem(404, "malformed", "not found");
        };
        let challenge = self.offer(&state, rest, order, name);
        reply(
            200,
            &json!({
                "status": challenge["status"],
                "identifier": { "type": "dns", "value": state.orders[order].names[name] },
                "challenges": [challenge],
            }),
        )
    }

    /// The challenge of one name, as it is now.
    fn offer(&self, state: &State, rest: &str, order: usize, name: usize) -> Value {
        let valid = state.orders[order].valid[name];
        let status = match valid {
            Some(true) => "valid",
            Some(false) => "pending",
            None => "invalid",
        };
        let mut challenge = json!({
            "type": "http-01",
            "url": format!("{}/challenge/{rest}", self.base),
            "status": status,
            "token": token(rest),
        });
        if let (None, Some((kind, words))) = (valid, state.script.refuses_challenges) {
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            challenge["error"] = json!({ "type": kind, "detail": words });
        }
        challenge
    }

    pub(super) async fn challenge(&self, rest: &str) -> Answer {
        let (order, name, host, looks_at, refuses) = {
            let state = self.lock();
            let Some((order, name)) = pair(rest, &state) else {
                return problem(404, "malformed", "not found");
            };
            let host = state.orders[order].names[name].clone();
            let script = &state.script;
            (
                order,
                name,
                host,
                script.looks_at,
                script.refuses_challenges,
            )
        };
        let token = token(rest);
        let found = match looks_at {
            None => true,
            Some(addr) => {
                let path = format!("/.well-known/acme-challenge/{token}");
                let looking = client::get(addr, &host, &path);
                let reply = tokio::time::timeout(LOOK, looking).await;
                reply.is_ok_and(|reply| {
                    reply.status == 200 && reply.text().starts_with(&format!("{token}."))
                })
            }
        };
        let is_valid = (found && refuses.is_none()).then_some(true);
        let mut state = self.lock();
        state.orders[order].valid[name] = is_valid;
        // It has looked before it answers, and says at once what it found.
        reply(200, &self.offer(&state, rest, order, name))
    }

    pub(super) fn finalize(&self, rest: &str, signed: &Signed) -> Answer {
        let mut state = self.lock();
        let Some(index) = index(rest, &state) else {
            return problem(404, "malformed", "not found");
        };
        let order = &mut state.orders[index];
        if order.key.is_some() || order.valid.iter().any(|valid| *valid != Some(true)) {
            return problem(403, "orderNotReady", "not now");
        }
        let request = signed.payload["csr"].as_str().unwrap_or_default();
        let request = BASE64.decode(request).unwrap_or_default();
        let at = request.windows(POINT.len()).position(|part| part == POINT);
        let point = at.and_then(|at| request.get(at + POINT.len()..at + POINT.len() + 65));
        let Some(point) = point else {
            return problem(400, "badCSR", "no key on P-256");
        };
        order.key = Some(point.to_vec());
        self.work(&mut state, index);
        reply(200, &self.view(&state, index))
    }

    /// Signs what was finalized, unless it is slow.
    fn work(&self, state: &mut State, index: usize) {
        let (is_slow, life) = (state.script.is_slow, state.script.life);
        let mistakes = state.script.mistakes_names;
        let mistakes_keys = state.script.mistakes_keys;
        state.next += 1;
        let serial = state.next;
        let order = &mut state.orders[index];
        let Some(key) = order
            .key
            .clone()
            .filter(|_| !is_slow && order.chain.is_none())
        else {
            return;
        };
        let names = match mistakes {
            true => vec!["other.test".to_owned()],
            false => order.names.clone(),
        };
        let mut params = CertificateParams::new(names).unwrap();
        let now = SystemTime::now();
        params.not_before = now.into();
        params.not_after = (now + std::time::Duration::from_secs(life)).into();
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        let key = match mistakes_keys {
            true => KeyPair::generate().unwrap().public_key_raw().to_vec(),
            false => key,
        };
        let certificate = params.signed_by(&Point(key), &self.issuer).unwrap();
        order.chain = Some(certificate.pem());
    }

    pub(super) fn certificate(&self, rest: &str) -> Answer {
        let mut state = self.lock();
        let index = index(rest, &state);
        let chain = index.and_then(|index| state.orders[index].chain.clone());
        let Some(chain) = chain else {
            return problem(404, "malformed", "not found");
        };
        state.counts.issued += 1;
        let mut answer = reply(200, &json!({}));
        *answer.body_mut() = http_body_util::Full::new(chain.into());
        answer
    }
}

/// A public key on P-256.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn index(rest: &str, state: &State) -> Option<usize> {
    let index: usize = rest.parse().ok()?;
    (index < state.orders.len()).then_some(index)
}

fn pair(rest: &str, state: &State) -> Option<(usize, usize)> {
    let (order, name) = rest.split_once('-')?;
    let (order, name) = (index(order, state)?, name.parse().ok()?);
    (name < state.orders[order].names.len()).then_some((order, name))
}

fn token(rest: &str) -> String {
    format!("token-of-the-scripted-authority-{rest}")
}
