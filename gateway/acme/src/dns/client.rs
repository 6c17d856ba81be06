//! What the DNS says, asked where it is known.
//!
//! A question goes to the servers of the name's own zone, since what a resolver has in its cache
//! would tell of yesterday: a record that was added a minute ago has to be seen, and one that is
//! not there yet must not be remembered as missing by the resolver that everybody else here uses.
//! Resolvers find the zone and its servers, and answer where those cannot be reached.
//!
//! Aliases are followed one at a time, so that each can be shown, and each is believed only from
//! who is responsible for it.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;
use tokio::time::timeout;

use super::name;
use super::wire;
use super::wire::DnsError;

/// Where the resolvers of this machine are named.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Aliases followed from one name. CAs follow about as many.
pub const MAX_ALIASES: usize = 8;
/// Where DNS servers are found.
pub const DNS_PORT: u16 = 53;
/// Resolvers that are asked; those named after them are not.
const MAX_RESOLVERS: usize = 4;
/// Names above a name among which its zone is looked for.
const MAX_STEPS: usize = 16;
/// Name servers of a zone: as many as the root has.
const MAX_NAME_SERVERS: usize = 13;
/// Addresses of the servers of a zone.
const MAX_SERVERS: usize = 16;
/// Times that every server is asked.
const ROUNDS: usize = 2;
/// How long one server may take for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long all servers together may take for one answer.
const QUESTION_TIME: Duration = Duration::from_secs(10);
/// How long the servers of a zone are remembered.
const ZONE_AGE: Duration = Duration::from_secs(60);
/// Zones remembered; one more, and all are forgotten.
const MAX_ZONES: usize = 256;

/// Whom to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSpec {
    /// Empty: those that this machine uses, read again for each question.
    pub resolvers: Vec<SocketAddr>,
    /// Where the servers of zones listen.
    pub authority_port: u16,
}

impl Default for DnsSpec {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            authority_port: DNS_PORT,
        }
    }
}

/// Asks, and remembers for a minute who is to be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DnsClient {
    spec: Arc<DnsSpec>,
    zones: Arc<Mutex<HashMap<Name, (Instant, Arc<Zone>)>>>,
}

/// A zone and who answers for it.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) apex: Name,
    pub(super) servers: Vec<NameServer>,
}

#[derive(Clone, Debug)]
pub(super) struct NameServer {
    pub(super) name: Name,
    pub(super) addr: SocketAddr,
}

/// What is at one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Records of the type that was asked for; at least one.
    Records(Vec<Record>),
    /// The name stands for another.
    Alias(Name),
    /// The name exists, without records of the type.
    NoData,
    /// Neither the name nor anything below it exists.
    NoName,
}

/// What is at the end of a chain of aliases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lookup {
    /// The name that was asked for, and what it leads to.
    pub(super) chain: Vec<Name>,
    pub(super) answer: Answer,
}

/// The addresses of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Addresses {
    pub(super) chain: Vec<Name>,
    /// In the order of the DNS, without duplicates.
    pub(super) found: Vec<IpAddr>,
    /// Whether the last name of the chain exists.
    pub(super) exists: bool,
}

impl DnsClient {
    pub fn new(spec: DnsSpec) -> Self {
        Self {
            spec: Arc::new(spec),
            zones: Arc::default(),
        }
    }

