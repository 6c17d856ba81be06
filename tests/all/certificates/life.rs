//! An engine with a clock and a disk of the test, for days and faults of a certificate's life.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use futures_util::future::BoxFuture;
use postern_acme::clock::Clock;
use postern_acme::engine::CertificateStatus;
use postern_acme::engine::Desired;
use postern_acme::engine::Engine;
use postern_acme::engine::Issuer;
use postern_acme::engine::Job;
use postern_acme::engine::Shared;
use postern_acme::engine::State;
use postern_acme::store::Kind;
use postern_acme::store::Store;
use postern_acme::store::StoreError;
use postern_core::config::IssuerSpec;
use postern_core::config::issuer::ChallengeKind;
use postern_core::config::issuer::KeyType;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::scratch::Scratch;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::LIMIT;
use super::killed::Documents;
use super::killed::Nobody;

pub(super) const HOUR: u64 = 60 * 60;
pub(super) const DAY: u64 = 24 * HOUR;

/// Documents in memory, on a disk that may be full.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) documents: Arc<Mutex<Documents>>,
    pub(super) is_full: Arc<AtomicBool>,
    /// Certificates cannot be read.
    pub(super) is_torn: Arc<AtomicBool>,
    /// Nothing can be deleted.
    pub(super) is_stuck: Arc<AtomicBool>,
}

impl Disk {
    fn change(&self, change: impl FnOnce(&mut Documents)) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError {
                place: "disk".to_owned(),
                error: "No space left on device".to_owned(),
            });
        }
        change(&mut self.documents.lock().unwrap());
        Ok(())
    }
}

impl Store for Disk {
    fn load<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let key = (kind, name.to_owned());
        let is_torn = kind == Kind::Certificate && self.is_torn.load(Ordering::Relaxed);
        let found = match is_torn {
            true => Err(StoreError {
                place: "disk".to_owned(),
                error: "Input/output error".to_owned(),
            }),
            false => Ok(self.documents.lock().unwrap().get(&key).cloned()),
        };
        Box::pin(async { found })
    }

    fn save<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = (kind, name.to_owned());
        let result = self.change(|documents| {
            documents.insert(key, bytes);
        });
        Box::pin(async { result })
    }

    fn delete<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = (kind, name.to_owned());
        let mut result = self.change(|_| ());
        if self.is_stuck.load(Ordering::Relaxed) {
            result = Err(StoreError {
                place: "disk".to_owned(),
                error: "Operation not permitted".to_owned(),
            });
        }
        if result.is_ok() {
            self.documents.lock().unwrap().remove(&key);
        }
        Box::pin(async { result })
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let documents = self.documents.lock().unwrap();
        let names = documents.keys().filter(|(of, _)| *of == kind);
        let names = names.map(|(_, name)| name.clone()).collect();
        Box::pin(async { Ok(names) })
    }
}

