//! One certificate, from the names to the chain.
//!
//! The authority knows how far an order is, and we keep what it cannot know: the key, the URL of the
//! order, what was published for it, and how often it failed. So every step is found again by asking,
//! and killing the gateway between any two of them costs at most a request. What is kept is kept
//! before the request that it is needed for:
//!
//! gate, look at the DNS, **key**, order, **its URL**, for each name: **challenge**, shown by all,
//! begun; finalized; fetched; verified; **certificate**; swept.

mod failure;
mod validate;

use std::collections::BTreeMap;
use std::time::Duration;

use instant_acme::OrderStatus;
use postern_core::config::issuer::ChallengeKind;
use postern_core::hostname::Hostname;
use tokio::time::sleep;

use crate::account;
use crate::client::Account;
use crate::client::Ca;
use crate::client::CaError;
use crate::client::Reply;
use crate::clock::MINUTE;
use crate::clock::Seconds;
use crate::clock::shown;
use crate::dns::persist;
use crate::dns::persist::Wanted;
use crate::dns::preflight::Verdict;
use crate::document;
use crate::document::CertificateDocument;
use crate::document::OrderDocument;
use crate::engine::Issuer;
use crate::engine::Job;
use crate::engine::Shared;
use crate::key;
use crate::ledger::Ledger;
use crate::ledger::registered_domain;
use crate::protocol::Order;
use crate::protocol::one_line;
use crate::reason::Reason;
use crate::store::Kind;
use crate::verify;

pub(crate) use self::failure::Failure;
pub(crate) use self::validate::sweep;

/// How often an order is asked for while it is young, and how long that is; after that it is left
/// until the authority says, or a minute.
const POLL: Duration = Duration::from_secs(1);
const POLL_IN_PLACE: Seconds = 20;
const POLL_LATER: Seconds = 60;
/// Longest time between two looks at an order that the authority works on.
const LONGEST_POLL: Seconds = 6 * 60 * 60;
/// Between two looks whether somebody else still provides a certificate.
const PROVIDER_PAUSE: Seconds = 10 * 60;
/// How long an authority may take to look for a challenge before that counts as a failure.
const VALIDATION_TIME: Seconds = 10 * 60;
/// Until what could not be tidied up is tidied up.
const TIDY_PAUSE: Seconds = 10 * MINUTE;
/// Attempts in which an order is looked for that may be there, while the authority does not say.
const LOOKS_IN_VAIN: u32 = 5;
/// Steps of one attempt. A well-behaved authority needs eight; one that answers nonsense for ever
/// must not hold a place for ever.
const MAX_STEPS: usize = 200;

/// Of an order that has led to a certificate.
pub(crate) const NOT_FORGOTTEN: &str = "an order that is over is not forgotten";

/// How an attempt ended, if not in an error.
pub(crate) enum Outcome {
    Issued(Box<CertificateDocument>),
    /// Nothing is wrong, and it takes time.
    Later {
        at: Seconds,
        failure: Failure,
    },
}

/// One attempt. What it leaves behind is in the order document.
pub(crate) struct Attempt<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) job: &'a Job,
    pub(crate) issuer: &'a Issuer,
    /// The name of its documents.
    pub(crate) name: &'a str,
    pub(crate) kept: OrderDocument,
    /// What is served now.
    pub(crate) current: Option<&'a CertificateDocument>,
}

