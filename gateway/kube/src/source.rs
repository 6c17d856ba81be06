//! The cluster as a source: it says "changed" and holds its latest whole state.
//!
//! One task takes what all watches bring, keeps the [`Cluster`], and translates it when things have
//! been quiet for a moment. Nothing is told before every kind that decides where requests go has
//! been listed once, and every Secret that is named then has been looked at: a gateway that knows
//! half of a cluster would answer 404 for the other half, or show a foreign certificate.
//!
//! What cannot be watched costs what it would have told, and nothing else: the last that was known
//! stands, and [`Report::failures`] says so.

mod aside;
mod targets;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep_until;

pub(crate) use self::aside::ACCEPTED;
pub use self::aside::Accepted;
use self::aside::Aside;
use self::targets::Targets;
use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::record::Address;
use crate::translate::Settings;
use crate::translate::Translation;
use crate::translate::Translator;
use crate::watch::Failure;
use crate::watch::Gate;
use crate::watch::News;

/// How long nothing may have changed before what has is translated.
const QUIET: Duration = Duration::from_millis(50);
/// How long changes may follow one another before they are translated all the same.
const LONGEST: Duration = Duration::from_secs(1);
/// Watches may be this many events ahead of the task that takes them.
const EVENTS: usize = 1024;
/// How long a change waits for Secrets that it is the first to name.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same before anything was told at all.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// The kinds without which nothing is told.
pub(crate) const NEEDED: [Kind; 4] = [
    Kind::IngressClass,
    Kind::Ingress,
    Kind::Service,
    Kind::EndpointSlice,
];

/// The kinds whose absence costs the routes that name one: those answer 503.
pub(crate) const OPTIONAL: [Kind; 3] = [Kind::ClassDefaults, Kind::Plugin, Kind::Policy];

/// Whether Secrets are watched one by one or all at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SecretWatch {
    #[default]
    Named,
    Cluster,
}

/// The state of the cluster as it was last seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What it makes; `None` until enough is known.
    pub state: Option<Arc<State>>,
    /// What has not been listed yet.
    pub waiting_for: Vec<String>,
    /// What is not followed at this moment.
    pub failures: Vec<(String, Failure)>,
    pub statistics: Statistics,
}

/// The configuration that the cluster makes, and what whoever writes back has to know besides.
#[derive(Debug)]
pub struct State {
    pub translation: Translation,
    /// The ids of objects that are ours and cannot be read; the translation has those of others.
    pub broken: BTreeMap<ObjectRef, Arc<str>>,
    /// What our own objects say about themselves now.
    pub accepted: BTreeMap<ObjectRef, Accepted>,
    /// Ingresses that were served once and are no longer, with the addresses that they still have.
    pub left: BTreeMap<ObjectName, Vec<Address>>,
}

impl State {
    /// The id of an object, if it is ours.
    pub fn uid(&self, object: &ObjectRef) -> Option<&Arc<str>> {
        let status = self.translation.status(object);
        let uid = status.and_then(|status| status.uid.as_ref());
        uid.or_else(|| self.broken.get(object))
    }
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    pub is_connected: bool,
    pub watches: usize,
    pub events: u64,
    pub translations: u64,
    /// How long the last of them took.
    pub translation_time: Duration,
}

/// A cluster that is followed.
pub struct ClusterSource {
    report: watch::Receiver<Arc<Report>>,
    task: JoinHandle<()>,
}

impl Drop for ClusterSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ClusterSource {
    /// Follows the cluster until the source is dropped.
    pub fn start(client: Client, settings: Settings, secrets: SecretWatch) -> Self {
        let (sender, report) = watch::channel(Arc::default());
        let (news, receiver) = mpsc::channel(EVENTS);
        let gate = Gate::new(client.clone());
        let collector = Collector {
            cluster: Cluster::default(),
            translator: Translator::default(),
            settings,
            targets: Targets::new(client, gate, news, secrets),
            report: sender,
            told: Report::default(),
            dirty: None,
            held: None,
            aside: Aside::default(),
            served: BTreeSet::new(),
        };
        // Aborted when the source is dropped.
        let task = tokio::spawn(collector.run(receiver));
        Self { report, task }
    }

    /// What is known; the receiver hears of each change.
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.clone()
    }
}

/// Since when there is something to translate, and when the last of it came.
#[derive(Clone, Copy)]
struct Dirty {
    first: Instant,
    last: Instant,
}

struct Collector {
    cluster: Cluster,
    translator: Translator,
    settings: Settings,
    targets: Targets,
    report: watch::Sender<Arc<Report>>,
    told: Report,
    dirty: Option<Dirty>,
    /// Since when a translation waits for Secrets.
    held: Option<Instant>,
    aside: Aside,
    /// The Ingresses that were served at any time and still exist.
    served: BTreeSet<ObjectName>,
}

