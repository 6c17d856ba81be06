//! Services and their endpoints, as upstreams.
//!
//! An address that leads back into the gateway or to what only this machine may reach is never an
//! endpoint, whoever wrote it: the API server takes some of them.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postern_core::address::is_local;
use postern_core::config::Held;
use postern_core::config::UpstreamSpec;
use postern_core::config::kubernetes::EndpointMode;
use postern_core::config::upstream::Balance;
use postern_core::config::upstream::DEFAULT_IDLE_CONNECTIONS;
use postern_core::config::upstream::EjectionSpec;
use postern_core::config::upstream::EndpointShare;
use postern_core::config::upstream::EndpointSpec;
use postern_core::config::upstream::RetrySpec;
use postern_core::config::upstream::UpstreamLimits;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::config::upstream::UpstreamTimeouts;
use postern_core::config::upstream::UpstreamTlsSpec;
use postern_core::hostname::Hostname;
use postern_core::name::UpstreamName;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Fault;
use super::Pass;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::quote;
use crate::record::AppProtocol;
use crate::record::BackendTls;
use crate::record::HeldRef;
use crate::record::PortRef;
use crate::record::Service;
use crate::record::ServicePort;
use crate::record::SliceEndpoint;
use crate::record::TLS_CA;
use crate::record::TLS_VERIFY;
use crate::record::Target;
use crate::record::Trust;

/// Endpoints of one upstream. Kubernetes itself advises against more pods of a Service.
const MAX_ENDPOINTS: usize = 10_000;

/// What was found out about backends.
#[derive(Default)]
pub(super) struct Upstreams {
    /// By Service, for each way to ask for one of its ports.
    pub(super) ports: HashMap<ObjectName, Ports>,
    /// The upstreams themselves.
    pub(super) found: BTreeMap<UpstreamName, Found>,
    /// Those of before: one that says the same is the same.
    pub(super) before: BTreeMap<UpstreamName, Found>,
}

/// What was asked for of one Service.
#[derive(Default, Eq, PartialEq)]
pub(super) struct Ports {
    found: Vec<(Asked, Result<UpstreamName, Fault>)>,
    /// What it has to have read for it.
    pub(super) held: Option<ObjectRef>,
}

/// A port, and how it is asked for.
type Asked = (PortRef, Wish);

/// What is wanted of a Service beside its port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wish {
    /// Where requests go if the Service does not say.
    pub(super) endpoints: Option<EndpointMode>,
    /// How its pods are spoken to, whatever the Service says.
    pub(super) protocol: Option<AppProtocol>,
}

pub(super) struct Found {
    pub(super) spec: Arc<UpstreamSpec>,
    /// Certificates that the upstream names.
    pub(super) held: Option<(PathBuf, Held)>,
    pub(super) problems: Vec<ObjectProblem>,
}

impl Upstreams {
    /// Takes away an upstream of one of these Services: who asks for it next makes it again.
    pub(super) fn forget(&mut self, upstream: &UpstreamName, services: &[ObjectName]) {
        self.found.remove(upstream);
        for service in services {
            if let Some(ports) = self.ports.get_mut(service) {
                ports
                    .found
                    .retain(|(_, found)| found.as_ref() != Ok(upstream));
            }
        }
    }
}

