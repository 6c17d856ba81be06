//! Which replica writes: the holder of a Lease.
//!
//! A replica that may write has a [`Term`], which ends by this machine's clock well before any other
//! replica may take the Lease. What others wrote is judged by when it was seen to change here, never
//! by their clocks: machines whose clocks are minutes apart elect as well as others.
//!
//! Routing does not depend on any of this: without a leader nothing is written, and all is served.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// How long others leave a Lease alone that they do not see renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a renewal entitles to write. The difference to [`DURATION`] is for calls under way.
pub const TERM: Duration = Duration::from_secs(10);
/// Between two renewals, and between two tries of one that failed.
pub const RENEW: Duration = Duration::from_secs(2);
/// Between two looks of a replica that does not hold the Lease.
const LOOK: Duration = Duration::from_secs(4);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);
/// How long giving the Lease back may take when the process ends.
const RELEASE: Duration = Duration::from_secs(2);

/// Until when this replica may write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Term {
    until: Instant,
}

impl Term {
    /// What is left of it; `None` if it is over.
    pub fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

/// A candidate for one Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was last read or written, and since when it is so.
    seen: Option<(Lease, Instant)>,
    term: watch::Sender<Option<Term>>,
    /// Who holds the Lease, as it was last seen.
    holder: watch::Sender<Option<String>>,
}

/// What a look at the Lease leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Renew,
    Take,
    Wait,
}

/// The Leases of a namespace.
pub fn leases(client: &kube::Client, namespace: &str) -> Api<Lease> {
    Api::namespaced(client.clone(), namespace)
}

impl Election {
    /// The client must not repeat calls by itself: a renewal that arrives late is a false one.
    /// `identity` is of this process alone.
    pub fn new(
        api: Api<Lease>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> (Self, watch::Receiver<Option<Term>>) {
        let (term, receiver) = watch::channel(None);
        let election = Self {
            api,
            name: name.into(),
            identity: identity.into(),
            seen: None,
            term,
            holder: watch::Sender::default(),
        };
        (election, receiver)
    }

    /// Who holds the Lease, this replica or another, as it becomes known.
    pub fn holder(&self) -> watch::Receiver<Option<String>> {
        self.holder.subscribe()
    }

    fn note_holder(&self) {
        let Some((lease, _)) = &self.seen else {
            return;
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        self.holder.send_if_modified(|known| {
            let is_new = *known != holder;
            *known = holder;
            is_new
        });
    }

    /// Stands for election until `ending` completes, then gives the Lease back.
    pub async fn run(mut self, ending: impl Future<Output = ()>) {
        tokio::select! {
            () = self.stand() => {}
            () = ending => {}
        }
        let has_held = self.term.send_replace(None).is_some();
        if has_held {
            tracing::info!("no longer the replica that writes: it ends");
            // Without it, the others wait for the Lease to run out.
            let _ = timeout(RELEASE, self.release()).await;
        }
    }

    async fn stand(&mut self) {
        let mut was_refused = false;
        loop {
            let sent = Instant::now();
            let outcome = match timeout(CALL, self.step()).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(None),
            };
            self.note_holder();
            let holds = match outcome {
                Ok(holds) => {
                    was_refused = false;
                    holds
                }
                Err(error) => {
                    // What was seen may be out of date: a conflict says so.
                    let is_conflict = matches!(&error, kube::Error::Api(s) if s.is_conflict());
                    let is_refused = matches!(&error, kube::Error::Api(s) if s.is_forbidden());
                    if is_refused && !was_refused {
                        let lease = &self.name;
                        tracing::warn!(
                            lease,
                            "this replica may not hold the Lease, and writes nothing"
                        );
                    }
                    was_refused |= is_refused;
                    if is_conflict { Some(false) } else { None }
                }
            };
            match holds {
                // By when the call was sent: others count from when it arrived, or later.
                Some(true) => self.set(Some(Term { until: sent + TERM })),
                Some(false) => {
                    self.set(None);
                    if self.is_own() {
                        self.seen = None;
                    }
                }
                // Nobody knows; the term runs out by itself.
                None => {
                    let is_over = self.term.borrow().is_some_and(|term| term.left().is_none());
                    if is_over {
                        self.set(None);
                        self.seen = None;
                    }
                }
            }
            let pause = match (*self.term.borrow(), holds) {
                (Some(_), _) | (_, None) => RENEW,
                (None, _) => LOOK,
            };
            sleep(pause).await;
        }
    }

    /// One look or renewal: whether the Lease is held by this replica, `None` if nobody can tell.
    async fn step(&mut self) -> Result<Option<bool>, kube::Error> {
        let holds = self.term.borrow().is_some();
        let known = self.seen.take_if(|_| holds).map(|(lease, _)| lease);
        let lease = match known {
            // Its version guards the renewal, so that it need not be read again.
            Some(lease) => Some(lease),
            None => self.api.get_opt(&self.name).await?,
        };
        let Some(lease) = lease else {
            let spec = next_spec(None, &self.identity, Timestamp::now());
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec),
            };
            let made = self.api.create(&PostParams::default(), &lease).await?;
            self.seen = Some((made, Instant::now()));
            return Ok(Some(true));
        };
        let now = Instant::now();
        let since = match self.seen.take() {
            Some((seen, since)) if version(&seen) == version(&lease) => since,
            _ => now,
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let next = decide(&spec, &self.identity, now - since);
        if next == Move::Wait {
            self.seen = Some((lease, since));
            return Ok(Some(false));
        }
        let mut lease = lease;
        lease.spec = Some(next_spec(Some(&spec), &self.identity, Timestamp::now()));
        lease.metadata.managed_fields = None;
        let replaced = self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        self.seen = Some((replaced, Instant::now()));
        Ok(Some(true))
    }

