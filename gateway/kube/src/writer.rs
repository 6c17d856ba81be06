//! What is written back: addresses of Ingresses, conditions of our own objects, Events.
//!
//! One replica writes, the holder of the [lease](crate::lease), and only while its term lasts: each
//! call ends before the term does. Nothing is written that says what is known already, so a cluster
//! in which nothing changes sees no write but the renewals of the Lease.

mod addresses;
mod conditions;
mod events;
mod pace;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::Client;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::core::DynamicObject;
use serde_json::Value;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use self::events::Announcer;
use self::pace::Pace;
use crate::lease::Election;
use crate::lease::Term;
use crate::object::Kind;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::record::Address;
use crate::source::Report;
use crate::source::State;
use crate::watch::resource;

/// Who the API server says wrote a field.
pub const FIELD_MANAGER: &str = "postern";
/// Writes that are under way at once.
const AT_ONCE: usize = 8;
/// Writes a second; ten thousand Ingresses whose address changes take three minutes.
const A_SECOND: f64 = 50.0;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Between two looks at what there is to write.
const LOOK: Duration = Duration::from_millis(200);
/// The same where nothing is heard: for Events that wait, and for nodes that come and go.
const TICK: Duration = Duration::from_secs(1);
/// How long what was written is expected to be seen. Somebody else who writes the same field is
/// answered no faster than this.
const ECHO: Duration = Duration::from_secs(30);

/// Who writes, and where.
#[derive(Clone, Debug)]
pub struct Writing {
    /// Of this process alone, as in `postern-abcde_4f2a`.
    pub identity: String,
    /// The gateway's own namespace: of its Lease and of its pods.
    pub namespace: String,
    pub lease: String,
    /// The controller that Events are from.
    pub controller: String,
}

/// What a write leads to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Write {
    object: ObjectRef,
    /// What is applied to the object's status.
    status: Json,
    /// The same without the time at which it is written.
    meaning: Json,
}

/// JSON text, so that it can be compared and ordered.
type Json = String;

/// Writes until `ending` completes, then gives the Lease back. `client` must not repeat calls by
/// itself. `in_use` is what was found out about objects only when they were put to use, as that a
/// plugin cannot be compiled.
pub async fn run(
    client: Client,
    writing: Writing,
    report: watch::Receiver<Arc<Report>>,
    in_use: watch::Receiver<Arc<[ObjectProblem]>>,
    ending: impl Future<Output = ()>,
) {
    let leases = Api::<Lease>::namespaced(client.clone(), &writing.namespace);
    let (election, term) = Election::new(leases, &writing.lease, &writing.identity);
    let writer = Writer {
        announcer: Announcer::new(&writing.controller, &writing.identity),
        client,
        writing,
        term,
        pace: Pace::new(A_SECOND, A_SECOND),
        in_use,
        written: BTreeMap::new(),
        nodes: None,
        refused: BTreeSet::new(),
    };
    // Writing stops first, then the Lease is given back.
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let write = async move {
        tokio::select! {
            () = writer.run(report) => {}
            () = ending => {}
        }
        let _ = stop.send(());
    };
    let elect = election.run(async {
        let _ = stopped.await;
    });
    tokio::join!(write, elect);
}

/// Tells what is wrong with objects, as Events on them, for as long as it is asked. `problems` are
/// those at that moment, with the ids of the objects.
pub async fn tell(
    client: Client,
    controller: &str,
    identity: &str,
    mut problems: impl FnMut() -> Vec<(ObjectProblem, Arc<str>)>,
) {
    let mut announcer = Announcer::new(controller, identity);
    loop {
        let now = problems();
        announcer.hear_of(now.iter().map(|(problem, uid)| (problem, &**uid)));
        announcer.announce(&client).await;
        sleep(TICK).await;
    }
}

struct Writer {
    client: Client,
    writing: Writing,
    term: watch::Receiver<Option<Term>>,
    pace: Pace,
    in_use: watch::Receiver<Arc<[ObjectProblem]>>,
    announcer: Announcer,
    /// What was written, and when, until it is seen.
    written: BTreeMap<ObjectRef, (Json, Instant)>,
    /// The addresses of nodes, and when they were looked up.
    nodes: Option<(Vec<Address>, Instant)>,
    /// Kinds whose status this replica may not write, which was said once.
    refused: BTreeSet<Kind>,
}

