//! Days and months of a certificate's life, by a clock of the test.

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
use postern_tests::certificates::scripted::Script;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::scratch::Scratch;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::LIMIT;
use super::killed::Documents;
use super::killed::Nobody;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Documents in memory, on a disk that may be full.
#[derive(Clone, Default)]
struct Disk {
    documents: Arc<Mutex<Documents>>,
    is_full: Arc<AtomicBool>,
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
        let found = self.documents.lock().unwrap().get(&key).cloned();
        Box::pin(async { Ok(found) })
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
        let result = self.change(|documents| {
            documents.remove(&key);
        });
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
struct Life {
    now: Arc<AtomicU64>,
    disk: Disk,
    desired: watch::Sender<Arc<Desired>>,
    state: watch::Receiver<Arc<State>>,
    task: JoinHandle<()>,
    _dir: Scratch,
}

fn spec(ca: &ScriptedCa, dir: &Scratch, name: &str) -> IssuerSpec {
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
    fn begin(dir: Scratch, specs: Vec<(&str, IssuerSpec)>, hosts: &[&str]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Arc::new(AtomicU64::new(since.as_secs()));
        let clock = {
            let now = Arc::clone(&now);
            Clock::new(move || now.load(Ordering::Relaxed))
        };
        let disk = Disk::default();
        let shared = Arc::new(Shared {
            store: Arc::new(disk.clone()),
            replicas: Arc::new(Nobody),
            clock: clock.clone(),
        });
        let first = IssuerName::parse(specs[0].0).unwrap();
        let issuers = specs.into_iter().map(|(name, spec)| {
            let name = IssuerName::parse(name).unwrap();
            (
                name.clone(),
                Arc::new(Issuer::new(name, spec, clock.clone())),
            )
        });
        let jobs = hosts.iter().map(|host| Job {
            name: CertificateName::parse(host).unwrap(),
            hosts: vec![Hostname::parse(host).unwrap()],
            issuer: first.clone(),
            fingerprint: String::new(),
            secret: None,
            is_missing: false,
        });
        let desired = Desired {
            issuers: issuers.collect(),
            jobs: jobs.collect(),
        };
        let (desired, wanted) = watch::channel(Arc::new(desired));
        let mut engine = Engine::new(shared, wanted);
        Self {
            now,
            disk,
            desired,
            state: engine.state(),
            task: tokio::spawn(async move { engine.run().await }),
            _dir: dir,
        }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Lets time pass, and the engine notice.
    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
        self.desired.send_modify(|_| {});
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&[CertificateStatus]) -> bool) {
        let waited = timeout(
            LIMIT,
            self.state
                .wait_for(|state| !state.certificates.is_empty() && wanted(&state.certificates)),
        );
        let waited = waited.await.map(|state| drop(state.unwrap()));
        let state = self.state.borrow();
        assert!(waited.is_ok(), "{what}: {:#?}", state.certificates);
    }

    async fn until_empty(&mut self) {
        let waited = timeout(
            LIMIT,
            self.state.wait_for(|state| state.certificates.is_empty()),
        );
        assert!(waited.await.is_ok());
    }