    async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        lease.metadata.managed_fields = None;
        let released = self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await;
        if let Err(error) = released {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "the Lease is not given back and runs out by itself");
        }
    }

    fn is_own(&self) -> bool {
        let holder = self
            .seen
            .as_ref()
            .and_then(|(lease, _)| lease.spec.as_ref());
        holder.and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity)
    }

    fn set(&self, term: Option<Term>) {
        let before = self.term.send_replace(term);
        match (before.is_some(), term.is_some()) {
            (false, true) => tracing::info!(lease = self.name, "this replica writes from now on"),
            (true, false) => tracing::warn!(lease = self.name, "this replica no longer writes"),
            _ => {}
        }
    }
}

fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

/// `unchanged` is for how long the Lease has been seen as it is.
fn decide(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> Move {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder == identity {
        return Move::Renew;
    }
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    if holder.is_empty() || unchanged > duration {
        Move::Take
    } else {
        Move::Wait
    }
}

fn next_spec(before: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let now = MicroTime(now);
    let before = before.cloned().unwrap_or_default();
    let is_same = before.holder_identity.as_deref() == Some(identity);
    let transitions = before.lease_transitions.unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: match before.acquire_time {
            Some(acquired) if is_same => Some(acquired),
            _ => Some(now.clone()),
        },
        renew_time: Some(now),
        lease_transitions: Some(if is_same {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_nobody_renews_it_and_not_before() {
        let held = LeaseSpec {
            holder_identity: Some("a".into()),
            lease_duration_seconds: Some(15),
            // An hour ahead, by the clock of its holder: no matter.
            renew_time: Some(MicroTime(Timestamp::now() + Duration::from_secs(3600))),
            ..LeaseSpec::default()
        };
        let free = LeaseSpec {
            holder_identity: None,
            ..held.clone()
        };
        let broken = LeaseSpec {
            lease_duration_seconds: Some(-1),
            ..held.clone()
        };
        let seconds = Duration::from_secs;
        let cases = [
            (&held, "a", seconds(0), Move::Renew),
            (&held, "a", seconds(60), Move::Renew),
            (&held, "b", seconds(0), Move::Wait),
            (&held, "b", seconds(15), Move::Wait),
            (&held, "b", seconds(16), Move::Take),
            (&free, "b", seconds(0), Move::Take),
            (&broken, "b", seconds(1), Move::Take),
        ];
        for (spec, identity, unchanged, want) in cases {
            assert_eq!(
                decide(spec, identity, unchanged),
                want,
                "{identity} {unchanged:?}"
            );
        }
    }

    #[test]
    fn transitions_count_holders_and_not_renewals() {
        let first = next_spec(None, "a", Timestamp::UNIX_EPOCH);
        let later = Timestamp::UNIX_EPOCH + Duration::from_secs(5);
        let renewed = next_spec(Some(&first), "a", later);
        assert_eq!(renewed.lease_transitions, first.lease_transitions);
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        let taken = next_spec(Some(&renewed), "b", later);
        assert_eq!(taken.lease_transitions, Some(2));
        assert_eq!(taken.acquire_time, Some(MicroTime(later)));
    }

    #[test]
    fn a_term_ends_before_anybody_else_may_take_the_lease() {
        // Also with a last call that takes all of its time.
        assert!(TERM + CALL < DURATION);
    }
}
