//! Which certificate is worked on when.
//!
//! Level-triggered: what is wanted, what is kept and what time it is say what to do, and a restart
//! changes none of them. One task; each certificate has at most one attempt on its way, and a fault
//! in one costs no other.

mod issuer;
mod state;
mod work;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use futures_util::stream::FuturesUnordered;
use postern_core::config::kubernetes::NamespacedName;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;
use tokio::sync::watch;
use tokio::time::sleep;

use self::work::Done;
use self::work::Task;
use crate::challenge;
use crate::challenge::Replicas;
use crate::clock::Clock;
use crate::clock::HOUR;
use crate::clock::MINUTE;
use crate::clock::Seconds;
use crate::document;
use crate::document::CertificateDocument;
use crate::document::ChallengeDocument;
use crate::document::OrderDocument;
use crate::document::Trouble;
use crate::order;
use crate::reason::Reason;
use crate::renewal;
use crate::store::Kind;
use crate::store::Store;
use crate::verify;
use crate::verify::Facts;
use crate::verify::Refusal;

pub use self::issuer::Issuer;
pub use self::state::Action;
pub use self::state::CertificateStatus;
pub use self::state::Issued;
pub use self::state::IssuedCertificate;
pub use self::state::Served as ServedCertificate;
pub use self::state::State;

/// Attempts on their way at once. Each is a handful of requests and a second or two.
const MAX_ATTEMPTS: usize = 16;
/// Certificates whose documents are read at once.
const LOADS_AT_ONCE: usize = 16;
/// How long the engine sleeps at most: a clock that was set forward is noticed by then.
const LONGEST_SLEEP: Seconds = MINUTE;
/// Between two looks at what nobody wants any more.
const TIDY_EVERY: Seconds = HOUR;
/// A look that found nothing to do is not repeated at once.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// What everything in the engine works with.
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub replicas: Arc<dyn Replicas>,
    pub clock: Clock,
}

/// One certificate that is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    pub name: CertificateName,
    /// Sorted.
    pub hosts: Vec<Hostname>,
    pub issuer: IssuerName,
    /// Of what is configured for it: another one is worth another try.
    pub fingerprint: String,
    /// The Secret of a cluster that it is for.
    pub secret: Option<NamespacedName>,
    /// Whether that is not there: what was known of it is out of date if it was there before.
    pub is_missing: bool,
}

impl Job {
    /// The name of its documents: by the Secret that wants it, or else by what it is for.
    pub fn document_name(&self) -> String {
        match &self.secret {
            Some(secret) => format!("{}/{}", secret.namespace, secret.name),
            None => {
                let hosts: Vec<String> = self.hosts.iter().map(Hostname::to_string).collect();
                document::name_of(&hosts)
            }
        }
    }
}

/// Everything that is wanted.
#[derive(Clone, Default)]
pub struct Desired {
    pub jobs: Vec<Job>,
    pub issuers: BTreeMap<IssuerName, Arc<Issuer>>,
}

pub struct Engine {
    shared: Arc<Shared>,
    desired: watch::Receiver<Arc<Desired>>,
    entries: BTreeMap<CertificateName, Entry>,
    /// Names of the documents that are worked on, wanted still or not: one attempt each at a time.
    running: BTreeSet<String>,
    /// Orders that nobody wanted when that was last looked at.
    strays: BTreeSet<String>,
    issued: watch::Sender<Arc<Issued>>,
    state: watch::Sender<Arc<State>>,
    /// Attempts that ended, by issuer, outcome and reason.
    orders: BTreeMap<(String, &'static str, String), u64>,
}

/// One certificate, as far as it is.
struct Entry {
    job: Job,
    /// Of its documents.
    name: String,
    certificate: Option<Served>,
    order: OrderDocument,
    /// What keeps the certificate that is there from being served.
    unusable: Option<Trouble>,
    /// Another replica works on it.
    is_elsewhere: bool,
}

/// A certificate that is there.
#[derive(Clone)]
struct Served {
    document: Arc<CertificateDocument>,
    facts: Facts,
}

impl Engine {
    pub fn new(shared: Arc<Shared>, desired: watch::Receiver<Arc<Desired>>) -> Self {
        Self {
            shared,
            desired,
            entries: BTreeMap::new(),
            running: BTreeSet::new(),
            strays: BTreeSet::new(),
            issued: watch::Sender::default(),
            state: watch::Sender::default(),
            orders: BTreeMap::new(),
        }
    }

