//! An authority, as it is spoken to (RFC 8555): one request a method, and no state but nonces.
//!
//! Everything is found again by its URL, so that whoever comes after a crash goes on where the last
//! one stopped. How long the authority wants to be left alone is never lost: it is in every error
//! and every answer.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::clock::DAY;
use crate::clock::Seconds;
use crate::http::Answer;
use crate::http::Http;
use crate::http::HttpError;
use crate::key::AccountKey;
use crate::key::KeyError;
use crate::protocol::Authorization;
use crate::protocol::Directory;
use crate::protocol::Offer;
use crate::protocol::Order;
use crate::protocol::Problem;
use crate::protocol::RenewalInfo;
use crate::protocol::one_line;

/// Nonces that are kept for later; each answer brings one.
const MAX_NONCES: usize = 16;
/// How often one request is sent with another nonce. Authorities with several servers were seen to
/// refuse one good nonce in six.
const NONCE_TRIES: usize = 8;
/// Pauses before a request is sent again that the authority failed to answer.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How long a directory is believed.
const DIRECTORY_AGE: Seconds = DAY;
/// Longest pause that an authority can ask for.
const LONGEST_PAUSE: Seconds = 30 * DAY;
const JOSE: &str = "application/jose+json";

/// Why an authority did not do what was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum CaError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{problem}")]
    Problem {
        problem: Problem,
        status: StatusCode,
        /// When it may be asked again, if it said so.
        retry_at: Option<Seconds>,
    },
    /// An answer that is not the authority's own, such as the page of a proxy.
    #[error("status {} instead of an answer of ACME: {excerpt}", status.as_u16())]
    Foreign {
        status: StatusCode,
        excerpt: String,
        retry_at: Option<Seconds>,
    },
    #[error("its answer lacks {what}")]
    Lacks { what: &'static str },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CaError {
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            Self::Http(_) | Self::Foreign { .. } | Self::Lacks { .. } | Self::Key(_) => None,
        }
    }

    pub(crate) fn retry_at(&self) -> Option<Seconds> {
        match self {
            Self::Problem { retry_at, .. } | Self::Foreign { retry_at, .. } => *retry_at,
            Self::Http(_) | Self::Lacks { .. } | Self::Key(_) => None,
        }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.problem().is_some_and(|problem| problem.is(name))
    }

    /// Whether the thing at the URL is gone: an authority forgets orders.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Problem { status, .. } | Self::Foreign { status, .. } => {
                matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE)
            }
            Self::Http(_) | Self::Lacks { .. } | Self::Key(_) => false,
        }
    }

    /// Whether the same request may well be answered a moment later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Http(error) => matches!(
                error,
                HttpError::Connect { .. } | HttpError::Exchange { .. }
            ),
            Self::Problem {
                problem, retry_at, ..
            } => problem.is("serverInternal") && retry_at.is_none(),
            Self::Foreign {
                status, retry_at, ..
            } => status.is_server_error() && retry_at.is_none(),
            Self::Lacks { .. } | Self::Key(_) => false,
        }
    }
}

/// What was asked for, and when to ask again.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) value: T,
    pub(crate) location: Option<String>,
    pub(crate) retry_at: Option<Seconds>,
}

/// An account that exists.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) key: AccountKey,
    pub(crate) url: String,
}

/// Proof that an account is wanted by a customer.
pub(crate) struct Binding {
    pub(crate) key_id: String,
    pub(crate) mac: hmac::Key,
}

pub(crate) struct Ca {
    url: String,
    http: Http,
    clock: Clock,
    /// With when it was read.
    directory: Mutex<Option<(Arc<Directory>, Seconds)>>,
    nonces: Mutex<Vec<String>>,
}

impl Ca {
    pub(crate) fn new(url: String, http: Http, clock: Clock) -> Self {
        Self {
            url,
            http,
            clock,
            directory: Mutex::default(),
            nonces: Mutex::default(),
        }
    }

    /// Asked for once a day: authorities seldom move their parts, and now and then have a new one.
    pub(crate) async fn directory(&self) -> Result<Arc<Directory>, CaError> {
        let mut kept = self.directory.lock().await;
        let now = self.clock.now();
        let fresh = kept
            .as_ref()
            .filter(|(_, at)| now.abs_diff(*at) < DIRECTORY_AGE);
        if let Some((directory, _)) = fresh {
            return Ok(Arc::clone(directory));
        }
        let mut pauses = PAUSES.iter();
        let directory = loop {
            match self.get(&self.url).await {
                Ok(answer) => break Arc::new(parse(&answer)?),
                Err(error) => again(error, pauses.next()).await?,
            }
        };
        *kept = Some((Arc::clone(&directory), now));
        Ok(directory)
    }

