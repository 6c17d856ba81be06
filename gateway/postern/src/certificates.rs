//! Certificates that the gateway gets for itself, as a source of configuration beside files and the
//! cluster.
//!
//! What the engine has issued is put among the certificates of the files, under the name that wanted
//! it, as bytes in memory: a renewal is one more change. The engine works once the gateway serves,
//! since authorities look at its listeners, and once no other process has the folder: one that this
//! process takes over from goes on until it ends, and until then its challenges are shown here too.
//!
//! With a cluster, there is no folder: one of all replicas gets certificates, see [`replica`]. What it
//! gets for Ingresses is served as any Secret is that an Ingress names.

mod peers;
mod replica;
mod secrets;
mod show;
pub mod text;
pub mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use postern_acme::clock::Clock;
use postern_acme::engine::Desired;
use postern_acme::engine::Engine;
use postern_acme::engine::Issued;
use postern_acme::engine::Issuer;
use postern_acme::engine::Job;
use postern_acme::engine::Shared;
use postern_acme::engine::State;
use postern_acme::store::directory::DirectoryStore;
use postern_core::config::CertificateSpec;
use postern_core::config::Config;
use postern_core::config::DnsSolverSpec;
use postern_core::config::DnsSpec;
use postern_core::config::IssuerSpec;
use postern_core::config::Origins;
use postern_core::config::Problem;
use postern_core::config::kubernetes::NamespacedName;
use postern_core::config::parse::Loaded;
use postern_core::name::CertificateName;
use postern_core::name::DnsSolverName;
use postern_core::name::IssuerName;
use postern_kube::source::State as ClusterState;
use postern_proxy::Challenges;
use postern_proxy::Gateway;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::replica::Replica;
use self::show::OneMachine;
use crate::cluster::Site;
use crate::solver;
use crate::solver::PluginDesk;

/// How often a process that waits for the folder looks whether it is free, and what challenges the
/// other one shows.
const STANDBY: Duration = Duration::from_millis(250);

/// The certificates of one process.
pub struct Certificates {
    clock: Clock,
    issuers: BTreeMap<IssuerName, Arc<Issuer>>,
    /// What the issuers were told of the DNS.
    dns: (DnsSpec, BTreeMap<DnsSolverName, DnsSolverSpec>),
    desk: Arc<PluginDesk>,
    desired: watch::Sender<Arc<Desired>>,
    issued: watch::Receiver<Arc<Issued>>,
    state: watch::Receiver<Arc<State>>,
    /// With a cluster.
    replica: Option<Arc<Replica>>,
    waiting: Mutex<Option<Waiting>>,
}

/// An engine that does not work yet.
enum Waiting {
    Machine {
        engine: Engine,
        shared: Arc<Shared>,
        store: DirectoryStore,
    },
    Replica(Engine),
}

/// An engine that works, or waits for its turn. Ends when dropped.
pub enum Working {
    Machine(AbortHandle),
    /// Gives its Lease back first, which takes a moment.
    Replica(Option<oneshot::Sender<()>>),
}

impl Drop for Working {
    fn drop(&mut self) {
        match self {
            Self::Machine(task) => task.abort(),
            Self::Replica(stop) => {
                // One that has ended by itself does not hear it.
                let _ = stop.take().map(|stop| stop.send(()));
            }
        }
    }
}

impl Certificates {
    /// Takes up what is kept. `None` if nothing is kept anywhere: no issuer is used.
    pub async fn open(
        config: &Config,
        origins: &Origins,
        challenges: Arc<Challenges>,
    ) -> Result<Option<Self>, Problem> {
        let Some(dir) = config.runtime.state_dir.clone() else {
            return Ok(None);
        };
        let store = tokio::task::block_in_place(|| DirectoryStore::open(dir));
        let store = store.map_err(|error| {
            let origin = origins.find("runtime.state-dir");
            Problem::error(origin, format!("state cannot be kept in {error}"))
                .with_help("it has to be a folder that the gateway may write to")
        })?;
        let clock = Clock::system();
        let shared = Arc::new(Shared {
            store: Arc::new(store.clone()),
            replicas: Arc::new(OneMachine::new(challenges)),
            clock: clock.clone(),
        });
        let (desired, receiver) = watch::channel(Arc::default());
        let mut engine = Engine::new(Arc::clone(&shared), receiver);
        let mut certificates = Self::new(clock, desired, engine.issued(), engine.state(), None);
        certificates.want(config, None);
        engine.adopt().await;
        certificates.waiting = Mutex::new(Some(Waiting::Machine {
            engine,
            shared,
            store,
        }));
        Ok(Some(certificates))
    }

