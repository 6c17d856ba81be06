//! Asks for a name and a password, which a file holds in hashed form.
//!
//! A hash is made to be slow, so it is computed away from the worker, a few at a time and with a
//! bounded queue, and what was right is remembered for a while. What was wrong is not: remembering
//! it would let guessers fill the memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use postern_core::config::policy::access::BasicAuthSpec;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::htpasswd::Hash;
use super::htpasswd::parse_users;
use super::native::PolicyError;
use super::native::Reply;
use super::native::Turn;

const REASON: &str = "basic-auth";
/// Longest credentials that are looked at, decoded, in bytes: bcrypt looks at 72 of a password.
const MAX_CREDENTIALS: usize = 1024;
/// Hashes that are computed at once, all policies and workers together: one of two processors may
/// be busy with guessers.
const MAX_HASHING: usize = 2;
/// Requests that wait for a hash. A cost of 10 makes it 50 ms, so the last waits a few seconds.
const MAX_WAITING: usize = 100;
/// How long credentials that were right are remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Credentials that are remembered; the table is emptied when it is full.
const MAX_REMEMBERED: usize = 10_000;

static HASHING: Semaphore = Semaphore::const_new(MAX_HASHING);
static WAITING: AtomicUsize = AtomicUsize::new(0);

pub(super) struct BasicAuth {
    challenge: HeaderValue,
    user_header: Option<HeaderName>,
    keeps_credentials: bool,
    users: HashMap<String, Hash>,
    /// What is compared with for a user that is not there, so that the answer takes as long as for
    /// the one with the slowest hash.
    decoy: Hash,
    /// Seeded, so that the memory holds nothing that could be tried elsewhere.
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

impl BasicAuth {
    pub(super) fn new(spec: &BasicAuthSpec, file: &[u8]) -> Result<Self, PolicyError> {
        let users = parse_users(file)?;
        let slowest = users.values().reduce(|slowest, hash| {
            let is_as_slow = slowest.is_as_slow_as(hash);
            if is_as_slow { slowest } else { hash }
        });
        let decoy = slowest.cloned().ok_or(PolicyError::NoUsers)?;
        let realm: String = spec.realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        Ok(Self {
            challenge: HeaderValue::try_from(challenge)
                .unwrap_or_else(|_| HeaderValue::from_static("Basic")),
            user_header: spec.user_header.clone(),
            keeps_credentials: spec.keeps_credentials,
            users,
            decoy,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .map_err(|_| PolicyError::Random)?,
            remembered: Mutex::default(),
        })
    }

    pub(super) async fn on_request(&self, turn: &mut Turn<'_>) -> Option<Reply> {
        let headers = &mut turn.exchange.request.headers;
        // What upstreams believe about the user is said here and nowhere else.
        if let Some(name) = &self.user_header {
            headers.remove(name);
        }
        let sent = headers.get(header::AUTHORIZATION);
        let credentials = sent.and_then(Credentials::parse);
        let Some(credentials) = credentials else {
            return Some(self.challenge(turn));
        };
        match self.accepts(&credentials).await {
            Ok(true) => {}
            Ok(false) => return Some(self.challenge(turn)),
            Err(Busy) => {
                let (mut page, reason) = turn.refuse(StatusCode::SERVICE_UNAVAILABLE, REASON);
                let headers = &mut page.headers;
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return Some((page, reason));
            }
        }
        let headers = &mut turn.exchange.request.headers;
        if !self.keeps_credentials {
            headers.remove(header::AUTHORIZATION);
        }
        if let Some(name) = &self.user_header
            && let Ok(user) = HeaderValue::from_str(&credentials.user)
        {
            headers.insert(name, user);
        }
        None
    }

    fn challenge(&self, turn: &Turn<'_>) -> Reply {
        let (mut page, reason) = turn.refuse(StatusCode::UNAUTHORIZED, REASON);
        let challenge = self.challenge.clone();
        page.headers.insert(header::WWW_AUTHENTICATE, challenge);
        (page, reason)
    }

    async fn accepts(&self, credentials: &Credentials) -> Result<bool, Busy> {
        let digest = self.digest(credentials);
        if self.remembers(&digest) {
            return Ok(true);
        }
        let known = self.users.get(&credentials.user);
        let hash = known.unwrap_or(&self.decoy).clone();
        let password = credentials.password.clone();
        let is_right = verify(password, hash).await? && known.is_some();
        if is_right {
            self.remember(digest);
        }
        Ok(is_right)
    }

    fn digest(&self, credentials: &Credentials) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // A name holds no colon, so nothing can move from one to the other.
        context.update(credentials.user.as_bytes());
        context.update(b":");
        context.update(&credentials.password);
        let tag = context.sign();
        let mut digest = [0; 32];
        digest.copy_from_slice(&tag.as_ref()[..32]);
        digest
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let remembered = self.lock();
        remembered
            .get(digest)
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut remembered = self.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest, Instant::now());
    }

    /// Held for a look-up, by a request that is about to be forwarded over a network.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Too many requests wait for a hash.
struct Busy;

/// Counts one that waits, until it is dropped.
struct Wait;

impl Drop for Wait {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn verify(password: Vec<u8>, hash: Hash) -> Result<bool, Busy> {
    let waiting = WAITING.fetch_add(1, Ordering::Relaxed);
    let _wait = Wait;
    if waiting >= MAX_WAITING {
        return Err(Busy);
    }
    // The semaphore is never closed.
    let permit = HASHING.acquire().await.map_err(|_| Busy)?;
    let hashing = tokio::task::spawn_blocking(move || {
        // Held to the end, also when the client has left meanwhile.
        let _permit = permit;
        hash.verify(&password)
    });
    Ok(hashing.await.unwrap_or(false))
}

/// RFC 7617.
struct Credentials {
    user: String,
    password: Vec<u8>,
}

impl Credentials {
    fn parse(value: &HeaderValue) -> Option<Self> {
        let value = value.as_bytes();
        let (scheme, rest) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") || rest.len() > MAX_CREDENTIALS * 4 / 3 {
            return None;
        }
        let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|&b| b == b':')?;
        let user = std::str::from_utf8(&decoded[..colon]).ok()?;
        Some(Self {
            user: user.to_owned(),
            password: decoded[colon + 1..].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_they_are_written() {
        let parse = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            Credentials::parse(&value).map(|c| (c.user, String::from_utf8(c.password).unwrap()))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parse("Basic YW5uOnNlY3JldA=="), pair("ann", "secret"));
        assert_eq!(parse("basic YW5uOmE6Yg=="), pair("ann", "a:b"));
        assert_eq!(parse("Basic YW5u"), None);
        assert_eq!(parse("Bearer YW5uOnNlY3JldA=="), None);
        assert_eq!(parse("Basic !!"), None);
        assert_eq!(parse("Basic"), None);
        assert_eq!(parse(&format!("Basic {}", "YW5u".repeat(1000))), None);
    }
}
