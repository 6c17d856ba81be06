//! What certificate authorities look for, as far as the gateway itself answers it.
//!
//! Beside the snapshot, not in it: a challenge lives for seconds and changes nothing that is
//! served. Reading costs one atomic load, and only for requests and handshakes that look like a
//! challenge; without an entry, both go on as if this did not exist.
//!
//! Where another replica may have begun a challenge, this one may hear of it only after the authority
//! has: a request for an unknown token is held for a while then, if it is for a host that a
//! certificate is wanted for. Everybody can send such requests, so few are held at once.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::clock::Clock;

/// The protocol that a handshake of TLS-ALPN-01 asks for (RFC 8737, 4).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Challenges at once: far more than orders can be on their way.
const MAX_CHALLENGES: usize = 10_000;
/// Requests for unknown tokens that are held at once, by the whole process.
const MAX_HELD: usize = 64;
/// How long each is, before it is looked up. Authorities wait for ten seconds.
const HOLD: Duration = Duration::from_secs(3);
/// How long looking up a token may take.
const LOOK_UP: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Challenges {
    table: ArcSwap<Table>,
    /// One change at a time.
    changing: Mutex<()>,
    /// Of the table, for requests that are held.
    changed: watch::Sender<()>,
    others: ArcSwap<Others>,
    held: AtomicUsize,
}

/// What other replicas may have challenges for.
#[derive(Default)]
struct Others {
    /// In lower case.
    hosts: HashSet<Box<str>>,
    look_up: Option<LookUp>,
}

/// Looks for a token where all replicas keep theirs, and shows it if it is there. Polled by a worker:
/// the work is done elsewhere.
pub type LookUp = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Clone, Default)]
struct Table {
    /// By token (RFC 8555, 8.3).
    tokens: HashMap<Box<str>, Bytes>,
    /// By server name, in lower case (RFC 8737).
    names: HashMap<Box<str>, Proof>,
}

#[derive(Clone)]
struct Proof {
    token: Box<str>,
    key: Arc<CertifiedKey>,
}

/// A challenge cannot be shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChallengeError {
    #[error("more than {MAX_CHALLENGES} challenges are shown at once")]
    TooMany,
    #[error("the certificate of the challenge cannot be used")]
    Certificate,
}

impl Challenges {
    /// Answers requests for this token from now on, by any listener.
    pub fn show_token(&self, token: &str, authorization: &str) -> Result<(), ChallengeError> {
        self.change(|table| {
            let answer = Bytes::copy_from_slice(authorization.as_bytes());
            table.tokens.insert(token.into(), answer);
        })
    }

    /// Shows a certificate (DER, with its key in PKCS#8) to who asks for this name by `acme-tls/1`.
    pub fn show_certificate(
        &self,
        token: &str,
        name: &str,
        certificate: Vec<u8>,
        key: Vec<u8>,
    ) -> Result<(), ChallengeError> {
        let key = PrivateKeyDer::Pkcs8(key.into());
        let chain = vec![CertificateDer::from(certificate)];
        let key = crate::tls::provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| ChallengeError::Certificate)?;
        // Not held against each other: the certificate has an extension that is critical and that
        // nobody but authorities knows, so it counts as malformed.
        let key = Arc::new(CertifiedKey::new(chain, key));
        let token: Box<str> = token.into();
        self.change(|table| {
            table.names.insert(name.into(), Proof { token, key });
        })
    }

    pub fn hide(&self, token: &str) {
        // Taking away is never too much.
        let _ = self.change(|table| {
            table.tokens.remove(token);
            table.names.retain(|_, proof| *proof.token != *token);
        });
    }

    /// Other replicas may have challenges for these hosts, in lower case, and for no others.
    pub fn expect(&self, hosts: HashSet<Box<str>>, look_up: LookUp) {
        let look_up = Some(look_up);
        self.others.store(Arc::new(Others { hosts, look_up }));
    }

    /// Whether a challenge for this host may still come.
    pub(crate) fn is_expected(&self, host: &str) -> bool {
        self.others.load().hosts.contains(host)
    }

    /// Waits for a token that is not known, then looks for it. `None` at once if too many wait.
    pub(crate) async fn hold(&self, token: &str, clock: &Clock) -> Option<Bytes> {
        let _held = Held::new(&self.held)?;
        let mut changed = self.changed.subscribe();
        let shown = async {
            loop {
                if let Some(answer) = self.answer(token) {
                    return answer;
                }
                if changed.changed().await.is_err() {
                    // Its sender is ours.
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Some(answer) = clock.timeout(HOLD, shown).await {
            return Some(answer);
        }
        let look_up = self.others.load().look_up.clone()?;
        clock.timeout(LOOK_UP, look_up(token.to_owned())).await;
        self.answer(token)
    }

    pub(crate) fn answer(&self, token: &str) -> Option<Bytes> {
        self.table.load().tokens.get(token).cloned()
    }

    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        table.names.get(name).map(|proof| Arc::clone(&proof.key))
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), ChallengeError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        if table.tokens.len() + table.names.len() > MAX_CHALLENGES {
            return Err(ChallengeError::TooMany);
        }
        self.table.store(Arc::new(table));
        self.changed.send_replace(());
        Ok(())
    }
}