    /// What can be served.
    pub fn issued(&self) -> watch::Receiver<Arc<Issued>> {
        self.issued.subscribe()
    }

    /// How each certificate does.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Takes up what is wanted and what is kept of it; asks nobody for anything.
    pub async fn adopt(&mut self) {
        let desired = Arc::clone(&self.desired.borrow_and_update());
        let wanted: BTreeSet<&CertificateName> = desired.jobs.iter().map(|job| &job.name).collect();
        self.entries.retain(|name, _| wanted.contains(name));
        let mut new = Vec::new();
        for job in &desired.jobs {
            match self.entries.get_mut(&job.name) {
                Some(entry)
                    if entry.job.hosts == job.hosts
                        && entry.job.secret == job.secret
                        && (entry.job.is_missing || !job.is_missing) =>
                {
                    entry.job = job.clone();
                }
                _ => new.push(job),
            }
        }
        let loads = new.into_iter().map(|job| self.load(job).boxed());
        let loads: Vec<BoxFuture<'_, Entry>> = loads.collect();
        let loads = stream::iter(loads).buffer_unordered(LOADS_AT_ONCE);
        let loaded: Vec<Entry> = loads.collect().await;
        let loaded = loaded.into_iter();
        self.entries
            .extend(loaded.map(|entry| (entry.job.name.clone(), entry)));
        self.publish();
    }

    /// Tells what is wanted and who gets it, where that is not this process.
    pub fn stand_by(&mut self, leader: Option<&str>) {
        let now = self.shared.clock.now();
        let desired = Arc::clone(&self.desired.borrow_and_update());
        let message = match leader {
            Some(leader) => format!("the replica '{leader}' gets it, and knows more"),
            None => "no replica gets certificates at this moment".to_owned(),
        };
        let entries = desired.jobs.iter().map(|job| {
            let entry = Entry {
                job: job.clone(),
                name: job.document_name(),
                certificate: None,
                order: OrderDocument::default(),
                unusable: Some(Trouble {
                    reason: Reason::Processing.to_string(),
                    message: message.clone(),
                    at: now,
                    ..Trouble::default()
                }),
                is_elsewhere: true,
            };
            (job.name.clone(), entry)
        });
        self.entries = entries.collect();
        self.publish();
        self.entries.clear();
    }

    /// What was kept for a job, if it can be served.
    pub fn kept(job: &Job, bytes: &[u8], now: Seconds) -> Option<IssuedCertificate> {
        let document: CertificateDocument = serde_json::from_slice(bytes).ok()?;
        usable(&document, &job.hosts, now).ok()?;
        Some(IssuedCertificate {
            chain: document.chain,
            key: document.key,
        })
    }

    /// Reads everything again: another process may have written meanwhile.
    pub async fn reload(&mut self) {
        self.entries.clear();
        self.adopt().await;
    }

