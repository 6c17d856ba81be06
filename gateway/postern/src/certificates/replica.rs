//! Certificates on a cluster: one replica gets them, and all of them answer authorities.
//!
//! What has to be known by all is in Secrets, which each replica watches: challenges, and the
//! certificates of the files, which no Ingress names. The holder of a Lease works on orders; when its
//! term is over, it stops before its next request, and another goes on where it was.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::StreamExt as _;
use postern_acme::Reason;
use postern_acme::challenge::kept;
use postern_acme::clock::Clock;
use postern_acme::document::Trouble;
use postern_acme::engine::Desired;
use postern_acme::engine::Engine;
use postern_acme::engine::Issued;
use postern_acme::engine::Shared;
use postern_acme::engine::State;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_kube::Kind;
use postern_kube::ObjectName;
use postern_kube::ObjectProblem;
use postern_kube::ObjectRef;
use postern_kube::lease::Election;
use postern_kube::lease::Term;
use postern_kube::lease::leases;
use postern_kube::object::Severity;
use postern_kube::secrets::SecretNews;
use postern_kube::secrets::Secrets;
use postern_kube::secrets::StoredSecret;
use postern_kube::source::State as ClusterState;
use postern_kube::writer;
use postern_proxy::Challenges;
use postern_proxy::LookUp;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio::time::timeout;

use super::peers::Peers;
use super::secrets;
use super::secrets::SecretStore;
use super::show::OneMachine;
use crate::cluster::Site;

/// How long a start waits for the certificates of the files.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// What a replica gets certificates with.
pub(super) struct Replica {
    site: Site,
    secrets: Secrets,
    here: Arc<OneMachine>,
    challenges: Arc<Challenges>,
    clock: Clock,
    /// Certificates of the files, as they are kept: by the name of their document.
    documents: watch::Sender<Arc<BTreeMap<String, Vec<u8>>>>,
    issued: watch::Sender<Arc<Issued>>,
    /// The Ingresses that want certificates, and their ids.
    wanting: Mutex<Wanting>,
}

type Wanting = BTreeMap<CertificateName, (ObjectRef, Arc<str>)>;

impl Replica {
    pub(super) fn new(site: Site, challenges: Arc<Challenges>, clock: Clock) -> Self {
        Self {
            secrets: Secrets::new(site.client.clone()),
            here: Arc::new(OneMachine::new(Arc::clone(&challenges))),
            challenges,
            site,
            clock,
            documents: watch::Sender::default(),
            issued: watch::Sender::default(),
            wanting: Mutex::default(),
        }
    }

    /// Takes note of who is to be told why there is no certificate.
    pub(super) fn wanted_by(&self, state: Option<&ClusterState>) {
        let managed = state.iter().flat_map(|state| {
            let managed = state.translation.managed.iter();
            managed.filter_map(|(secret, wanted)| {
                let ingress = ObjectRef {
                    kind: Kind::Ingress,
                    name: wanted.ingress.clone(),
                };
                let name = CertificateName::parse(&secret.to_string()).ok()?;
                let uid = Arc::clone(state.uid(&ingress)?);
                Some((name, (ingress, uid)))
            })
        });
        *self.wanting() = managed.collect();
    }

    fn wanting(&self) -> MutexGuard<'_, Wanting> {
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with certificates now, as problems of the Ingresses that want them.
    fn problems(&self, state: &State) -> Vec<(ObjectProblem, Arc<str>)> {
        let wanting = self.wanting();
        let problems = state.certificates.iter().filter_map(|status| {
            let (ingress, uid) = wanting.get(&status.name)?;
            let problem = problem(ingress.clone(), status.trouble.as_ref()?)?;
            Some((problem, Arc::clone(uid)))
        });
        problems.collect()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        let namespace = self.site.namespace.clone();
        let store = SecretStore::new(self.secrets.clone(), namespace.clone());
        let peers = Peers::new(
            Arc::clone(&self.here),
            self.site.client.clone(),
            namespace,
            self.site.peers.clone(),
        );
        Arc::new(Shared {
            store: Arc::new(store),
            replicas: Arc::new(peers),
            clock: self.clock.clone(),
        })
    }

    /// The certificates of the files, whichever replica got them.
    pub(super) fn issued(&self) -> watch::Receiver<Arc<Issued>> {
        self.issued.subscribe()
    }

    /// Takes up what is kept for the files, for a start that has to know before it serves.
    pub(super) async fn adopt(&self, desired: &Desired) {
        let is_any_of_files = desired.jobs.iter().any(|job| job.secret.is_none());
        if !is_any_of_files {
            return;
        }
        let listed = self
            .secrets
            .list(&self.site.namespace, secrets::CERTIFICATES);
        match timeout(FIRST_LIST, listed).await {
            Ok(Ok(listed)) => {
                self.documents.send_replace(Arc::new(documents(&listed)));
                self.publish(desired);
            }
            Ok(Err(error)) => tracing::warn!(%error, "certificates of the files are not known yet"),
            Err(_) => tracing::warn!("certificates of the files are not known yet"),
        }
    }

