//! Asks another service whether a request may pass.
//!
//! With a cache, what was allowed is remembered for a while, by everything that the service is
//! told, or by the fields that the operator says it decides by; requests that are alike and come
//! at once are asked about once. Refusals are not remembered: who has just signed in must not be
//! refused for what they did before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use postern_core::config::plugin::OnError;
use postern_core::config::policy::access::ForwardAuthSpec;
use postern_core::policy::forward_auth::max_age;
use postern_core::policy::forward_auth::signin_location;
use postern_core::request::RequestHead;
use postern_wasm::exchange::LocalResponse;
use tokio::sync::watch;
use tokio::time::Instant;

use super::native::Reply;
use super::native::Turn;
use crate::body::ResponseBody;
use crate::request::subrequest;

const REASON: &str = "forward-auth";
const UNAVAILABLE: &str = "forward-auth-unavailable";
/// Largest page of a refusal, in bytes.
const MAX_PAGE: usize = 64 << 10;
/// Decisions that are remembered; the table is emptied of old ones, then of all, when it is full.
const MAX_DECISIONS: usize = 10_000;
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Fields that would make the service answer about its own resource.
const CONDITIONAL: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

pub(super) struct ForwardAuth {
    spec: ForwardAuthSpec,
    decisions: Arc<Decisions>,
}

/// What the service said of a request that may pass.
#[derive(Clone, Debug, Default)]
struct Pass {
    to_upstream: Vec<(HeaderName, HeaderValue)>,
    to_client: Vec<(HeaderName, HeaderValue)>,
}

enum Decision {
    Pass(Pass, Option<Duration>),
    Refuse(LocalResponse),
    Unavailable,
}

type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// By [`ForwardAuth::key`].
#[derive(Default)]
struct Decisions(Mutex<HashMap<Key, Entry>>);

enum Entry {
    /// Being asked about; the channel closes when that is over.
    Asking(watch::Receiver<()>),
    Passes(Arc<Pass>, Instant),
}

/// The one request that asks about a key. Others wait until it is dropped.
struct Asking {
    decisions: Arc<Decisions>,
    key: Key,
    _over: watch::Sender<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut decisions = self.decisions.lock();
        if matches!(decisions.get(&self.key), Some(Entry::Asking(_))) {
            decisions.remove(&self.key);
        }
    }
}

enum Found {
    Passes(Arc<Pass>),
    Wait(watch::Receiver<()>),
    Ask(Asking),
}

impl Decisions {
    /// Held for a look-up, by a request that would otherwise wait for another service.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(self: &Arc<Self>, key: Key) -> Found {
        let mut decisions = self.lock();
        match decisions.get(&key) {
            Some(Entry::Asking(over)) => return Found::Wait(over.clone()),
            Some(Entry::Passes(pass, until)) if Instant::now() < *until => {
                return Found::Passes(Arc::clone(pass));
            }
            _ => {}
        }
        if decisions.len() >= MAX_DECISIONS {
            let now = Instant::now();
            decisions.retain(|_, entry| match entry {
                Entry::Asking(_) => true,
                Entry::Passes(_, until) => now < *until,
            });
        }
        if decisions.len() >= MAX_DECISIONS {
            decisions.clear();
        }
        let (sender, over) = watch::channel(());
        decisions.insert(key, Entry::Asking(over));
        Found::Ask(Asking {
            decisions: Arc::clone(self),
            key,
            _over: sender,
        })
    }
}

impl ForwardAuth {
    pub(super) fn new(spec: ForwardAuthSpec) -> Self {
        Self {
            spec,
            decisions: Arc::default(),
        }
    }

    pub(super) async fn on_request(&self, turn: &mut Turn<'_>) -> Option<Reply> {
        // What the service says of a user, a client must not be able to say itself.
        let headers = &mut turn.exchange.request.headers;
        for name in &self.spec.upstream_headers {
            headers.remove(name);
        }
        let question = self.question(turn);
        let decision = match self.spec.cache {
            Some(_) => self.cached(turn, question).await,
            None => self.ask(turn, question).await,
        };
        match decision {
            Decision::Pass(pass, _) => {
                for (name, value) in pass.to_upstream {
                    turn.exchange.request.headers.append(name, value);
                }
                for (name, value) in pass.to_client {
                    turn.add_on_response(name, value);
                }
                None
            }
            Decision::Refuse(response) => {
                let is_unknown = response.status == StatusCode::UNAUTHORIZED;
                let sign_in = self.sign_in(turn).filter(|_| is_unknown);
                Some((sign_in.unwrap_or(response), Some(REASON)))
            }
            Decision::Unavailable => match self.spec.on_unavailable {
                OnError::Allow => None,
                OnError::Deny => Some(turn.refuse(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)),
                OnError::Status(status) => Some(turn.refuse(status, UNAVAILABLE)),
            },
        }
    }

