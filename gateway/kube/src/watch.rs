//! One kind, or one object, followed for as long as the process lives.
//!
//! What arrives is a list that is whole, then changes to it, then perhaps a list again. Nothing is
//! taken away before a list is whole: what happens on the way is a [`Failure`], and what was known
//! stands. A failure is tried again without end, never faster than once a second, and while the
//! server is away one watch asks for all ([`Gate`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Api;
use kube::Client;
use kube::core::ApiResource;
use kube::core::DynamicResourceScope;
use kube::core::ObjectMeta;
use kube::runtime::watcher;
use serde::Deserialize;
use serde::Deserializer;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::object::Kind;
use crate::object::ObjectName;

/// How long the server keeps a watch open. A connection that died without a word is noticed five
/// seconds later, and a new watch goes on where this one ended.
const WATCH_SECONDS: u32 = 120;
/// The same for watches of single objects, of which there may be hundreds.
const NAMED_WATCH_SECONDS: u32 = 290;
/// How long a list may make no progress.
const LIST_IDLE: Duration = Duration::from_secs(30);
/// Objects that are read at once.
const PAGE: u32 = 500;
/// The pause after a first failure, which doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure that passes by itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause where somebody has to change something first.
const LONGEST_REFUSED: Duration = Duration::from_secs(30);
/// A watch that lived this long was a good one: pauses start again from the shortest.
const GOOD: Duration = Duration::from_secs(20);
/// A watch that is silent for this long after a failure is open: what cannot be had is refused
/// sooner. Longer than a connection may take.
const OPENED: Duration = Duration::from_secs(6);
/// How long the server may take to say that it is there.
const PROBE: Duration = Duration::from_secs(3);

/// What is followed.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// One object of it; all of them if absent.
    pub(crate) name: Option<ObjectName>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name}", self.kind),
            None => write!(f, "every {}", self.kind),
        }
    }
}

/// What has become of a target.
#[derive(Debug)]
pub(crate) enum News {
    /// A list begins.
    Listing,
    Listed(Value),
    /// The list is whole: what was not in it is gone.
    Whole,
    Applied(Value),
    Deleted(ObjectName),
    Failed(Failure),
    /// After a failure, a watch is open again; it may be long before it brings anything.
    Recovered,
}

/// Why a target cannot be followed at this moment.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Failure {
    /// The server cannot be reached.
    Away(String),
    /// The server does not believe who asks (401).
    Unauthorized,
    /// The ServiceAccount may not (403).
    Forbidden,
    /// The server has no such kind (404).
    Unknown,
    /// The server knows no more of the past that was asked for (410).
    Expired,
    /// Anything else that it says.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(error) => write!(f, "the API server cannot be reached: {error}"),
            Self::Unauthorized => f.write_str("the API server does not accept the credentials"),
            Self::Forbidden => f.write_str("RBAC does not allow it"),
            Self::Unknown => f.write_str("the API server does not know this kind"),
            Self::Expired => f.write_str("the API server asks for a new list"),
            Self::Refused(error) => write!(f, "the API server refuses: {error}"),
        }
    }
}

impl Failure {
    /// Whether nothing changes before somebody changes something.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Forbidden | Self::Unknown)
    }

    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_client(error),
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => {
                Self::Refused("it gives objects without a version".to_owned())
            }
        }
    }

    fn of_client(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::SerdeError(error) => Self::Refused(format!("it sends no JSON: {error}")),
            error => {
                // The outer levels only say that something went wrong.
                let mut cause: &dyn std::error::Error = error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                Self::Away(cause.to_string())
            }
        }
    }

    fn of_status(status: &kube::core::Status) -> Self {
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::Unknown,
            410 => Self::Expired,
            code => Self::Refused(format!("{code} {}", status.message)),
        }
    }
}

/// An object as the API server gives it, without the fields that only it needs.
#[derive(Clone, Debug)]
struct Object {
    meta: ObjectMeta,
    value: Value,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let mut meta = ObjectMeta::default();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            // As much again as the rest of the object.
            metadata.remove("managedFields");
            let text = |name: &str| {
                metadata
                    .get(name)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            meta.name = text("name");
            meta.namespace = text("namespace");
            meta.resource_version = text("resourceVersion");
        }
        Ok(Self { meta, value })
    }
}

impl kube::Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Where the API server has a kind.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    let api_version = kind.api_version();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.as_str().to_owned(),
        plural: plural(kind).to_owned(),
    }
}

/// What stands in URLs and in RBAC rules.
pub fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::IngressClass => "ingressclasses",
        Kind::ClassDefaults => "classdefaults",
        Kind::Ingress => "ingresses",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
        Kind::Plugin => "plugins",
        Kind::Policy => "policies",
    }
}

/// Makes all watches of a server that is away ask for it one after another, not all at once.
pub(crate) struct Gate {
    client: Client,
    /// When somebody last asked, and when the server was last found to be there.
    asked: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Gate {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self {
            client,
            asked: Mutex::new((None, None)),
        })
    }

    /// Completes when the server has answered since the call.
    async fn wait(&self) {
        let since = Instant::now();
        loop {
            let mut asked = self.asked.lock().await;
            if asked.1.is_some_and(|answered| answered > since) {
                return;
            }
            if let Some(last) = asked.0 {
                sleep_until(last + spread(PAUSE)).await;
            } else {
                sleep(spread(PAUSE)).await;
            }
            asked.0 = Some(Instant::now());
            let answer = timeout(PROBE, self.client.apiserver_version()).await;
            let is_there = match answer {
                Ok(Ok(_)) => true,
                // Whoever refuses is there.
                Ok(Err(kube::Error::Api(status))) => status.code < 500,
                Ok(Err(_)) | Err(_) => false,
            };
            if is_there {
                asked.1 = Some(Instant::now());
                return;
            }
        }
    }
}

