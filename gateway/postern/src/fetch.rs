//! Plugins that are no files: fetched off the data plane, checked, kept.
//!
//! The [`Fetcher`] is told what is wanted and has a task for each thing that it has not got. What a
//! task finds changes the state and pokes the control loop, which then looks as it does after any
//! change. Nothing here decides what is served.
//!
//! Invariants:
//! - Only bytes with the digest that the configuration names leave this module, wherever they came
//!   from: server, redirect, or disk.
//! - What is on disk is taken without asking a server: a start needs no network.
//! - A source that fails is tried again for as long as it is wanted, ever less often.
//!
//! Reading order: this file, [`oci`] (what a registry is asked), [`challenge`] and [`login`], then
//! [`http`], [`unpack`], [`blobs`]. The library that speaks this protocol brings a second HTTP
//! client with it and reads layers without a bound; the client is needed for `https` sources
//! anyway, and pulling by digest is three requests on top of it.

mod blobs;
mod challenge;
mod error;
mod http;
mod login;
mod oci;
mod unpack;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use postern_core::config::source::Digest;
use postern_core::config::source::FetchSpec;
use postern_core::config::source::HttpUrl;
use postern_core::config::source::Location;
use postern_core::config::source::OciName;
use postern_core::config::source::OciReference;
use postern_core::config::source::RemoteSource;
use postern_proxy::Absence;
use postern_proxy::Fetched;
use postern_wasm::component::MAX_COMPONENT_BYTES;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio::time::timeout;

use blobs::Blobs;
pub use error::FetchError;
use http::Ask;
use http::Client;
use oci::Next;
use oci::Repository;

use crate::source::watch::Poke;

/// Fetched at the same time; more wait.
const MAX_AT_ONCE: usize = 4;
/// One attempt, with every request that it takes.
const ATTEMPT_TIME: Duration = Duration::from_secs(180);
/// From a first failure to the second attempt; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Between attempts in the end. An operator who has put something right can ask by SIGHUP.
const LAST_RETRY: Duration = Duration::from_secs(300);
/// How long a start, or the look at a changed configuration, waits for what was not asked for
/// before; it then goes on without.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is wanted and what was got; one for the life of the process. Clones share it.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    blobs: Option<Arc<Blobs>>,
    poke: Option<Arc<dyn Poke>>,
    permits: Semaphore,
    entries: Mutex<BTreeMap<RemoteSource, Entry>>,
    /// Says that an entry has changed.
    changed: watch::Sender<()>,
    counts: Counts,
}

struct Entry {
    state: State,
    task: Option<JoinHandle<()>>,
}

enum State {
    /// The first attempt is on its way.
    Asked,
    Got(Arc<[u8]>),
    Failed(Absence),
}

#[derive(Default)]
struct Counts {
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// Attempts to fetch since the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fetches {
    pub succeeded: u64,
    pub failed: u64,
}

impl Fetcher {
    /// `cache_dir` is where things are kept between starts; `poke` is called when something was
    /// got, or is found to be missing for another reason than before.
    pub fn new(cache_dir: Option<PathBuf>, poke: Option<Arc<dyn Poke>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                blobs: cache_dir.map(|dir| Arc::new(Blobs::new(dir))),
                poke,
                permits: Semaphore::new(MAX_AT_ONCE),
                entries: Mutex::default(),
                changed: watch::channel(()).0,
                counts: Counts::default(),
            }),
        }
    }

    /// What there is of these. What was not asked for before is, and awaited for a while; the rest
    /// is as it stands, and goes on being tried.
    pub async fn fetch(&self, wanted: &BTreeSet<RemoteSource>, patience: Duration) -> Fetched {
        let mut changed = self.shared.changed.subscribe();
        for source in wanted {
            self.want(source);
        }
        let is_settled = || {
            let entries = self.shared.entries();
            let is_asked = |source| {
                matches!(
                    entries.get(source),
                    Some(Entry {
                        state: State::Asked,
                        ..
                    })
                )
            };
            !wanted.iter().any(is_asked)
        };
        let settling = async { while !is_settled() && changed.changed().await.is_ok() {} };
        // What is not there by then is reported as what it is.
        let _ = timeout(patience, settling).await;
        let entries = self.shared.entries();
        let found = wanted.iter().map(|source| {
            let found = match entries.get(source).map(|entry| &entry.state) {
                Some(State::Got(bytes)) => Ok(Arc::clone(bytes)),
                Some(State::Failed(absence)) => Err(absence.clone()),
                Some(State::Asked) | None => Err(Absence {
                    message: format!("{source} is still being fetched"),
                    is_lasting: false,
                }),
            };
            (source.clone(), found)
        });
        found.collect()
    }

    /// Forgets everything else, and stops trying to get it.
    pub fn retain(&self, wanted: &BTreeSet<RemoteSource>) {
        self.shared
            .entries()
            .retain(|source, _| wanted.contains(source));
    }

    /// Tries at once what would be tried later.
    pub fn hurry(&self) {
        let failed: Vec<RemoteSource> = {
            let entries = self.shared.entries();
            let failed = entries
                .iter()
                .filter(|(_, entry)| matches!(entry.state, State::Failed(_)));
            failed.map(|(source, _)| source.clone()).collect()
        };
        for source in failed {
            if let Some(entry) = self.shared.entries().get_mut(&source) {
                entry.stop();
                entry.task = Some(self.start(&source));
            }
        }
    }

    pub fn fetches(&self) -> Fetches {
        let counts = &self.shared.counts;
        Fetches {
            succeeded: counts.fetched.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
        }
    }

    fn want(&self, source: &RemoteSource) {
        let mut entries = self.shared.entries();
        if !entries.contains_key(source) {
            let entry = Entry {
                state: State::Asked,
                task: Some(self.start(source)),
            };
            entries.insert(source.clone(), entry);
        }
    }

    /// A task that ends when it has got the source; its entry aborts it.
    fn start(&self, source: &RemoteSource) -> JoinHandle<()> {
        let (shared, source) = (Arc::clone(&self.shared), source.clone());
        tokio::spawn(async move { shared.run(source).await })
    }
}