/// One of the requests that are held.
struct Held<'c>(&'c AtomicUsize);

impl<'c> Held<'c> {
    fn new(count: &'c AtomicUsize) -> Option<Self> {
        let held = Self(count);
        let before = count.fetch_add(1, Ordering::Relaxed);
        (before < MAX_HELD).then_some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keys must not reach a log by way of a `{:?}`.
impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        write!(f, "Challenges({})", table.tokens.len() + table.names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_until_it_is_hidden() {
        let challenges = Challenges::default();
        assert_eq!(challenges.answer("t"), None);
        challenges.show_token("t", "t.key").unwrap();
        challenges.show_token("u", "u.key").unwrap();
        assert_eq!(challenges.answer("t").unwrap(), "t.key");
        challenges.hide("t");
        assert_eq!(challenges.answer("t"), None);
        assert_eq!(challenges.answer("u").unwrap(), "u.key");
    }

    /// What `asks` asks of challenges, with timers that run.
    async fn with_clock<T>(asks: impl AsyncFnOnce(&Clock) -> T) -> T {
        let clock = Clock::default();
        tokio::select! {
            () = clock.clone().run() => unreachable!("timers run for ever"),
            asked = asks(&clock) => asked,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_comes_late_is_waited_for_and_looked_up_in_the_end() {
        let challenges = Arc::new(Challenges::default());
        let looked_up = Arc::clone(&challenges);
        let look_up: LookUp = Arc::new(move |token: String| {
            let challenges = Arc::clone(&looked_up);
            Box::pin(async move {
                if token == "kept" {
                    challenges.show_token("kept", "kept.key").unwrap();
                }
            })
        });
        challenges.expect(["a.test".into()].into(), look_up);
        assert!(challenges.is_expected("a.test") && !challenges.is_expected("b.test"));
        with_clock(async |clock| {
            let late = async {
                tokio::time::sleep(HOLD / 2).await;
                challenges.show_token("late", "late.key").unwrap();
            };
            let (answer, ()) = tokio::join!(challenges.hold("late", clock), late);
            assert_eq!(answer.unwrap(), "late.key");
            assert_eq!(challenges.hold("kept", clock).await.unwrap(), "kept.key");
            assert_eq!(challenges.hold("unknown", clock).await, None);
        })
        .await;
        assert_eq!(challenges.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_few_are_not_held() {
        let challenges = Challenges::default();
        with_clock(async |clock| {
            let held: Vec<_> = (0..MAX_HELD).map(|_| Held::new(&challenges.held)).collect();
            let before = tokio::time::Instant::now();
            assert_eq!(challenges.hold("t", clock).await, None);
            assert_eq!(before.elapsed(), Duration::ZERO);
            assert_eq!(challenges.held.load(Ordering::Relaxed), MAX_HELD);
            drop(held);
        })
        .await;
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let challenges = Challenges::default();
        let mut table = Table::default();
        for index in 0..MAX_CHALLENGES {
            table.tokens.insert(index.to_string().into(), Bytes::new());
        }
        challenges.table.store(Arc::new(table));
        assert_eq!(
            challenges.show_token("t", "x"),
            Err(ChallengeError::TooMany)
        );
        challenges.hide("0");
        assert_eq!(challenges.show_token("t", "x"), Ok(()));
    }
}
