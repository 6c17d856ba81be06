//! A configuration and the snapshot before it, to the next snapshot.
//!
//! What is equal by name and spec is taken over alive: sockets go on listening, connections stay
//! pooled, plugins stay compiled. What cannot be built is a [`Problem`] at the place that declared
//! it, all of them at once, and then there is no next snapshot.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::ListenerSpec;
use postern_core::config::Origins;
use postern_core::config::PluginSpec;
use postern_core::config::PolicySpec;
use postern_core::config::Problem;
use postern_core::config::RouteSpec;
use postern_core::config::parse::Loaded;
use postern_core::config::plugin::PluginSource;
use postern_core::config::plugin::SecretSource;
use postern_core::config::route::ActionSpec;
use postern_core::name::CertificateName;
use postern_core::name::ListenerName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::route::RouteTable;
use postern_core::route::RuleId;
use postern_wasm::Component;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;
use postern_wasm::PluginSetup;
use postern_wasm::plugin::Secrets;

use super::Backends;
use super::Rule;
use super::Snapshot;
use super::materials::Materials;
use crate::access_log::writer;
use crate::listener::Listener;
use crate::listener::ListenerSocket;
use crate::policy::GrantedSecrets;
use crate::policy::LivePlugin;
use crate::policy::Policy;
use crate::tls;
use crate::tls::certificates::Certificate;
use crate::upstream::Upstream;

/// Bytes of one secret: an RSA key with room to spare.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// What compiling needs besides configurations; one for the life of the process.
pub struct Compiler {
    engine: Arc<PluginEngine>,
    tls: tls::ServerTls,
    workers: usize,
    binds_listeners: bool,
}

impl Compiler {
    /// `binds_listeners` is false where nothing will be served: for `check`.
    pub fn new(engine: Arc<PluginEngine>, workers: usize, binds_listeners: bool) -> Self {
        Self {
            engine,
            tls: tls::ServerTls::new(),
            workers,
            binds_listeners,
        }
    }

    /// The next snapshot, or every problem that stands against it.
    pub async fn compile(
        &self,
        loaded: &Loaded,
        materials: &Materials,
        previous: Option<&Arc<Snapshot>>,
    ) -> Result<Snapshot, Vec<Problem>> {
        let mut build = Build {
            compiler: self,
            config: &loaded.config,
            origins: &loaded.origins,
            materials,
            previous: previous.map(|previous| &**previous),
            problems: Vec::new(),
        };
        let certificates = build.certificates();
        let upstreams = build.upstreams();
        let policies = build.policies().await;
        build.access_log();
        let listeners = build.listeners(&certificates);
        if !build.problems.is_empty() {
            return Err(build.problems);
        }
        let config = Arc::new(loaded.config.clone());
        let upstream_names: Arc<[UpstreamName]> = config.upstreams.keys().cloned().collect();
        Ok(Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            routes: RouteTable::new(&config.routes),
            rules: rules(&config),
            config,
            upstreams,
            upstream_names,
            policies,
            listeners,
            certificates,
        })
    }
}

struct Build<'b> {
    compiler: &'b Compiler,
    config: &'b Config,
    origins: &'b Origins,
    materials: &'b Materials,
    previous: Option<&'b Snapshot>,
    problems: Vec<Problem>,
}

