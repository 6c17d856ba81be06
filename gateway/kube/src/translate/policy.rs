//! Policies and plugins, and which of them an Ingress gets.
//!
//! A policy that is named and not to be had refuses every request: what an author put in front of
//! an application must not be missing because it is broken.

use std::path::PathBuf;

use postern_core::config::Held;
use postern_core::config::PluginSpec;
use postern_core::config::PolicySpec;
use postern_core::config::plugin::DEFAULT_INSTANCES;
use postern_core::config::plugin::DEFAULT_MEMORY;
use postern_core::config::plugin::PluginSource;
use postern_core::config::source::LoginSpec;
use postern_core::name::PolicyName;

use super::Fault;
use super::Pass;
use super::Piece;
use super::annotation;
use super::backend::Wish;
use super::nginx::Nginx;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::read::quote;
use crate::record::Custom;
use crate::record::HeldRef;
use crate::record::Ingress;

/// Names the policies of an Ingress, in the order in which they see a request.
const POLICIES: &str = "postern.dev/policies";
/// Policies of one Ingress. Each costs something in every request.
const MAX_POLICIES: usize = 32;

/// What a plugin of a namespace that is not trusted may ask for: memory is shared by all plugins of
/// the gateway, and bodies and shared state are beside what its budget counts.
const MAX_MEMORY: u64 = DEFAULT_MEMORY;
const MAX_BODY: u64 = 8 << 20;
const MAX_SHARED_STATE: u64 = 16 << 20;
const MAX_INSTANCES: u32 = DEFAULT_INSTANCES;

/// What became of a policy that is named.
pub(super) struct Made {
    pub(super) result: Result<PolicyName, Fault>,
    pub(super) spec: Option<PolicySpec>,
    pub(super) held: Vec<(PathBuf, Held)>,
    pub(super) piece: Piece,
}

impl<'c> Pass<'c> {
    /// Those of the class, then those that the Ingress names; `None` if one is not to be had.
    pub(super) fn policies_of(
        &mut self,
        name: &'c ObjectName,
        ingress: &'c Ingress,
        of_class: Option<&[ObjectName]>,
        nginx: &Nginx,
    ) -> Option<Vec<PolicyName>> {
        let object = || ObjectRef {
            kind: Kind::Ingress,
            name: name.clone(),
        };
        let mut policies = Vec::new();
        let mut is_whole = true;
        match of_class {
            Some(names) => {
                for policy in names {
                    match self.policy(policy) {
                        Ok(found) => policies.push(found),
                        Err(fault) => {
                            is_whole = false;
                            self.problem(object(), "spec.ingressClassName", fault);
                        }
                    }
                }
            }
            None => {
                is_whole = false;
                let message = "the defaults of its class are not to be had";
                let fault = Fault::error(Reason::PolicyMissing, message);
                self.problem(object(), "spec.ingressClassName", fault);
            }
        }
        for (part, spec) in &nginx.policies {
            // No object has a colon in its name.
            let text = format!("{name}:{part}");
            let Ok(policy) = PolicyName::parse(&text) else {
                is_whole = false;
                continue;
            };
            self.out.own.push((policy.clone(), spec.clone()));
            policies.push(policy);
        }
        for (key, value) in &ingress.annotations {
            if nginx.has_taken(key) {
                continue;
            }
            let field = format!("metadata.annotations[{key}]");
            if **key == *POLICIES {
                for result in self.annotated(name, value) {
                    match result {
                        Ok(found) => policies.push(found),
                        Err(fault) => {
                            is_whole = false;
                            self.problem(object(), field.clone(), fault);
                        }
                    }
                }
            } else if let Some(fault) = annotation::judge(key, value) {
                // One that keeps people out is no good if nobody reads it.
                is_whole &= !fault.is_error();
                self.problem(object(), field, fault);
            }
        }
        if policies.len() > MAX_POLICIES {
            is_whole = false;
            let message = format!("an Ingress has at most {MAX_POLICIES} policies");
            let fault = Fault::error(Reason::PolicyMissing, message);
            self.problem(object(), format!("metadata.annotations[{POLICIES}]"), fault);
        }
        is_whole.then_some(policies)
    }