    fn publish(&self, desired: &Desired) {
        let now = self.clock.now();
        let documents = self.documents.borrow();
        let jobs = desired.jobs.iter().filter(|job| job.secret.is_none());
        let issued = jobs.filter_map(|job| {
            let bytes = documents.get(&job.document_name())?;
            Some((job.name.clone(), Engine::kept(job, bytes, now)?))
        });
        let issued = Issued(issued.collect());
        self.issued.send_if_modified(|current| {
            let is_new = **current != issued;
            if is_new {
                *current = Arc::new(issued);
            }
            is_new
        });
    }

    /// Lets requests for challenges of these names be held.
    pub(super) fn expect(&self, desired: &Desired) {
        let hosts = desired.jobs.iter().flat_map(|job| &job.hosts);
        let hosts: HashSet<Box<str>> = hosts
            .filter_map(|host| match host {
                Hostname::Exact(name) => Some(Box::from(&**name)),
                Hostname::Wildcard(_) => None,
            })
            .collect();
        self.challenges.expect(hosts, self.look_up());
    }

    /// Reads one challenge from the API server, on the threads of the control plane.
    fn look_up(&self) -> LookUp {
        let control = Handle::current();
        let secrets = self.secrets.clone();
        let store = Arc::new(SecretStore::new(
            self.secrets.clone(),
            self.site.namespace.clone(),
        ));
        let (here, clock) = (Arc::clone(&self.here), self.clock.clone());
        Arc::new(move |token: String| {
            let place = store.place(postern_acme::store::Kind::Challenge, &token);
            let (secrets, here, clock) = (secrets.clone(), Arc::clone(&here), clock.clone());
            // Ends in time by itself, and shows what it finds even if nobody waits any more.
            let task = control.spawn(async move {
                if let Ok(Some(secret)) = secrets.get(&place).await {
                    show(&here, &clock, &secret);
                }
            });
            Box::pin(async move {
                // Whether it was found is seen by whether it is shown.
                let _ = task.await;
            })
        })
    }

    /// Works, or waits for its turn, until it is told to stop; then gives the Lease back.
    pub(super) async fn work(
        self: Arc<Self>,
        mut engine: Engine,
        mut desired: watch::Receiver<Arc<Desired>>,
        stop: oneshot::Receiver<()>,
    ) {
        let state = engine.state();
        let (ending, ended) = oneshot::channel();
        let working = async {
            // Who uses no issuer needs none of the rights that this takes.
            let used = desired.wait_for(|desired| !desired.issuers.is_empty());
            if used.await.is_err() {
                return;
            }
            let leases = leases(&self.site.client, &self.site.namespace);
            let (election, term) = Election::new(leases, &self.site.lease, &self.site.identity);
            let holder = election.holder();
            let lead = async {
                tokio::select! {
                    () = self.lead(&mut engine, term, holder, desired.clone(), &state) => {}
                    () = self.follow_challenges() => {}
                    () = self.follow_certificates(desired.clone()) => {}
                    // Its sender goes away with the gateway.
                    _ = stop => {}
                }
                // Nothing is asked of an authority any more: now another may.
                let _ = ending.send(());
            };
            let stand = election.run(async {
                let _ = ended.await;
            });
            tokio::join!(lead, stand);
        };
        working.await;
    }