impl Collector {
    async fn run(mut self, mut news: mpsc::Receiver<(u64, News)>) {
        self.targets.follow_kinds();
        self.tell();
        loop {
            let due = self.due();
            tokio::select! {
                received = news.recv() => {
                    let Some((mark, received)) = received else {
                        return;
                    };
                    self.take(mark, received);
                    // What is there already is one change.
                    while let Ok((mark, received)) = news.try_recv() {
                        self.take(mark, received);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.translate();
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let dirty = self.dirty?;
        let due = (dirty.last + QUIET).min(dirty.first + LONGEST);
        // A translation that is held is looked at again when its patience ends.
        Some(match self.held {
            Some(since) => due.max(since + self.patience()),
            None => due,
        })
    }

    fn patience(&self) -> Duration {
        match self.told.state.is_some() {
            true => PATIENCE,
            false => FIRST_PATIENCE,
        }
    }

    fn touch(&mut self) {
        let now = Instant::now();
        let first = self.dirty.map_or(now, |dirty| dirty.first);
        self.dirty = Some(Dirty { first, last: now });
    }

    fn take(&mut self, mark: u64, news: News) {
        let was_settled = self.targets.is_settled();
        self.told.statistics.events += 1;
        let taken = self
            .targets
            .take(mark, news, &mut self.cluster, &mut self.aside);
        let Some(taken) = taken else {
            // Of a target that is no longer followed.
            return;
        };
        if taken.has_changed {
            self.touch();
        }
        if taken.is_reported && self.held.is_some() {
            // What a translation waited for.
            self.held = None;
            self.touch();
        }
        let is_settled = self.targets.is_settled();
        if taken.is_reported || taken.has_failure_changed || was_settled != is_settled {
            self.tell();
        }
        // With the last of the needed lists, there is something to translate, be it nothing.
        if !was_settled && is_settled {
            self.touch();
        }
    }

    fn translate(&mut self) {
        if !self.targets.is_settled() {
            self.dirty = None;
            return;
        }
        let started = Instant::now();
        let translation = self.translator.translate(&self.cluster, &self.settings);
        let statistics = &mut self.told.statistics;
        statistics.translations += 1;
        statistics.translation_time = started.elapsed();
        let changed = self
            .targets
            .follow_named(&translation.wanted, &mut self.cluster);
        let is_waiting = self.targets.has_unreported();
        let since = *self.held.get_or_insert_with(Instant::now);
        if is_waiting && since.elapsed() < self.patience() {
            // Looked at again as soon as a Secret has come, which is milliseconds.
            return;
        }
        // What has not come by now holds up no other change.
        self.targets.give_up_waiting();
        self.held = None;
        self.dirty = None;
        if changed {
            // Records of what is no longer named are gone.
            self.touch();
        }
        self.told.state = Some(Arc::new(self.state(translation)));
        self.tell();
    }

    fn state(&mut self, translation: Translation) -> State {
        let ingresses = &self.cluster.ingresses;
        self.served.retain(|name| ingresses.contains_key(name));
        let mut left = BTreeMap::new();
        let owned = translation.statuses.iter();
        let owned = owned.filter(|status| status.object.kind == Kind::Ingress);
        // Both are in the order of names.
        let mut owned = owned.map(|status| &status.object.name).peekable();
        let mut new = Vec::new();
        for name in &self.served {
            while let Some(other) = owned.next_if(|other| *other < name) {
                new.push(other.clone());
            }
            if owned.next_if_eq(&name).is_none()
                && let Some(ingress) = ingresses.get(name)
            {
                left.insert(name.clone(), ingress.addresses.clone());
            }
        }
        new.extend(owned.cloned());
        self.served.extend(new);
        State {
            broken: self.aside.uids(&self.cluster, &self.settings),
            accepted: self.aside.accepted().clone(),
            translation,
            left,
        }
    }

    fn tell(&mut self) {
        self.told.waiting_for = self.targets.waiting_for();
        self.told.failures = self.targets.failures();
        self.told.statistics.is_connected = self.targets.is_connected();
        self.told.statistics.watches = self.targets.len();
        self.report.send_replace(Arc::new(self.told.clone()));
    }
}

/// What became of one piece of news.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    has_changed: bool,
    /// Whether the target is known of for the first time.
    is_reported: bool,
    has_failure_changed: bool,
}

/// The name of an object as it was given.
fn name_of(kind: Kind, object: &Value) -> Option<ObjectName> {
    crate::record::object_name(kind, &crate::read::At::root(object))
}
