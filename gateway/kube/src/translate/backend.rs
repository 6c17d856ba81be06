//! Services and their endpoints, as upstreams.
//!
//! An address that leads back into the gateway or to what only this machine may reach is never an
//! endpoint, whoever wrote it: the API server takes some of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postern_core::address::is_local;
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

use super::Fault;
use super::Translator;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::quote;
use crate::record::AppProtocol;
use crate::record::PortRef;
use crate::record::Service;
use crate::record::ServicePort;
use crate::record::SliceEndpoint;
use crate::record::Target;

/// Endpoints of one upstream. Kubernetes itself advises against more pods of a Service.
const MAX_ENDPOINTS: usize = 10_000;

/// What was found out about backends, by namespace, Service and port.
pub(super) type Upstreams<'c> =
    HashMap<(&'c str, &'c str), Vec<(&'c PortRef, Result<UpstreamName, Fault>)>>;

impl<'c> Translator<'c> {
    /// The upstream for a backend, which it adds to the configuration.
    pub(super) fn upstream(
        &mut self,
        namespace: &'c Arc<str>,
        service: &'c Arc<str>,
        port: &'c PortRef,
    ) -> Result<UpstreamName, Fault> {
        let known = self.upstreams.get(&(&**namespace, &**service));
        let known = known.and_then(|ports| ports.iter().find(|(known, _)| *known == port));
        if let Some((_, found)) = known {
            return found.clone();
        }
        let name = ObjectName {
            namespace: Arc::clone(namespace),
            name: Arc::clone(service),
        };
        let found = self.find_upstream(&name, port);
        let ports = self.upstreams.entry((namespace, service)).or_default();
        ports.push((port, found.clone()));
        found
    }

    fn find_upstream(&mut self, name: &ObjectName, port: &PortRef) -> Result<UpstreamName, Fault> {
        let Some(service) = self.cluster.services.get(name) else {
            let message = format!("there is no Service '{}' in this namespace", name.name);
            return Err(Fault::absent(
                self.settings,
                Reason::BackendMissing,
                message,
            ));
        };
        let port = find_port(service, port, name)?;
        let text = format!("{name}:{}", port.number);
        let upstream = UpstreamName::parse(&text).map_err(|error| {
            // Names that the API server takes are names here too.
            let message = format!("{} is no name: {error}", quote(&text));
            Fault::error(Reason::Unsupported, message)
        })?;
        if self.is_known(name, &upstream) {
            return Ok(upstream);
        }
        let mode = service.endpoints;
        let mode = mode.unwrap_or(self.settings.spec.endpoints);
        let endpoints = match (&service.target, mode) {
            (Target::External(host), _) => vec![self.external(host, port)?],
            (Target::ClusterIps(ips), EndpointMode::Service) => {
                let sound = ips.iter().filter(|ip| !is_local(**ip));
                sound
                    .map(|ip| EndpointSpec {
                        host: ip.to_string(),
                        port: port.number,
                    })
                    .collect()
            }
            _ => self.endpoints(name, service, port),
        };
        let spec = spec(name, endpoints, port.protocol);
        self.found.push((upstream.clone(), spec));
        Ok(upstream)
    }

    /// Whether another reference to the Service, by the other way to name a port, has made it.
    fn is_known(&self, service: &ObjectName, upstream: &UpstreamName) -> bool {
        let known = self.upstreams.get(&(&*service.namespace, &*service.name));
        let mut known = known.into_iter().flatten();
        known.any(|(_, found)| found.as_ref().is_ok_and(|found| found == upstream))
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

fn spec(name: &ObjectName, endpoints: Vec<EndpointSpec>, protocol: AppProtocol) -> UpstreamSpec {
    let (protocol, tls) = match protocol {
        AppProtocol::Http => (UpstreamProtocol::Http1, None),
        AppProtocol::H2c => (UpstreamProtocol::Http2, None),
        // Pods have certificates of their own making: this keeps others from reading along, and
        // does not tell who answers.
        AppProtocol::Https => (
            UpstreamProtocol::Http1,
            Some(UpstreamTlsSpec {
                server_name: Some(format!("{}.{}.svc", name.name, name.namespace)),
                is_insecure: true,
                ..UpstreamTlsSpec::default()
            }),
        ),
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
