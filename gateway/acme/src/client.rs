//! An authority, as it is spoken to (RFC 8555).
//!
//! `instant-acme` speaks to it, over a transport of ours ([`wire`]) that keeps what it would lose:
//! how long the authority wants to be left alone, the URL of an order whose answer it does not like,
//! and the page of a proxy that is no answer of ACME. Three requests are ours: an account is made with
//! a key that was kept before and a binding at once, which it cannot, renewal information is taken
//! without a `Retry-After` too, and an order is found again whose URL was lost ([`found`]).
//!
//! Everything is found again by its URL, so that whoever comes after a crash goes on where the last
//! one stopped.

mod found;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use instant_acme::CertificateIdentifier;
use instant_acme::Identifier;
use instant_acme::NewOrder;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use self::wire::Exchange;
use self::wire::Wire;
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

/// How often one request is sent with another nonce. Authorities with several servers were seen to
/// refuse one good nonce in six.
const NONCE_TRIES: usize = 8;
/// Pauses before a request is sent again that the authority failed to answer.
static PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How long a directory is believed.
const DIRECTORY_AGE: Seconds = DAY;
/// Longest pause that an authority can ask for.
const LONGEST_PAUSE: Seconds = 30 * DAY;
const JOSE: &str = "application/jose+json";
const NONCE: &str = "replay-nonce";

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
    #[error("its answer cannot be used: {error}")]
    Refused { error: String },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CaError {
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            Self::Http(_)
            | Self::Foreign { .. }
            | Self::Lacks { .. }
            | Self::Refused { .. }
            | Self::Key(_) => None,
        }
    }

    pub(crate) fn retry_at(&self) -> Option<Seconds> {
        match self {
            Self::Problem { retry_at, .. } | Self::Foreign { retry_at, .. } => *retry_at,
            Self::Http(_) | Self::Lacks { .. } | Self::Refused { .. } | Self::Key(_) => None,
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
            Self::Http(_) | Self::Lacks { .. } | Self::Refused { .. } | Self::Key(_) => false,
        }
    }

    /// Whether it says nothing of what was asked: no answer, or one of who is busy.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Problem { status, .. } | Self::Foreign { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || self.is("badNonce")
            }
            Self::Lacks { .. } | Self::Refused { .. } | Self::Key(_) => false,
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
            Self::Lacks { .. } | Self::Refused { .. } | Self::Key(_) => false,
        }
    }
}

/// What was asked for, and when to ask again.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) value: T,
    pub(crate) retry_at: Option<Seconds>,
}

/// An order that was placed.
pub(crate) struct Placed {
    pub(crate) url: String,
    /// As the authority answered; `None` where the answer cannot be used, and it is to be asked for.
    pub(crate) reply: Option<Reply<Order>>,
}

/// An account that exists.
pub(crate) struct Account {
    key: AccountKey,
    inner: instant_acme::Account,
}

impl Account {
    pub(crate) fn url(&self) -> &str {
        self.inner.id()
    }

    /// What a token is answered with (RFC 8555, 8.1).
    pub(crate) fn authorize(&self, token: &str) -> String {
        self.key.authorize(token)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Account").field(&self.inner.id()).finish()
    }
}

/// Proof that an account is wanted by a customer.
pub(crate) struct Binding {
    pub(crate) key_id: String,
    pub(crate) mac: hmac::Key,
}

/// Makes a call until there is an answer or an error that lasts: the answer, and when to ask again.
/// No function, because what a closure lends to its future cannot be sent to another thread.
macro_rules! asked {
    ($call:expr) => {
        asked!(Tries::default(), $call)
    };
    ($tries:expr, $call:expr) => {{
        let mut tries = $tries;
        loop {
            let (asked, exchange) = Exchange::of($call).await;
            match asked {
                Ok(value) => break (value, exchange.retry_at),
                Err(error) => tries.again(wire::error_of(error, exchange)).await?,
            }
        }
    }};
}

pub(crate) struct Ca {
    url: String,
    http: Arc<Http>,
    clock: Clock,
    /// With when it was read.
    directory: Mutex<Option<(Arc<Directory>, Seconds)>>,
    /// The account that was used last, of the directory that is kept: making one ready asks for the
    /// directory again.
    ready: Mutex<Option<instant_acme::Account>>,
}