impl Build<'_> {
    fn certificates(&mut self) -> BTreeMap<CertificateName, Arc<Certificate>> {
        let mut certificates = BTreeMap::new();
        for (name, spec) in &self.config.certificates {
            let at = format!("certificates.{name}");
            let chain = self.file(&spec.cert_file, &format!("{at}.cert-file"));
            let key = self.file(&spec.key_file, &format!("{at}.key-file"));
            let (Some(chain), Some(key)) = (chain, key) else {
                continue;
            };
            let live = self.previous.and_then(|p| p.certificates.get(name));
            let certificate = match live {
                Some(live) if live.is_from(&chain, &key) => Arc::clone(live),
                _ => match Certificate::parse(chain, key) {
                    Ok(certificate) => Arc::new(certificate),
                    Err(error) => {
                        let field = error.field();
                        self.problem(&format!("{at}.{field}"), with_causes(&error));
                        continue;
                    }
                },
            };
            certificates.insert(name.clone(), certificate);
        }
        certificates
    }

    fn upstreams(&mut self) -> Vec<Arc<Upstream>> {
        let mut upstreams = Vec::with_capacity(self.config.upstreams.len());
        for (name, spec) in &self.config.upstreams {
            let at = format!("upstreams.{name}.tls.ca-file");
            let ca_file = spec.tls.as_ref().and_then(|tls| tls.ca_file.as_deref());
            let roots = match ca_file {
                Some(path) => match self.file(path, &at) {
                    Some(roots) => Some(roots),
                    None => continue,
                },
                None => None,
            };
            let live = self.previous.and_then(|p| {
                let index = p.upstream_index(name.as_str())?;
                p.upstreams.get(index)
            });
            match live {
                Some(live) if live.is_from(spec, roots.as_deref()) => {
                    upstreams.push(Arc::clone(live));
                }
                _ => match Upstream::new(name.clone(), spec.clone(), roots) {
                    Ok(upstream) => upstreams.push(Arc::new(upstream)),
                    Err(error) => self.problem(&at, with_causes(&error)),
                },
            }
        }
        upstreams
    }

    fn access_log(&mut self) {
        let path = self.config.access_log.path.as_deref();
        if let Some(path) = path.filter(|_| self.compiler.binds_listeners)
            && let Err(error) = writer::probe(path)
        {
            let message = format!("cannot append to {}: {error}", path.display());
            self.problem("access-log.path", message);
        }
    }

    async fn policies(&mut self) -> Vec<Arc<Policy>> {
        let mut policies = Vec::with_capacity(self.config.policies.len());
        for (name, spec) in &self.config.policies {
            match spec {
                PolicySpec::Headers(spec) => {
                    policies.push(Arc::new(Policy::Headers(spec.clone())));
                }
                PolicySpec::Plugin(spec) => {
                    if let Some(policy) = self.plugin(name, spec).await {
                        policies.push(policy);
                    }
                }
            }
        }
        policies
    }

    async fn plugin(&mut self, name: &PolicyName, spec: &PluginSpec) -> Option<Arc<Policy>> {
        let at = format!("plugins.{name}");
        let PluginSource::File(path) = &spec.source;
        let bytes = self.file(path, &format!("{at}.source"))?;
        let live = self.previous.and_then(|p| {
            let position = p.config.policies.keys().position(|other| other == name)?;
            p.policies.get(position)
        });
        let secrets = self.secrets(&at, spec);
        let live = match live.map(|policy| (policy, &**policy)) {
            Some((policy, Policy::Plugin(live))) => {
                if let Some(secrets) = &secrets
                    && live.is_from(spec, &bytes, secrets)
                {
                    return Some(Arc::clone(policy));
                }
                Some(live)
            }
            Some((_, Policy::Headers(_))) | None => None,
        };
        let component = self.component(&at, live, &bytes).await?;
        let missing = component.missing_grants(&spec.grants);
        for missing in &missing {
            let origin = self.origins.find(&format!("{at}.source"));
            let message = format!("the component {}, which needs a grant", missing.what);
            let help = format!("add to [{at}], if it is to have that: {}", missing.grant);
            self.problems
                .push(Problem::error(origin, message).with_help(help));
        }
        let (true, Some(secrets)) = (missing.is_empty(), secrets) else {
            return None;
        };
        let setup = PluginSetup {
            name: name.clone(),
            config: spec.config.clone(),
            limits: spec.limits,
            isolation: spec.isolation,
            grants: spec.grants.clone(),
            secrets: Secrets::new(secrets.clone()),
        };
        let previous = live.map(|live| &*live.plugin);
        match Plugin::set_up(component, setup, previous).await {
            Ok(plugin) => Some(Arc::new(Policy::Plugin(LivePlugin {
                name: name.clone(),
                spec: spec.clone(),
                bytes,
                secrets,
                plugin,
            }))),
            Err(error) => {
                self.problem(&at, with_causes(&error));
                None
            }
        }
    }

    /// The compiled component: that of the running plugin, if the file is the same.
    async fn component(
        &mut self,
        at: &str,
        live: Option<&LivePlugin>,
        bytes: &Arc<[u8]>,
    ) -> Option<Arc<Component>> {
        if let Some(live) = live.filter(|live| *live.bytes == **bytes) {
            return Some(Arc::clone(live.plugin.component()));
        }
        let engine = Arc::clone(&self.compiler.engine);
        let code = Arc::clone(bytes);
        // Compiling takes up to seconds of processor time.
        let component = tokio::task::spawn_blocking(move || Component::load(&engine, &code)).await;
        let message = match component {
            Ok(Ok(component)) => return Some(component),
            Ok(Err(error)) => with_causes(&error),
            Err(_) => "the component's compilation failed".to_owned(),
        };
        self.problem(&format!("{at}.source"), message);
        None
    }

    /// The secrets that a plugin is granted; `None` if one of them is not to be had.
    fn secrets(&mut self, at: &str, spec: &PluginSpec) -> Option<GrantedSecrets> {
        let mut secrets = GrantedSecrets::new();
        for (name, source) in &spec.grants.secrets {
            let at = format!("{at}.grants.secrets.{name}");
            let bytes: Option<Arc<[u8]>> = match source {
                SecretSource::File(path) => self.file(path, &at),
                SecretSource::Env(variable) => match std::env::var_os(variable) {
                    Some(value) => Some(value.as_encoded_bytes().into()),
                    None => {
                        self.problem(&at, format!("there is no variable {variable}"));
                        None
                    }
                },
            };
            let Some(bytes) = bytes else { continue };
            // Editors and `echo` end a file with a line end that nobody means.
            let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
            if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
                let message = match secret.len() {
                    0 => "the secret is empty".to_owned(),
                    size => format!("the secret has {size} bytes; {MAX_SECRET_BYTES} is the most"),
                };
                self.problem(&at, message);
                continue;
            }
            secrets.insert(name.clone(), secret.into());
        }
        (secrets.len() == spec.grants.secrets.len()).then_some(secrets)
    }

    fn listeners(
        &mut self,
        certificates: &BTreeMap<CertificateName, Arc<Certificate>>,
    ) -> Vec<Arc<Listener>> {
        let mut listeners = Vec::with_capacity(self.config.listeners.len());
        for (name, spec) in &self.config.listeners {
            if let Some(listener) = self.listener(name, spec, certificates) {
                listeners.push(listener);
            }
        }
        listeners
    }

    fn listener(
        &mut self,
        name: &ListenerName,
        spec: &ListenerSpec,
        certificates: &BTreeMap<CertificateName, Arc<Certificate>>,
    ) -> Option<Arc<Listener>> {
        let live = self
            .previous
            .and_then(|p| p.listeners.iter().find(|l| l.name == *name));
        let tls = match &spec.tls {
            Some(tls) => {
                let acceptor = self.compiler.tls.acceptor(tls, certificates);
                match acceptor {
                    Ok(acceptor) => Some(acceptor),
                    Err(error) => {
                        self.problem(&format!("listeners.{name}"), with_causes(&error));
                        return None;
                    }
                }
            }
            None => None,
        };
        let socket = match live {
            Some(live) if live.spec.bind == spec.bind => Arc::clone(&live.socket),
            _ if !self.compiler.binds_listeners => Arc::new(ListenerSocket::unbound(spec.bind)),
            _ => match ListenerSocket::bind(spec.bind, self.compiler.workers) {
                Ok(socket) => Arc::new(socket),
                Err(error) => {
                    let message = format!("cannot listen on {}: {error}", spec.bind);
                    self.problem(&format!("listeners.{name}.bind"), message);
                    return None;
                }
            },
        };
        Some(Arc::new(Listener {
            name: name.clone(),
            spec: spec.clone(),
            socket,
            tls,
        }))
    }

    fn file(&mut self, path: &Path, at: &str) -> Option<Arc<[u8]>> {
        match self.materials.get(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problem(at, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    fn problem(&mut self, at: &str, message: String) {
        self.problems
            .push(Problem::error(self.origins.find(at), message));
    }
}

fn rules(config: &Config) -> Vec<Vec<Rule>> {
    // Positions by name, once: with 10,000 upstreams a search for each rule would take seconds.
    let upstreams: HashMap<_, _> = config.upstreams.keys().zip(0..).collect();
    let policies: HashMap<_, _> = config.policies.keys().zip(0..).collect();
    let compile = |(route_index, route): (usize, &RouteSpec)| {
        let rules = route.rules.iter().enumerate();
        let rules = rules.map(|(rule_index, spec)| {
            let backends = match &spec.action {
                ActionSpec::Forward(backends) => backends.as_slice(),
                ActionSpec::Redirect(_) | ActionSpec::Respond(_) => &[],
            };
            Rule {
                id: RuleId {
                    route: u32::try_from(route_index).unwrap_or(u32::MAX),
                    rule: u32::try_from(rule_index).unwrap_or(u32::MAX),
                },
                route: route.name.clone(),
                backends: Backends::new(backends.iter().filter_map(|backend| {
                    Some((*upstreams.get(&backend.upstream)?, backend.weight))
                })),
                policies: spec
                    .policies
                    .iter()
                    .filter_map(|name| policies.get(name).copied())
                    .collect(),
                has_plugins: spec
                    .policies
                    .iter()
                    .any(|name| matches!(config.policies.get(name), Some(PolicySpec::Plugin(_)))),
                first_byte: spec.first_byte,
                spec: spec.clone(),
            }
        });
        rules.collect()
    };
    config.routes.iter().enumerate().map(compile).collect()
}

/// An error and its causes in one line, for an operator.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
