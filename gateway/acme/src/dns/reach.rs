//! Whether a name leads to this gateway, and if not, what the hostmaster has to add.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::client::Addresses;
use super::client::DnsClient;
use super::name;
use super::place::reason_of;
use super::preflight::Verdict;
use super::wire::DnsError;
use crate::reason::Reason;

/// Times that both names are asked for, where servers answer with a part of a pool.
const ROUNDS: usize = 3;
/// Addresses named in a message, and records proposed.
const MAX_SHOWN: usize = 8;

/// How a name can lead here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// The name of the gateway, which others are aliases of.
    pub cluster: Option<String>,
    /// Addresses of the gateway beside those of its name, such as those of a machine without one.
    pub addresses: Vec<IpAddr>,
    /// Orders also where some addresses of a name are not the gateway's.
    pub allow_mixed: bool,
}

impl Reach {
    /// Asks for both names afresh: addresses of load balancers change.
    pub(super) async fn check(&self, client: &DnsClient, host: &str) -> Verdict {
        if host.starts_with("*.") {
            let message = format!("{host} is a wildcard, which only DNS-01 can prove");
            return Verdict::waits(Reason::PolicyDenied, message);
        }
        match self.examine(client, host).await {
            Ok(verdict) => verdict,
            Err(error) => Verdict::waits(reason_of(&error), error.to_string()),
        }
    }

    async fn examine(&self, client: &DnsClient, host: &str) -> Result<Verdict, DnsError> {
        let host = name::parse(host)?;
        let cluster = self.cluster.as_deref().map(name::parse).transpose()?;
        let first = client.addresses(&host).await?;
        if let Some(cluster) = cluster.as_ref().filter(|name| first.chain.contains(name)) {
            return Ok(via_alias(&first, cluster));
        }
        if !first.exists || first.found.is_empty() {
            let ours = self
                .here(client, cluster.as_ref())
                .await
                .unwrap_or_default();
            let what = if first.exists {
                "which has no address"
            } else {
                "which does not exist"
            };
            let seen = match first.chain.as_slice() {
                [_] => what.replacen("which", &name::shown(&host), 1),
                _ => format!("{}, {what}", path(&first.chain)),
            };
            let record = record(client, &host, cluster.as_ref(), &ours).await;
            return Ok(Verdict::wanting(Reason::DnsNotFound, seen, record));
        }
        if cluster.is_none() && self.addresses.is_empty() {
            let found = set(&first.found.into_iter().collect());
            let message = format!(
                "OK: {} = {found}; whether that is this gateway is not configured",
                path(&first.chain)
            );
            return Ok(Verdict::Ready { message });
        }
        self.compare(client, &host, cluster.as_ref(), first).await
    }

    /// The addresses of the gateway now.
    async fn here(
        &self,
        client: &DnsClient,
        cluster: Option<&Name>,
    ) -> Result<BTreeSet<IpAddr>, DnsError> {
        let mut here: BTreeSet<IpAddr> = self.addresses.iter().copied().collect();
        if let Some(cluster) = cluster {
            here.extend(client.addresses(cluster).await?.found);
        }
        Ok(here)
    }