/// Up to a fifth more, so that gateways that lost their server together do not return together.
fn spread(pause: Duration) -> Duration {
    let mut random = [0_u8; 1];
    // Without randomness there is no spread, and nothing else is lost.
    let _ = getrandom::fill(&mut random);
    pause + pause.mul_f64(f64::from(random[0]) / 255.0 / 5.0)
}

/// Follows a target until the receiver is gone. Each piece of news carries `mark`.
pub(crate) async fn follow<M: Clone>(
    client: Client,
    gate: Arc<Gate>,
    target: Target,
    mark: M,
    news: mpsc::Sender<(M, News)>,
) {
    let resource = resource(target.kind);
    let mut pause = PAUSE;
    loop {
        let (api, config) = match &target.name {
            Some(name) => (
                Api::<Object>::namespaced_with(client.clone(), &name.namespace, &resource),
                // RBAC that allows one name allows a list only if it is asked for by that name.
                watcher::Config::default()
                    .fields(&format!("metadata.name={}", name.name))
                    .timeout(NAMED_WATCH_SECONDS),
            ),
            None => (
                Api::<Object>::all_with(client.clone(), &resource),
                watcher::Config::default().timeout(WATCH_SECONDS),
            ),
        };
        let mut stream = std::pin::pin!(watcher(api, config.page_size(PAGE)));
        let mut is_listing = true;
        let mut has_failed = false;
        let mut since = Instant::now();
        loop {
            let next = stream.next();
            let next = if !is_listing && has_failed {
                match timeout(OPENED, next).await {
                    Ok(next) => next,
                    Err(_) => {
                        has_failed = false;
                        if news.send((mark.clone(), News::Recovered)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                }
            } else if is_listing {
                match timeout(LIST_IDLE, next).await {
                    Ok(next) => next,
                    // The server accepted the question and never answered.
                    Err(_) => {
                        let silent = Failure::Away("it does not answer".to_owned());
                        if news
                            .send((mark.clone(), News::Failed(silent)))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        sleep(spread(PAUSE)).await;
                        break;
                    }
                }
            } else {
                next.await
            };
            let Some(event) = next else {
                break;
            };
            let told = match event {
                Ok(watcher::Event::Init) => {
                    is_listing = true;
                    News::Listing
                }
                Ok(watcher::Event::InitApply(object)) => News::Listed(object.value),
                Ok(watcher::Event::InitDone) => {
                    is_listing = false;
                    News::Whole
                }
                Ok(watcher::Event::Apply(object)) => News::Applied(object.value),
                Ok(watcher::Event::Delete(object)) => News::Deleted(ObjectName::new(
                    object.meta.namespace.as_deref().unwrap_or_default(),
                    object.meta.name.as_deref().unwrap_or_default(),
                )),
                Err(error) => {
                    let failure = Failure::of(&error);
                    tracing::debug!(%target, %error, "watch failed");
                    // Said at the start of a watch, the library asks for the same past again.
                    let needs_list = failure == Failure::Expired
                        && matches!(error, watcher::Error::WatchStartFailed(_));
                    if since.elapsed() > GOOD {
                        pause = PAUSE;
                    }
                    let is_away = matches!(failure, Failure::Away(_));
                    let longest = match failure.is_lasting() {
                        true => LONGEST_REFUSED,
                        false => LONGEST_PAUSE,
                    };
                    if news
                        .send((mark.clone(), News::Failed(failure)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    if is_away {
                        gate.wait().await;
                    } else {
                        sleep(spread(pause)).await;
                        pause = (pause * 2).min(longest);
                    }
                    since = Instant::now();
                    has_failed = true;
                    if needs_list {
                        break;
                    }
                    continue;
                }
            };
            if news.send((mark.clone(), told)).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whatever_it_holds() {
        let text = r#"{"kind":"Ingress","metadata":{"name":"a","namespace":7,
            "resourceVersion":"5","managedFields":[{"manager":"x"}]},"spec":[null]}"#;
        let object: Object = serde_json::from_str(text).unwrap();
        assert_eq!(object.meta.name.as_deref(), Some("a"));
        assert_eq!(object.meta.namespace, None);
        assert_eq!(object.meta.resource_version.as_deref(), Some("5"));
        assert!(object.value["metadata"].get("managedFields").is_none());
        assert_eq!(object.value["spec"][0], Value::Null);
        assert!(serde_json::from_str::<Object>("7").is_ok());
    }

    #[test]
    fn every_kind_has_a_place_in_urls() {
        for kind in crate::object::KINDS {
            let resource = resource(kind);
            let group = match resource.group.as_str() {
                "" => resource.version.clone(),
                group => format!("{group}/{}", resource.version),
            };
            assert_eq!(group, kind.api_version());
            assert!(!resource.plural.is_empty());
        }
    }
}
