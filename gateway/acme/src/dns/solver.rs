//! DNS-01 whatever writes the records: aliases, zones, traps, turns and waiting.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Access;
use super::DnsSolver;
use super::DnsWriter;
use super::Progress;
use super::SolverError;
use super::TxtRecord;
use super::client::DnsClient;
use super::name;
use super::place;
use super::place::Place;
use super::place::reason_of;
use super::preflight::Verdict;
use super::visible;
use super::wire::DnsError;
use crate::reason::Reason;

/// How long a value may take to be shown by all servers of its zone.
pub const DEFAULT_PROPAGATION: Duration = Duration::from_secs(120);
/// Names that are written to at once. Two that share a turn wait for each other, no more.
const TURNS: usize = 64;

/// What a solver does beside writing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SolverSpec {
    /// How long a value may take to be shown by all servers of its zone.
    pub propagation: Duration,
    /// Waits this long instead of asking, where those servers cannot be reached.
    pub delay: Option<Duration>,
    /// A zone that is written to, for which hostmasters of others may add an alias once.
    pub delegation: Option<String>,
}

impl Default for SolverSpec {
    fn default() -> Self {
        Self {
            propagation: DEFAULT_PROPAGATION,
            delay: None,
            delegation: None,
        }
    }
}

/// A writer, used with care.
#[derive(Debug)]
pub struct Solver {
    spec: SolverSpec,
    client: DnsClient,
    writer: Arc<dyn DnsWriter>,
    /// One for each name, by its hash: writers that read and replace would lose values otherwise.
    turns: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Solver {
    pub fn new(spec: SolverSpec, client: DnsClient, writer: Arc<dyn DnsWriter>) -> Self {
        Self {
            spec,
            client,
            writer,
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    async fn judge(&self, host: &str) -> Verdict {
        let place = match self.place(host).await {
            Ok(place) => place,
            Err(error) => return Verdict::waits(reason_of(&error), error.to_string()),
        };
        if let Err(error) = place.check(&self.client).await {
            return Verdict::waits(error.reason, error.message);
        }
        match self.writer.accepts(&place).await {
            Ok(Access::Granted) => Verdict::Ready {
                message: format!("OK by DNS: {} in {}", place.path(), place.zone()),
            },
            Ok(Access::Denied(why)) => {
                Verdict::wanting(Reason::SolverFailed, why, self.record(&place))
            }
            Err(error) => Verdict::waits(error.reason, error.message),
        }
    }

    async fn place(&self, host: &str) -> Result<Place, DnsError> {
        Place::find(&self.client, &name::challenge(host)?).await
    }

    /// What would bring the proof of a host into a zone that is written to. A target of its own for
    /// each host: whoever may write to a shared one could prove every name that leads there.
    fn record(&self, place: &Place) -> Option<String> {
        let delegation = self.spec.delegation.as_deref()?;
        let host = place.host();
        let delegation = delegation.trim_end_matches('.');
        name::parse(&format!("{host}.{delegation}")).ok()?;
        Some(format!(
            "_acme-challenge.{host}. 3600 IN CNAME {host}.{delegation}."
        ))
    }

    async fn add(&self, record: &TxtRecord) -> Result<(), SolverError> {
        let place = Place::find(&self.client, &name::parse(&record.name)?).await?;
        place.check(&self.client).await?;
        let mut progress = {
            let _turn = self.turn(&place).await;
            self.writer.add(&place, &record.value).await?
        };
        let deadline = Instant::now() + self.spec.propagation;
        while let Progress::Pending { ticket, after } = progress {
            if Instant::now() + after > deadline {
                let (name, within) = (place.name(), self.spec.propagation.as_secs());
                let message = format!("the record at {name} is not published after {within} s");
                return Err(SolverError::failed(message));
            }
            sleep(after).await;
            progress = self.writer.poll(&place, &record.value, &ticket).await?;
        }
        if let Some(delay) = self.spec.delay {
            sleep(delay).await;
            return Ok(());
        }
        let zone = place::zone(&self.client, &place).await?;
        let within = self.spec.propagation;
        visible::shown(&zone, place.target(), &record.value, within).await
    }

    async fn remove(&self, record: &TxtRecord) -> Result<(), SolverError> {
        let place = Place::find(&self.client, &name::parse(&record.name)?).await?;
        let _turn = self.turn(&place).await;
        self.writer.remove(&place, &record.value).await
    }

    async fn turn(&self, place: &Place) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(place.name()) as usize;
        self.turns[hash % TURNS].lock().await
    }
}

impl DnsSolver for Solver {
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict> {
        Box::pin(self.judge(host))
    }

    fn present<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.add(record))
    }

    fn withdraw<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.remove(record))
    }
}