    /// Makes an account, or finds it; its URL. With `binding: None` and `only_existing`, nothing is
    /// ever made.
    pub(crate) async fn account(
        &self,
        key: &AccountKey,
        contact: &[String],
        binding: Option<&Binding>,
        only_existing: bool,
    ) -> Result<String, CaError> {
        let url = self.directory().await?.new_account.clone();
        let mut payload = match only_existing {
            true => json!({ "onlyReturnExisting": true }),
            false => json!({ "termsOfServiceAgreed": true }),
        };
        if !contact.is_empty() && !only_existing {
            payload["contact"] = json!(contact);
        }
        if let Some(binding) = binding {
            let proof = key.bind(&url, &binding.key_id, &binding.mac);
            payload["externalAccountBinding"] = proof;
        }
        let answer = self.post(&url, key, None, Some(&payload)).await?;
        location(&answer.headers).ok_or(CaError::Lacks {
            what: "the URL of the account",
        })
    }

    pub(crate) async fn new_order(
        &self,
        account: &Account,
        hosts: &[String],
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<Reply<Order>, CaError> {
        let url = self.directory().await?.new_order.clone();
        let identifiers = hosts.iter();
        let identifiers: Vec<Value> = identifiers
            .map(|host| json!({ "type": "dns", "value": host }))
            .collect();
        let mut payload = json!({ "identifiers": identifiers });
        if let Some(profile) = profile {
            payload["profile"] = json!(profile);
        }
        if let Some(replaces) = replaces {
            payload["replaces"] = json!(replaces);
        }
        self.ask(account, &url, Some(&payload)).await
    }

    pub(crate) async fn order(
        &self,
        account: &Account,
        url: &str,
    ) -> Result<Reply<Order>, CaError> {
        self.ask(account, url, None).await
    }

    pub(crate) async fn authorization(
        &self,
        account: &Account,
        url: &str,
    ) -> Result<Reply<Authorization>, CaError> {
        self.ask(account, url, None).await
    }

    /// Says that a challenge can be looked for.
    pub(crate) async fn begin(
        &self,
        account: &Account,
        offer: &Offer,
    ) -> Result<Reply<Value>, CaError> {
        self.ask(account, &offer.url, Some(&json!({}))).await
    }

    pub(crate) async fn finalize(
        &self,
        account: &Account,
        order: &Order,
        request: &[u8],
    ) -> Result<Reply<Order>, CaError> {
        let payload = json!({ "csr": crate::key::encode(request) });
        self.ask(account, &order.finalize, Some(&payload)).await
    }

    /// The chain, PEM.
    pub(crate) async fn certificate(
        &self,
        account: &Account,
        url: &str,
    ) -> Result<String, CaError> {
        let answer = self
            .post(url, &account.key, Some(&account.url), None)
            .await?;
        let text = String::from_utf8(answer.body.to_vec());
        text.map_err(|_| CaError::Lacks {
            what: "a chain of certificates",
        })
    }

    /// When a certificate had better be renewed; `None` if the authority does not say.
    pub(crate) async fn renewal_info(
        &self,
        id: &str,
    ) -> Result<Option<Reply<RenewalInfo>>, CaError> {
        let directory = self.directory().await?;
        let Some(base) = &directory.renewal_info else {
            return Ok(None);
        };
        let url = format!("{}/{id}", base.trim_end_matches('/'));
        let answer = self.get(&url).await?;
        Ok(Some(self.reply(&answer)?))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        account: &Account,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Reply<T>, CaError> {
        let (key, kid) = (&account.key, &account.url);
        let answer = self.post(url, key, Some(kid), payload).await?;
        self.reply(&answer)
    }

    fn reply<T: DeserializeOwned>(&self, answer: &Answer) -> Result<Reply<T>, CaError> {
        Ok(Reply {
            value: parse(answer)?,
            location: location(&answer.headers),
            retry_at: self.retry_at(&answer.headers),
        })
    }

    /// Without payload, what is at the URL is asked for (RFC 8555, 6.3).
    async fn post(
        &self,
        url: &str,
        key: &AccountKey,
        kid: Option<&str>,
        payload: Option<&Value>,
    ) -> Result<Answer, CaError> {
        let payload = payload.map_or_else(String::new, ToString::to_string);
        let mut pauses = PAUSES.iter();
        let mut nonces = 0;
        loop {
            let nonce = self.nonce().await?;
            let signed = key.sign(url, &nonce, kid, &payload)?;
            let body = Bytes::from(signed);
            let sent = self.http.send(Method::POST, url, Some(JOSE), body).await;
            let answer = match sent {
                Ok(answer) => self.checked(answer).await,
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is("badNonce") && nonces < NONCE_TRIES => nonces += 1,
                Err(error) => again(error, pauses.next()).await?,
            }
        }
    }

    async fn get(&self, url: &str) -> Result<Answer, CaError> {
        let answer = self.http.send(Method::GET, url, None, Bytes::new()).await?;
        self.checked(answer).await
    }

    async fn nonce(&self) -> Result<String, CaError> {
        if let Some(nonce) = self.nonces.lock().await.pop() {
            return Ok(nonce);
        }
        let url = self.directory().await?.new_nonce.clone();
        let mut pauses = PAUSES.iter();
        loop {
            let sent = self.http.send(Method::HEAD, &url, None, Bytes::new()).await;
            let answer = match sent {
                Ok(answer) => self.checked(answer).await,
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(_) => break,
                Err(error) => again(error, pauses.next()).await?,
            }
        }
        let nonce = self.nonces.lock().await.pop();
        nonce.ok_or(CaError::Lacks { what: "a nonce" })
    }

    /// Keeps the nonce; an answer that is an error becomes one.
    async fn checked(&self, answer: Answer) -> Result<Answer, CaError> {
        if let Some(nonce) = text(&answer.headers, "replay-nonce") {
            let mut nonces = self.nonces.lock().await;
            if nonces.len() < MAX_NONCES {
                nonces.push(nonce.to_owned());
            }
        }
        if answer.status.is_success() {
            return Ok(answer);
        }
        let retry_at = self.retry_at(&answer.headers);
        let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
        Err(match problem.filter(|problem| !problem.kind.is_empty()) {
            Some(problem) => CaError::Problem {
                problem,
                status: answer.status,
                retry_at,
            },
            None => CaError::Foreign {
                status: answer.status,
                excerpt: excerpt(&answer.body),
                retry_at,
            },
        })
    }

    /// Seconds or a date (RFC 9110, 10.2.3), as a moment.
    fn retry_at(&self, headers: &HeaderMap) -> Option<Seconds> {
        let value = text(headers, header::RETRY_AFTER.as_str())?.trim();
        let now = self.clock.now();
        let at = match value.parse::<u64>() {
            Ok(seconds) => now.saturating_add(seconds),
            Err(_) => {
                let date = jiff::fmt::rfc2822::parse(value).ok()?;
                u64::try_from(date.timestamp().as_second()).ok()?
            }
        };
        Some(at.clamp(now, now + LONGEST_PAUSE))
    }
}

/// Waits for another try, or gives the error back.
async fn again(error: CaError, pause: Option<&Duration>) -> Result<(), CaError> {
    match pause {
        Some(pause) if error.is_passing() => {
            sleep(*pause).await;
            Ok(())
        }
        _ => Err(error),
    }
}

fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<T, CaError> {
    serde_json::from_slice(&answer.body).map_err(|_| CaError::Foreign {
        status: answer.status,
        excerpt: excerpt(&answer.body),
        retry_at: None,
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn location(headers: &HeaderMap) -> Option<String> {
    text(headers, header::LOCATION.as_str()).map(str::to_owned)
}

/// Enough of a foreign page to recognize it.
fn excerpt(body: &[u8]) -> String {
    const MAX_EXCERPT: usize = 120;
    let text = String::from_utf8_lossy(body.get(..MAX_EXCERPT).unwrap_or(body));
    one_line(text.trim())
}

/// The name of a certificate in renewal information (RFC 9773, 4.1).
pub(crate) fn certificate_id(key_identifier: &[u8], serial: &[u8]) -> String {
    let engine = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    format!(
        "{}.{}",
        engine.encode(key_identifier),
        engine.encode(serial)
    )
}