    async fn load(&self, job: &Job) -> Entry {
        let name = job.document_name();
        let mut entry = Entry {
            job: job.clone(),
            certificate: None,
            order: OrderDocument::default(),
            unusable: None,
            is_elsewhere: false,
            name,
        };
        let store = &*self.shared.store;
        let now = self.shared.clock.now();
        let trouble = |reason: Reason, message: String| Trouble {
            reason: reason.to_string(),
            message,
            at: now,
            ..Trouble::default()
        };
        match document::load(store, Kind::Order, &entry.name).await {
            Ok(order) => entry.order = order.unwrap_or_default(),
            Err(error) => {
                entry.unusable = Some(trouble(Reason::StorageFailed, error.to_string()));
            }
        }
        match document::load(store, Kind::Certificate, &entry.name).await {
            Ok(Some(document)) => match usable(&document, &job.hosts, now) {
                Ok(facts) => {
                    let document = Arc::new(document);
                    entry.certificate = Some(Served { document, facts });
                }
                Err(refusal) => {
                    let reason = match refusal {
                        Refusal::KeyMismatch => Reason::KeyMismatch,
                        _ => Reason::CertificateRefused,
                    };
                    let message = format!("what is kept cannot be served: {refusal}");
                    tracing::warn!(certificate = %job.name, detail = message, "certificate not usable");
                    entry.unusable = Some(trouble(reason, message));
                }
            },
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(certificate = %job.name, %error, "certificate not readable");
                entry.unusable = Some(trouble(Reason::StorageFailed, error.to_string()));
            }
        }
        entry
    }