    /// Waits until nothing is on its way and nothing is due.
    async fn rest(&mut self) -> CertificateStatus {
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

fn reason(status: &CertificateStatus) -> &str {
    status
        .trouble
        .as_ref()
        .map_or("", |trouble| trouble.reason.as_str())
}

#[tokio::test]
async fn an_authority_that_is_away_for_ten_days_is_asked_ever_less_and_then_renews() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    let first = life.rest().await;
    let first_end = first.served.unwrap().not_after;
    assert_eq!(ca.counts().orders, 1);

    ca.direct(|script| script.is_down = true);
    life.pass(61 * DAY);
    let away_since = life.now();
    while life.now() < away_since + 10 * DAY {
        let status = life.rest().await;
        assert_eq!(reason(&status), "IssuerUnreachable", "{status:#?}");
        assert_eq!(
            status.served.unwrap().not_after,
            first_end,
            "the old one is served on"
        );
        life.pass(status.at.saturating_sub(life.now()).max(1));
    }
    let tries = life.rest().await.failures;
    assert!((8..=20).contains(&tries), "{tries} attempts in ten days");

    ca.direct(|script| script.is_down = false);
    life.pass(DAY);
    life.until("renewed", |all| {
        all[0]
            .served
            .as_ref()
            .is_some_and(|s| s.not_after != first_end)
    })
    .await;
    let counts = ca.counts();
    assert_eq!((counts.orders, counts.accounts), (2, 1), "{counts:?}");
}

#[tokio::test]
async fn another_issuer_stands_in_when_the_end_is_near() {
    let ca = ScriptedCa::start(Script::default()).await;
    let other = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let mut first = spec(&ca, &dir, "ca");
    first.fallback = Some(IssuerName::parse("other").unwrap());
    let second = spec(&other, &dir, "other");
    let mut life = Life::begin(dir, vec![("ca", first), ("other", second)], &["a.test"]);
    life.rest().await;
    ca.direct(|script| script.refuses_orders = Some(("unauthorized", "no more")));
    // A third of its life is left: time enough.
    life.pass(61 * DAY);
    let status = life.rest().await;
    assert_eq!(reason(&status), "OrderRefused");
    life.pass(5 * DAY);
    life.rest().await;
    assert_eq!(other.counts().orders, 0);
    // Less than a sixth.
    life.pass(11 * DAY);
    life.until("the other one", |all| {
        all[0]
            .served
            .as_ref()
            .is_some_and(|served| served.issuer == "other")
    })
    .await;
    life.rest().await;
    // And what it gave is good until it is to be renewed.
    life.pass(DAY);
    life.rest().await;
    assert_eq!(other.counts().orders, 1);
}

#[tokio::test]
async fn a_share_of_the_limits_is_kept() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let mut spec = spec(&ca, &dir, "ca");
    spec.certificates_a_week = Some(1);
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.x.test", "b.other.test"]);
    life.until("both", |all| {
        all.iter().all(|status| status.served.is_some())
    })
    .await;
    let mut desired = Desired::clone(&life.desired.borrow());
    let mut job = desired.jobs[0].clone();
    job.name = CertificateName::parse("c.x.test").unwrap();
    job.hosts = vec![Hostname::parse("c.x.test").unwrap()];
    desired.jobs.push(job);
    life.desired.send_replace(Arc::new(desired));
    let full = |all: &[CertificateStatus]| {
        all.iter().any(|status| {
            status
                .trouble
                .as_ref()
                .is_some_and(|t| t.reason == "LedgerFull")
        })
    };
    life.until("full", full).await;
    assert_eq!(ca.counts().orders, 2);
    life.pass(7 * DAY);
    life.until("all", |all| {
        all.iter().all(|status| status.served.is_some())
    })
    .await;
    assert_eq!(ca.counts().orders, 3);
}

#[tokio::test]
async fn nothing_is_ordered_that_could_not_be_kept() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.disk.is_full.store(true, Ordering::Relaxed);
    // What began before the disk was full ends either way.
    life.until("ended", |all| !all[0].is_running && all[0].at > 0)
        .await;
    let before = ca.counts();
    if life.state.borrow().certificates[0].served.is_none() {
        let status = life.rest().await;
        assert_eq!(reason(&status), "StorageFailed", "{status:#?}");
        assert_eq!(ca.counts().orders, before.orders);
    }
    life.disk.is_full.store(false, Ordering::Relaxed);
    life.pass(HOUR);
    life.until("issued", |all| all[0].served.is_some()).await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_orders_nothing_twice() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.rest().await;
    life.now.fetch_sub(2 * DAY, Ordering::Relaxed);
    life.pass(0);
    let status = life.rest().await;
    assert!(status.trouble.is_none(), "{status:#?}");
    life.pass(30 * DAY);
    life.rest().await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn a_document_that_was_cut_short_costs_one_order_and_says_so() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.rest().await;
    let key = (Kind::Certificate, "a.test".to_owned());
    let documents = Arc::clone(&life.disk.documents);
    let whole = documents.lock().unwrap()[&key].clone();
    documents
        .lock()
        .unwrap()
        .insert(key, whole[..whole.len() / 2].to_vec());
    // The same engine takes it up again when what it wants goes and comes back.
    let desired = life.desired.send_replace(Arc::default());
    life.until_empty().await;
    life.desired.send_replace(desired);
    life.until("issued again", |all| all[0].served.is_some())
        .await;
    assert_eq!(ca.counts().orders, 2);
}
