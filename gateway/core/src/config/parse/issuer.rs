//! The meaning of issuers, and of certificates that the gateway gets for itself.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;

use super::FileReader;
use super::Kind;
use super::Reading;
use super::kubernetes::object_name;
use super::raw::At;
use super::raw::RawCertificate;
use super::raw::RawChallengeKind;
use super::raw::RawExternalAccount;
use super::raw::RawIssuer;
use super::raw::RawKeyType;
use super::raw::RawReach;
use crate::config::issuer;
use crate::config::issuer::ChallengeKind;
use crate::config::issuer::ExternalAccountSpec;
use crate::config::issuer::IssuerSpec;
use crate::config::issuer::KeyType;
use crate::config::issuer::LETSENCRYPT_A_WEEK;
use crate::config::issuer::MAX_HOSTS;
use crate::config::issuer::ManagedSpec;
use crate::config::issuer::ReachSpec;
use crate::config::problem::Problem;
use crate::hostname::Hostname;
use crate::name::CertificateName;
use crate::name::IssuerName;

/// Largest share of certificates a week that may be set.
const MAX_A_WEEK: i64 = 1_000_000;
/// Longest key identifier, profile or contact.
const MAX_WORD: usize = 256;

impl FileReader<'_> {
    pub(super) fn issuer(&mut self, name: &str, raw: &RawIssuer) {
        let at = format!("issuers.{name}");
        self.place(format!("{at}.directory"), raw.directory.span());
        let directory = self.text(&raw.directory, "directory", issuer::directory);
        let contact = raw.contact.iter();
        let contact = contact
            .filter_map(|text| self.text(text, "contact", contact_url))
            .collect();
        let ca_file = raw.ca_file.as_ref().map(|text| {
            self.place(format!("{at}.ca-file"), text.span());
            self.file(text)
        });
        let external = raw.external_account.as_ref();
        let external_account = external.and_then(|raw| self.external_account(&at, raw));
        let challenges = self.challenges(raw);
        let profile = raw.profile.as_ref();
        let profile = profile.and_then(|text| self.text(text, "profile", word));
        let allowed = raw.allowed.as_ref().map(|allowed| {
            if allowed.is_empty() {
                let message = "an issuer that is allowed no name is never asked".to_owned();
                let help = "name domains: allowed = [\"example.edu\"]";
                self.error_with_help(allowed.span(), message, help);
            }
            let allowed = allowed.iter();
            allowed
                .filter_map(|text| self.text(text, "domain", domain))
                .collect()
        });
        let namespaces = raw.namespaces.as_ref().map(|namespaces| {
            if namespaces.is_empty() {
                let message = "an issuer that no namespace may name is for files alone".to_owned();
                let help = "name them: namespaces = [\"shop\"]; or leave the key out for all";
                self.error_with_help(namespaces.span(), message, help);
            }
            let namespaces = namespaces.iter();
            namespaces
                .filter_map(|text| self.text(text, "namespace", object_name))
                .collect()
        });
        let fallback = raw.fallback.as_ref();
        if let Some(text) = fallback.filter(|text| ***text == *name) {
            let message = format!("the issuer '{name}' cannot stand in for itself");
            self.error(text.span(), message);
        }
        let fallback =
            fallback.and_then(|text| self.reference(Kind::Issuer, text, IssuerName::parse));
        let default = (**raw.directory == *"letsencrypt").then_some(LETSENCRYPT_A_WEEK);
        let certificates_a_week = raw.certificates_a_week.as_ref().map_or(default, |number| {
            let number = self.number(number, "certificates-a-week", 1..=MAX_A_WEEK);
            u32::try_from(number).ok()
        });
        let reach = raw.reach.as_ref().map(|raw| self.reach(raw));
        let name = self.item_name(&at, name, IssuerName::parse);
        if let (Some(name), Some(directory)) = (name, directory) {
            let spec = IssuerSpec {
                directory,
                contact,
                ca_file,
                external_account,
                challenges,
                key_type: match raw.key_type {
                    None | Some(RawKeyType::EcdsaP256) => KeyType::EcdsaP256,
                    Some(RawKeyType::Rsa2048) => KeyType::Rsa2048,
                },
                profile,
                allowed,
                namespaces,
                fallback,
                certificates_a_week,
                reach,
            };
            self.reading.config.issuers.insert(name, spec);
        }
    }

    fn external_account(
        &mut self,
        at: &str,
        raw: &RawExternalAccount,
    ) -> Option<ExternalAccountSpec> {
        self.place(
            format!("{at}.external-account.key-file"),
            raw.key_file.span(),
        );
        let key_id = self.text(&raw.key_id, "key identifier", word);
        let key_file = self.file(&raw.key_file);
        Some(ExternalAccountSpec {
            key_id: key_id?,
            key_file,
        })
    }

    fn challenges(&mut self, raw: &RawIssuer) -> Vec<ChallengeKind> {
        let default = vec![ChallengeKind::Http01, ChallengeKind::TlsAlpn01];
        let Some(raw) = &raw.challenges else {
            return default;
        };
        if raw.is_empty() {
            let message = "without a way to validate names, none can be".to_owned();
            let help = "leave challenges out, or name one: challenges = [\"http-01\"]";
            self.error_with_help(raw.span(), message, help);
            return default;
        }
        let mut kinds = Vec::with_capacity(raw.len());
        for word in raw.iter() {
            let kind = match **word {
                RawChallengeKind::Http01 => ChallengeKind::Http01,
                RawChallengeKind::TlsAlpn01 => ChallengeKind::TlsAlpn01,
                RawChallengeKind::Dns01 => ChallengeKind::Dns01,
                RawChallengeKind::DnsPersist01 => ChallengeKind::DnsPersist01,
            };
            if kinds.contains(&kind) {
                self.error(word.span(), format!("'{}' is listed twice", kind.as_str()));
            }
            kinds.push(kind);
        }
        kinds
    }

    fn reach(&mut self, raw: &At<RawReach>) -> ReachSpec {
        if raw.record.is_none() && raw.addresses.is_empty() {
            let message = "nothing says what leads to this gateway".to_owned();
            let help = "write record = \"gateway.example.edu\", or addresses = [\"192.0.2.1\"]";
            self.error_with_help(raw.span(), message, help);
        }
        let record = raw.record.as_ref();
        let record = record.and_then(|text| self.text(text, "name", domain));
        let addresses = raw.addresses.iter();
        let addresses = addresses
            .filter_map(|text| {
                self.text(text, "address", |text| {
                    text.parse::<IpAddr>().map_err(|_| "write an IP address")
                })
            })
            .collect();
        let resolvers = raw.resolvers.iter();
        let resolvers = resolvers
            .filter_map(|text| {
                self.text(text, "DNS server", |text| {
                    let error = "write an address and a port, as in 192.0.2.53:53";
                    text.parse::<SocketAddr>().map_err(|_| error)
                })
            })
            .collect();
        ReachSpec {
            record,
            addresses,
            resolvers,
        }
    }

    /// A certificate that is had from an issuer: one for each host, or one for all.
    pub(super) fn managed(&mut self, name: &str, issuer: &At<String>, raw: &RawCertificate) {
        let at = format!("certificates.{name}");
        self.place(format!("{at}.issuer"), issuer.span());
        let issuer = self.reference(Kind::Issuer, issuer, IssuerName::parse);
        let hosts = raw.hosts.as_ref();
        let Some(texts) = hosts.filter(|hosts| !hosts.is_empty()) else {
            let origin = match hosts {
                Some(hosts) => self.lines.origin(hosts.span()),
                None => self.reading.origins.find(&at),
            };
            let message = format!("the certificate '{name}' is for no host");
            let help = "name them: hosts = [\"shop.example.com\"]";
            self.reading
                .problems
                .push(Problem::error(origin, message).with_help(help));
            return;
        };
        let mut hosts = BTreeMap::new();
        for text in texts.iter() {
            let Some(host) = self.text(text, "host name", certifiable) else {
                continue;
            };
            let origin = self.lines.origin(text.span());
            if hosts.insert(host.clone(), origin.clone()).is_some() {
                let message = format!("the host '{host}' is listed twice");
                self.reading.problems.push(Problem::error(origin, message));
            }
        }
        let Some(name) = self.item_name(&at, name, CertificateName::parse) else {
            return;
        };
        let is_one = raw.as_one == Some(true) || hosts.len() == 1;
        if is_one && hosts.len() > MAX_HOSTS {
            let message = format!("one certificate is for {MAX_HOSTS} hosts at most");
            self.error(texts.span(), message);
        }
        let Some(issuer) = issuer else { return };
        let mut parts = Vec::new();
        if is_one {
            for (host, origin) in &hosts {
                self.reading
                    .origins
                    .insert(format!("{at}.hosts.{host}"), origin.clone());
            }
            parts.push((name.clone(), hosts.into_keys().collect::<Vec<_>>()));
        } else {
            for (host, origin) in hosts {
                // A name holds no asterisk.
                let part = format!("{name}/{}", host.to_string().replace('*', "_"));
                match CertificateName::parse(&part) {
                    Ok(part) => {
                        let at = format!("certificates.{part}");
                        self.reading.origins.insert(at, origin);
                        parts.push((part, vec![host]));
                    }
                    Err(error) => {
                        let message = format!("'{part}' is no name: {error}");
                        self.reading.problems.push(Problem::error(origin, message));
                    }
                }
            }
        }
        let names = parts.iter().map(|(name, _)| name.clone()).collect();
        self.reading.parts.insert(name, names);
        for (name, hosts) in parts {
            let issuer = issuer.clone();
            let spec = ManagedSpec { issuer, hosts };
            self.reading.config.managed.insert(name, spec);
        }
    }
}

