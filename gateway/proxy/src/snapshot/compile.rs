//! A configuration and the snapshot before it, to the next snapshot.
//!
//! What is equal by name and spec is taken over alive: sockets go on listening, connections stay
//! pooled, plugins stay compiled. What cannot be built is a [`Problem`] at the place that declared
//! it, all of them at once, and then there is no next snapshot. A plugin that has to be fetched costs
//! itself alone: what it leaves is an [`Impairment`].

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
use postern_core::config::UpstreamSpec;
use postern_core::config::parse::Loaded;
use postern_core::config::plugin::PluginSource;
use postern_core::config::plugin::SecretSource;
use postern_core::name::CertificateName;
use postern_core::name::ListenerName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::route::RouteTable;
use postern_wasm::PluginEngine;

use super::Impairment;
use super::Snapshot;
use super::component::Builds;
use super::component::Workshop;
use super::materials::Materials;
use super::rules;
use crate::access_log::writer;
use crate::challenges::Challenges;
use crate::listener::Listener;
use crate::listener::ListenerSocket;
use crate::policy::GrantedSecrets;
use crate::policy::NativePolicy;
use crate::policy::Policy;
use crate::tls;
use crate::tls::TlsError;
use crate::tls::certificates::Certificate;
use crate::upstream;
use crate::upstream::Upstream;

/// Bytes of one secret: an RSA key with room to spare.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// What compiling needs besides configurations; one for the life of the process.
pub struct Compiler {
    workshop: Workshop,
    tls: tls::ServerTls,
    workers: usize,
    binds_listeners: bool,
}

impl Compiler {
    /// `binds_listeners` is false where nothing will be served: for `check`.
    pub fn new(engine: Arc<PluginEngine>, workers: usize, binds_listeners: bool) -> Self {
        Self {
            workshop: Workshop::new(engine),
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
            impairments: Vec::new(),
        };
        let certificates = build.certificates();
        let upstreams = build.upstreams();
        let policies = build.policies().await;
        self.workshop
            .retain(|name| loaded.config.policies.contains_key(name));
        build.access_log();
        let listeners = build.listeners(&certificates);
        let impairments = std::mem::take(&mut build.impairments);
        if !build.problems.is_empty() {
            return Err(build.problems);
        }
        let config = Arc::new(loaded.config.clone());
        let upstream_names = rules::upstream_names(&config, previous);
        Ok(Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            routes: RouteTable::new(&config.routes),
            rules: rules::compile(
                &config,
                &upstream_names,
                previous.map(|previous| &**previous),
            ),
            config,
            upstreams,
            upstream_names,
            policies,
            listeners,
            certificates,
            challenges: Arc::clone(self.tls.challenges()),
            impairments,
        })
    }

    /// What authorities look for, for every snapshot that is compiled here.
    pub fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(self.tls.challenges())
    }

    /// How components were made ready since the start of the process.
    pub fn builds(&self) -> Builds {
        self.workshop.builds()
    }
}

