//! How certificates do, for people and programs: what is served and from where, until when, what is
//! done next, and why there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use postern_acme::Reason;
use postern_acme::clock::Seconds;
use postern_acme::clock::shown;
use postern_acme::engine::Action;
use postern_acme::engine::CertificateStatus;
use postern_acme::engine::State;
use postern_core::config::Config;
use postern_core::hostname::Hostname;
use postern_proxy::ServedCertificate;
use serde::Deserialize;
use serde::Serialize;

/// A certificate ends soon when one part in so many of its life is left.
const LAST_PART: Seconds = 10;

/// One certificate. Keys of JSON, as programs read them: a name, once given, stays.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateView {
    pub name: String,
    pub hosts: Vec<String>,
    /// "issuer", "file" or "cluster".
    pub source: String,
    /// The name of the issuer that it is wanted from.
    pub issuer: Option<String>,
    /// Where the one that is served came from: an issuer, a file, a Secret. `None`: none is served.
    pub served_from: Option<String>,
    pub not_before: Option<String>,
    pub not_after: Option<String>,
    pub seconds_left: Option<i64>,
    /// "order" or "renew"; `None` where nothing is to be done.
    pub next_action: Option<String>,
    pub next_at: Option<String>,
    /// Whether that is on its way.
    pub is_running: bool,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// One of the closed list; `None` if all is well.
    pub reason: Option<String>,
    pub message: Option<String>,
    /// The authority's own words.
    pub problem: Option<String>,
    /// What the hostmaster has to add to the DNS.
    pub record: Option<String>,
    /// When that was found.
    pub found_at: Option<String>,
    /// Where the authority says why it wants the certificate renewed early.
    pub explanation: Option<String>,
}

/// All certificates: those that are served, and those that are wanted.
pub fn all(
    served: impl Iterator<Item = ServedCertificate>,
    config: &Config,
    state: &State,
    now: Seconds,
) -> Vec<CertificateView> {
    let mut views: BTreeMap<String, CertificateView> = BTreeMap::new();
    for certificate in served {
        if config.managed.contains_key(&certificate.name) {
            continue;
        }
        let spec = config.certificates.get(&certificate.name);
        let file = spec.map(|spec| spec.cert_file.as_path());
        let is_held = file.is_some_and(|file| config.held.contains_key(file));
        let view = foreign(&certificate, file, is_held, now);
        views.insert(view.name.clone(), view);
    }
    for status in &state.certificates {
        let mut view = own(status, now);
        let of_cluster = views.remove(&view.name);
        if let Some(served) = of_cluster.filter(|_| status.action == Action::Elsewhere) {
            view.served_from = served.served_from;
            view.not_before = served.not_before;
            view.not_after = served.not_after;
            view.seconds_left = served.seconds_left;
            let is_well = served.reason.as_deref() == Some(Reason::ExternallyManaged.as_str());
            view.reason = served.reason.filter(|_| !is_well);
        }
        views.insert(view.name.clone(), view);
    }
    for (name, spec) in &config.managed {
        // One that the engine has not taken up: it has no folder.
        views
            .entry(name.to_string())
            .or_insert_with(|| CertificateView {
                name: name.to_string(),
                hosts: spec.hosts.iter().map(ToString::to_string).collect(),
                source: "issuer".to_owned(),
                issuer: Some(spec.issuer.to_string()),
                reason: Some(Reason::StorageFailed.to_string()),
                message: Some(
                    "the gateway was started without state-dir; it is taken up at the next start"
                        .to_owned(),
                ),
                ..CertificateView::default()
            });
    }
    views.into_values().collect()
}

/// Of those that hold a name, as a client would be shown them.
pub fn covering<'v>(views: &'v [CertificateView], host: &str) -> Vec<&'v CertificateView> {
    let holds = |view: &&CertificateView| {
        let hosts = view
            .hosts
            .iter()
            .filter_map(|host| Hostname::parse(host).ok());
        let mut hosts = hosts.into_iter();
        hosts.any(|name| name.matches(host) || name.to_string() == host)
    };
    views.iter().filter(holds).collect()
}

/// A wildcard that somebody may think is for a host, which is more than one label below.
pub fn too_high<'v>(views: &'v [CertificateView], host: &str) -> Option<&'v str> {
    let names = views.iter().flat_map(|view| &view.hosts);
    let mut wildcards = names.filter(|name| {
        let parent = name.strip_prefix("*.");
        let above = parent.and_then(|parent| host.strip_suffix(parent));
        above.is_some_and(|above| above.ends_with('.'))
    });
    wildcards.next().map(String::as_str)
}