impl Ca {
    pub(crate) fn new(url: String, http: Http, clock: Clock) -> Self {
        Self {
            url,
            http: Arc::new(http),
            clock,
            directory: Mutex::default(),
            ready: Mutex::default(),
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
        let mut tries = Tries::default();
        let directory = loop {
            match self.get(&self.url).await {
                Ok(answer) => break Arc::new(parse(&answer)?),
                Err(error) => tries.again(error).await?,
            }
        };
        *kept = Some((Arc::clone(&directory), now));
        *self.ready.lock().await = None;
        Ok(directory)
    }

    /// Makes an account, or finds it; its URL. With `binding: None` and `only_existing`, nothing is
    /// ever made.
    pub(crate) async fn make_account(
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
        // Signed by a key that has no account yet.
        let payload = payload.to_string();
        let sign = |nonce: &str| key.sign(&url, nonce, &payload);
        let answer = self.signed(&url, sign).await?;
        location(&answer.headers).ok_or(CaError::Lacks {
            what: "the URL of the account",
        })
    }

    /// The account at a URL, ready to be used.
    pub(crate) async fn account(&self, key: AccountKey, url: &str) -> Result<Account, CaError> {
        let mut ready = self.ready.lock().await;
        if let Some(inner) = ready.as_ref().filter(|inner| inner.id() == url) {
            let inner = inner.clone();
            return Ok(Account { key, inner });
        }
        let pkcs8 = key.pkcs8();
        let (inner, _) = asked!({
            let http = Box::new(Wire::new(&self.http, &self.clock));
            let key = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
            let builder = instant_acme::Account::builder_with_http(http);
            builder.from_parts(url.to_owned(), key, self.url.clone())
        });
        *ready = Some(inner.clone());
        Ok(Account { key, inner })
    }

    pub(crate) async fn new_order(
        &self,
        account: &Account,
        hosts: &[String],
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<Placed, CaError> {
        let identifiers: Vec<Identifier> = hosts.iter().cloned().map(Identifier::Dns).collect();
        let replaces = replaces.and_then(|id| id.split_once('.'));
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(profile) = profile {
            wanted = wanted.profile(profile);
        }
        if let Some((key_identifier, serial)) = replaces {
            wanted = wanted.replaces(CertificateIdentifier {
                authority_key_identifier: key_identifier.into(),
                serial: serial.into(),
            });
        }
        // Sent once: one that was not answered may have been placed, and is looked for first.
        let (placed, retry_at) = asked!(Tries::of_nonces(), async {
            let placed = account.inner.new_order(&wanted).await;
            match (placed, Exchange::location()) {
                // It was placed, by an authority that does not say what it replaces.
                (Err(instant_acme::Error::Other(_)), Some(url)) => Ok(Err(url)),
                (placed, _) => placed.map(Ok),
            }
        });
        Ok(match placed {
            Ok(order) => {
                let reply = reply((order, retry_at));
                Placed {
                    url: reply.value.url.clone(),
                    reply: Some(reply),
                }
            }
            Err(url) => Placed { url, reply: None },
        })
    }

    pub(crate) async fn order(
        &self,
        account: &Account,
        url: &str,
    ) -> Result<Reply<Order>, CaError> {
        Ok(reply(asked!(account.inner.order(url.to_owned()))))
    }

    /// What the authority wants to see of each name.
    pub(crate) async fn authorizations(
        &self,
        order: &Order,
    ) -> Result<Vec<Authorization>, CaError> {
        let mut handle = order.handle.lock().await;
        let (found, _) = asked!(async {
            let mut found = Vec::new();
            let mut asked = handle.authorizations();
            while let Some(authorization) = asked.next().await {
                found.push(Authorization::of(&*authorization?));
            }
            Ok(found)
        });
        Ok(found)
    }

    /// Says that a challenge of the order can be looked for.
    pub(crate) async fn begin(&self, order: &Order, offer: &Offer) -> Result<(), CaError> {
        let kind = offer.challenge_type();
        let mut handle = order.handle.lock().await;
        let beginning = async {
            asked!(async {
                let mut asked = handle.authorizations();
                while let Some(authorization) = asked.next().await {
                    let mut authorization = authorization?;
                    let challenge = authorization.challenge(kind.clone());
                    if let Some(mut challenge) = challenge.filter(|found| found.url == offer.url) {
                        return match challenge.set_ready().await {
                            // It was begun all the same; the order says what becomes of it.
                            Err(instant_acme::Error::Json(_)) => Ok(()),
                            begun => begun,
                        };
                    }
                }
                Err(instant_acme::Error::Str("the challenge that was begun"))
            });
            Ok(())
        };
        match beginning.await {
            // It was begun, and judged before it was answered: what became of it is in the order.
            Err(CaError::Problem { status, .. }) if status.is_success() => Ok(()),
            begun => begun,
        }
    }

    pub(crate) async fn finalize(
        &self,
        order: &Order,
        request: &[u8],
    ) -> Result<Reply<Order>, CaError> {
        let mut handle = order.handle.lock().await;
        let ((), retry_at) = asked!(handle.finalize_csr(request));
        Ok(Reply {
            value: Order::seen(&mut handle, Arc::clone(&order.handle)),
            retry_at,
        })
    }

    /// The chain of a valid order, PEM.
    pub(crate) async fn certificate(&self, order: &Order) -> Result<String, CaError> {
        let mut handle = order.handle.lock().await;
        let (chain, _) = asked!(handle.certificate());
        chain.ok_or(CaError::Lacks {
            what: "the certificate",
        })
    }

    /// When a certificate had better be renewed; `None` if the authority does not say.
    pub(crate) async fn renewal_info(
        &self,
        id: &str,
    ) -> Result<Option<Reply<RenewalInfo>>, CaError> {
        let Some(base) = &self.directory().await?.renewal_info else {
            return Ok(None);
        };
        let url = format!("{}/{id}", base.trim_end_matches('/'));
        let answer = self.get(&url).await?;
        Ok(Some(Reply {
            value: parse(&answer)?,
            retry_at: retry_at(&answer.headers, &self.clock),
        }))
    }

    /// A request with a body that is signed for a nonce, each time that it is sent.
    async fn signed(
        &self,
        url: &str,
        sign: impl Fn(&str) -> Result<String, KeyError>,
    ) -> Result<Answer, CaError> {
        let mut tries = Tries::default();
        let mut nonce = None;
        loop {
            let fresh = match nonce.take() {
                Some(nonce) => nonce,
                None => self.nonce().await?,
            };
            let body = Bytes::from(sign(&fresh)?);
            let sent = self.http.send(Method::POST, url, Some(JOSE), body).await;
            let answer = match sent {
                Ok(answer) => {
                    nonce = text(&answer.headers, NONCE).map(str::to_owned);
                    checked(answer, &self.clock)
                }
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn get(&self, url: &str) -> Result<Answer, CaError> {
        let answer = self.http.send(Method::GET, url, None, Bytes::new()).await?;
        checked(answer, &self.clock)
    }

    async fn nonce(&self) -> Result<String, CaError> {
        let url = self.directory().await?.new_nonce.clone();
        let mut tries = Tries::default();
        loop {
            let sent = self.http.send(Method::HEAD, &url, None, Bytes::new()).await;
            let answer = match sent {
                Ok(answer) => checked(answer, &self.clock),
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(answer) => {
                    let nonce = text(&answer.headers, NONCE).map(str::to_owned);
                    return nonce.ok_or(CaError::Lacks { what: "a nonce" });
                }
                Err(error) => tries.again(error).await?,
            }
        }
    }
}

fn reply((placed, retry_at): (instant_acme::Order, Option<Seconds>)) -> Reply<Order> {
    Reply {
        value: Order::new(placed),
        retry_at,
    }
}

/// An answer that is an error becomes one.
fn checked(answer: Answer, clock: &Clock) -> Result<Answer, CaError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let retry_at = retry_at(&answer.headers, clock);
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
fn retry_at(headers: &HeaderMap, clock: &Clock) -> Option<Seconds> {
    let value = text(headers, header::RETRY_AFTER.as_str())?.trim();
    let now = clock.now();
    let at = match value.parse::<u64>() {
        Ok(seconds) => now.saturating_add(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(value).ok()?;
            u64::try_from(date.timestamp().as_second()).ok()?
        }
    };
    Some(at.clamp(now, now + LONGEST_PAUSE))
}

/// How often one call was made again.
struct Tries {
    pauses: std::slice::Iter<'static, Duration>,
    nonces: usize,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            pauses: PAUSES.iter(),
            nonces: 0,
        }
    }
}

impl Tries {
    /// For what may be done only once: a request that was refused for its nonce did nothing.
    fn of_nonces() -> Self {
        Self {
            pauses: [].iter(),
            nonces: 0,
        }
    }

    /// Waits for another try, or gives the error back.
    async fn again(&mut self, error: CaError) -> Result<(), CaError> {
        if error.is("badNonce") && self.nonces < NONCE_TRIES {
            self.nonces += 1;
            return Ok(());
        }
        match self.pauses.next() {
            Some(pause) if error.is_passing() => {
                sleep(*pause).await;
                Ok(())
            }
            _ => Err(error),
        }
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
