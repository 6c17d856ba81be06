//! Which certificate is shown for which host.
//!
//! A certificate serves the hosts that an Ingress of its namespace lists for it, holds itself, and
//! whose namespace it is: one that holds the name of another namespace's host is never shown for
//! that.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;

use postern_core::config::CertificateSpec;
use postern_core::config::Config;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;

use super::Fault;
use super::Owned;
use super::Pass;
use super::rules::Hosts;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::object::ObjectRef;
use crate::object::Reason;
use crate::record::IngressTls;
use crate::record::TlsPair;

/// Hosts by the Secret that holds their certificate.
pub(super) type Served = BTreeMap<ObjectName, BTreeSet<Hostname>>;

impl<'c> Pass<'c> {
    /// Which certificates are shown for the hosts of Ingresses that share some.
    pub(super) fn certificates(&mut self, owned: &[Owned<'c>], hosts: &Hosts<'c>) -> Served {
        let mut served = Served::new();
        let mut by_host: HashMap<&'c Hostname, ObjectName> = HashMap::new();
        for owned in owned {
            for (index, tls) in owned.ingress.tls.iter().enumerate() {
                self.entry(owned, index, tls, hosts, &mut served, &mut by_host);
            }
        }
        served
    }

    /// The Secret of the default certificate, if there is one that can be used.
    pub(super) fn default_certificate(&mut self) -> Option<ObjectName> {
        let name = self.settings.spec.default_certificate.as_ref()?;
        let name = ObjectName::new(&name.namespace, &name.name);
        self.wants(Kind::Secret, &name);
        match self.pair(&name) {
            Ok(_) => Some(name),
            Err(fault) => {
                let object = ObjectRef {
                    kind: Kind::Secret,
                    name,
                };
                let help = "default-certificate in [kubernetes] names it";
                self.problem(object, "", fault.with_help(help));
                None
            }
        }
    }

    /// Adds certificates to a configuration.
    pub(super) fn hold(&self, served: Served, config: &mut Config) {
        for (secret, hosts) in served {
            let (Ok(pair), Ok(name)) = (
                self.pair(&secret),
                CertificateName::parse(&secret.to_string()),
            ) else {
                continue;
            };
            let file = |key: &str| PathBuf::from(format!("secret:{secret}/{key}"));
            let spec = CertificateSpec {
                cert_file: file(crate::record::TLS_CERT),
                key_file: file(crate::record::TLS_KEY),
                hosts: Some(hosts.into_iter().collect()),
            };
            let held = &mut config.held;
            held.insert(spec.cert_file.clone(), pair.chain.clone());
            held.insert(spec.key_file.clone(), pair.key.clone());
            config.certificates.insert(name, spec);
        }
    }

    fn entry(
        &mut self,
        owned: &Owned<'c>,
        index: usize,
        tls: &'c IngressTls,
        hosts: &Hosts<'c>,
        served: &mut Served,
        by_host: &mut HashMap<&'c Hostname, ObjectName>,
    ) {
        let Some(secret) = &tls.secret else {
            return;
        };
        let at = format!("spec.tls[{index}]");
        let secret = owned.name.beside(secret);
        self.wants(Kind::Secret, &secret);
        // What is got from an issuer is on its way, and how that does is said elsewhere.
        let is_managed = self.is_managed(owned, &secret);
        let pair = match self.pair(&secret) {
            Ok(pair) => pair,
            Err(_) if is_managed => return,
            Err(fault) => {
                self.problem(owned.object(), format!("{at}.secretName"), fault);
                return;
            }
        };
        let object = ObjectRef {
            kind: Kind::Secret,
            name: secret.clone(),
        };
        if self.cluster.is_broken(&object) {
            let message = format!(
                "the Secret '{}' cannot be used as it is now; the certificate before it is shown",
                secret.name
            );
            let fault = Fault::warning(Reason::SecretMissing, message);
            self.problem(owned.object(), format!("{at}.secretName"), fault);
        }
        let rules = || {
            owned
                .ingress
                .rules
                .iter()
                .filter_map(|rule| rule.host.as_ref())
        };
        let (listed, of_rules) = match tls.hosts.is_empty() {
            false => (Some(tls.hosts.iter()), None),
            true => (None, Some(rules())),
        };
        let names = listed.into_iter().flatten();
        for host in names.chain(of_rules.into_iter().flatten()) {
            let fault = if let Some(owner) = hosts.owner_beside(Some(host), &owned.name.namespace) {
                let message = format!("the host '{host}' belongs to {owner}");
                Some(Fault::error(Reason::Conflict, message))
            } else if !pair.names.iter().any(|name| covers(name, host)) {
                if is_managed {
                    continue;
                }
                let names: Vec<_> = pair.names.iter().map(ToString::to_string).collect();
                let message = format!("the certificate is not for the host '{host}'");
                let help = format!("it is for {}", names.join(", "));
                Some(Fault::warning(Reason::Doubtful, message).with_help(help))
            } else {
                let first = by_host.entry(host).or_insert_with(|| secret.clone());
                let message = format!("the host '{host}' has the certificate of Secret '{first}'");
                (*first != secret).then(|| Fault::warning(Reason::Conflict, message))
            };
            match fault {
                Some(fault) => self.problem(owned.object(), format!("{at}.hosts"), fault),
                None => {
                    let hosts = served.entry(secret.clone()).or_default();
                    hosts.insert(host.clone());
                }
            }
        }
    }

    fn pair(&self, secret: &ObjectName) -> Result<&'c TlsPair, Fault> {
        let cluster = self.cluster;
        let Some(record) = cluster.secrets.get(secret) else {
            let object = ObjectRef {
                kind: Kind::Secret,
                name: secret.clone(),
            };
            return Err(if cluster.is_broken(&object) {
                let message = format!("the Secret '{}' cannot be used", secret.name);
                Fault::error(Reason::SecretMissing, message)
            } else {
                let message = format!("there is no Secret '{}'", secret.name);
                Fault::absent(self.settings, Reason::SecretMissing, message)
            });
        };
        record.tls.as_ref().ok_or_else(|| {
            let message = format!("the Secret '{}' holds no certificate", secret.name);
            let help = "it has to be of the type kubernetes.io/tls, with tls.crt and tls.key";
            Fault::error(Reason::SecretMissing, message).with_help(help)
        })
    }
}

/// Whether a name of a certificate is good for a host of an Ingress.
fn covers(name: &Hostname, host: &Hostname) -> bool {
    match host {
        Hostname::Exact(text) => name.matches(text),
        Hostname::Wildcard(_) => name == host,
    }
}