impl Reading {
    /// What holds between certificates, issuers and listeners.
    pub(super) fn check_managed(&mut self) {
        self.name_parts();
        let mut wanted: BTreeMap<&[Hostname], &CertificateName> = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, managed) in &self.config.managed {
            let at = format!("certificates.{name}");
            if let Some(other) = wanted.insert(&managed.hosts, name) {
                let message =
                    format!("the certificates '{other}' and '{name}' are for the same hosts");
                problems.push(Problem::error(self.origins.find(&at), message));
            }
            let Some(issuer) = self.config.issuers.get(&managed.issuer) else {
                continue;
            };
            for host in &managed.hosts {
                let origin = self.origins.find(&format!("{at}.hosts.{host}"));
                if !issuer.allows(host) {
                    let message = format!(
                        "the issuer '{}' may not be asked for '{host}'",
                        managed.issuer
                    );
                    let help = format!("see allowed in [issuers.{}]", managed.issuer);
                    problems.push(Problem::error(origin, message).with_help(help));
                } else if matches!(host, Hostname::Wildcard(_))
                    && !issuer.challenges.contains(&ChallengeKind::Dns01)
                    && !issuer.challenges.contains(&ChallengeKind::DnsPersist01)
                {
                    let message = format!(
                        "'{host}' cannot be validated by {}",
                        issuer
                            .challenges
                            .iter()
                            .map(|kind| kind.as_str())
                            .collect::<Vec<_>>()
                            .join(" or ")
                    );
                    let help = "it is issued only if the authority has validated it by other means; else name the hosts one by one";
                    problems.push(Problem::warning(origin, message).with_help(help));
                }
            }
        }
        if let Some(name) = self.config.managed.keys().next()
            && self.config.runtime.state_dir.is_none()
            // With a cluster, it is kept in Secrets.
            && self.config.kubernetes.is_none()
        {
            let origin = self.origins.find(&format!("certificates.{name}"));
            let message = "there is nowhere to keep what an issuer delivers";
            let help = "set state-dir in [runtime] to a folder that outlives the process";
            problems.push(Problem::error(origin, message).with_help(help));
        }
        self.problems.extend(problems);
    }

    /// A host two labels below the name of a wildcard is not what its certificate is for, which is
    /// easily thought. What certificates in files and in a cluster are for is not known here.
    pub(super) fn check_depth(&mut self) {
        let is_all_known = self.config.certificates.is_empty()
            && self.config.kubernetes.is_none()
            && self
                .config
                .listeners
                .values()
                .any(|listener| listener.tls.is_some());
        if !is_all_known {
            return;
        }
        let (mut names, mut parents) = (HashSet::new(), HashSet::new());
        for host in self.config.managed.values().flat_map(|spec| &spec.hosts) {
            match host {
                Hostname::Exact(name) => names.insert(&**name),
                Hostname::Wildcard(parent) => parents.insert(&**parent),
            };
        }
        let mut problems = Vec::new();
        for (position, route) in self.config.routes.iter().enumerate() {
            for host in &route.hosts {
                let Hostname::Exact(name) = host else {
                    continue;
                };
                let mut above = std::iter::successors(parent_of(name), |at| parent_of(at));
                let is_covered =
                    names.contains(&**name) || above.next().is_some_and(|at| parents.contains(at));
                let wildcard = above.find(|at| !is_covered && parents.contains(at));
                let Some(wildcard) = wildcard else {
                    continue;
                };
                let origin = self
                    .origins
                    .find(&format!("routes.{position}.hosts.{host}"));
                let message = format!(
                    "no certificate is for '{host}': a wildcard stands for one label, so '*.{wildcard}' is not for it"
                );
                let help = "name it in the hosts of a certificate, or serve a name one label below";
                problems.push(Problem::warning(origin, message).with_help(help));
            }
        }
        self.problems.extend(problems);
    }

    /// A listener that serves a certificate of several hosts serves the one of each.
    fn name_parts(&mut self) {
        for listener in self.config.listeners.values_mut() {
            let Some(tls) = &mut listener.tls else {
                continue;
            };
            let expand = |name: CertificateName| match self.parts.get(&name) {
                Some(parts) => parts.clone(),
                None => vec![name],
            };
            tls.certificates = std::mem::take(&mut tls.certificates)
                .into_iter()
                .flat_map(expand)
                .collect();
            let default = tls.default_certificate.take();
            tls.default_certificate = default.and_then(|name| expand(name).into_iter().next());
        }
    }
}

