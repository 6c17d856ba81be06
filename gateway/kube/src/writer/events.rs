//! Events: what is wrong with an object is told on the object, once for each time it comes up.
//!
//! Every replica hears of every problem; the one that writes tells of those that are new. One that
//! has just begun to write tells of what came up shortly before as well, while nobody wrote, and not
//! of what its predecessor has told.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::Client;
use kube::api::PostParams;
use tokio::time::Instant;

use super::pace::Pace;
use crate::object::ObjectProblem;
use crate::object::Reason;
use crate::source::State;

/// Events a second, and as many at once as follow.
const A_SECOND: f64 = 5.0;
const BURST: f64 = 25.0;
/// How long a problem is new. Longer than the replicas are without one that writes.
const NEWS: Duration = Duration::from_secs(45);
/// How long a problem that went and came again is still the same.
const SAME: Duration = Duration::from_secs(600);
/// Most problems that are remembered.
const MAX_KNOWN: usize = 50_000;
/// Longest note, in bytes (events.k8s.io: 1 kB).
const MAX_NOTE: usize = 1000;
/// Longest name of who reports (events.k8s.io).
const MAX_INSTANCE: usize = 128;
/// Longest part of an object's name in the name of an Event: five characters are appended to it.
const MAX_NAME: usize = 240;
/// Where Events on objects without a namespace are kept.
const NO_NAMESPACE: &str = "default";

#[derive(Clone, Copy, Debug)]
struct Known {
    since: Instant,
    /// When it was last there.
    last: Instant,
    is_told: bool,
}

pub(super) struct Announcer {
    controller: String,
    instance: String,
    known: BTreeMap<ObjectProblem, Known>,
    /// Of those that are to be told, which object has which id.
    uids: BTreeMap<ObjectProblem, String>,
    pace: Pace,
}

impl Announcer {
    pub(super) fn new(controller: &str, identity: &str) -> Self {
        let mut instance = identity.to_owned();
        instance.truncate(MAX_INSTANCE);
        Self {
            controller: controller.to_owned(),
            instance,
            known: BTreeMap::new(),
            uids: BTreeMap::new(),
            pace: Pace::new(A_SECOND, BURST),
        }
    }

    /// Takes note of what is wrong now.
    pub(super) fn hear(&mut self, state: &State, in_use: &[ObjectProblem]) {
        let problems = state.translation.problems.iter().chain(in_use);
        // What is wrong with an object that is not ours is told on the one of ours that names it.
        let ours = problems.filter_map(|problem| Some((problem, &**state.uid(&problem.object)?)));
        self.hear_of(ours);
    }

    /// The same of objects whose ids are known.
    pub(super) fn hear_of<'p>(
        &mut self,
        problems: impl Iterator<Item = (&'p ObjectProblem, &'p str)>,
    ) {
        let now = Instant::now();
        for (problem, uid) in problems {
            let is_full = self.known.len() >= MAX_KNOWN;
            match self.known.get_mut(problem) {
                Some(known) => known.last = now,
                None if !is_full => {
                    let known = Known {
                        since: now,
                        last: now,
                        is_told: false,
                    };
                    self.known.insert(problem.clone(), known);
                    self.uids.insert(problem.clone(), uid.to_string());
                }
                // The log and the metrics have it all the same.
                None => {}
            }
        }
        self.known
            .retain(|_, known| now.duration_since(known.last) < SAME);
        let known = &self.known;
        self.uids.retain(|problem, _| known.contains_key(problem));
    }

    /// Tells what is new, as far as the pace allows; the rest the next time.
    pub(super) async fn announce(&mut self, client: &Client) {
        let now = Instant::now();
        let new: Vec<ObjectProblem> = self
            .known
            .iter()
            .filter(|(_, known)| !known.is_told && now.duration_since(known.since) < NEWS)
            .map(|(problem, _)| problem.clone())
            .collect();
        for problem in new {
            if !self.pace.try_take() {
                return;
            }
            let event = self.event(&problem, Timestamp::now());
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(object = %problem.object, error, "no Event was written");
            }
            // One that is refused is not tried again: the log has it.
            if let Some(known) = self.known.get_mut(&problem) {
                known.is_told = true;
            }
        }
    }

    fn event(&self, problem: &ObjectProblem, now: Timestamp) -> Event {
        let object = &problem.object;
        let namespace = match &*object.name.namespace {
            "" => NO_NAMESPACE,
            namespace => namespace,
        };
        let mut note = String::new();
        if !problem.field.is_empty() {
            note = format!("{}: ", problem.field);
        }
        note.push_str(&problem.message);
        if let Some(help) = &problem.help {
            note.push_str("; ");
            note.push_str(help);
        }
        let end = note.floor_char_boundary(MAX_NOTE);
        note.truncate(end);
        let own = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", short(&object.name.name))),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(action(problem).to_owned()),
            reason: Some(problem.reason.as_str().to_owned()),
            note: Some(note),
            type_: Some("Warning".to_owned()),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            regarding: Some(ObjectReference {
                api_version: Some(object.kind.api_version().to_owned()),
                kind: Some(object.kind.as_str().to_owned()),
                name: own(&object.name.name),
                namespace: own(&object.name.namespace),
                uid: self.uids.get(problem).cloned(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }
}

/// What was being done.
fn action(problem: &ObjectProblem) -> &'static str {
    match problem.reason {
        Reason::NotIssued(_) => "Issue",
        _ => "Translate",
    }
}

/// The start of a name, so that what is appended to it still makes one.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME)]
}