/// An engine whose clock is the test's.
pub(super) struct Life {
    pub(super) now: Arc<AtomicU64>,
    pub(super) disk: Disk,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    pub(super) state: watch::Receiver<Arc<State>>,
    task: JoinHandle<()>,
    specs: Vec<(&'static str, IssuerSpec)>,
    dir: Scratch,
}

pub(super) fn spec(ca: &ScriptedCa, dir: &Scratch, name: &str) -> IssuerSpec {
    let ca_file = dir.write(&format!("{name}.pem"), ca.ca_pem());
    IssuerSpec {
        directory: ca.directory(),
        contact: Vec::new(),
        ca_file: Some(ca_file),
        external_account: None,
        challenges: vec![ChallengeKind::Http01],
        key_type: KeyType::EcdsaP256,
        profile: None,
        allowed: None,
        namespaces: None,
        fallback: None,
        certificates_a_week: None,
        reach: None,
    }
}

impl Life {
    /// One certificate a host, from the first of the issuers.
    pub(super) fn begin(
        dir: Scratch,
        specs: Vec<(&'static str, IssuerSpec)>,
        hosts: &[&str],
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Arc::new(AtomicU64::new(since.as_secs()));
        let first = IssuerName::parse(specs[0].0).unwrap();
        let jobs = hosts.iter().map(|host| Job {
            name: CertificateName::parse(host).unwrap(),
            hosts: vec![Hostname::parse(host).unwrap()],
            issuer: first.clone(),
            fingerprint: "as configured".to_owned(),
            secret: None,
            is_missing: false,
        });
        Self::run(now, Disk::default(), jobs.collect(), specs, dir)
    }

    fn run(
        now: Arc<AtomicU64>,
        disk: Disk,
        jobs: Vec<Job>,
        specs: Vec<(&'static str, IssuerSpec)>,
        dir: Scratch,
    ) -> Self {
        let clock = {
            let now = Arc::clone(&now);
            Clock::new(move || now.load(Ordering::Relaxed))
        };
        let shared = Arc::new(Shared {
            store: Arc::new(disk.clone()),
            replicas: Arc::new(Nobody),
            clock: clock.clone(),
        });
        let issuers = specs.iter().map(|(name, spec)| {
            let name = IssuerName::parse(name).unwrap();
            let issuer = Issuer::new(name.clone(), spec.clone(), clock.clone());
            (name, Arc::new(issuer))
        });
        let desired = Desired {
            issuers: issuers.collect(),
            jobs,
        };
        let (desired, wanted) = watch::channel(Arc::new(desired));
        let mut engine = Engine::new(shared, wanted);
        Self {
            now,
            disk,
            desired,
            state: engine.state(),
            task: tokio::spawn(async move { engine.run().await }),
            specs,
            dir,
        }
    }

    /// Another process, on what this one has kept.
    pub(super) fn again(mut self) -> Self {
        self.task.abort();
        let jobs = self.desired.borrow().jobs.clone();
        let dir = std::mem::replace(&mut self.dir, Scratch::new());
        let specs = std::mem::take(&mut self.specs);
        Self::run(Arc::clone(&self.now), self.disk.clone(), jobs, specs, dir)
    }

    /// The same, configured otherwise.
    pub(super) fn configured(
        mut self,
        specs: Vec<(&'static str, IssuerSpec)>,
        fingerprint: &str,
    ) -> Self {
        self.specs = specs;
        self.desired.send_modify(|desired| {
            let mut next = Desired::clone(desired);
            for job in &mut next.jobs {
                fingerprint.clone_into(&mut job.fingerprint);
            }
            *desired = Arc::new(next);
        });
        self.again()
    }

    pub(super) fn statuses(&self) -> Vec<CertificateStatus> {
        self.state.borrow().certificates.clone()
    }

    /// What is kept under a name, cut in half.
    pub(super) fn cut(&self, kind: Kind, name: &str) {
        let mut documents = self.disk.documents.lock().unwrap();
        let document = documents.get_mut(&(kind, name.to_owned()));
        let document = document.unwrap_or_else(|| panic!("no {kind:?} of {name}"));
        document.truncate(document.len() / 2);
    }

    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Lets time pass, and the engine notice.
    pub(super) fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
        self.desired.send_modify(|_| {});
    }

    pub(super) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&[CertificateStatus]) -> bool,
    ) {
        let waited = timeout(
            LIMIT,
            self.state
                .wait_for(|state| !state.certificates.is_empty() && wanted(&state.certificates)),
        );
        let waited = waited.await.map(|state| drop(state.unwrap()));
        let state = self.state.borrow();
        assert!(waited.is_ok(), "{what}: {:#?}", state.certificates);
    }

    pub(super) async fn until_empty(&mut self) {
        let waited = timeout(
            LIMIT,
            self.state.wait_for(|state| state.certificates.is_empty()),
        );
        assert!(waited.await.is_ok());
    }

    /// Waits until nothing is on its way and nothing is due.
    pub(super) async fn rest(&mut self) -> CertificateStatus {
        let now = Arc::clone(&self.now);
        self.until("at rest", |all| {
            let now = now.load(Ordering::Relaxed);
            all.iter()
                .all(|status| !status.is_running && status.at > now)
        })
        .await;
        self.state.borrow().certificates[0].clone()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn reason(status: &CertificateStatus) -> &str {
    status
        .trouble
        .as_ref()
        .map_or("", |trouble| trouble.reason.as_str())
}
