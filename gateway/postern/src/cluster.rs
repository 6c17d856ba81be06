//! The cluster beside the files: following it, and making one configuration of both.
//!
//! Files come first. A name that both declare is the file's, and a host that a file routes is the
//! file's alone: an Ingress for it would otherwise take paths from the operator of the gateway.

mod in_use;
mod merge;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use postern_core::config::Config;
use postern_core::config::kubernetes::ISSUING_LEASE;
use postern_core::config::kubernetes::SecretScope;
use postern_core::config::parse::Loaded;
use postern_kube::ObjectProblem;
use postern_kube::source::ClusterSource;
use postern_kube::source::Report;
use postern_kube::source::SecretWatch;
use postern_kube::source::State;
use postern_kube::translate::Settings;
use postern_kube::writer;
use postern_kube::writer::Writing;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use in_use::in_use;
pub use merge::Merged;

/// How long a start waits for the cluster before it serves what files declare alone.
const FIRST_STATE: Duration = Duration::from_secs(10);
/// How long giving the Lease back may hold up the end of the process.
const STOP_WRITING: Duration = Duration::from_secs(3);

/// What the command line and the environment say of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub kubeconfig: Option<PathBuf>,
    /// In place of those of the configuration, if there are any.
    pub classes: Vec<String>,
    /// The node that the gateway runs on, and its zone.
    pub node: Option<String>,
    pub zone: Option<String>,
    pub pod: Option<String>,
    /// The gateway's own; that of its credentials if absent.
    pub namespace: Option<String>,
}

/// A cluster that is followed.
pub struct Cluster {
    source: ClusterSource,
    report: watch::Receiver<Arc<Report>>,
    client: postern_kube::Client,
    writing: Writing,
    peers: String,
    in_use: watch::Sender<Arc<[ObjectProblem]>>,
}

/// Where certificates are got.
#[derive(Clone)]
pub struct Site {
    pub client: postern_kube::Client,
    /// The gateway's own.
    pub namespace: String,
    /// Of this process alone.
    pub identity: String,
    /// Whose holder gets them.
    pub lease: String,
    /// Whom Events are from.
    pub controller: String,
    /// The Service of all gateways.
    pub peers: String,
}

/// What the admin listener tells of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterStatus {
    /// Whether what the cluster declares is served.
    pub is_served: bool,
    pub report: Arc<Report>,
    /// What is wrong with objects, and between them and files.
    pub problems: Arc<[ObjectProblem]>,
}

/// Something that writes to the cluster, until it is told to end.
pub struct Writer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Cluster {
    /// Begins to follow the cluster. `config` is that of the files.
    pub async fn follow(place: Place, config: &Config) -> anyhow::Result<Self> {
        let client = postern_kube::client::connect(place.kubeconfig.as_deref())
            .await
            .context("cannot talk to the cluster")?;
        let mut spec = config.kubernetes.clone().unwrap_or_default();
        if !place.classes.is_empty() {
            spec.classes = place.classes;
        }
        let pod = place.pod.unwrap_or_else(host_name);
        let writing = Writing {
            identity: format!("{pod}_{}", unique()?),
            namespace: place
                .namespace
                .unwrap_or_else(|| client.default_namespace().to_owned()),
            lease: spec.lease.clone(),
            controller: spec.controller.clone(),
        };
        let peers = spec.peers.clone();
        let secrets = match spec.secrets {
            SecretScope::Named => SecretWatch::Named,
            SecretScope::Cluster => SecretWatch::Cluster,
        };
        let settings = Settings {
            own: own_addresses(config),
            spec,
            zone: place.zone.map(Into::into),
            node: place.node.map(Into::into),
            ..Settings::default()
        };
        let source = ClusterSource::start(client.clone(), settings, secrets);
        let mut report = source.report();
        report.mark_unchanged();
        Ok(Self {
            source,
            report,
            client,
            writing,
            peers,
            in_use: watch::channel(Arc::default()).0,
        })
    }

    /// Waits until enough is known of the cluster to serve it. `false` if that takes long: files
    /// are then served alone, if they route anything.
    pub async fn first(&mut self, has_routes: bool) -> bool {
        let first = self.report.wait_for(|report| report.state.is_some());
        if !has_routes {
            // Nothing to serve: balancers had better go elsewhere.
            return first.await.is_ok();
        }
        timeout(FIRST_STATE, first).await.is_ok()
    }

    /// Resolves when the cluster has changed since [`Cluster::state`] was last asked.
    pub async fn changed(&mut self) {
        if self.report.changed().await.is_err() {
            // The source never ends before the loop that asks does.
            std::future::pending::<()>().await;
        }
    }

    /// The latest that is known; `None` if that is not enough.
    pub fn state(&mut self) -> Option<Arc<State>> {
        self.report.borrow_and_update().state.clone()
    }