    /// A and AAAA.
    pub(super) async fn addresses(&self, host: &Name) -> Result<Addresses, DnsError> {
        let (four, six) = futures_util::join!(
            self.lookup(host, RecordType::A),
            self.lookup(host, RecordType::AAAA)
        );
        // Servers that fail for AAAA alone are common, and CAs go on with what they have.
        let (first, second) = match (four, six) {
            (Ok(four), Ok(six)) => (four, Some(six)),
            (Ok(four), Err(_)) if matches!(four.answer, Answer::Records(_)) => (four, None),
            (Err(_), Ok(six)) if matches!(six.answer, Answer::Records(_)) => (six, None),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let exists = |lookup: &Lookup| lookup.answer != Answer::NoName;
        let mut found: Vec<IpAddr> = Vec::new();
        for addr in first
            .addresses()
            .chain(second.iter().flat_map(Lookup::addresses))
        {
            if !found.contains(&addr) {
                found.push(addr);
            }
        }
        Ok(Addresses {
            exists: exists(&first) || second.as_ref().is_some_and(exists),
            chain: first.chain,
            found,
        })
    }

    /// Follows aliases.
    pub(super) async fn lookup(&self, start: &Name, kind: RecordType) -> Result<Lookup, DnsError> {
        let mut chain = vec![start.clone()];
        let mut current = start.clone();
        loop {
            let answer = match self.at(&current, kind).await {
                // Servers that follow aliases in vain say no more than that they failed (BIND of an
                // alias of itself): the alias alone tells why.
                Err(error @ DnsError::Failed { .. }) => match self.alias(&current).await {
                    Ok(Some(next)) => Answer::Alias(next),
                    _ => return Err(error),
                },
                answer => answer?,
            };
            match answer {
                Answer::Alias(next) => {
                    extend(&mut chain, &next)?;
                    current = next;
                }
                answer => return Ok(Lookup { chain, answer }),
            }
        }
    }

    /// What a name stands for, if it is an alias.
    pub(super) async fn alias(&self, name: &Name) -> Result<Option<Name>, DnsError> {
        Ok(match self.at(name, RecordType::CNAME).await? {
            Answer::Alias(next) => Some(next),
            Answer::Records(_) | Answer::NoData | Answer::NoName => None,
        })
    }

    /// What is at a name itself.
    pub(super) async fn at(&self, name: &Name, kind: RecordType) -> Result<Answer, DnsError> {
        match self.at_authority(name, kind).await {
            Ok(answer) => Ok(answer),
            Err(error @ (DnsError::NoServers | DnsError::Name { .. })) => Err(error),
            Err(error) => {
                tracing::debug!(
                    %name,
                    error = &error as &dyn std::error::Error,
                    "the servers of a zone cannot be asked; asking a resolver"
                );
                let message = self.ask_resolvers(&wire::question(name, kind)).await?;
                Ok(answer_of(&message, name, kind))
            }
        }
    }

    async fn at_authority(&self, name: &Name, kind: RecordType) -> Result<Answer, DnsError> {
        let question = wire::question(name, kind);
        // The zone above first: to ask a resolver for a name that is not there yet would have it
        // remember that.
        let above = name::parent(name).unwrap_or_else(Name::root);
        let zone = self.zone_from(&above).await?;
        let message = self.ask_zone(&zone, &question).await?;
        if !is_referral(&message, &zone.apex, name) {
            return Ok(answer_of(&message, name, kind));
        }
        let zone = self.zone_from(name).await?;
        let message = self.ask_zone(&zone, &question).await?;
        Ok(answer_of(&message, name, kind))
    }

    /// The zone that holds a name, which may be its apex.
    pub(super) async fn zone_of(&self, name: &Name) -> Result<Arc<Zone>, DnsError> {
        let above = name::parent(name).unwrap_or_else(Name::root);
        let zone = self.zone_from(&above).await?;
        let question = wire::question(name, RecordType::SOA);
        let message = match self.ask_zone(&zone, &question).await {
            Ok(message) => message,
            Err(_) => self.ask_resolvers(&question).await?,
        };
        let is_apex = matches!(
            answer_of(&message, name, RecordType::SOA),
            Answer::Records(_)
        );
        if is_apex || is_referral(&message, &zone.apex, name) {
            return self.zone_from(name).await;
        }
        Ok(zone)
    }

    /// The lowest zone at a name or above it.
    async fn zone_from(&self, name: &Name) -> Result<Arc<Zone>, DnsError> {
        let mut apex = name.clone();
        for _ in 0..MAX_STEPS {
            if let Some(zone) = self.remembered(&apex) {
                return Ok(zone);
            }
            let question = wire::question(&apex, RecordType::SOA);
            let message = self.ask_resolvers(&question).await?;
            let answer = answer_of(&message, &apex, RecordType::SOA);
            if matches!(answer, Answer::Records(_)) {
                let servers = self.servers_of(&apex).await?;
                let zone = Arc::new(Zone { apex, servers });
                self.remember(&zone);
                return Ok(zone);
            }
            let Some(above) = name::parent(&apex) else {
                break;
            };
            apex = above;
        }
        Err(DnsError::NoZone {
            name: name::shown(name),
        })
    }

    async fn servers_of(&self, apex: &Name) -> Result<Vec<NameServer>, DnsError> {
        let message = self
            .ask_resolvers(&wire::question(apex, RecordType::NS))
            .await?;
        let names: Vec<Name> = match answer_of(&message, apex, RecordType::NS) {
            Answer::Records(records) => records.into_iter().filter_map(name_server).collect(),
            _ => Vec::new(),
        };
        let names = names.iter().take(MAX_NAME_SERVERS);
        let found = join_all(names.map(|name| self.addresses_of_server(name))).await;
        let mut seen = HashSet::new();
        let mut servers: Vec<NameServer> = found.into_iter().flatten().collect();
        servers.retain(|server| seen.insert(server.addr));
        // Many machines have no way to the other kind, and find that out slowly.
        servers.sort_by_key(|server| server.addr.is_ipv6());
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            let zone = name::shown(apex);
            return Err(DnsError::NoAuthorities { zone });
        }
        Ok(servers)
    }