    fn annotated(&mut self, ingress: &ObjectName, value: &str) -> Vec<Result<PolicyName, Fault>> {
        let names = value.split(',').map(str::trim);
        let names = names.take(MAX_POLICIES + 1).map(|text| {
            let (namespace, name) = text.split_once('/').unwrap_or((&ingress.namespace, text));
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            let is_name = |text: &str| !text.is_empty() && text.bytes().all(is_part);
            if !is_name(namespace) || !is_name(name) {
                let message = format!("{} is no name of a policy", quote(text));
                let help = "write names with commas between them: NAME, or NAMESPACE/NAME";
                return Err(Fault::error(Reason::PolicyMissing, message).with_help(help));
            }
            let policy = ObjectName::new(namespace, name);
            let is_foreign = *policy.namespace != *ingress.namespace;
            if is_foreign && self.settings.is_offline && self.custom(&policy).is_none() {
                let message = format!("there is no policy '{policy}' here");
                return Err(Fault::warning(Reason::PolicyMissing, message));
            }
            if is_foreign && !self.is_granted(&policy, ingress) {
                // The same whether it is there: what another namespace has is not told.
                let message = format!("there is no policy '{policy}' that this namespace may use");
                let help = "its namespaces have to list this one";
                return Err(Fault::error(Reason::NotGranted, message).with_help(help));
            }
            self.policy(&policy)
        });
        names.collect()
    }

    fn is_granted(&self, policy: &ObjectName, ingress: &ObjectName) -> bool {
        self.custom(policy)
            .is_some_and(|(_, _, custom)| custom.grant.allows(&ingress.namespace))
    }

    /// Policies and plugins share their names; of two, the policy is meant.
    fn custom(&self, name: &ObjectName) -> Option<(Kind, &'c ObjectName, &'c Custom)> {
        let policy = self.cluster.policies.get_key_value(name);
        let policy = policy.map(|(name, custom)| (Kind::Policy, name, &**custom));
        policy.or_else(|| {
            let plugin = self.cluster.plugins.get_key_value(name);
            plugin.map(|(name, custom)| (Kind::Plugin, name, &**custom))
        })
    }

    /// The policy of a name.
    fn policy(&mut self, name: &ObjectName) -> Result<PolicyName, Fault> {
        self.out.policies.push(name.clone());
        if let Some(known) = self.known.policies.get(name) {
            return known.result.clone();
        }
        // What it takes to make it is its own, not that of the first who names it.
        let outer = std::mem::take(&mut self.out);
        let mut held = Vec::new();
        let (result, spec) = match self.find_policy(name, &mut held) {
            Ok((policy, spec)) => (Ok(policy), Some(spec)),
            Err(fault) => (Err(fault), None),
        };
        let mut piece = std::mem::replace(&mut self.out, outer);
        piece.sort();
        let made = Made {
            result: result.clone(),
            spec,
            held,
            piece,
        };
        self.known.policies.insert(name.clone(), made);
        result
    }

    fn find_policy(
        &mut self,
        name: &ObjectName,
        held: &mut Vec<(PathBuf, Held)>,
    ) -> Result<(PolicyName, PolicySpec), Fault> {
        let missing = |message: String| Fault::error(Reason::PolicyMissing, message);
        let Some((kind, name, custom)) = self.custom(name) else {
            let is_broken = [Kind::Policy, Kind::Plugin].into_iter().any(|kind| {
                self.cluster.is_broken(&ObjectRef {
                    kind,
                    name: name.clone(),
                })
            });
            return Err(match is_broken {
                true => missing(format!("the policy '{name}' cannot be read")),
                false => {
                    let message = format!("there is no Policy and no Plugin '{name}'");
                    Fault::absent(self.settings, Reason::PolicyMissing, message)
                }
            });
        };
        let object = ObjectRef {
            kind,
            name: name.clone(),
        };
        let Ok(policy) = PolicyName::parse(&name.to_string()) else {
            return Err(missing(format!("the policy '{name}' cannot be named")));
        };
        match self.use_policy(name, custom, held) {
            Ok(spec) => Ok((policy, spec)),
            Err((field, fault)) => {
                let message = format!("{} '{name}' cannot be used: {}", kind, fault.message);
                self.problem(object, field, fault);
                Err(missing(message))
            }
        }
    }