    /// The same on a cluster, where nothing is kept on a disk.
    pub async fn follow(
        site: Site,
        config: &Config,
        state: Option<&ClusterState>,
        challenges: Arc<Challenges>,
    ) -> Self {
        if config.runtime.state_dir.is_some() {
            tracing::warn!("state-dir is not used: what has to be kept is kept in Secrets");
        }
        let clock = Clock::system();
        let replica = Arc::new(Replica::new(site, challenges, clock.clone()));
        let (desired, receiver) = watch::channel(Arc::default());
        let engine = Engine::new(replica.shared(), receiver);
        let issued = replica.issued();
        let replica = Some(replica);
        let mut certificates = Self::new(clock, desired, issued, engine.state(), replica);
        certificates.want(config, state);
        if let Some(replica) = &certificates.replica {
            let desired = Arc::clone(&certificates.desired.borrow());
            replica.adopt(&desired).await;
        }
        certificates.waiting = Mutex::new(Some(Waiting::Replica(engine)));
        certificates
    }

    fn new(
        clock: Clock,
        desired: watch::Sender<Arc<Desired>>,
        issued: watch::Receiver<Arc<Issued>>,
        state: watch::Receiver<Arc<State>>,
        replica: Option<Arc<Replica>>,
    ) -> Self {
        Self {
            clock,
            issuers: BTreeMap::new(),
            dns: Default::default(),
            desk: Arc::default(),
            desired,
            issued,
            state,
            replica,
            waiting: Mutex::new(None),
        }
    }