    async fn addresses_of_server(&self, server: &Name) -> Vec<NameServer> {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let asked = self.ask_resolvers(&wire::question(server, kind)).await;
            // One of several servers: that it has no address says nothing of the others.
            let Ok(message) = asked else { continue };
            let records = message.answers.iter();
            found.extend(records.filter_map(address).map(|ip| NameServer {
                name: server.clone(),
                addr: SocketAddr::new(ip, self.spec.authority_port),
            }));
        }
        found
    }

    async fn ask_zone(&self, zone: &Zone, question: &Query) -> Result<Message, DnsError> {
        let addrs = zone.servers.iter().map(|server| server.addr);
        let accepts = |server, message: &Message| {
            let knows =
                message.metadata.authoritative || is_referral(message, &zone.apex, question.name());
            let name = || name::shown(question.name());
            knows.then_some(()).ok_or_else(|| DnsError::Lame {
                server,
                name: name(),
            })
        };
        first_of(addrs.collect(), question, false, accepts).await
    }

    async fn ask_resolvers(&self, question: &Query) -> Result<Message, DnsError> {
        let mut resolvers = if self.spec.resolvers.is_empty() {
            // A few lines of a local file, which may change while we run.
            let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
            resolvers_in(&text)
        } else {
            self.spec.resolvers.clone()
        };
        resolvers.truncate(MAX_RESOLVERS);
        first_of(resolvers, question, true, |_, _| Ok(())).await
    }

    fn remembered(&self, apex: &Name) -> Option<Arc<Zone>> {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, zone) = zones.get(apex)?;
        (since.elapsed() < ZONE_AGE).then(|| Arc::clone(zone))
    }

    fn remember(&self, zone: &Arc<Zone>) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if zones.len() >= MAX_ZONES {
            zones.clear();
        }
        zones.insert(zone.apex.clone(), (Instant::now(), Arc::clone(zone)));
    }
}

impl Lookup {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let records: &[Record] = match &self.answer {
            Answer::Records(records) => records,
            Answer::Alias(_) | Answer::NoData | Answer::NoName => &[],
        };
        records.iter().filter_map(address)
    }
}

