//! The engine killed at every write, before it and after it, and started again on what was kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use postern_acme::challenge::Challenge;
use postern_acme::challenge::Replicas;
use postern_acme::clock::Clock;
use postern_acme::engine::Desired;
use postern_acme::engine::Engine;
use postern_acme::engine::Issuer;
use postern_acme::engine::Job;
use postern_acme::engine::Shared;
use postern_acme::store::Kind;
use postern_acme::store::Store;
use postern_acme::store::StoreError;
use postern_core::config::IssuerSpec;
use postern_core::config::issuer::ChallengeKind;
use postern_core::config::issuer::ExternalAccountSpec;
use postern_core::config::issuer::KeyType;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;
use postern_tests::certificates::scripted::Script;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::scratch::Scratch;
use tokio::sync::watch;
use tokio::time::timeout;

use super::KEY;
use super::LIMIT;

pub(super) type Documents = BTreeMap<(Kind, String), Vec<u8>>;

/// Keeps documents in memory, and stops for ever at one write.
struct Mortal {
    documents: Arc<Mutex<Documents>>,
    /// Writes that are still done.
    left: Mutex<usize>,
    /// Whether the last one is done before the end.
    after: bool,
    died: watch::Sender<bool>,
}

impl Mortal {
    /// `false`: the process is no more.
    fn write(&self, change: impl FnOnce(&mut Documents)) -> bool {
        let mut left = self.left.lock().unwrap();
        let lives = *left > 0;
        if lives || self.after && !*self.died.borrow() {
            change(&mut self.documents.lock().unwrap());
        }
        *left = left.saturating_sub(1);
        if !lives {
            self.died.send_replace(true);
        }
        lives
    }

    async fn end<T>() -> T {
        std::future::pending().await
    }
}

impl Store for Mortal {
    fn load<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let found = self
            .documents
            .lock()
            .unwrap()
            .get(&(kind, name.to_owned()))
            .cloned();
        Box::pin(async { Ok(found) })
    }

    fn save<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let lives = self.write(|documents| {
            documents.insert((kind, name.to_owned()), bytes);
        });
        Box::pin(async move { if lives { Ok(()) } else { Self::end().await } })
    }

    fn delete<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let lives = self.write(|documents| {
            documents.remove(&(kind, name.to_owned()));
        });
        Box::pin(async move { if lives { Ok(()) } else { Self::end().await } })
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let documents = self.documents.lock().unwrap();
        let names = documents.keys().filter(|(of, _)| *of == kind);
        let names = names.map(|(_, name)| name.clone()).collect();
        Box::pin(async { Ok(names) })
    }
}

pub(super) struct Nobody;

impl Replicas for Nobody {
    fn show<'a>(&'a self, _: &'a Challenge) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn hide<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Works with this many writes; whether it was killed before it had a certificate.
async fn live(
    ca: &ScriptedCa,
    dir: &Scratch,
    documents: &Arc<Mutex<Documents>>,
    writes: usize,
    after: bool,
) -> bool {
    let (died, mut has_died) = watch::channel(false);
    let store = Arc::new(Mortal {
        documents: Arc::clone(documents),
        left: Mutex::new(writes),
        after,
        died,
    });
    let name = IssuerName::parse("ca").unwrap();
    let spec = IssuerSpec {
        directory: ca.directory(),
        contact: Vec::new(),
        ca_file: Some(dir.path().join("ca.pem")),
        external_account: Some(ExternalAccountSpec {
            key_id: "kid-1".to_owned(),
            key_file: dir.path().join("eab.key"),
        }),
        challenges: vec![ChallengeKind::Http01],
        key_type: KeyType::EcdsaP256,
        profile: None,
        allowed: None,
        namespaces: None,
        fallback: None,
        certificates_a_week: Some(50),
        reach: None,
    };
    let clock = Clock::system();
    let issuer = Arc::new(Issuer::new(name.clone(), spec, clock.clone()));
    let certificate = CertificateName::parse("shop").unwrap();
    let desired = Desired {
        jobs: vec![Job {
            name: certificate.clone(),
            hosts: vec![Hostname::parse("shop.test").unwrap()],
            issuer: name.clone(),
            fingerprint: "as configured".to_owned(),
            secret: None,
            is_missing: false,
        }],
        issuers: [(name, issuer)].into(),
    };
    let shared = Arc::new(Shared {
        store,
        replicas: Arc::new(Nobody),
        clock,
    });
    // Kept: the engine ends when nobody wants anything any more.
    let (_desired, wanted) = watch::channel(Arc::new(desired));
    let mut engine = Engine::new(shared, wanted);
    let mut issued = engine.issued();
    let task = tokio::spawn(async move { engine.run().await });
    let is_killed = timeout(LIMIT, async {
        tokio::select! {
            biased;
            _ = has_died.wait_for(|died| *died) => true,
            _ = issued.wait_for(|issued| issued.0.contains_key(&certificate)) => false,
        }
    });
    let is_killed = is_killed.await.expect("neither killed nor issued");
    task.abort();
    is_killed
}

#[tokio::test]
async fn an_engine_that_is_killed_at_any_write_orders_once_and_binds_once() {
    let mut deaths = 0;
    for after in [false, true] {
        for writes in 0.. {
            let script = Script {
                binding: Some(("kid-1".to_owned(), KEY.to_owned())),
                ..Script::default()
            };
            let ca = ScriptedCa::start(script).await;
            let dir = Scratch::new();
            dir.write("ca.pem", ca.ca_pem());
            dir.write("eab.key", KEY);
            let documents = Arc::default();
            let is_killed = live(&ca, &dir, &documents, writes, after).await;
            let was_issued = !live(&ca, &dir, &documents, usize::MAX, after).await;
            let at = format!("killed at write {writes}, after it: {after}");
            assert!(was_issued, "{at}");
            let counts = ca.counts();
            let seen = (counts.accounts, counts.bindings, counts.orders);
            assert_eq!(seen, (1, 1, 1), "{at}: {counts:?}");
            if !is_killed {
                break;
            }
            deaths += 1;
            assert!(writes < 100, "an order takes no end of writes");
        }
    }
    assert!(deaths >= 16, "only {deaths} places to be killed at");
}