impl Pass<'_> {
    /// The upstream for a backend.
    pub(super) fn upstream(
        &mut self,
        namespace: &Arc<str>,
        service: &Arc<str>,
        port: &PortRef,
        wish: Wish,
    ) -> Result<UpstreamName, Fault> {
        let name = ObjectName {
            namespace: Arc::clone(namespace),
            name: Arc::clone(service),
        };
        let known = self.known.upstreams.ports.get(&name);
        let is_it = |(known, known_wish): &Asked| known == port && *known_wish == wish;
        let known = known.and_then(|ports| ports.found.iter().find(|(known, _)| is_it(known)));
        let found = match known {
            Some((_, found)) => found.clone(),
            None => self.ask(&name, (port.clone(), wish)),
        };
        let ports = self.known.upstreams.ports.get(&name);
        let held = ports.and_then(|ports| ports.held.clone());
        self.out.wanted.extend(held);
        self.out.services.push(name);
        self.out.upstreams.extend(found.clone());
        found
    }

    fn ask(&mut self, service: &ObjectName, asked: Asked) -> Result<UpstreamName, Fault> {
        let found = self.find_upstream(service, &asked.0, asked.1);
        let held = self.cluster.services.get(service);
        let held = held.and_then(|service| trusted(service));
        let ports = self.known.upstreams.ports.entry(service.clone());
        let ports = ports.or_default();
        ports.held = held.map(|held| held.object.clone());
        ports.found.push((asked, found.clone()));
        found
    }

    /// Looks again at a Service that has changed. Returns whether who forwards to it does so as
    /// before; otherwise it is as if nobody had asked for it.
    pub(super) fn renew(&mut self, service: &ObjectName) -> bool {
        let Some(before) = self.known.upstreams.ports.remove(service) else {
            return true;
        };
        for (asked, _) in &before.found {
            let _ = self.ask(service, asked.clone());
        }
        let is_same = self.known.upstreams.ports.get(service) == Some(&before);
        if !is_same {
            self.known.upstreams.ports.remove(service);
        }
        is_same
    }

    fn find_upstream(
        &mut self,
        name: &ObjectName,
        port: &PortRef,
        wish: Wish,
    ) -> Result<UpstreamName, Fault> {
        let Some(service) = self.cluster.services.get(name) else {
            let message = format!("there is no Service '{}' in this namespace", name.name);
            return Err(Fault::absent(
                self.settings,
                Reason::BackendMissing,
                message,
            ));
        };
        let port = find_port(service, port, name)?;
        // The Service's author knows it best; then who forwards to it.
        let usual = service.endpoints.unwrap_or(self.settings.spec.endpoints);
        let mode = service.endpoints.or(wish.endpoints).unwrap_or(usual);
        let is_external = matches!(service.target, Target::External(_));
        let suffix = match mode {
            _ if mode == usual || is_external => "",
            EndpointMode::Pods => ":pods",
            EndpointMode::Service => ":service",
        };
        let protocol = wish.protocol.unwrap_or(port.protocol);
        let protocol_suffix = match protocol {
            protocol if protocol == port.protocol => "",
            AppProtocol::Http => ":http",
            AppProtocol::H2c => ":h2c",
            AppProtocol::Https => ":https",
        };
        let text = format!("{name}:{}{suffix}{protocol_suffix}", port.number);
        let upstream = UpstreamName::parse(&text).map_err(|error| {
            // Names that the API server takes are names here too.
            let message = format!("{} is no name: {error}", quote(&text));
            Fault::error(Reason::Unsupported, message)
        })?;
        if self.is_known(name, &upstream) {
            return Ok(upstream);
        }
        let (tls, held) = match protocol {
            AppProtocol::Http | AppProtocol::H2c => (None, None),
            AppProtocol::Https => {
                let (tls, held) = self.backend_tls(name, service)?;
                (Some(tls), held)
            }
        };
        let others = std::mem::take(&mut self.out.problems);
        let endpoints = match (&service.target, mode) {
            (Target::External(host), _) => self.external(host, port).map(|found| vec![found]),
            (Target::ClusterIps(ips), EndpointMode::Service) => {
                let sound = ips.iter().filter(|ip| !is_local(**ip));
                let endpoints = sound.map(|ip| EndpointSpec {
                    host: ip.to_string(),
                    port: port.number,
                });
                Ok(endpoints.collect())
            }
            _ => Ok(self.endpoints(name, service, port)),
        };
        let problems = std::mem::replace(&mut self.out.problems, others);
        let spec = spec(endpoints?, protocol, tls);
        let Upstreams { found, before, .. } = &mut self.known.upstreams;
        let known = found.get(&upstream).or_else(|| before.get(&upstream));
        let spec = match known {
            Some(known) if *known.spec == spec => Arc::clone(&known.spec),
            _ => Arc::new(spec),
        };
        let new = Found {
            spec,
            held,
            problems,
        };
        found.insert(upstream.clone(), new);
        Ok(upstream)
    }

    /// Whether another reference to the Service, by the other way to name a port, has made it.
    fn is_known(&self, service: &ObjectName, upstream: &UpstreamName) -> bool {
        let known = self.known.upstreams.ports.get(service);
        let mut known = known.into_iter().flat_map(|ports| &ports.found);
        known.any(|(_, found)| found.as_ref().is_ok_and(|found| found == upstream))
    }

    /// How pods that speak TLS are spoken to. Without anybody to trust, a certificate would tell
    /// nothing, and who is between here and a pod could read along.
    fn backend_tls(
        &self,
        name: &ObjectName,
        service: &Service,
    ) -> Result<(UpstreamTlsSpec, Option<(PathBuf, Held)>), Fault> {
        let none = BackendTls::default();
        let said = service.tls.as_deref().unwrap_or(&none);
        let is_external = matches!(service.target, Target::External(_));
        let of_service = || format!("{}.{}.svc", name.name, name.namespace);
        let mut tls = UpstreamTlsSpec {
            server_name: match &said.server_name {
                Some(name) => Some(name.clone()),
                // Of a name outside, the name itself.
                None => (!is_external).then(of_service),
            },
            is_insecure: said.is_insecure,
            ..UpstreamTlsSpec::default()
        };
        let held = match &said.trust {
            Some(Trust::Held(held)) => held,
            Some(Trust::System) => return Ok((tls, None)),
            None if said.is_insecure || is_external => return Ok((tls, None)),
            None => {
                let message = format!(
                    "the Service '{}' speaks TLS and does not say whose certificates to trust",
                    name.name
                );
                let help = format!(
                    "annotate it with {TLS_CA}: configmap/NAME, or with {TLS_VERIFY}: \"off\" if \
                     anybody may answer"
                );
                let fault = Fault::error(Reason::BackendRefused, message);
                return Err(fault.with_help(help));
            }
        };
        let bytes = self.held(held)?;
        if !are_roots(&bytes) {
            let message = format!(
                "{} '{}' holds no certificates in '{}' that can be trusted",
                held.object.kind, held.object.name.name, held.key
            );
            return Err(Fault::error(Reason::BackendRefused, message));
        }
        tls.ca_file = Some(held.path.clone());
        Ok((tls, Some((held.path.clone(), bytes))))
    }

    fn external(&self, host: &str, port: &ServicePort) -> Result<EndpointSpec, Fault> {
        let refused = |message: String| Fault::error(Reason::BackendRefused, message);
        let name = match Hostname::parse(host) {
            Ok(Hostname::Exact(name)) if !name.starts_with('[') => name,
            _ => {
                let message = format!("the Service leads to {}, which is no name", quote(host));
                return Err(refused(message));
            }
        };
        let is_here = |name: &str| {
            name == "localhost"
                || name.ends_with(".localhost")
                || name.parse().is_ok_and(is_local)
                // Of the cloud that asks for its metadata by name.
                || name == "metadata.google.internal"
        };
        if is_here(&name) {
            let message =
                format!("the Service leads to '{name}', which only this machine may reach");
            return Err(refused(message));
        }
        let allowed = &self.settings.spec.external_names;
        if !allowed.iter().any(|allowed| allowed.matches(&name)) {
            let message = format!("the Service leads to '{name}', outside of the cluster");
            let help = format!("allow it: external-names = [\"{name}\"] in [kubernetes]");
            return Err(refused(message).with_help(help));
        }
        Ok(EndpointSpec {
            host: name.into(),
            port: port.number,
        })
    }

    /// Addresses of pods: those that are ready, or, where none is, those that still serve while
    /// they end.
    fn endpoints(
        &mut self,
        name: &ObjectName,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<EndpointSpec> {
        let cluster = self.cluster;
        let mut found: Vec<(SocketAddr, &SliceEndpoint)> = Vec::new();
        let mut refused = Vec::new();
        for slice in cluster.slices_of(name) {
            let ports = slice.ports.iter().filter(|known| known.name == port.name);
            for number in ports.filter_map(|known| known.number) {
                for endpoint in &slice.endpoints {
                    let addr = SocketAddr::new(endpoint.addr, number);
                    if is_local(endpoint.addr) || self.settings.own.contains(&addr) {
                        refused.push(addr);
                        continue;
                    }
                    found.push((addr, endpoint));
                }
            }
        }
        // For a moment of a rollout, a pod is in two slices; of its two states the better counts.
        found.sort_by_key(|(addr, endpoint)| (*addr, !endpoint.is_ready));
        found.dedup_by_key(|(addr, _)| *addr);
        if let Some(addr) = refused.first() {
            let object = ObjectRef {
                kind: Kind::Service,
                name: name.clone(),
            };
            let message =
                format!("the endpoint {addr} is left out: only this machine may reach it");
            self.problem(object, "", Fault::error(Reason::BackendRefused, message));
        }
        let is_ready = |endpoint: &SliceEndpoint| endpoint.is_ready;
        let is_ending = |endpoint: &SliceEndpoint| endpoint.is_serving && endpoint.is_terminating;
        let chosen: &dyn Fn(&SliceEndpoint) -> bool = match found.iter().any(|(_, e)| is_ready(e)) {
            true => &is_ready,
            false => &is_ending,
        };
        let mut usable = found;
        usable.retain(|(_, endpoint)| chosen(endpoint));
        self.keep_near(service, &mut usable);
        if usable.len() > MAX_ENDPOINTS {
            let object = ObjectRef {
                kind: Kind::Service,
                name: name.clone(),
            };
            let message = format!(
                "of its {} endpoints, {MAX_ENDPOINTS} get requests",
                usable.len()
            );
            self.problem(object, "", Fault::warning(Reason::Unsupported, message));
            usable.truncate(MAX_ENDPOINTS);
        }
        let usable = usable.into_iter();
        usable
            .map(|(addr, _)| EndpointSpec {
                host: addr.ip().to_string(),
                port: addr.port(),
            })
            .collect()
    }

    /// Leaves those that are meant for where this gateway is, if all say where they are meant for
    /// and some are meant for here. That is kube-proxy's rule too, so both spread load alike.
    fn keep_near(&self, service: &Service, usable: &mut Vec<(SocketAddr, &SliceEndpoint)>) {
        let mut keep = |own: Option<&Arc<str>>, hints: fn(&SliceEndpoint) -> &[Arc<str>]| {
            let Some(own) = own else { return false };
            let all_say = usable.iter().all(|(_, e)| !hints(e).is_empty());
            let is_near = |e: &SliceEndpoint| hints(e).contains(own);
            if !all_say || !usable.iter().any(|(_, e)| is_near(e)) {
                return false;
            }
            usable.retain(|(_, e)| is_near(e));
            true
        };
        let by_node = service.prefers_same_node && keep(self.settings.node.as_ref(), |e| &e.nodes);
        if !by_node {
            keep(self.settings.zone.as_ref(), |e| &e.zones);
        }
    }
}