/// Somebody else provides it.
fn foreign(
    certificate: &ServedCertificate,
    file: Option<&Path>,
    is_held: bool,
    now: Seconds,
) -> CertificateView {
    let seconds = |at: i64| Seconds::try_from(at).unwrap_or(0);
    let (from, until) = (
        seconds(certificate.not_before),
        seconds(certificate.not_after),
    );
    let place = file.map(|file| file.display().to_string());
    let mut view = CertificateView {
        name: certificate.name.to_string(),
        hosts: certificate.hosts.iter().map(ToString::to_string).collect(),
        source: if is_held { "cluster" } else { "file" }.to_owned(),
        served_from: place,
        reason: Some(Reason::ExternallyManaged.to_string()),
        message: Some("somebody else provides it; it is served and not renewed here".to_owned()),
        ..CertificateView::default()
    };
    view.lives(from, until, now);
    if is_ending(from, until, now) {
        view.reason = Some(Reason::Expiring.to_string());
        view.message = Some(ending(until, now));
    }
    view
}

fn own(status: &CertificateStatus, now: Seconds) -> CertificateView {
    let (action, at) = match status.action {
        Action::Order => (Some("order"), Some(status.at)),
        Action::Renew(at) => (Some("renew"), Some(at)),
        Action::Nothing | Action::Elsewhere => (None, None),
    };
    let trouble = status.trouble.as_ref();
    let mut view = CertificateView {
        name: status.name.to_string(),
        hosts: status.hosts.iter().map(ToString::to_string).collect(),
        source: "issuer".to_owned(),
        issuer: Some(status.issuer.to_string()),
        served_from: status.served.as_ref().map(|served| served.issuer.clone()),
        next_action: action.map(str::to_owned),
        next_at: at.map(|at| shown(at.max(now))),
        is_running: status.is_running,
        failures: status.failures,
        reason: trouble.map(|trouble| trouble.reason.clone()),
        message: trouble.map(|trouble| trouble.message.clone()),
        problem: trouble.and_then(|trouble| trouble.problem.clone()),
        record: trouble.and_then(|trouble| trouble.record.clone()),
        found_at: trouble.map(|trouble| shown(trouble.at)),
        ..CertificateView::default()
    };
    match &status.served {
        Some(served) => {
            view.lives(served.not_before, served.not_after, now);
            view.explanation.clone_from(&served.explanation);
            if view.reason.is_none() && is_ending(served.not_before, served.not_after, now) {
                view.reason = Some(Reason::Expiring.to_string());
                view.message = Some(ending(served.not_after, now));
            }
        }
        None if view.reason.is_none() => {
            view.reason = Some(Reason::Processing.to_string());
            view.message = Some("an order is on its way".to_owned());
        }
        None => {}
    }
    view
}

impl CertificateView {
    fn lives(&mut self, from: Seconds, until: Seconds, now: Seconds) {
        self.not_before = Some(shown(from));
        self.not_after = Some(shown(until));
        let left = i128::from(until) - i128::from(now);
        self.seconds_left = i64::try_from(left).ok();
    }
}

fn is_ending(from: Seconds, until: Seconds, now: Seconds) -> bool {
    until.saturating_sub(now) < until.saturating_sub(from) / LAST_PART
}

fn ending(until: Seconds, now: Seconds) -> String {
    match until <= now {
        true => "it has ended, and clients refuse it".to_owned(),
        false => "it ends soon, and nothing has renewed it".to_owned(),
    }
}

/// In the text format of Prometheus.
pub fn metrics(state: &State, now: Seconds) -> String {
    let mut text = String::new();
    let mut page = |name: &str, kind: &str, help: &str, lines: Vec<(String, u64)>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let orders = state.orders.iter();
    let orders = orders.map(|((issuer, outcome, reason), count)| {
        let labels = format!("{{issuer=\"{issuer}\",outcome=\"{outcome}\",reason=\"{reason}\"}}");
        (labels, *count)
    });
    page(
        "postern_acme_orders_total",
        "counter",
        "Attempts to get a certificate that ended, by issuer, outcome and reason.",
        orders.collect(),
    );
    let count = |wanted: fn(&CertificateStatus) -> bool| {
        let all = state.certificates.iter();
        all.filter(|status| wanted(status)).map(|_| 1).sum()
    };
    page(
        "postern_acme_certificates",
        "gauge",
        "Certificates that the gateway gets for itself, by whether there is one, and whether the last attempt failed.",
        vec![
            (
                "{state=\"good\"}".to_owned(),
                count(|status| status.served.is_some() && status.trouble.is_none()),
            ),
            (
                "{state=\"failing\"}".to_owned(),
                count(|status| status.served.is_some() && status.trouble.is_some()),
            ),
            (
                "{state=\"missing\"}".to_owned(),
                // Whether there is one elsewhere, its leader says.
                count(|status| status.served.is_none() && status.action != Action::Elsewhere),
            ),
        ],
    );
    let next = state.certificates.iter().map(|status| {
        let labels = format!("{{certificate=\"{}\"}}", status.name);
        (labels, status.at.max(now))
    });
    page(
        "postern_acme_next_action_seconds",
        "gauge",
        "Unix time at which something is done about a certificate next.",
        next.collect(),
    );
    text
}