    /// Every report as it comes.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.source.report()
    }

    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.borrow())
    }

    /// For who gets certificates.
    pub fn site(&self) -> Site {
        Site {
            client: self.client.clone(),
            namespace: self.writing.namespace.clone(),
            identity: self.writing.identity.clone(),
            lease: format!("{}{ISSUING_LEASE}", self.writing.lease),
            controller: self.writing.controller.clone(),
            peers: self.peers.clone(),
        }
    }

    /// Starts to write back, as the replica that may does.
    pub fn write(&self) -> Writer {
        let (stop, stopped) = oneshot::channel();
        let (client, report) = (self.client.clone(), self.source.report());
        let in_use = self.in_use.subscribe();
        // Awaited by `Writer::end`.
        let ending = async {
            // A sender that is gone says the same.
            let _ = stopped.await;
        };
        let writing = self.writing.clone();
        let task = tokio::spawn(writer::run(client, writing, report, in_use, ending));
        Writer { stop, task }
    }

    /// Takes note of what is served otherwise than objects say, for who writes.
    pub fn found_in_use(&self, problems: Arc<[ObjectProblem]>) {
        self.in_use.send_if_modified(|known| {
            let is_new = *known != problems;
            *known = problems;
            is_new
        });
    }

    /// The configuration of the files with that of the cluster.
    pub fn merge(loaded: &Loaded, state: Option<&State>) -> Merged {
        merge::merge(loaded, state)
    }
}

impl Writer {
    /// Writes no more, and lets another replica do so.
    pub async fn end(self) {
        let _ = self.stop.send(());
        let _ = timeout(STOP_WRITING, self.task).await;
    }
}

impl ClusterStatus {
    /// In the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let statistics = &self.report.statistics;
        let errors = self.problems.iter().filter(|p| p.is_error()).count();
        let warnings = self.problems.len() - errors;
        let seconds = statistics.translation_time.as_secs_f64();
        let metrics = [
            (
                "postern_kubernetes_connected",
                "gauge",
                "Whether the API server answers every watch.",
                vec![("", f64::from(u8::from(statistics.is_connected)))],
            ),
            (
                "postern_kubernetes_watches",
                "gauge",
                "Open watches: one a kind, and one for each Secret and ConfigMap that is named.",
                vec![("", count(statistics.watches))],
            ),
            (
                "postern_kubernetes_failed_watches",
                "gauge",
                "Watches that the API server refuses or does not answer.",
                vec![("", count(self.report.failures.len()))],
            ),
            (
                "postern_kubernetes_events_total",
                "counter",
                "What watches brought.",
                vec![("", statistics.events as f64)],
            ),
            (
                "postern_kubernetes_translations_total",
                "counter",
                "How often the cluster was made a configuration.",
                vec![("", statistics.translations as f64)],
            ),
            (
                "postern_kubernetes_translation_seconds",
                "gauge",
                "How long that took the last time.",
                vec![("", seconds)],
            ),
            (
                "postern_kubernetes_problems",
                "gauge",
                "Problems of objects now, by severity.",
                vec![
                    ("{severity=\"error\"}", count(errors)),
                    ("{severity=\"warning\"}", count(warnings)),
                ],
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, values) in metrics {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }
}

/// What keeps a gateway from being ready; `None` if enough is known.
pub fn missing(report: &Report) -> Option<String> {
    if report.state.is_some() {
        return None;
    }
    let mut text = "the cluster has not been seen yet".to_owned();
    if !report.waiting_for.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, "; waiting for {}", report.waiting_for.join(", "));
    }
    if let Some((target, failure)) = report.failures.first() {
        let _ = write!(text, "; {target}: {failure}");
    }
    text.push('\n');
    Some(text)
}

fn count(count: usize) -> f64 {
    count as f64
}

/// Says what has become wrong with objects, and that it no longer is.
pub fn log_changes(before: &[ObjectProblem], now: &[ObjectProblem]) {
    // Both are sorted.
    let has = |problems: &[ObjectProblem], problem| problems.binary_search(problem).is_ok();
    for problem in now.iter().filter(|problem| !has(before, problem)) {
        tracing::warn!(
            object = %problem.object,
            field = problem.field,
            reason = problem.reason.as_str(),
            problem = problem.message,
            help = problem.help,
            "object problem"
        );
    }
    let gone = before.iter().filter(|problem| !has(now, problem));
    for problem in gone {
        tracing::info!(object = %problem.object, problem = problem.message, "object problem solved");
    }
}

/// Where the gateway itself can be reached, which no Service may lead to.
fn own_addresses(config: &Config) -> Vec<SocketAddr> {
    let listeners = config.listeners.values().map(|listener| listener.bind);
    let machine = crate::machine::addresses();
    let reached =
        listeners
            .chain([config.admin.bind])
            .flat_map(|bind| match bind.ip().is_unspecified() {
                // It is no address that anybody connects to; these are.
                true => machine
                    .iter()
                    .map(|addr| SocketAddr::new(*addr, bind.port()))
                    .collect(),
                false => vec![bind],
            });
    reached.collect()
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "postern".to_owned(),
        name => name.to_owned(),
    }
}

/// Tells this process from another of the same name, such as one that it takes over from.
fn unique() -> anyhow::Result<String> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).context("there is no randomness")?;
    Ok(random.iter().fold(String::new(), |mut text, byte| {
        // As above.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use postern_core::config::parse::parse;
    use postern_core::config::problem::ConfigText;

    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_at_each_of_them() {
        let text = "[admin]\nbind = \"127.0.0.1:9999\"
[listeners.a]\nbind = \"[::]:8443\"
[listeners.b]\nbind = \"0.0.0.0:8080\"
[listeners.c]\nbind = \"192.0.2.1:80\"
";
        let file = ConfigText {
            path: "a.toml".into(),
            text: text.to_owned(),
        };
        let own = own_addresses(&parse(&[file]).unwrap().config);
        for addr in [
            "127.0.0.1:8443",
            "127.0.0.1:8080",
            "192.0.2.1:80",
            "127.0.0.1:9999",
        ] {
            assert!(own.contains(&addr.parse().unwrap()), "{addr}: {own:?}");
        }
    }
}