struct Build<'b> {
    compiler: &'b Compiler,
    config: &'b Config,
    origins: &'b Origins,
    materials: &'b Materials,
    previous: Option<&'b Snapshot>,
    problems: Vec<Problem>,
    impairments: Vec<Impairment>,
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
            let hosts = spec.hosts.as_deref();
            let live = self.previous.and_then(|p| p.certificates.get(name));
            let certificate = match live {
                Some(live) if live.is_from(&chain, &key, hosts) => Arc::clone(live),
                _ => match Certificate::parse(chain, key, hosts) {
                    Ok(certificate) => Arc::new(certificate),
                    Err(error) => {
                        let at = format!("{at}.{}", error.field());
                        let message = with_causes(&error);
                        let is_held = self.config.held.contains_key(&spec.cert_file);
                        match is_held && self.compiler.binds_listeners {
                            // What one tenant holds costs nobody else a change.
                            true => self.impairments.push(Impairment {
                                at,
                                message,
                                help: "handshakes for its names are served without it",
                                is_lasting: true,
                            }),
                            false => self.problem(&at, message),
                        }
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
        // Both are in the order of names, so a search for each is not needed.
        let mut known = self.previous.map_or(&[][..], |p| &p.upstreams).iter();
        let mut next = known.next();
        for (name, spec) in &self.config.upstreams {
            while next.is_some_and(|live| live.name < *name) {
                next = known.next();
            }
            let live = next.filter(|live| live.name == *name);
            let Some(files) = self.upstream_files(name, spec) else {
                continue;
            };
            match live {
                Some(live) if live.is_from(spec, &files) => {
                    upstreams.push(Arc::clone(live));
                }
                _ => {
                    let live = live.map(|live| &**live);
                    match Upstream::new(name.clone(), Arc::clone(spec), files, live) {
                        Ok(upstream) => upstreams.push(Arc::new(upstream)),
                        Err(error) => {
                            let at = format!("upstreams.{name}.{}", error.field());
                            upstreams.extend(self.bare(name, spec, at, with_causes(&error)));
                        }
                    }
                }
            }
        }
        upstreams
    }

    /// What stands where an upstream cannot be built. One that a stranger declared costs nobody else
    /// a change: it has no endpoint, and its requests are answered 503.
    fn bare(
        &mut self,
        name: &UpstreamName,
        spec: &UpstreamSpec,
        at: String,
        message: String,
    ) -> Option<Arc<Upstream>> {
        if !spec.refuses_local || !self.compiler.binds_listeners {
            self.problem(&at, message);
            return None;
        }
        self.impairments.push(Impairment {
            at,
            message,
            help: "its requests are answered 503",
            is_lasting: true,
        });
        let bare = UpstreamSpec {
            endpoints: Vec::new(),
            shares: Vec::new(),
            tls: None,
            ..spec.clone()
        };
        let files = upstream::Materials::default();
        let upstream = Upstream::new(name.clone(), Arc::new(bare), files, None);
        upstream.ok().map(Arc::new)
    }

    /// `None`, and a problem for each, if files cannot be read.
    fn upstream_files(
        &mut self,
        name: &UpstreamName,
        spec: &UpstreamSpec,
    ) -> Option<upstream::Materials> {
        let Some(tls) = &spec.tls else {
            return Some(upstream::Materials::default());
        };
        let at = format!("upstreams.{name}");
        let mut read = |path: &Path, key: &str| self.file(path, &format!("{at}.tls.{key}"));
        let roots = tls.ca_file.as_ref().map(|path| read(path, "ca-file"));
        let client = tls.client.as_ref().map(|pair| {
            let cert = read(&pair.cert_file, "cert-file");
            let key = read(&pair.key_file, "key-file");
            cert.zip(key)
        });
        Some(upstream::Materials {
            roots: match roots {
                Some(read) => Some(read?),
                None => None,
            },
            client: match client {
                Some(read) => Some(read?),
                None => None,
            },
        })
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
        let live: HashMap<_, _> = match self.previous {
            Some(previous) => {
                let names = previous.config.policies.keys();
                names.zip(&previous.policies).collect()
            }
            None => HashMap::new(),
        };
        for (name, spec) in &self.config.policies {
            let live = live.get(name).copied();
            let before = self.problems.len();
            let mut policy = match spec {
                PolicySpec::Plugin(spec) => self.plugin(name, spec, live).await,
                spec => self.native(name, spec, live),
            };
            if self.is_expendable(name, spec) && self.problems.len() > before {
                let problems = self.problems.split_off(before).into_iter();
                let messages: Vec<_> = problems.map(|problem| problem.message).collect();
                let at = format!("policies.{name}");
                policy = Some(self.stand_in(name, live, at, messages.join("; "), true));
            }
            policies.extend(policy);
        }
        policies
    }

    /// Whether a policy that cannot be built costs itself alone. What is made of bytes that another
    /// party holds always is such a one.
    fn is_expendable(&self, name: &PolicyName, spec: &PolicySpec) -> bool {
        let file = match spec {
            PolicySpec::Plugin(plugin) => match &plugin.source {
                PluginSource::File(path) => Some(path.as_path()),
                PluginSource::Remote(_) => None,
            },
            spec => spec.file().map(|(_, path)| path),
        };
        self.config.expendable.contains(name)
            || file.is_some_and(|path| self.config.held.contains_key(path))
    }

    /// A built-in policy. An equal one is taken over with what it counts.
    fn native(
        &mut self,
        name: &PolicyName,
        spec: &PolicySpec,
        live: Option<&Arc<Policy>>,
    ) -> Option<Arc<Policy>> {
        let file = match spec.file() {
            Some((key, path)) => Some(self.file(path, &format!("policies.{name}.{key}"))?),
            None => None,
        };
        if let Some(policy) = live
            && let Policy::Native(live) = &**policy
            && live.is_from(spec, file.as_deref())
        {
            return Some(Arc::clone(policy));
        }
        match NativePolicy::new(name.clone(), spec.clone(), file) {
            Ok(policy) => Some(Arc::new(Policy::Native(Box::new(policy)))),
            Err(error) => {
                let key = spec.file().map_or("kind", |(key, _)| key);
                self.problem(&format!("policies.{name}.{key}"), with_causes(&error));
                None
            }
        }
    }

    async fn plugin(
        &mut self,
        name: &PolicyName,
        spec: &PluginSpec,
        live: Option<&Arc<Policy>>,
    ) -> Option<Arc<Policy>> {
        let at = format!("plugins.{name}.source");
        let bytes = match &spec.source {
            PluginSource::File(path) => self.file(path, &at)?,
            PluginSource::Remote(remote) => match self.materials.fetched(remote) {
                Ok(bytes) => bytes,
                Err(absence) => {
                    return Some(self.stand_in(
                        name,
                        live,
                        at,
                        absence.message,
                        absence.is_lasting,
                    ));
                }
            },
        };
        let secrets = self.secrets(&format!("plugins.{name}"), spec);
        let building = self
            .compiler
            .workshop
            .plugin(name, spec, bytes, secrets, live);
        let refusals = match building.await {
            Ok(policy) => return Some(policy),
            Err(refusals) => refusals,
        };
        // One object among many, which an operator cannot put back by putting a file back: it costs
        // itself. `check` serves nothing, so there it is a problem.
        let costs_itself = is_remote(spec) && self.compiler.binds_listeners;
        let mut policy = None;
        for refusal in refusals {
            let at = format!("plugins.{name}{}", refusal.field);
            if costs_itself {
                policy = Some(self.stand_in(name, live, at, refusal.in_one_line(), true));
                continue;
            }
            let problem = Problem::error(self.origins.find(&at), refusal.message);
            self.problems.push(match refusal.help {
                Some(help) => problem.with_help(help),
                None => problem,
            });
        }
        policy
    }

    /// What serves in the place of a plugin that is not there: the one before it, or nothing that
    /// lets a request pass.
    fn stand_in(
        &mut self,
        name: &PolicyName,
        live: Option<&Arc<Policy>>,
        at: String,
        message: String,
        is_lasting: bool,
    ) -> Arc<Policy> {
        let (policy, help) = match live {
            Some(live) if !matches!(**live, Policy::Absent(_)) => {
                (Arc::clone(live), "the one that served before serves on")
            }
            _ => (
                Arc::new(Policy::Absent(name.clone())),
                "requests that need it are answered 503",
            ),
        };
        self.impairments.push(Impairment {
            at,
            message,
            help,
            is_lasting,
        });
        policy
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
                let mut roots = Vec::with_capacity(tls.client_auth.len());
                for (index, auth) in tls.client_auth.iter().enumerate() {
                    let at = format!("listeners.{name}.tls.client-auth.{index}");
                    roots.push(self.file(&auth.ca_file, &at)?);
                }
                let mut keys = Vec::with_capacity(tls.ticket_keys.len());
                for (index, path) in tls.ticket_keys.iter().enumerate() {
                    let at = format!("listeners.{name}.tls.ticket-keys.{index}");
                    keys.push(self.file(path, &at)?);
                }
                let acceptor = self.compiler.tls.acceptor(tls, certificates, &roots, &keys);
                match acceptor {
                    Ok(acceptor) => Some(acceptor),
                    Err(error) => {
                        let at = match &error {
                            TlsError::ClientRoots { entry, .. } => {
                                format!("listeners.{name}.tls.client-auth.{entry}")
                            }
                            TlsError::TicketKey { entry } => {
                                format!("listeners.{name}.tls.ticket-keys.{entry}")
                            }
                            _ => format!("listeners.{name}"),
                        };
                        self.problem(&at, with_causes(&error));
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

fn is_remote(spec: &PluginSpec) -> bool {
    matches!(spec.source, PluginSource::Remote(_))
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