/// What a Service has to have read for it.
fn trusted(service: &Service) -> Option<&HeldRef> {
    match service.tls.as_ref()?.trust.as_ref()? {
        Trust::Held(held) => Some(held),
        Trust::System => None,
    }
}

/// As the data plane looks at it: what it cannot use would cost others a change.
fn are_roots(pem: &[u8]) -> bool {
    let certificates = CertificateDer::pem_slice_iter(pem).flatten();
    let (added, _) = RootCertStore::empty().add_parsable_certificates(certificates);
    added > 0
}

fn find_port<'s>(
    service: &'s Service,
    port: &PortRef,
    name: &ObjectName,
) -> Result<&'s ServicePort, Fault> {
    let found = service.ports.iter().find(|known| match port {
        PortRef::Number(number) => known.number == *number,
        PortRef::Name(name) => known.name == *name,
    });
    found.ok_or_else(|| {
        let wanted = match port {
            PortRef::Number(number) => number.to_string(),
            PortRef::Name(name) => quote(name),
        };
        let message = format!("the Service '{}' has no port {wanted}", name.name);
        let ports = service.ports.iter().map(|port| match &*port.name {
            "" => port.number.to_string(),
            name => format!("{} ({name})", port.number),
        });
        let ports: Vec<_> = ports.collect();
        let help = match ports.as_slice() {
            [] => "it has none for TCP".to_owned(),
            ports => format!("it has {}", ports.join(", ")),
        };
        Fault::error(Reason::BackendMissing, message).with_help(help)
    })
}

fn spec(
    endpoints: Vec<EndpointSpec>,
    protocol: AppProtocol,
    tls: Option<UpstreamTlsSpec>,
) -> UpstreamSpec {
    let protocol = match protocol {
        AppProtocol::Http | AppProtocol::Https => UpstreamProtocol::Http1,
        AppProtocol::H2c => UpstreamProtocol::Http2,
    };
    UpstreamSpec {
        shares: vec![EndpointShare::default(); endpoints.len()],
        endpoints,
        balance: Balance::RoundRobin,
        sticky: None,
        slow_start: Duration::ZERO,
        protocol,
        host: None,
        tls,
        proxy_protocol: None,
        timeouts: UpstreamTimeouts::default(),
        idle_connections: DEFAULT_IDLE_CONNECTIONS,
        limits: UpstreamLimits::default(),
        retries: RetrySpec::default(),
        health_check: None,
        ejection: EjectionSpec::default(),
        fail_open: true,
        refuses_local: true,
    }
}