    /// Shows the challenges that are kept: an attempt that another process began goes on. Forgets
    /// those that nobody has taken back in time.
    pub async fn show_challenges(shared: &Shared, may_delete: bool) {
        let store = &*shared.store;
        let Ok(tokens) = store.list(Kind::Challenge).await else {
            return;
        };
        for token in tokens {
            let kept: Option<ChallengeDocument> =
                match document::load(store, Kind::Challenge, &token).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        tracing::debug!(token, %error, "challenge not readable");
                        continue;
                    }
                };
            let Some(kept) = kept else { continue };
            if kept.expires < shared.clock.now() {
                shared.replicas.hide(&token).await;
                if may_delete {
                    // Another look deletes what this one could not.
                    let _ = store.delete(Kind::Challenge, &token).await;
                }
                continue;
            }
            if let Some(challenge) = challenge::of_document(kept) {
                // One that cannot be shown is begun anew.
                let _ = shared.replicas.show_here(&challenge).await;
            }
        }
    }

    /// Works until it is dropped. To be called by the one party that may write; again, if that has
    /// been another one meanwhile.
    pub async fn run(&mut self) {
        // Of attempts that ended with an earlier call.
        self.running.clear();
        self.strays.clear();
        self.reload().await;
        let mut tidied_at = None;
        let mut running: FuturesUnordered<BoxFuture<'static, (Job, Option<Done>)>> =
            FuturesUnordered::new();
        loop {
            let now = self.shared.clock.now();
            if tidied_at.is_none_or(|at| now.abs_diff(at) >= TIDY_EVERY) {
                tidied_at = Some(now);
                self.tidy().await;
            }
            let mut next = now + LONGEST_SLEEP;
            let mut due = Vec::new();
            for (name, entry) in &self.entries {
                if self.running.contains(&entry.name) {
                    continue;
                }
                let at = entry.due(&self.desired.borrow(), now);
                if at <= now {
                    due.push((at, name.clone()));
                } else {
                    next = next.min(at);
                }
            }
            // Who has waited longest comes first.
            due.sort();
            let free = MAX_ATTEMPTS.saturating_sub(running.len());
            let is_any_due = !due.is_empty();
            for (_, name) in due.into_iter().take(free) {
                if let Some(task) = self.begin(&name) {
                    let shared = Arc::clone(&self.shared);
                    let job = task.job.clone();
                    let work = AssertUnwindSafe(async move { work::run(&shared, task).await });
                    running.push(Box::pin(
                        async move { (job, work.catch_unwind().await.ok()) },
                    ));
                }
            }
            if is_any_due {
                self.publish();
            }
            let pause = Duration::from_secs(next.saturating_sub(now)).max(SHORTEST_SLEEP);
            tokio::select! {
                Some((job, done)) = running.next(), if !running.is_empty() => {
                    self.finish(&job, done);
                    self.publish();
                }
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.adopt().await;
                }
                () = sleep(pause) => {}
            }
        }
    }

    /// Forgets what is left of challenges and orders that nobody wants any more.
    async fn tidy(&mut self) {
        Self::show_challenges(&self.shared, true).await;
        let Ok(mut names) = self.shared.store.list(Kind::Order).await else {
            // Another look tells.
            return;
        };
        let wanted: BTreeSet<&str> = self.entries.values().map(|entry| &*entry.name).collect();
        names.retain(|name| !wanted.contains(&**name) && !self.running.contains(name));
        // A certificate that is wanted again by the next look goes on where it was.
        let strays = names.into_iter().collect();
        let before = std::mem::replace(&mut self.strays, strays);
        for name in self.strays.intersection(&before) {
            self.forget(name).await;
        }
    }

    async fn forget(&self, name: &str) {
        let store = &*self.shared.store;
        // One that cannot be read is left to whoever puts it back from a backup.
        let Ok(Some(order)) = document::load::<OrderDocument>(store, Kind::Order, name).await
        else {
            return;
        };
        let issuers = Arc::clone(&self.desired.borrow());
        let mut issuers = issuers.issuers.values();
        let issuer = issuers.find(|issuer| issuer.name.as_str() == order.issuer);
        let solver = issuer.and_then(|issuer| issuer.solver.as_deref());
        let left = order::sweep(&self.shared, solver, name, order.published).await;
        if !left.is_empty() && issuer.is_some() {
            // Tried again with the next look. Without an issuer nobody can.
            return;
        }
        match store.delete(Kind::Order, name).await {
            Ok(()) => tracing::info!(
                certificate = name,
                "an order that nobody wants is forgotten"
            ),
            Err(error) => tracing::debug!(certificate = name, %error, "{}", order::NOT_FORGOTTEN),
        }
    }

    fn begin(&mut self, name: &CertificateName) -> Option<Task> {
        let desired = Arc::clone(&self.desired.borrow());
        let entry = self.entries.get_mut(name)?;
        let issuer = desired.issuers.get(&entry.job.issuer)?;
        let fallback = issuer.spec.fallback.as_ref();
        let fallback = fallback.and_then(|name| desired.issuers.get(name));
        self.running.insert(entry.name.clone());
        Some(Task {
            job: entry.job.clone(),
            name: entry.name.clone(),
            issuer: Arc::clone(issuer),
            fallback: fallback.map(Arc::clone),
            certificate: entry
                .certificate
                .as_ref()
                .map(|served| Arc::clone(&served.document)),
            known: entry.order.clone(),
        })
    }

    /// `done` is missing if the attempt had a fault.
    fn finish(&mut self, job: &Job, done: Option<Done>) {
        let now = self.shared.clock.now();
        let name = &job.name;
        self.running.remove(&job.document_name());
        let Some(entry) = self.entries.get_mut(name) else {
            // Not wanted any more.
            return;
        };
        let Some(done) = done else {
            tracing::error!(certificate = %name, "an attempt failed: the gateway has a fault");
            entry.order.next_try = now + 10 * MINUTE;
            entry.order.asked_as.clone_from(&job.fingerprint);
            return;
        };
        if let Some((issuer, outcome, reason)) = done.counted {
            let key = (issuer.to_string(), outcome, reason);
            *self.orders.entry(key).or_default() += 1;
        }
        if entry.job.hosts != job.hosts || entry.job.secret != job.secret {
            // Something else is wanted by now.
            return;
        }
        entry.order = done.order;
        if let Some(document) = done.certificate
            && let Ok(facts) = usable(&document, &entry.job.hosts, now)
        {
            let document = Arc::new(document);
            entry.certificate = Some(Served { document, facts });
            entry.unusable = None;
        }
    }

    fn publish(&self) {
        let now = self.shared.clock.now();
        let served = self.entries.iter().filter_map(|(name, entry)| {
            let document = &entry.certificate.as_ref()?.document;
            let certificate = IssuedCertificate {
                chain: document.chain.clone(),
                key: document.key.clone(),
            };
            Some((name.clone(), certificate))
        });
        let issued = Issued(served.collect());
        self.issued.send_if_modified(|current| {
            let is_new = **current != issued;
            if is_new {
                *current = Arc::new(issued);
            }
            is_new
        });
        let desired = self.desired.borrow();
        let certificates = self.entries.values().map(|entry| {
            let is_running = self.running.contains(&entry.name);
            entry.status(&desired, is_running, now)
        });
        self.state.send_replace(Arc::new(State {
            certificates: certificates.collect(),
            orders: self.orders.clone(),
        }));
    }
}