    /// Lets the engine work, and plugins of this gateway write records. `None` the second time.
    pub fn work(&self, gateway: &Arc<Gateway>) -> Option<Working> {
        if let Err(error) = self.desk.open(gateway) {
            tracing::error!(%error, "plugins cannot write DNS records");
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended by whoever holds what is returned.
        Some(match waiting.take()? {
            Waiting::Machine {
                engine,
                shared,
                store,
            } => Working::Machine(tokio::spawn(work(engine, shared, store)).abort_handle()),
            Waiting::Replica(engine) => {
                let (stop, stopped) = oneshot::channel();
                let replica = Arc::clone(self.replica.as_ref()?);
                tokio::spawn(replica.work(engine, self.desired.subscribe(), stopped));
                Working::Replica(Some(stop))
            }
        })
    }

    /// Gets what this configuration and this cluster declare from now on, and nothing else.
    pub fn want(&mut self, config: &Config, state: Option<&ClusterState>) {
        let dns = (config.dns.clone(), config.dns_solvers.clone());
        let is_dns_same = self.dns == dns;
        self.dns = dns;
        // Reads files, where there are solvers.
        let client = solver::client(config);
        let solvers = solver::solvers(config, &client, &self.desk);
        let mut issuers = BTreeMap::new();
        for (name, spec) in &config.issuers {
            let kept = self.issuers.get(name);
            let kept = kept.filter(|kept| is_dns_same && kept.spec == *spec);
            let issuer = kept.map(Arc::clone).unwrap_or_else(|| {
                let mut issuer = Issuer::new(name.clone(), spec.clone(), self.clock.clone());
                issuer.preflight = solver::preflight(config, spec, solvers.as_ref());
                issuer.solver = solvers.clone();
                issuer.records = Some(client.clone());
                Arc::new(issuer)
            });
            issuers.insert(name.clone(), issuer);
        }
        self.issuers = issuers;
        let jobs = config.managed.iter().map(|(name, spec)| Job {
            name: name.clone(),
            hosts: spec.hosts.clone(),
            issuer: spec.issuer.clone(),
            fingerprint: fingerprint(config.issuers.get(&spec.issuer)),
            secret: None,
            is_missing: false,
        });
        let mut jobs: Vec<Job> = jobs.collect();
        let managed = state.iter().flat_map(|state| &state.translation.managed);
        jobs.extend(managed.filter_map(|(secret, wanted)| {
            // Names that the API server takes are names here too; the files come first.
            let name = CertificateName::parse(&secret.to_string()).ok()?;
            let is_free = !config.managed.contains_key(&name);
            let issuer = fingerprint(config.issuers.get(&wanted.issuer));
            is_free.then(|| Job {
                name,
                hosts: wanted.hosts.clone(),
                issuer: wanted.issuer.clone(),
                // What failed for some hosts may not for others.
                fingerprint: issuer
                    + &postern_acme::document::short_hash(&format!("{:?}", wanted.hosts)),
                is_missing: !wanted.is_there,
                secret: Some(NamespacedName {
                    namespace: secret.namespace.to_string(),
                    name: secret.name.to_string(),
                }),
            })
        }));
        let desired = Desired {
            jobs,
            issuers: self.issuers.clone(),
        };
        if let Some(replica) = &self.replica {
            replica.expect(&desired);
            replica.wanted_by(state);
        }
        self.desired.send_if_modified(|current| {
            let is_same_issuer = |(a, b): (&Arc<Issuer>, &Arc<Issuer>)| Arc::ptr_eq(a, b);
            let is_same = current.jobs == desired.jobs
                && current.issuers.len() == desired.issuers.len()
                && current
                    .issuers
                    .values()
                    .zip(desired.issuers.values())
                    .all(is_same_issuer);
            if !is_same {
                *current = Arc::new(desired);
            }
            !is_same
        });
    }

    /// Resolves when something else can be served since [`Certificates::issued`] was last asked.
    pub async fn changed(&mut self) {
        if self.issued.changed().await.is_err() {
            // The engine never ends before the loop that asks does.
            std::future::pending::<()>().await;
        }
    }

    pub fn issued(&mut self) -> Arc<Issued> {
        Arc::clone(&self.issued.borrow_and_update())
    }

    /// How each certificate does, as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }
}

/// Resolves when something else can be served; never where none are got.
pub async fn changed(certificates: Option<&mut Certificates>) {
    match certificates {
        Some(certificates) => certificates.changed().await,
        None => std::future::pending().await,
    }
}

/// Short, and another one for another issuer. A specification holds no secrets.
fn fingerprint(spec: Option<&IssuerSpec>) -> String {
    postern_acme::document::short_hash(&format!("{spec:?}"))
}

/// The configuration of the files with what was issued for it.
pub fn merge(files: &Loaded, issued: &Issued) -> Loaded {
    let mut loaded = files.clone();
    let config = &mut loaded.config;
    for name in files.config.managed.keys() {
        let Some(certificate) = issued.0.get(name) else {
            continue;
        };
        let chain = PathBuf::from(format!("issued:{name}/chain"));
        let key = PathBuf::from(format!("issued:{name}/key"));
        let bytes = |text: &String| text.clone().into_bytes().into();
        config.held.insert(chain.clone(), bytes(&certificate.chain));
        config.held.insert(key.clone(), bytes(&certificate.key));
        let spec = CertificateSpec {
            cert_file: chain,
            key_file: key,
            hosts: None,
        };
        config.certificates.insert(name.clone(), spec);
    }
    loaded
}

async fn work(mut engine: Engine, shared: Arc<Shared>, store: DirectoryStore) {
    let mut was_told = false;
    let _lock = loop {
        let tried = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.try_lock()).await
        };
        match tried {
            Ok(Ok(Some(lock))) => break lock,
            Ok(Ok(None)) if !was_told => {
                was_told = true;
                tracing::info!("another process gets certificates until it ends");
            }
            Ok(Err(error)) if !was_told => {
                was_told = true;
                tracing::error!(%error, "certificates cannot be got");
            }
            Ok(_) => {}
            // The runtime is ending.
            Err(_) => return,
        }
        Engine::show_challenges(&shared, false).await;
        tokio::time::sleep(STANDBY).await;
    };
    engine.run().await;
}

#[cfg(test)]
mod tests;
