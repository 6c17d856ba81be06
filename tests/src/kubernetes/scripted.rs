//! An API server of a few objects that fails as it is told: for what a real one cannot be made to
//! show.
//!
//! It lists and watches, by kind or by name, and knows no more. What it does was seen at a real one:
//! an event is a line of JSON, a past that is forgotten is an ERROR event or a status of 410.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use hyper::body::Incoming;
use serde_json::Value;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::upstream::Body;
use crate::upstream::Upstream;
use crate::upstream::channel;
use crate::upstream::full;

/// What goes wrong with one kind. Where there is a count, so many requests meet it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// 403 for everything.
    Forbidden,
    /// 404 for everything: no such kind.
    Unknown,
    /// Lists take so long.
    SlowList(Duration),
    /// Lists fail with this status.
    FailList(u16, usize),
    /// Watches are answered 410.
    GoneAtStart(usize),
    /// Watches are answered 200, and say 410 in an event.
    GoneInStream(usize),
    /// The next event of each watch is cut off after so many bytes, and the connection with it.
    CutEvent(usize, usize),
}

#[derive(Default)]
struct State {
    /// By plural, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    /// What has happened, by plural: version, type, object.
    events: BTreeMap<String, Vec<(u64, &'static str, Value)>>,
    version: u64,
    faults: BTreeMap<String, VecDeque<Fault>>,
    /// Path and query of every request.
    asked: Vec<String>,
}

/// The server; gone when it is dropped.
pub struct Scripted {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    _server: Upstream,
}

impl Scripted {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            version: 1,
            ..State::default()
        }));
        let (changed, receiver) = watch::channel(1);
        let known = Arc::clone(&state);
        let server =
            Upstream::http1(move |request| answer(request, Arc::clone(&known), receiver.clone()))
                .await;
        Self {
            addr: server.addr,
            state,
            changed,
            _server: server,
        }
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {{server: \"http://{}\"}}\n\
             users:\n- name: a\n  user: {{token: t}}\ncontexts:\n- name: a\n  context: {{cluster: a, user: a}}\n\
             current-context: a\n",
            self.addr
        )
    }

    /// Creates or changes an object of a namespace, which is empty for those that have none.
    pub fn put(&self, plural: &str, namespace: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let objects = state.objects.entry(plural.to_owned()).or_default();
        let old = objects.insert((namespace.to_owned(), name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let events = state.events.entry(plural.to_owned()).or_default();
        events.push((version, kind, object));
        self.changed.send_replace(version);
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let objects = state.objects.entry(plural.to_owned()).or_default();
        let Some(mut object) = objects.remove(&(namespace.to_owned(), name.to_owned())) else {
            return;
        };
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let events = state.events.entry(plural.to_owned()).or_default();
        events.push((version, "DELETED", object));
        self.changed.send_replace(version);
    }

    /// Drops an object without an event, as if the event had been lost.
    pub fn forget(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let objects = state.objects.entry(plural.to_owned()).or_default();
        objects.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Says something to those who watch that is not so, and changes nothing.
    pub fn say(&self, plural: &str, kind: &'static str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state
            .events
            .entry(plural.to_owned())
            .or_default()
            .push((version, kind, object));
        self.changed.send_replace(version);
    }

    /// Lets a kind fail from now on, and ends the watches of it.
    pub fn fail(&self, plural: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state
            .faults
            .entry(plural.to_owned())
            .or_default()
            .push_back(fault);
        let version = state.version;
        drop(state);
        self.changed.send_replace(version);
    }

    pub fn heal(&self, plural: &str) {
        self.state.lock().unwrap().faults.remove(plural);
    }

    /// What was asked of a kind so far.
    pub fn asked(&self, plural: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let asked = state.asked.iter().filter(|path| plural_of(path) == plural);
        asked.cloned().collect()
    }
}

/// The kind that a path is about.
fn plural_of(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
) -> Response<Body> {
    let target = request.uri().to_string();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let plural = plural_of(&target).to_owned();
    state.lock().unwrap().asked.push(target);
    if plural == "version" {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
        return Response::new(full(version.to_string()));
    }
    let value_of = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value.to_owned())
    };
    let name = value_of("fieldSelector").and_then(|selector| {
        let selector = selector.replace("%3D", "=");
        selector.strip_prefix("metadata.name=").map(str::to_owned)
    });
    let is_watch = value_of("watch").is_some_and(|value| value == "true" || value == "1");
    let fault = next_fault(&state, &plural, is_watch);
    match fault {
        Some(Fault::Forbidden) => return status(403, "Forbidden"),
        Some(Fault::Unknown) => return status(404, "NotFound"),
        Some(Fault::SlowList(time)) => sleep(time).await,
        Some(Fault::FailList(code, _)) => return status(code, "InternalError"),
        Some(Fault::GoneAtStart(_)) => return status(410, "Expired"),
        Some(Fault::GoneInStream(_)) => {
            let event = json!({ "type": "ERROR", "object": failure(410, "Expired") });
            return Response::new(full(format!("{event}\n")));
        }
        Some(Fault::CutEvent(..)) | None => {}
    }
    if is_watch {
        let since = value_of("resourceVersion").and_then(|value| value.parse().ok());
        let cut = match fault {
            Some(Fault::CutEvent(bytes, _)) => Some(bytes),
            _ => None,
        };
        return follow(state, changed, plural, name, since.unwrap_or(0), cut);
    }
    let state = state.lock().unwrap();
    let objects = state.objects.get(&plural).into_iter().flatten();
    let items: Vec<&Value> = objects
        .filter(|((_, found), _)| name.as_ref().is_none_or(|name| name == found))
        .map(|(_, object)| object)
        .collect();
    let list = json!({
        "kind": "List",
        "apiVersion": "v1",
        "metadata": { "resourceVersion": state.version.to_string() },
        "items": items,
    });
    Response::new(full(list.to_string()))
}