impl Writer {
    async fn run(mut self, mut report: watch::Receiver<Arc<Report>>) {
        loop {
            let current = Arc::clone(&report.borrow_and_update());
            if let Some(state) = &current.state {
                let in_use = Arc::clone(&self.in_use.borrow_and_update());
                self.announcer.hear(state, &in_use);
                if self.left().is_some() {
                    self.write(state, &in_use, &report).await;
                }
            }
            sleep(LOOK).await;
            tokio::select! {
                changed = report.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.term.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                // Its end is that of the gateway, which `report` tells as well.
                Ok(()) = self.in_use.changed() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    /// How long this replica may write; `None` if it may not.
    fn left(&self) -> Option<Duration> {
        self.term.borrow().as_ref().and_then(Term::left)
    }

    async fn write(
        &mut self,
        state: &State,
        in_use: &[ObjectProblem],
        report: &watch::Receiver<Arc<Report>>,
    ) {
        let addresses = self.addresses(state).await;
        let mut writes = Vec::new();
        if let Some(addresses) = &addresses {
            ingresses(state, addresses, &mut writes);
        }
        conditions::of(state, in_use, Timestamp::now(), &mut writes);
        let now = Instant::now();
        self.written
            .retain(|_, (_, at)| now.duration_since(*at) < ECHO);
        let written = &self.written;
        writes.retain(|write| {
            let known = written.get(&write.object);
            known.is_none_or(|(meaning, _)| *meaning != write.meaning)
        });
        self.send(writes, report).await;
        let (client, left) = (self.client.clone(), self.left());
        if let Some(left) = left {
            // Ends before the term does.
            let _ = timeout(left, self.announcer.announce(&client)).await;
        }
    }

    /// What Ingresses should say; `None` if that is nobody's business or not known. An empty list
    /// takes nothing away: a Service may be without addresses for a moment.
    async fn addresses(&mut self, state: &State) -> Option<Vec<Address>> {
        let known = if state.translation.addresses.is_none() {
            let is_fresh = |at: &Instant| at.elapsed() < addresses::NODES_AGE;
            if !self.nodes.as_ref().is_some_and(|(_, at)| is_fresh(at)) {
                let found = addresses::of_nodes(&self.client, &self.writing.namespace);
                if let Ok(Ok(found)) = timeout(CALL, found).await {
                    self.nodes = Some((found, Instant::now()));
                }
            }
            self.nodes.as_ref().map(|(found, _)| found.clone())
        } else {
            state.translation.addresses.clone()
        };
        known.filter(|found| !found.is_empty())
    }

    async fn send(&mut self, writes: Vec<Write>, report: &watch::Receiver<Arc<Report>>) {
        let mut running = JoinSet::new();
        for write in writes {
            self.pace.take().await;
            while running.len() >= AT_ONCE {
                self.sent(running.join_next().await);
            }
            // What is known by now may be different.
            let is_stale = report.has_changed().unwrap_or(true);
            let Some(left) = self.left().filter(|_| !is_stale) else {
                break;
            };
            let client = self.client.clone();
            // Awaited below, and ended in time by itself.
            running.spawn(async move {
                let applied = timeout(left.min(CALL), apply(client, &write)).await;
                (write, applied.ok())
            });
        }
        while !running.is_empty() {
            self.sent(running.join_next().await);
        }
    }

    fn sent(&mut self, sent: Option<Result<Sent, tokio::task::JoinError>>) {
        let Some(Ok((write, applied))) = sent else {
            return;
        };
        let Write {
            object,
            status,
            meaning,
        } = write;
        match applied {
            Some(Ok(())) => {
                tracing::debug!(%object, status, "status written");
                self.refused.remove(&object.kind);
                self.written.insert(object, (meaning, Instant::now()));
            }
            Some(Err(kube::Error::Api(answer))) if answer.is_not_found() => {
                // It was deleted; the watch says so soon.
                self.written.insert(object, (meaning, Instant::now()));
            }
            Some(Err(error)) => {
                let is_refused = matches!(&error, kube::Error::Api(a) if a.is_forbidden());
                if !is_refused || self.refused.insert(object.kind) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(%object, error, "its status cannot be written");
                }
                // Tried again, but not at once.
                self.written.insert(object, (meaning, Instant::now()));
            }
            None => tracing::debug!(%object, "its status was not written in time"),
        }
    }
}

/// Those that do not say where they are reached, and those that are no longer ours and still do.
fn ingresses(state: &State, addresses: &[Address], writes: &mut Vec<Write>) {
    let wanted = addresses::status(addresses).to_string();
    let statuses = state.translation.statuses.iter();
    for status in statuses.filter(|status| status.object.kind == Kind::Ingress) {
        if status.addresses != addresses {
            writes.push(Write {
                object: status.object.clone(),
                status: wanted.clone(),
                meaning: wanted.clone(),
            });
        }
    }
    // What somebody else wrote there stays: only our own fields go.
    let left = state
        .left
        .iter()
        .filter(|(_, current)| *current == addresses);
    let nothing = addresses::status(&[]).to_string();
    for (name, _) in left {
        writes.push(Write {
            object: ObjectRef {
                kind: Kind::Ingress,
                name: name.clone(),
            },
            status: nothing.clone(),
            meaning: nothing.clone(),
        });
    }
}

type Sent = (Write, Option<Result<(), kube::Error>>);

async fn apply(client: Client, write: &Write) -> Result<(), kube::Error> {
    let Write { object, status, .. } = write;
    let resource = resource(object.kind);
    // The status was made from JSON.
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": &*object.name.name, "namespace": &*object.name.namespace },
        "status": status,
    });
    let api: Api<DynamicObject> = Api::namespaced_with(client, &object.name.namespace, &resource);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&object.name.name, &params, &Patch::Apply(patch))
        .await
        .map(|_| ())
}