/// Adds the next name to a chain, unless it is in it or the chain is long enough.
pub(super) fn extend(chain: &mut Vec<Name>, next: &Name) -> Result<(), DnsError> {
    let is_loop = chain.contains(next);
    chain.push(next.clone());
    let shown = |chain: &[Name]| chain.iter().map(name::shown).collect();
    if is_loop {
        return Err(DnsError::Loop {
            chain: shown(chain),
        });
    }
    if chain.len() > MAX_ALIASES + 1 {
        return Err(DnsError::TooManyAliases {
            chain: shown(chain),
        });
    }
    Ok(())
}

/// The strings of a TXT record, which are one text in pieces.
pub(super) fn text_of(record: &Record) -> Option<Vec<u8>> {
    match &record.data {
        RData::TXT(text) => Some(text.txt_data.concat()),
        _ => None,
    }
}

/// Asks one server after the other, twice, for an answer that says something.
async fn first_of(
    servers: Vec<SocketAddr>,
    question: &Query,
    recursion: bool,
    accepts: impl Fn(SocketAddr, &Message) -> Result<(), DnsError>,
) -> Result<Message, DnsError> {
    let Some(first) = servers.first().copied() else {
        return Err(DnsError::NoServers);
    };
    let asking = async {
        let mut last = DnsError::Timeout { server: first };
        for _ in 0..ROUNDS {
            for server in &servers {
                match wire::ask(*server, question, recursion, ANSWER_TIME).await {
                    Ok(message) => match judge(*server, question, &message) {
                        Ok(()) => match accepts(*server, &message) {
                            Ok(()) => return Ok(message),
                            Err(error) => last = error,
                        },
                        Err(error) => last = error,
                    },
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    };
    timeout(QUESTION_TIME, asking)
        .await
        .unwrap_or(Err(DnsError::Timeout { server: first }))
}

/// An answer says something if the name is there or is not.
fn judge(server: SocketAddr, question: &Query, message: &Message) -> Result<(), DnsError> {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(()),
        code => Err(wire::failed(server, question.name(), code)),
    }
}

/// What a message says of one name; what it says of others is for others to say.
fn answer_of(message: &Message, name: &Name, kind: RecordType) -> Answer {
    let own = || message.answers.iter().filter(|record| record.name == *name);
    let records: Vec<Record> = own()
        .filter(|record| record.record_type() == kind && kind != RecordType::CNAME)
        .cloned()
        .collect();
    if !records.is_empty() {
        return Answer::Records(records);
    }
    let alias = own().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.to_lowercase()),
        _ => None,
    });
    match alias {
        Some(target) => Answer::Alias(target),
        None if message.metadata.response_code == ResponseCode::NXDomain => Answer::NoName,
        None => Answer::NoData,
    }
}

/// Whether a server points to those of a zone below its own.
fn is_referral(message: &Message, apex: &Name, name: &Name) -> bool {
    let is_below = |record: &Record| {
        record.record_type() == RecordType::NS
            && record.name != *apex
            && apex.zone_of(&record.name)
            && record.name.zone_of(name)
    };
    !message.metadata.authoritative
        && message.answers.is_empty()
        && message.authorities.iter().any(is_below)
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(addr) => Some(addr.0.into()),
        RData::AAAA(addr) => Some(addr.0.into()),
        _ => None,
    }
}

fn name_server(record: Record) -> Option<Name> {
    match record.data {
        RData::NS(target) => Some(target.0.to_lowercase()),
        _ => None,
    }
}

/// The resolvers of a resolv.conf(5).
fn resolvers_in(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // An interface after '%' matters for link-local addresses only, which are passed over.
        words.next()?.parse::<IpAddr>().ok()
    });
    addresses
        .take(MAX_RESOLVERS)
        .map(|addr| SocketAddr::new(addr, DNS_PORT))
        .collect()
}

#[cfg(test)]
mod tests;