impl Shared {
    async fn run(&self, source: RemoteSource) {
        let mut pause = FIRST_RETRY;
        loop {
            match self.attempt(&source).await {
                Ok(bytes) => {
                    self.set(&source, State::Got(bytes.to_vec().into()));
                    return;
                }
                Err(error) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(
                        source = %source,
                        error = &error as &dyn Error,
                        "plugin not fetched"
                    );
                    let absence = Absence {
                        message: in_one_line(&source, &error),
                        is_lasting: error.is_lasting(),
                    };
                    self.set(&source, State::Failed(absence));
                }
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    async fn attempt(&self, source: &RemoteSource) -> Result<Bytes, FetchError> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let (bytes, was_asked) = pull(source, self.blobs.as_ref()).await?;
        if was_asked {
            self.counts.fetched.fetch_add(1, Ordering::Relaxed);
            let size = bytes.len();
            tracing::info!(source = %source, size, "plugin fetched");
        }
        Ok(bytes)
    }

    fn set(&self, source: &RemoteSource, state: State) {
        let is_news = {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(source) else {
                return;
            };
            let is_known = match (&entry.state, &state) {
                (State::Failed(before), State::Failed(now)) => before == now,
                _ => false,
            };
            entry.state = state;
            !is_known
        };
        self.changed.send_replace(());
        if let Some(poke) = self.poke.as_ref().filter(|_| is_news) {
            poke.poke();
        }
    }

    /// The lock is held for moments and nothing under it panics halfway.
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<RemoteSource, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The component of a source, and whether a server was asked for any of it.
async fn pull(
    source: &RemoteSource,
    blobs: Option<&Arc<Blobs>>,
) -> Result<(Bytes, bool), FetchError> {
    let pulling = async {
        match &source.location {
            Location::Https { url, digest } => pull_url(url, digest, &source.fetch, blobs).await,
            Location::Oci(reference) => pull_oci(reference, &source.fetch, blobs).await,
        }
    };
    let late = |_| FetchError::Timeout {
        host: source.to_string(),
    };
    timeout(ATTEMPT_TIME, pulling).await.map_err(late)?
}

async fn pull_url(
    url: &HttpUrl,
    digest: &Digest,
    fetch: &FetchSpec,
    blobs: Option<&Arc<Blobs>>,
) -> Result<(Bytes, bool), FetchError> {
    if let Some(bytes) = load(blobs, digest, MAX_COMPONENT_BYTES).await? {
        return Ok((bytes, false));
    }
    let client = client(fetch).await?;
    let mut ask = Ask::get(url.as_str(), MAX_COMPONENT_BYTES, "the component");
    if let Some(spec) = fetch.login.clone() {
        let host = url.host().to_owned();
        let login = off_thread(move || login::Login::read(&spec, &host)).await?;
        if let Some(basic) = login.and_then(|login| login.basic()) {
            ask.headers.insert(::http::header::AUTHORIZATION, basic);
        }
    }
    let answer = client.send(ask).await?;
    if answer.status != StatusCode::OK {
        return Err(FetchError::Status {
            url: url.shown(),
            status: answer.status,
        });
    }
    oci::check_digest("the component", digest, &answer.body)?;
    store(blobs, digest, &answer.body).await?;
    Ok((answer.body, true))
}

async fn pull_oci(
    reference: &OciReference,
    fetch: &FetchSpec,
    blobs: Option<&Arc<Blobs>>,
) -> Result<(Bytes, bool), FetchError> {
    let mut pulling = Pulling {
        reference,
        fetch,
        blobs,
        client: None,
        was_asked: false,
    };
    let manifest = pulling.manifest(&reference.digest).await?;
    let next = match oci::next(&manifest)? {
        Next::Manifest(digest) => oci::next(&pulling.manifest(&digest).await?)?,
        next => next,
    };
    let Next::Layer { digest, is_archive } = next else {
        return Err(FetchError::Manifest {
            what: "it is an index of indexes",
        });
    };
    let layer = pulling.layer(&digest).await?;
    let component = match is_archive {
        true => off_thread(move || unpack::component(&unpack::inflate(&layer)?)).await?,
        false => layer,
    };
    Ok((component, pulling.was_asked))
}

/// One pull from a registry, which is asked for nothing that is on disk.
struct Pulling<'p> {
    reference: &'p OciReference,
    fetch: &'p FetchSpec,
    blobs: Option<&'p Arc<Blobs>>,
    client: Option<Client>,
    was_asked: bool,
}

impl Pulling<'_> {
    async fn manifest(&mut self, digest: &Digest) -> Result<Bytes, FetchError> {
        if let Some(bytes) = load(self.blobs, digest, oci::MAX_MANIFEST_BYTES).await? {
            return Ok(bytes);
        }
        let bytes = self.repository().await?.manifest(digest).await?;
        store(self.blobs, digest, &bytes).await?;
        Ok(bytes)
    }