impl Entry {
    /// When something is to be done about it.
    fn due(&self, desired: &Desired, now: Seconds) -> Seconds {
        self.next(desired, now).1
    }

    /// What is done next, and when.
    fn next(&self, desired: &Desired, now: Seconds) -> (Action, Seconds) {
        if self.is_elsewhere {
            return (Action::Elsewhere, now);
        }
        let Some(issuer) = desired.issuers.get(&self.job.issuer) else {
            return (Action::Nothing, Seconds::MAX);
        };
        let Some(served) = &self.certificate else {
            return (Action::Order, self.next_try());
        };
        let fallback = issuer.spec.fallback.as_ref();
        let fallback = fallback.and_then(|name| desired.issuers.get(name));
        if !work::is_as_wanted(&served.document, issuer, fallback.map(|issuer| &**issuer)) {
            return (Action::Order, self.next_try());
        }
        let document = &served.document;
        let renew = renewal::renew_at(document, &served.facts);
        if renew > now && work::is_over(&self.order, document) {
            // Shown is the renewal; tidying up is no news.
            return (Action::Renew(renew), self.next_try().max(now));
        }
        let renew = renew.max(self.next_try());
        let ask = document.ask_at.max(self.next_try());
        if served.facts.id.is_some() && ask < renew && renew > now {
            // Shown is the renewal; asking is no news.
            return (Action::Renew(renew), ask);
        }
        (Action::Renew(renew), renew)
    }

    /// When another attempt is worth it. What was refused may not be as it is configured now; what
    /// costs the authority something is waited for all the same.
    fn next_try(&self) -> Seconds {
        let costs = [
            Reason::RateLimited,
            Reason::AccountPaused,
            Reason::ValidationFailed,
            Reason::Processing,
        ];
        let trouble = self.order.trouble.as_ref();
        let costs = costs
            .iter()
            .any(|reason| trouble.is_some_and(|trouble| trouble.reason == reason.as_str()));
        match costs || self.order.asked_as == self.job.fingerprint {
            true => self.order.next_try,
            false => 0,
        }
    }

    fn status(&self, desired: &Desired, is_running: bool, now: Seconds) -> CertificateStatus {
        let (action, at) = self.next(desired, now);
        let at = match action {
            Action::Renew(at) => at,
            Action::Order | Action::Nothing | Action::Elsewhere => at,
        };
        CertificateStatus {
            name: self.job.name.clone(),
            hosts: self.job.hosts.clone(),
            issuer: self.job.issuer.clone(),
            served: self.certificate.as_ref().map(|served| state::Served {
                issuer: served.document.issuer.clone(),
                not_before: served.facts.not_before,
                not_after: served.facts.not_after,
                explanation: served
                    .document
                    .window
                    .as_ref()
                    .and_then(|window| window.explanation.clone()),
            }),
            action,
            at,
            is_running,
            failures: self.order.failures,
            trouble: match action {
                Action::Nothing => Some(Trouble {
                    reason: Reason::PolicyDenied.to_string(),
                    message: format!("there is no issuer '{}'", self.job.issuer),
                    at: now,
                    ..Trouble::default()
                }),
                Action::Order | Action::Renew(_) | Action::Elsewhere => {
                    self.order.trouble.clone().or_else(|| self.unusable.clone())
                }
            },
        }
    }
}

/// What is kept is served even when it has ended, or has not begun by a clock that may be wrong:
/// clients that look see why, and nothing better is there.
fn usable(
    document: &CertificateDocument,
    hosts: &[Hostname],
    now: Seconds,
) -> Result<Facts, Refusal> {
    match verify::verify(&document.chain, &document.key, hosts, now) {
        Err(Refusal::Ended(_) | Refusal::NotYet(_)) => verify::facts(&document.chain),
        result => result,
    }
}
