//! Which certificates are to be got from an issuer: those of the `tls` of an Ingress that names one,
//! where nobody else provides the Secret.
//!
//! A host that belongs to another namespace is left out, so that nobody gets a certificate for it.

use std::collections::BTreeMap;

use postern_core::config::issuer::MAX_HOSTS;
use postern_core::hostname::Hostname;
use postern_core::name::IssuerName;

use super::Fault;
use super::Owned;
use super::Pass;
use super::rules::Hosts;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::object::Severity;
use crate::read::quote;
use crate::record::Ingress;

/// Names an issuer of the gateway's files; empty: none.
const ISSUER: &str = "postern.dev/issuer";

/// A certificate that is wanted in a Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManagedSecret {
    /// Sorted, none twice, at least one.
    pub hosts: Vec<Hostname>,
    pub issuer: IssuerName,
    /// Whether the Secret is there.
    pub is_there: bool,
    /// The first Ingress that wants it.
    pub ingress: ObjectName,
}

impl<'c> Pass<'c> {
    /// What an Ingress gets its certificates from.
    pub(super) fn issuer_of(&mut self, name: &ObjectName, ingress: &Ingress) -> Option<IssuerName> {
        let mut annotations = ingress.annotations.iter();
        let Some((_, text)) = annotations.find(|(key, _)| **key == *ISSUER) else {
            return self.settings.spec.issuer.clone();
        };
        if text.is_empty() {
            return None;
        }
        let issuer = IssuerName::parse(text);
        if let Err(error) = &issuer {
            let object = ObjectRef {
                kind: Kind::Ingress,
                name: name.clone(),
            };
            let message = format!("{} is no issuer: {error}", quote(text));
            let fault = Fault::error(Reason::Unsupported, message);
            self.problem(object, format!("metadata.annotations[{ISSUER}]"), fault);
        }
        issuer.ok()
    }

    /// Whether a Secret of an Ingress is ours to fill. One that cannot be read may be: whoever writes
    /// it looks again.
    pub(super) fn is_managed(&self, owned: &Owned<'_>, secret: &ObjectName) -> bool {
        let known = self.cluster.secrets.get(secret);
        owned.issuer.is_some() && known.is_none_or(|known| known.is_ours)
    }

    /// What Ingresses that share hosts want, the oldest first.
    pub(super) fn managed(
        &mut self,
        owned: &[Owned<'c>],
        hosts: &Hosts<'c>,
    ) -> Vec<(ObjectName, ManagedSecret)> {
        let mut managed = Vec::new();
        for owned in owned {
            let Some(issuer) = &owned.issuer else {
                continue;
            };
            for (index, tls) in owned.ingress.tls.iter().enumerate() {
                let Some(secret) = &tls.secret else {
                    continue;
                };
                let secret = owned.name.beside(secret);
                if !self.is_managed(owned, &secret) {
                    continue;
                }
                let rules = owned.ingress.rules.iter();
                let mut wanted: Vec<&Hostname> = match tls.hosts.is_empty() {
                    false => tls.hosts.iter().collect(),
                    true => rules.filter_map(|rule| rule.host.as_ref()).collect(),
                };
                // Said where certificates are shown.
                let namespace = &owned.name.namespace;
                wanted.retain(|host| hosts.owner_beside(Some(host), namespace).is_none());
                let is_single = |host: &Hostname| {
                    let (Hostname::Exact(name) | Hostname::Wildcard(name)) = host;
                    !name.contains('.')
                };
                if let Some(host) = wanted.iter().find(|host| is_single(host)) {
                    let message = format!("no authority has a certificate for '{host}'");
                    let help = "it wants at least two labels, as in example.edu";
                    let fault = Fault::error(Reason::Unsupported, message).with_help(help);
                    self.problem(owned.object(), format!("spec.tls[{index}].hosts"), fault);
                }
                wanted.retain(|host| !is_single(host));
                if wanted.is_empty() {
                    continue;
                }
                let mut hosts: Vec<Hostname> = wanted.into_iter().cloned().collect();
                hosts.sort();
                hosts.dedup();
                if hosts.len() > MAX_HOSTS {
                    let message = format!("one certificate is for {MAX_HOSTS} hosts at most");
                    let fault = Fault::error(Reason::Unsupported, message);
                    self.problem(owned.object(), format!("spec.tls[{index}].hosts"), fault);
                    continue;
                }
                let wanted = ManagedSecret {
                    hosts,
                    issuer: issuer.clone(),
                    is_there: self.cluster.secrets.contains_key(&secret),
                    ingress: owned.name.clone(),
                };
                managed.push((secret, wanted));
            }
        }
        managed
    }
}

/// Adds what one Ingress wants to what others do. A Secret that several name is for the hosts of
/// all of them.
pub(super) fn add(
    all: &mut BTreeMap<ObjectName, ManagedSecret>,
    secret: &ObjectName,
    wanted: &ManagedSecret,
    problems: &mut Vec<ObjectProblem>,
) {
    let Some(known) = all.get_mut(secret) else {
        all.insert(secret.clone(), wanted.clone());
        return;
    };
    let mut refuse = |reason, message| {
        problems.push(ObjectProblem {
            object: ObjectRef {
                kind: Kind::Ingress,
                name: wanted.ingress.clone(),
            },
            field: "spec.tls".to_owned(),
            severity: Severity::Error,
            reason,
            message,
            help: Some("name another Secret".to_owned()),
        });
    };
    if known.issuer != wanted.issuer {
        let message = format!(
            "Ingress '{}' wants the Secret '{}' from the issuer '{}'",
            known.ingress, secret.name, known.issuer
        );
        refuse(Reason::Conflict, message);
        return;
    }
    let mut hosts = known.hosts.clone();
    hosts.extend(wanted.hosts.iter().cloned());
    hosts.sort();
    hosts.dedup();
    if hosts.len() > MAX_HOSTS {
        let message = format!("one certificate is for {MAX_HOSTS} hosts at most");
        refuse(Reason::Unsupported, message);
        return;
    }
    known.hosts = hosts;
}