    async fn layer(&mut self, digest: &Digest) -> Result<Bytes, FetchError> {
        if let Some(bytes) = load(self.blobs, digest, MAX_COMPONENT_BYTES).await? {
            return Ok(bytes);
        }
        let bytes = self.repository().await?.layer(digest).await?;
        store(self.blobs, digest, &bytes).await?;
        Ok(bytes)
    }

    async fn repository(&mut self) -> Result<Repository<'_>, FetchError> {
        self.was_asked = true;
        let client = match self.client.take() {
            Some(client) => client,
            None => client(self.fetch).await?,
        };
        let client = self.client.insert(client);
        Repository::open(client, &self.reference.name, self.fetch, "pull").await
    }
}

/// What was pushed, by the reference that configurations name it with. Its imports and exports are
/// for those who list what is in a registry.
pub async fn push(
    component: Bytes,
    interfaces: (&[String], &[String]),
    name: &OciName,
    tag: Option<&str>,
    fetch: &FetchSpec,
) -> Result<OciReference, FetchError> {
    let client = client(fetch).await?;
    let mut repository = Repository::open(&client, name, fetch, "pull,push").await?;
    let (config, manifest) = oci::describe(&component, interfaces);
    repository.push_blob(&component).await?;
    repository.push_blob(&config).await?;
    let digest = repository.push_manifest(manifest, tag).await?;
    Ok(OciReference {
        name: name.clone(),
        digest,
    })
}

async fn client(fetch: &FetchSpec) -> Result<Client, FetchError> {
    let fetch = fetch.clone();
    off_thread(move || Client::new(&fetch)).await
}

async fn load(
    blobs: Option<&Arc<Blobs>>,
    digest: &Digest,
    limit: usize,
) -> Result<Option<Bytes>, FetchError> {
    let Some(blobs) = blobs.cloned() else {
        return Ok(None);
    };
    let digest = digest.clone();
    off_thread(move || Ok(blobs.load(&digest, limit))).await
}

async fn store(
    blobs: Option<&Arc<Blobs>>,
    digest: &Digest,
    bytes: &Bytes,
) -> Result<(), FetchError> {
    let Some(blobs) = blobs.cloned() else {
        return Ok(());
    };
    let (digest, bytes) = (digest.clone(), bytes.clone());
    off_thread(move || {
        blobs.store(&digest, &bytes);
        Ok(())
    })
    .await
}

/// For files and digests, which would hold up a thread of the control plane.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(FetchError::Fault))
}

fn in_one_line(source: &RemoteSource, error: &FetchError) -> String {
    let mut text = format!("{source} cannot be fetched: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Between three quarters of it and all of it, so that a thousand gateways do not ask at once.
fn jittered(pause: Duration) -> Duration {
    let quarter = pause / 4;
    let part = getrandom::u32().unwrap_or_default() % 1000;
    pause - quarter * part / 1000
}

#[cfg(test)]
mod tests;