    /// Lets the engine work for as long as this replica may.
    async fn lead(
        &self,
        engine: &mut Engine,
        mut term: watch::Receiver<Option<Term>>,
        mut holder: watch::Receiver<Option<String>>,
        mut desired: watch::Receiver<Arc<Desired>>,
        state: &watch::Receiver<Arc<State>>,
    ) {
        loop {
            let leader = holder.borrow_and_update().clone();
            engine.stand_by(leader.as_deref());
            desired.mark_unchanged();
            tokio::select! {
                gained = term.wait_for(|term| is_running(term.as_ref())) => {
                    if gained.is_err() {
                        return;
                    }
                }
                changed = holder.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                changed = desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
            tracing::info!("this replica gets certificates from now on");
            let Site {
                client,
                controller,
                identity,
                ..
            } = &self.site;
            let problems = || self.problems(&state.borrow());
            tokio::select! {
                () = engine.run() => return,
                () = over(&mut term) => {}
                () = writer::tell(client.clone(), controller, identity, problems) => {}
            }
            tracing::warn!("another replica may get certificates: this one stops");
        }
    }

    async fn follow_challenges(&self) {
        let news = self
            .secrets
            .follow(&self.site.namespace, secrets::CHALLENGES);
        let mut news = std::pin::pin!(news);
        let mut shown: BTreeMap<ObjectName, String> = BTreeMap::new();
        while let Some(news) = news.next().await {
            match news {
                SecretNews::All(all) => {
                    let listed: HashSet<&ObjectName> =
                        all.iter().map(|secret| &secret.name).collect();
                    shown.retain(|name, token| {
                        let is_there = listed.contains(name);
                        if !is_there {
                            self.here.forget(token);
                        }
                        is_there
                    });
                    for secret in &all {
                        let token = show(&self.here, &self.clock, secret);
                        shown.extend(token.map(|token| (secret.name.clone(), token)));
                    }
                }
                SecretNews::Changed(secret) => {
                    let token = show(&self.here, &self.clock, &secret);
                    shown.extend(token.map(|token| (secret.name.clone(), token)));
                }
                SecretNews::Gone(name) => {
                    if let Some(token) = shown.remove(&name) {
                        self.here.forget(&token);
                    }
                }
            }
        }
    }

    async fn follow_certificates(&self, mut desired: watch::Receiver<Arc<Desired>>) {
        let news = self
            .secrets
            .follow(&self.site.namespace, secrets::CERTIFICATES);
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                told = news.next() => {
                    let Some(told) = told else { return };
                    self.documents.send_modify(|known| {
                        let known = Arc::make_mut(known);
                        match told {
                            SecretNews::All(all) => *known = documents(&all),
                            SecretNews::Changed(secret) => {
                                known.extend(documents(std::slice::from_ref(&secret)));
                            }
                            // Whoever deletes a certificate that is served wants another, and not none.
                            SecretNews::Gone(_) => {}
                        }
                    });
                }
                changed = desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let desired = Arc::clone(&desired.borrow_and_update());
            self.publish(&desired);
        }
    }
}

fn is_running(term: Option<&Term>) -> bool {
    term.is_some_and(|term| term.left().is_some())
}

/// Resolves when the term is over, and not because it was renewed.
async fn over(term: &mut watch::Receiver<Option<Term>>) {
    loop {
        let left = term.borrow_and_update().as_ref().and_then(Term::left);
        let Some(left) = left else { return };
        tokio::select! {
            changed = term.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep(left) => {}
        }
    }
}

/// What an Ingress is told; `None` where nothing is wrong.
fn problem(object: ObjectRef, trouble: &Trouble) -> Option<ObjectProblem> {
    let mut reasons = Reason::ALL.into_iter();
    let reason = reasons.find(|reason| reason.as_str() == trouble.reason)?;
    if matches!(reason, Reason::Processing | Reason::ExternallyManaged) {
        return None;
    }
    let mut message = format!("no certificate: {}", trouble.message);
    if let Some(problem) = &trouble.problem {
        message.push_str(&format!("; the authority says \"{problem}\""));
    }
    let help = match &trouble.record {
        Some(record) => format!("add to the DNS: {record}"),
        None => reason.help().to_owned(),
    };
    Some(ObjectProblem {
        object,
        field: "spec.tls".to_owned(),
        severity: Severity::Error,
        reason: postern_kube::object::Reason::NotIssued(reason.as_str()),
        message,
        help: Some(help),
    })
}

/// Shows the challenge of a Secret, if it is one that is not over; its token.
fn show(here: &OneMachine, clock: &Clock, secret: &StoredSecret) -> Option<String> {
    let (_, bytes) = secrets::document(secret)?;
    let challenge = kept(bytes, clock.now())?;
    if let Err(error) = here.put(&challenge) {
        tracing::warn!(host = challenge.host, error, "challenge not shown");
    }
    Some(challenge.token)
}

fn documents(secrets: &[StoredSecret]) -> BTreeMap<String, Vec<u8>> {
    let documents = secrets.iter().filter_map(secrets::document);
    documents
        .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingress_is_told_why_it_has_no_certificate_and_what_to_do() {
        let object = || ObjectRef {
            kind: Kind::Ingress,
            name: ObjectName::new("shop", "web"),
        };
        let trouble = Trouble {
            reason: "DnsElsewhere".to_owned(),
            message: "web.test = 192.0.2.7".to_owned(),
            problem: None,
            record: Some("web.test. 3600 IN CNAME gateway.test.".to_owned()),
            at: 0,
        };
        let told = problem(object(), &trouble).unwrap();
        assert_eq!(told.reason.as_str(), "DnsElsewhere");
        assert_eq!(told.message, "no certificate: web.test = 192.0.2.7");
        let record = "add to the DNS: web.test. 3600 IN CNAME gateway.test.";
        assert_eq!(told.help.as_deref(), Some(record));
        // What takes its time, or is as it should be, is no problem.
        for reason in ["Processing", "ExternallyManaged", "unknown"] {
            let trouble = Trouble {
                reason: reason.to_owned(),
                ..trouble.clone()
            };
            assert_eq!(problem(object(), &trouble), None, "{reason}");
        }
    }
}