    /// What a policy names has to be there, and it may be allowed less than it asks for.
    fn use_policy(
        &mut self,
        name: &'c ObjectName,
        custom: &'c Custom,
        all_held: &mut Vec<(PathBuf, Held)>,
    ) -> Result<PolicySpec, (&'static str, Fault)> {
        let mut spec = custom.spec.clone();
        if let PolicySpec::Plugin(plugin) = &mut spec {
            let settings = &self.settings.spec;
            let is_trusted = settings
                .trusted_namespaces
                .iter()
                .any(|trusted| **trusted == *name.namespace);
            if (plugin.grants.challenges || plugin.grants.dns) && !is_trusted {
                let message = "challenges and dns concern the whole gateway";
                let help = "list its namespace in trusted-namespaces in [kubernetes]";
                let fault = Fault::error(Reason::NotGranted, message).with_help(help);
                return Err(("spec.grants", fault));
            }
            if let Some((field, message)) = too_much(plugin).filter(|_| !is_trusted) {
                let help = "ask for less, or have the operator list this namespace in \
                            trusted-namespaces in [kubernetes]";
                let fault = Fault::error(Reason::NotGranted, message).with_help(help);
                return Err((field, fault));
            }
            if let PluginSource::File(path) = &plugin.source
                && !custom.files.iter().any(|file| file.path == *path)
            {
                let dir = settings.plugin_dir.as_deref();
                let climbs = path.components().any(|part| part.as_os_str() == "..");
                if climbs || !dir.is_some_and(|dir| path.starts_with(dir)) {
                    let message = "plugins may not take this file";
                    let help = "the folder that they may take files from is plugin-dir in \
                                [kubernetes]";
                    let fault = Fault::error(Reason::NotGranted, message).with_help(help);
                    return Err(("spec.source", fault));
                }
            }
        }
        for file in &custom.files {
            self.wants(file.object.kind, &file.object.name);
        }
        for file in &custom.files {
            let held = self.held(file).map_err(|fault| ("spec", fault))?;
            let used_for_login = match &mut spec {
                PolicySpec::Plugin(plugin) => log_in(plugin, file, &held),
                _ => false,
            };
            if !used_for_login {
                all_held.push((file.path.clone(), held));
            }
        }
        for (service, port) in &custom.services {
            let found = self.upstream(&name.namespace, service, port, Wish::default());
            found.map_err(|fault| ("spec", fault))?;
        }
        Ok(spec)
    }

    pub(super) fn held(&self, file: &HeldRef) -> Result<Held, Fault> {
        let name = &file.object.name;
        let (values, kind) = match file.object.kind {
            Kind::Secret => (
                self.cluster.secrets.get(name).map(|secret| &secret.values),
                "Secret",
            ),
            _ => (
                self.cluster.config_maps.get(name).map(|map| &map.values),
                "ConfigMap",
            ),
        };
        let Some(values) = values else {
            let message = format!("there is no {kind} '{}'", name.name);
            return Err(Fault::absent(self.settings, Reason::SecretMissing, message));
        };
        let value = values.get(&file.key).cloned();
        value.ok_or_else(|| {
            let message = format!("the {kind} '{}' has no key '{}'", name.name, file.key);
            Fault::error(Reason::SecretMissing, message)
        })
    }
}

/// What a plugin asks for beyond what those of any namespace may, with its field.
fn too_much(plugin: &PluginSpec) -> Option<(&'static str, String)> {
    let limits = &plugin.limits;
    let shared = plugin.grants.shared_state.unwrap_or_default();
    let sizes = [
        ("spec.limits.memory", limits.memory, MAX_MEMORY),
        ("spec.limits.body", limits.body, MAX_BODY),
        ("spec.grants.shared-state", shared, MAX_SHARED_STATE),
    ];
    let most = "is the most that a plugin of this namespace may have";
    if let Some((field, _, max)) = sizes.into_iter().find(|(_, size, max)| size > max) {
        return Some((field, format!("{} MiB {most}", max >> 20)));
    }
    (limits.instances > MAX_INSTANCES).then(|| {
        let message = format!("{MAX_INSTANCES} instances {most}");
        ("spec.limits.instances", message)
    })
}

/// Puts the login of a registry where its file is named. Returns whether that was so.
fn log_in(plugin: &mut PluginSpec, file: &HeldRef, held: &Held) -> bool {
    let PluginSource::Remote(remote) = &mut plugin.source else {
        return false;
    };
    let login = &mut remote.fetch.login;
    let is_it = matches!(login, Some(LoginSpec::DockerConfig(path)) if *path == file.path);
    if is_it {
        *login = Some(LoginSpec::HeldDockerConfig(held.clone()));
    }
    is_it
}
