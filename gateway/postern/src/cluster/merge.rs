//! Files and a cluster to one configuration.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use postern_core::config::Config;
use postern_core::config::parse::Loaded;
use postern_core::config::policy::HeadersSpec;
use postern_core::config::problem::Severity;
use postern_core::config::route::ActionSpec;
use postern_core::config::route::MatchSpec;
use postern_core::config::route::PathMatch;
use postern_core::config::route::RespondSpec;
use postern_core::config::route::RouteSpec;
use postern_core::config::route::RuleSpec;
use postern_core::hostname::Hostname;
use postern_core::name::RouteName;
use postern_kube::Kind;
use postern_kube::ObjectName;
use postern_kube::ObjectProblem;
use postern_kube::ObjectRef;
use postern_kube::object::Reason;
use postern_kube::source::State;

/// The route that answers while nothing is known of the cluster.
const UNKNOWN: &str = "kubernetes:unknown";

/// What both declare.
pub struct Merged {
    pub loaded: Loaded,
    /// Of objects, those between them and files included. Sorted.
    pub problems: Vec<ObjectProblem>,
}

pub(super) fn merge(loaded: &Loaded, state: Option<&State>) -> Merged {
    let mut loaded = loaded.clone();
    let Some(state) = state else {
        let is_open = !loaded
            .config
            .routes
            .iter()
            .any(|route| route.hosts.is_empty());
        if is_open && let Ok(name) = RouteName::parse(UNKNOWN) {
            loaded.config.routes.push(Arc::new(unknown(name)));
        }
        return Merged {
            loaded,
            problems: Vec::new(),
        };
    };
    let of_cluster = &state.translation.config;
    let mut problems = state.translation.problems.clone();
    let config = &mut loaded.config;
    let mut clash = |what: &str, name: &dyn fmt::Display| {
        problems.push(clash(what, &name.to_string()));
    };
    take(&mut config.certificates, &of_cluster.certificates, |name| {
        clash("certificate", name);
    });
    take(&mut config.upstreams, &of_cluster.upstreams, |name| {
        clash("upstream", name);
    });
    take(&mut config.policies, &of_cluster.policies, |name| {
        clash("policy", name);
    });
    config
        .expendable
        .extend(of_cluster.expendable.iter().cloned());
    for (path, held) in &of_cluster.held {
        config.held.insert(path.clone(), held.clone());
    }
    routes(config, &of_cluster.routes, &mut clash);
    if let Some(name) = &state.translation.default_certificate {
        let listeners = config.listeners.values_mut();
        for tls in listeners.filter_map(|listener| listener.tls.as_mut()) {
            let is_there = config.certificates.contains_key(name);
            if is_there && tls.default_certificate.is_none() {
                tls.default_certificate = Some(name.clone());
            }
        }
    }
    problems.sort();
    problems.dedup();
    Merged { loaded, problems }
}

/// What files have stays. They have little, and the cluster has much, which is taken as a whole.
fn take<N: Clone + Ord, S: Clone>(
    into: &mut BTreeMap<N, S>,
    from: &BTreeMap<N, S>,
    mut clash: impl FnMut(&N),
) {
    let of_files = std::mem::replace(into, from.clone());
    for (name, spec) in of_files {
        if from.contains_key(&name) {
            clash(&name);
        }
        into.insert(name, spec);
    }
}

fn routes(
    config: &mut Config,
    of_cluster: &[Arc<RouteSpec>],
    clash: &mut impl FnMut(&str, &dyn fmt::Display),
) {
    let mut taken: BTreeSet<Hostname> = BTreeSet::new();
    let mut is_all_taken = false;
    for route in &config.routes {
        taken.extend(route.hosts.iter().cloned());
        is_all_taken |= route.hosts.is_empty();
    }
    for route in of_cluster {
        if route.hosts.is_empty() {
            match is_all_taken {
                true => clash("default backend", &route.name),
                false => config.routes.push(Arc::clone(route)),
            }
            continue;
        }
        let is_free = |host: &&Hostname| !taken.contains(*host);
        if route.hosts.iter().all(|host| is_free(&host)) {
            config.routes.push(Arc::clone(route));
            continue;
        }
        clash("host", &route.name);
        let hosts: Vec<Hostname> = route.hosts.iter().filter(is_free).cloned().collect();
        if !hosts.is_empty() {
            config.routes.push(Arc::new(RouteSpec {
                hosts,
                ..RouteSpec::clone(route)
            }));
        }
    }
}

fn clash(what: &str, name: &str) -> ObjectProblem {
    // Names of things of the cluster begin with the object that they are of.
    let (namespace, rest) = name.split_once('/').unwrap_or(("", name));
    let (object, kind) = match what {
        "upstream" => (rest.split(':').next().unwrap_or(rest), Kind::Service),
        "certificate" => (rest, Kind::Secret),
        "policy" => (rest, Kind::Policy),
        _ => (rest, Kind::Ingress),
    };
    ObjectProblem {
        object: ObjectRef {
            kind,
            name: ObjectName::new(namespace, object),
        },
        field: String::new(),
        severity: Severity::Error,
        reason: Reason::Conflict,
        message: format!("a file of the gateway declares this {what} too, and comes first"),
        help: Some("ask whoever runs the gateway".to_owned()),
    }
}

/// Whether it is the cluster's or nobody's: 404 would be a lie.
fn unknown(name: RouteName) -> RouteSpec {
    RouteSpec {
        name,
        hosts: Vec::new(),
        rules: vec![RuleSpec {
            matches: Arc::new(MatchSpec {
                path: PathMatch::Prefix(String::new()),
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
            }),
            action: ActionSpec::Respond(RespondSpec {
                status: StatusCode::SERVICE_UNAVAILABLE,
                body: Bytes::from_static(b"the gateway is starting\n"),
            }),
            policies: Vec::new(),
            headers: HeadersSpec::default(),
            rewrite: None,
            first_byte: None,
        }],
    }
}

#[cfg(test)]
mod tests;