    async fn compare(
        &self,
        client: &DnsClient,
        host: &Name,
        cluster: Option<&Name>,
        first: Addresses,
    ) -> Result<Verdict, DnsError> {
        let ours = |cluster: Option<&Name>| match cluster {
            Some(cluster) => name::shown(cluster),
            None => "this gateway".to_owned(),
        };
        let (mut there, mut here) = (BTreeSet::new(), BTreeSet::new());
        let mut answers = Vec::new();
        for round in 0..ROUNDS {
            let found = if round == 0 {
                first.found.clone()
            } else {
                client.addresses(host).await?.found
            };
            let own = self.here(client, cluster).await?;
            there.extend(found.iter().copied());
            here.extend(own.iter().copied());
            answers.push((found.into_iter().collect::<BTreeSet<_>>(), own));
            if here.is_empty() {
                let message = format!(
                    "{}, the name of this gateway, has no address",
                    ours(cluster)
                );
                return Ok(Verdict::waits(Reason::DnsNotFound, message));
            }
            if there.is_subset(&here) {
                let mut message = format!("OK by address {}", list(&there));
                if let Some(cluster) = cluster {
                    message += &format!("; a CNAME to {} is preferred", name::shown(cluster));
                }
                return Ok(Verdict::Ready { message });
            }
        }

        let strays: BTreeSet<IpAddr> = there.difference(&here).copied().collect();
        let what = format!("{} = {}", path(&first.chain), set(&there));
        if strays.len() == there.len() {
            let message = format!("{what}, but {} is {}", ours(cluster), set(&here));
            let record = record(client, host, cluster, &here).await;
            return Ok(Verdict::wanting(Reason::DnsElsewhere, message, record));
        }
        // A pool of which each answer shows a part: the strays are more of it.
        let varies = answers.iter().any(|answer| *answer != answers[0]);
        let has_match = |family: fn(&IpAddr) -> bool| {
            let mut members = there.iter().filter(|ip| family(ip)).peekable();
            members.peek().is_none() || members.any(|ip| here.contains(ip))
        };
        if varies && has_match(IpAddr::is_ipv4) && has_match(IpAddr::is_ipv6) {
            let message = format!(
                "OK by address: {what} shares addresses with {}",
                ours(cluster)
            );
            return Ok(Verdict::Ready { message });
        }
        let message = format!(
            "{what}, of which {} not {}; the CA may pick {}",
            is_or_are(&strays),
            ours(cluster),
            if strays.len() == 1 {
                "it"
            } else {
                "one of them"
            },
        );
        if self.allow_mixed {
            let message = format!("OK by address, with a risk: {message}");
            return Ok(Verdict::Ready { message });
        }
        let record = record(client, host, cluster, &here).await;
        Ok(Verdict::wanting(Reason::DnsMixed, message, record))
    }
}

fn via_alias(found: &Addresses, cluster: &Name) -> Verdict {
    if found.found.is_empty() {
        let message = format!(
            "{}, but {}, the name of this gateway, has no address",
            path(&found.chain),
            name::shown(cluster)
        );
        return Verdict::waits(Reason::DnsNotFound, message);
    }
    // What the gateway's own name is an alias of is its own affair.
    let end = found.chain.iter().position(|name| name == cluster);
    let chain = found.chain.get(..=end.unwrap_or(0)).unwrap_or_default();
    let host = found.chain.first();
    let mut message = match chain {
        [_] => format!("OK: {} is the name of this gateway", name::shown(cluster)),
        _ => format!("OK via CNAME: {}", path(chain)),
    };
    if host.is_some_and(|host| name::parent(host).as_ref() == Some(cluster)) {
        let cluster = name::shown(cluster);
        message += &format!("; a certificate for *.{cluster} would do as well");
    }
    Verdict::Ready { message }
}

/// What to add to the zone, as its file has it.
async fn record(
    client: &DnsClient,
    host: &Name,
    cluster: Option<&Name>,
    here: &BTreeSet<IpAddr>,
) -> Option<String> {
    let owner = name::absolute(host);
    let zone = client.zone_of(host).await;
    // No alias may stand where a zone begins (RFC 1034, 3.6.2).
    let is_apex = zone.is_ok_and(|zone| zone.apex == *host);
    if let Some(cluster) = cluster.filter(|_| !is_apex) {
        return Some(format!("{owner} 3600 IN CNAME {}", name::absolute(cluster)));
    }
    let lines: Vec<String> = here
        .iter()
        .take(MAX_SHOWN)
        .map(|ip| {
            let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
            format!("{owner} 3600 IN {kind} {ip}")
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn path(chain: &[Name]) -> String {
    let names: Vec<String> = chain.iter().map(name::shown).collect();
    names.join(" -> ")
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let shown: Vec<String> = addresses
        .iter()
        .take(MAX_SHOWN)
        .map(IpAddr::to_string)
        .collect();
    let rest = addresses.len().saturating_sub(MAX_SHOWN);
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}

fn set(addresses: &BTreeSet<IpAddr>) -> String {
    format!("{{{}}}", list(addresses))
}

fn is_or_are(addresses: &BTreeSet<IpAddr>) -> String {
    let verb = if addresses.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", list(addresses))
}