    async fn cached(&self, turn: &Turn<'_>, question: RequestHead) -> Decision {
        let key = self.key(&question);
        let asking = match self.decisions.find(key) {
            Found::Passes(pass) => return Decision::Pass((*pass).clone(), None),
            Found::Ask(asking) => Some(asking),
            Found::Wait(mut over) => {
                // Ends with an error, when the one that asks is done.
                let _ = over.changed().await;
                match self.decisions.find(key) {
                    Found::Passes(pass) => return Decision::Pass((*pass).clone(), None),
                    Found::Ask(asking) => Some(asking),
                    // What cannot be remembered is asked for by everybody, at once.
                    Found::Wait(_) => None,
                }
            }
        };
        let decision = self.ask(turn, question).await;
        if let Decision::Pass(pass, Some(time)) = &decision
            && asking.is_some()
        {
            let entry = Entry::Passes(Arc::new(pass.clone()), Instant::now() + *time);
            self.decisions.lock().insert(key, entry);
        }
        decision
    }

    /// What the service is asked.
    fn question(&self, turn: &Turn<'_>) -> RequestHead {
        let request = &turn.exchange.request;
        let mut headers = match &self.spec.request_headers {
            Some(names) => {
                let mut headers = HeaderMap::new();
                for name in names {
                    for value in request.headers.get_all(name) {
                        headers.append(name, value.clone());
                    }
                }
                headers
            }
            None => request.headers.clone(),
        };
        for name in CONDITIONAL {
            headers.remove(name);
        }
        let target = request.path.as_str();
        let url = format!("{}://{}{target}", turn.scheme(), request.authority);
        let method = request.method.as_str();
        let fields = [
            (X_ORIGINAL_URL, url.as_str()),
            (X_FORWARDED_URI, target),
            (X_ORIGINAL_METHOD, method),
            (X_FORWARDED_METHOD, method),
        ];
        for (name, value) in fields {
            // A canonical target and a token are valid values.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        RequestHead {
            method: Method::GET,
            scheme: request.scheme,
            authority: match &self.spec.host {
                Some(host) => host.clone(),
                None => request.authority.clone(),
            },
            path: self.spec.path.clone(),
            headers,
            is_websocket: false,
            takes_trailers: false,
        }
    }

    async fn ask(&self, turn: &Turn<'_>, question: RequestHead) -> Decision {
        let clock = &turn.worker.clock;
        let asked = async {
            let upstream = &self.spec.upstream;
            let response =
                subrequest(turn.worker, turn.view, upstream, question, Bytes::new()).await;
            match response {
                Ok(response) => self.decide(response).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%upstream, error, "authorization could not be asked for");
                    Decision::Unavailable
                }
            }
        };
        let decision = clock.timeout(self.spec.timeout, asked).await;
        decision.unwrap_or(Decision::Unavailable)
    }

    async fn decide(&self, response: Response<ResponseBody>) -> Decision {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_PAGE).collect().await;
        let status = parts.status;
        if status.is_success() {
            let copy = |names: &[HeaderName]| {
                let fields = names.iter().flat_map(|name| {
                    let values = parts.headers.get_all(name).iter();
                    values.map(move |value| (name.clone(), value.clone()))
                });
                fields.collect()
            };
            let pass = Pass {
                to_upstream: copy(&self.spec.upstream_headers),
                to_client: copy(&self.spec.client_headers),
            };
            // A cookie is for one client; to hand it to the next would be to swap sessions.
            let is_shared = !parts.headers.contains_key(header::SET_COOKIE);
            let most = self.spec.cache.filter(|_| is_shared);
            let time = most.and_then(|most| max_age(&parts.headers, most));
            return Decision::Pass(pass, time);
        }
        let is_refusal = matches!(status.as_u16(), 300..=399 | 401 | 403);
        match body {
            Ok(body) if is_refusal => {
                let mut headers = parts.headers;
                headers.remove(header::CONTENT_LENGTH);
                Decision::Refuse(LocalResponse {
                    status,
                    headers,
                    body: body.to_bytes(),
                })
            }
            _ => Decision::Unavailable,
        }
    }

    /// Where a client that is not signed in is sent, if it is sent anywhere.
    fn sign_in(&self, turn: &Turn<'_>) -> Option<LocalResponse> {
        let signin = self.spec.signin.as_deref()?;
        let request = &turn.exchange.request;
        let url = format!("{}://{}{}", turn.scheme(), request.authority, request.path);
        let location = signin_location(signin, &self.spec.signin_parameter, &url);
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::try_from(location).ok()?);
        Some(LocalResponse {
            status: StatusCode::FOUND,
            headers,
            body: Bytes::new(),
        })
    }

    /// What is asked about, and by whom: every field that the service sees, unless the operator
    /// says by which ones it decides.
    fn key(&self, question: &RequestHead) -> Key {
        let mut text = BytesMut::new();
        let headers = &question.headers;
        let about = [X_ORIGINAL_METHOD, X_ORIGINAL_URL];
        let mut names: Vec<&HeaderName> = match &self.spec.cache_key {
            Some(names) => about.iter().chain(names).collect(),
            // Those two are among them.
            None => headers.keys().collect(),
        };
        // The order in which a client sends its fields is nothing to the service.
        names.sort_unstable_by_key(|name| name.as_str());
        for name in names {
            // A line for each. Neither holds a line end, and no name a colon, so that nothing can
            // pass for something else.
            text.extend_from_slice(name.as_str().as_bytes());
            for value in headers.get_all(name) {
                text.extend_from_slice(b"\n:");
                text.extend_from_slice(value.as_bytes());
            }
            text.extend_from_slice(b"\n");
        }
        let digest = digest::digest(&digest::SHA256, &text);
        let mut key = Key::default();
        key.copy_from_slice(digest.as_ref());
        key
    }
}