/// The fault that this request meets, if any. One that is used up is gone.
fn next_fault(state: &Mutex<State>, plural: &str, is_watch: bool) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    let faults = state.faults.get_mut(plural)?;
    let fault = faults.front_mut()?;
    let found = *fault;
    let left = match fault {
        Fault::Forbidden | Fault::Unknown => return Some(found),
        Fault::SlowList(_) => return (!is_watch).then_some(found),
        Fault::FailList(_, left) if !is_watch => left,
        Fault::GoneAtStart(left) | Fault::GoneInStream(left) | Fault::CutEvent(_, left)
            if is_watch =>
        {
            left
        }
        _ => return None,
    };
    *left -= 1;
    if *left == 0 {
        faults.pop_front();
    }
    Some(found)
}

fn follow(
    state: Arc<Mutex<State>>,
    mut changed: watch::Receiver<u64>,
    plural: String,
    name: Option<String>,
    mut since: u64,
    cut: Option<usize>,
) -> Response<Body> {
    let (mut pieces, body) = channel();
    // Ends with whoever reads it.
    tokio::spawn(async move {
        loop {
            changed.borrow_and_update();
            let lines: Vec<(u64, String)> = {
                let state = state.lock().unwrap();
                // One that is to fail from now on does not go on as it was.
                if cut.is_none() && state.faults.get(&plural).is_some_and(|f| !f.is_empty()) {
                    return;
                }
                let events = state.events.get(&plural).into_iter().flatten();
                let events = events.filter(|(version, _, object)| {
                    let is_named = |name: &String| object["metadata"]["name"] == **name;
                    *version > since && name.as_ref().is_none_or(is_named)
                });
                let line = |kind: &str, object: &Value| {
                    format!("{}\n", json!({ "type": kind, "object": object }))
                };
                events
                    .map(|(version, kind, object)| (*version, line(kind, object)))
                    .collect()
            };
            for (version, line) in lines {
                since = version;
                if let Some(bytes) = cut {
                    let end = bytes.min(line.len());
                    let _ = pieces.send_data(Bytes::from(line[..end].to_owned())).await;
                    // And the stream with it.
                    return;
                }
                if pieces.send_data(Bytes::from(line)).await.is_err() {
                    return;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    });
    Response::new(body)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": reason,
        "reason": reason,
        "code": code,
    })
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let mut response = Response::new(full(failure(code, reason).to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    response
}