impl Attempt<'_> {
    pub(crate) async fn run(&mut self) -> Result<Outcome, Failure> {
        let spec = &self.issuer.spec;
        let hosts = self.hosts();
        let is_other = !self.kept.hosts.is_empty() && self.kept.hosts != hosts;
        self.kept.hosts = hosts;
        if self.kept.directory != spec.directory
            || self.kept.key_type != spec.key_type.as_str()
            || self.kept.issuer != self.issuer.name.as_str()
            || is_other
        {
            // Another authority or account knows nothing of this order, its key is of the wrong
            // kind, or it is for other hosts.
            self.sweep().await;
            self.kept.url = None;
            self.kept.was_asked = false;
            self.kept.key.clear();
            self.kept.directory.clone_from(&spec.directory);
            self.kept.key_type = spec.key_type.as_str().to_owned();
        }
        self.kept.issuer = self.issuer.name.to_string();
        self.kept.asked_as.clone_from(&self.job.fingerprint);
        if self.kept.url.is_none() {
            self.gate().await?;
            self.look().await?;
        }
        let may_be_there = self.kept.was_asked && self.kept.url.is_none();
        if self.kept.key.is_empty() || (self.kept.url.is_none() && !self.kept.was_asked) {
            if self.kept.key.is_empty() {
                self.kept.key = key::certificate_key(spec.key_type)?;
            }
            self.kept.was_asked = true;
            self.save().await?;
        }
        let account = account::account(&*self.shared.store, self.issuer).await?;
        let ca = self.issuer.ca.get().await?;
        if self.kept.account.as_deref() != Some(account.url()) {
            if self.kept.account.is_some() {
                // The order is of another account, which no longer speaks for us.
                self.kept.url = None;
            }
            self.kept.account = Some(account.url().to_owned());
        }
        if may_be_there {
            self.find(&ca, &account).await?;
        }
        let outcome = self.order(&ca, &account).await;
        if let Err(failure) = &outcome
            && failure.is_account_lost
        {
            account::forget(&*self.shared.store, self.issuer).await?;
        }
        outcome
    }

    /// Looks for an order that was placed and not noted. One that cannot be found is placed anew.
    async fn find(&mut self, ca: &Ca, account: &Account) -> Result<(), Failure> {
        match ca.find_order(account, &self.hosts()).await {
            Ok(Some(url)) => {
                tracing::info!(
                    certificate = self.name,
                    order = url,
                    "an order was found again"
                );
                self.kept.url = Some(url);
                self.save().await
            }
            Ok(None) => Ok(()),
            // It may be there, and is looked for again; not for ever where nothing answers that.
            Err(error) if error.is_silence() && self.kept.failures < LOOKS_IN_VAIN => {
                Err(error.into())
            }
            Err(error) => {
                tracing::debug!(certificate = self.name, %error, "no list of orders");
                Ok(())
            }
        }
    }

    /// What the configuration and the ledger say.
    async fn gate(&self) -> Result<(), Failure> {
        let issuer = self.issuer;
        let provider = self.shared.store.provider(self.name).await?;
        if let Some(provider) = provider {
            let now = self.shared.clock.now();
            let failure = Failure::new(Reason::ExternallyManaged, provider);
            return Err(failure.until(now + PROVIDER_PAUSE));
        }
        let namespace = self.job.secret.as_ref().map(|secret| &secret.namespace);
        if let Some(namespace) = namespace.filter(|namespace| !issuer.spec.serves(namespace)) {
            let message = format!(
                "the issuer '{}' is not for the namespace '{namespace}'",
                issuer.name
            );
            return Err(Failure::new(Reason::PolicyDenied, message));
        }
        if let Some(host) = self.job.hosts.iter().find(|host| !issuer.spec.allows(host)) {
            return Err(Failure::new(
                Reason::PolicyDenied,
                format!("the issuer '{}' may not be asked for {host}", issuer.name),
            ));
        }
        let now = self.shared.clock.now();
        let ledger = issuer.ledger(&*self.shared.store).await?;
        let until = ledger.paused_until(self.domains());
        if until > now {
            return Err(Failure::new(
                Reason::RateLimited,
                format!("the authority asked for a pause until {}", shown(until)),
            )
            .until(until));
        }
        // What the authority does not count, we do not count.
        if self.replaces(&*issuer.ca.get().await?).await?.is_none() {
            let share = issuer.spec.certificates_a_week;
            let free = ledger.free_at(self.domains(), share, now);
            if free > now {
                return Err(self.ledger_full(free));
            }
        }
        Ok(())
    }

    /// Whether the names lead here, or let us have them. Places no order.
    async fn look(&self) -> Result<(), Failure> {
        if self.issuer.spec.challenges.first() == Some(&ChallengeKind::DnsPersist01) {
            return self.look_for_records().await;
        }
        let Some(preflight) = &self.issuer.preflight else {
            return Ok(());
        };
        for host in &self.job.hosts {
            let host = host.to_string();
            judged(&host, preflight.check(&host).await)?;
        }
        Ok(())
    }

    /// Whether records that stay let the account have the names. They name it, so it is made first.
    async fn look_for_records(&self) -> Result<(), Failure> {
        let Some(client) = &self.issuer.records else {
            let message = "nothing here asks the DNS for records that stay";
            return Err(Failure::new(Reason::SolverFailed, message));
        };
        let account = account::account(&*self.shared.store, self.issuer).await?;
        let directory = self.issuer.ca.get().await?.directory().await?;
        let is_plain = |identity: &&String| {
            !identity.is_empty() && identity.bytes().all(|b| b.is_ascii_graphic())
        };
        let identities = directory.meta.caa_identities.iter().filter(is_plain);
        let identities: Vec<String> = identities.cloned().collect();
        if identities.is_empty() {
            let message = "the authority does not say how a record calls it (caaIdentities), which dns-persist-01 wants";
            return Err(Failure::new(Reason::OrderRefused, message));
        }
        // A name and the wildcard below it share a record.
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        for host in &self.job.hosts {
            let (Hostname::Exact(name) | Hostname::Wildcard(name)) = host;
            *names.entry(name).or_default() |= matches!(host, Hostname::Wildcard(_));
        }
        for (host, is_wild) in names {
            let wanted = Wanted {
                identities: &identities,
                account: account.url(),
                is_wild,
                now: self.shared.clock.now(),
            };
            judged(host, persist::look(client, host, &wanted).await)?;
        }
        Ok(())
    }

    /// The certificate that the authority is told is replaced.
    async fn replaces(&self, ca: &Ca) -> Result<Option<String>, CaError> {
        let directory = &self.issuer.spec.directory;
        let current = self
            .current
            .filter(|current| current.directory == *directory);
        let Some(current) = current else {
            return Ok(None);
        };
        // Authorities that give no such information take offence.
        if ca.directory().await?.renewal_info.is_none() {
            return Ok(None);
        }
        Ok(verify::facts(&current.chain)
            .ok()
            .and_then(|facts| facts.id))
    }

    fn hosts(&self) -> Vec<String> {
        self.job.hosts.iter().map(Hostname::to_string).collect()
    }

    fn domains(&self) -> impl Iterator<Item = &str> {
        let names = self.job.hosts.iter().map(|host| {
            let (Hostname::Exact(name) | Hostname::Wildcard(name)) = host;
            registered_domain(name)
        });
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    async fn order(&mut self, ca: &Ca, account: &Account) -> Result<Outcome, Failure> {
        let mut latest = match self.kept.url.clone() {
            Some(url) => match ca.order(account, &url).await {
                Ok(reply) => Some(reply),
                Err(error) if error.is_gone() => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let began = self.shared.clock.now();
        let mut has_begun = false;
        for _ in 0..MAX_STEPS {
            let reply = match latest.take() {
                Some(reply) => reply,
                None => self.place(ca, account).await?,
            };
            let order = &reply.value;
            match order.status {
                OrderStatus::Pending => {
                    if !has_begun {
                        self.validate(ca, account, order).await?;
                        has_begun = true;
                    }
                    let since = self.kept.validating_since.unwrap_or(began);
                    if self.shared.clock.now() > since + VALIDATION_TIME {
                        self.give_up().await?;
                        let message = "the authority has not looked for the challenges in time";
                        return Err(Failure::new(Reason::ValidationFailed, message));
                    }
                }
                OrderStatus::Ready => {
                    let request = key::request(&self.kept.key, &self.hosts())?;
                    latest = Some(match ca.finalize(order, &request).await {
                        Ok(reply) => reply,
                        // Somebody has done so before us: the order says.
                        Err(error) if error.is("orderNotReady") => self.again(ca, account).await?,
                        Err(error) => return Err(error.into()),
                    });
                    let is_done = latest
                        .as_ref()
                        .is_some_and(|reply| reply.value.status != OrderStatus::Ready);
                    if is_done {
                        continue;
                    }
                    // Asked again, in its time: not in a loop with an authority that does nothing.
                }
                OrderStatus::Valid => return self.fetch(ca, order).await,
                OrderStatus::Processing => {}
                OrderStatus::Invalid => {
                    let failure = self.verdict(ca, account, order).await;
                    self.give_up().await?;
                    return Err(failure);
                }
            }
            let now = self.shared.clock.now();
            let wanted = reply.retry_at.unwrap_or(now);
            if now >= began + POLL_IN_PLACE || wanted > now + POLL_IN_PLACE {
                let at = match wanted > now {
                    true => wanted.min(now + LONGEST_POLL),
                    false => now + POLL_LATER,
                };
                let failure = Failure::new(Reason::Processing, "the authority is at work");
                return Ok(Outcome::Later { at, failure });
            }
            sleep(POLL.max(Duration::from_secs(wanted.saturating_sub(now)))).await;
            latest = Some(self.again(ca, account).await?);
        }
        Err(Failure::new(
            Reason::OrderRefused,
            "the authority leads in circles",
        ))
    }

    async fn again(&self, ca: &Ca, account: &Account) -> Result<Reply<Order>, CaError> {
        let url = self.kept.url.as_deref().unwrap_or_default();
        ca.order(account, url).await
    }

    /// Places the order.
    async fn place(&mut self, ca: &Ca, account: &Account) -> Result<Reply<Order>, Failure> {
        let profile = self.issuer.spec.profile.as_deref();
        let directory = ca.directory().await?;
        let profiles = &directory.meta.profiles;
        if let Some(profile) = profile.filter(|profile| !profiles.contains_key(*profile)) {
            let offered: Vec<&str> = profiles.keys().map(String::as_str).collect();
            let offered = match offered.as_slice() {
                [] => "none".to_owned(),
                offered => offered.join(", "),
            };
            let offered = one_line(&offered);
            return Err(Failure::new(
                Reason::OrderRefused,
                format!("the authority has no profile '{profile}'; it offers {offered}"),
            ));
        }
        let replaces = self.replaces(ca).await?;
        let hosts = self.hosts();
        // What the authority does not count, we do not count.
        let mut counted_at = None;
        if replaces.is_none() {
            counted_at = Some(self.count().await?);
        }
        let placed = ca.new_order(account, &hosts, profile, replaces.as_deref());
        let (placed, replaces) = match placed.await {
            // Said no to the replacement, not to the order: one that was half done, a certificate
            // of another issuer.
            Err(error)
                if replaces.is_some()
                    && error.problem().is_some_and(|problem| {
                        problem.is_about_replacing()
                            || problem.is("conflict")
                            || problem.is("malformed")
                    }) =>
            {
                counted_at = Some(self.count().await?);
                (ca.new_order(account, &hosts, profile, None).await, None)
            }
            placed => (placed, replaces),
        };
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                // A refusal is an answer: nothing was made. A fault of theirs is none.
                self.kept.was_asked = error.problem().is_none() || error.is("serverInternal");
                if let Some(at) = counted_at.filter(|_| !self.kept.was_asked) {
                    self.uncount(at).await;
                }
                if let Some(until) = error.retry_at().filter(|_| error.is("rateLimited"))
                    && let Err(failure) = self.pause(until).await
                {
                    let detail = failure.message;
                    tracing::warn!(certificate = self.name, detail, "a pause is not kept");
                }
                return Err(error.into());
            }
        };
        self.kept.url = Some(placed.url);
        self.kept.was_asked = false;
        self.kept.validating_since = None;
        self.kept.replaces.clone_from(&replaces);
        self.save().await?;
        match placed.reply {
            Some(reply) => Ok(reply),
            None => Ok(self.again(ca, account).await?),
        }
    }

    /// Takes one of the share; when. Here and not at the gate, so that attempts at once do not take
    /// the same one.
    async fn count(&self) -> Result<Seconds, Failure> {
        let now = self.shared.clock.now();
        let share = self.issuer.spec.certificates_a_week;
        let change = |ledger: &mut Ledger| {
            let free = ledger.free_at(self.domains(), share, now);
            if free <= now {
                ledger.ordered(self.domains(), now);
            }
            free
        };
        let store = &*self.shared.store;
        match self.issuer.change_ledger(store, change).await? {
            free if free > now => Err(self.ledger_full(free)),
            _ => Ok(now),
        }
    }

    /// Gives it back: the authority made no order.
    async fn uncount(&self, at: Seconds) {
        let change = |ledger: &mut Ledger| ledger.refused(self.domains(), at);
        let store = &*self.shared.store;
        if let Err(error) = self.issuer.change_ledger(store, change).await {
            tracing::warn!(certificate = self.name, %error, "an order that was refused is counted");
        }
    }

    fn ledger_full(&self, free: Seconds) -> Failure {
        let share = self.issuer.spec.certificates_a_week.unwrap_or(0);
        let message = format!(
            "{share} certificates were ordered in seven days, which is the share of this gateway; there is room at {}",
            shown(free)
        );
        Failure::new(Reason::LedgerFull, message).until(free)
    }

    async fn pause(&self, until: Seconds) -> Result<(), Failure> {
        let now = self.shared.clock.now();
        let store = &*self.shared.store;
        let domains: Vec<&str> = self.domains().collect();
        let change = |ledger: &mut Ledger| ledger.pause(domains.into_iter(), until, now);
        Ok(self.issuer.change_ledger(store, change).await?)
    }

    /// Fetches the chain, and takes nothing that was not asked for.
    async fn fetch(&mut self, ca: &Ca, order: &Order) -> Result<Outcome, Failure> {
        let chain = ca.certificate(order).await?;
        let now = self.shared.clock.now();
        let verified = verify::verify(&chain, &self.kept.key, &self.job.hosts, now);
        let facts = match verified {
            Ok(facts) => facts,
            // By our clock; it is there, and is fetched again when that may have been set.
            Err(refusal @ verify::Refusal::NotYet(_)) => {
                let message = format!("what was delivered: {refusal}");
                return Err(Failure::new(Reason::CertificateRefused, message));
            }
            Err(refusal) => {
                self.give_up().await?;
                let reason = match refusal {
                    verify::Refusal::KeyMismatch => Reason::KeyMismatch,
                    _ => Reason::CertificateRefused,
                };
                return Err(Failure::new(
                    reason,
                    format!("what was delivered: {refusal}"),
                ));
            }
        };
        let spec = &self.issuer.spec;
        if spec.profile.is_some() && order.profile != spec.profile {
            let name = self.name;
            tracing::warn!(
                certificate = name,
                "the authority did not say that it used the profile"
            );
        }
        let document = CertificateDocument {
            issuer: self.issuer.name.to_string(),
            directory: spec.directory.clone(),
            profile: spec.profile.clone(),
            key_type: spec.key_type.as_str().to_owned(),
            chain,
            key: self.kept.key.clone(),
            issued_at: now,
            window: None,
            ask_at: now,
        };
        let store = &*self.shared.store;
        document::save(store, Kind::Certificate, self.name, &document).await?;
        if let Err(failure) = self.tidy().await {
            // The certificate is there all the same.
            let detail = failure.message;
            tracing::warn!(certificate = self.name, detail, "{NOT_FORGOTTEN}");
        }
        tracing::info!(
            certificate = self.name,
            issuer = self.issuer.name.as_str(),
            ends = shown(facts.not_after),
            "certificate issued"
        );
        Ok(Outcome::Issued(Box::new(document)))
    }

    /// Takes back what was published, and forgets the order: it has led to a certificate. What is
    /// left is tidied up later; by its key it is known to be over.
    pub(crate) async fn tidy(&mut self) -> Result<(), Failure> {
        self.sweep().await;
        let over = std::mem::take(&mut self.kept);
        let store = &*self.shared.store;
        let deleted = match over.published.is_empty() {
            true => store.delete(Kind::Order, self.name).await,
            false => Ok(()),
        };
        if deleted.is_ok() && over.published.is_empty() {
            return Ok(());
        }
        self.kept = OrderDocument {
            key: over.key,
            published: over.published,
            asked_as: self.job.fingerprint.clone(),
            next_try: self.shared.clock.now() + TIDY_PAUSE,
            ..OrderDocument::default()
        };
        deleted?;
        self.save().await
    }

    /// This order leads nowhere: the next attempt places another.
    async fn give_up(&mut self) -> Result<(), Failure> {
        self.sweep().await;
        self.kept.url = None;
        self.kept.validating_since = None;
        self.save().await
    }

    pub(crate) async fn save(&self) -> Result<(), Failure> {
        let store = &*self.shared.store;
        document::save(store, Kind::Order, self.name, &self.kept).await?;
        Ok(())
    }

    /// Whether a way to validate names can be used here for this name.
    fn can(&self, kind: ChallengeKind, is_wildcard: bool) -> bool {
        self.issuer.spec.challenges.contains(&kind)
            && match kind {
                ChallengeKind::Dns01 => self.issuer.solver.is_some(),
                ChallengeKind::DnsPersist01 => self.issuer.records.is_some(),
                ChallengeKind::Http01 | ChallengeKind::TlsAlpn01 => !is_wildcard,
            }
    }
}

/// What the DNS says of a name, as an attempt goes on or ends.
fn judged(host: &str, verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Ready { message } => {
            tracing::debug!(host, detail = message, "name looked at");
            Ok(())
        }
        Verdict::Waits {
            reason,
            message,
            record,
        } => Err(Failure {
            record,
            is_wait: true,
            ..Failure::new(reason, message)
        }),
    }
}