fn parent_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// Public authorities certify names, not addresses, unless asked for by other means.
fn certifiable(text: &str) -> Result<Hostname, String> {
    let host = Hostname::parse(text).map_err(|error| error.to_string())?;
    let (Hostname::Exact(name) | Hostname::Wildcard(name)) = &host;
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return Err("certificates are got for names, not for addresses".to_owned());
    }
    if !name.contains('.') {
        return Err("an authority wants at least two labels, as in example.edu".to_owned());
    }
    Ok(host)
}

fn domain(text: &str) -> Result<Hostname, String> {
    match Hostname::parse(text) {
        Ok(host @ Hostname::Exact(_)) => Ok(host),
        Ok(Hostname::Wildcard(name)) => Err(format!("write {name}, which means all below it too")),
        Err(error) => Err(error.to_string()),
    }
}

fn word(text: &str) -> Result<String, &'static str> {
    let is_word =
        (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let text = is_word.then(|| text.to_owned());
    text.ok_or("it is empty, long, or holds a space or a control character")
}

fn contact_url(text: &str) -> Result<String, &'static str> {
    let address = text.strip_prefix("mailto:");
    let is_address = |address: &str| {
        address
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
            && !address.contains(['?', ','])
    };
    if !address.is_some_and(is_address) {
        return Err("write mailto: and one address, as in mailto:platform@example.edu");
    }
    word(text)
}
