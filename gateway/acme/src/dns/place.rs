//! Where the proof of a name belongs: at the end of the aliases of its `_acme-challenge`.
//!
//! Two traps, both of wildcard records:
//! - `*.k8s-1 CNAME k8s-1` answers for `_acme-challenge.k8s-1` too, and is no delegation: to follow
//!   it would write the record at `k8s-1`. What a name beside it answers as well is not followed.
//! - A record at `_acme-challenge.foo.k8s-1` makes `foo.k8s-1` exist, so that the wildcard answers
//!   no longer for it: the name would be off the air. Nothing is written there.

use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;

use super::SolverError;
use super::client;
use super::client::Answer;
use super::client::DnsClient;
use super::client::Zone;
use super::name;
use super::wire::DnsError;
use crate::reason::Reason;

/// Where one TXT record goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// What a CA looks for, and what that is an alias of; the last is where the record goes.
    chain: Vec<Name>,
    zone: Name,
}

impl Place {
    /// Follows the aliases of a challenge's name.
    pub(super) async fn find(client: &DnsClient, start: &Name) -> Result<Self, DnsError> {
        let mut chain = vec![start.clone()];
        let mut current = start.clone();
        while let Some(next) = client.alias(&current).await? {
            if is_wildcard(client, &current, &next).await? {
                break;
            }
            client::extend(&mut chain, &next)?;
            current = next;
        }
        let zone = client.zone_of(&current).await?.apex.clone();
        Ok(Self { chain, zone })
    }

    /// Fully qualified, without the last dot.
    #[must_use]
    pub fn name(&self) -> String {
        name::shown(self.target())
    }

    /// The apex of the zone that holds it, without the last dot.
    #[must_use]
    pub fn zone(&self) -> String {
        name::shown(&self.zone)
    }

    /// The name that is proved; that of a wildcard without its asterisk.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.chain.first().and_then(name::proved);
        host.map(|host| name::shown(&host)).unwrap_or_default()
    }

    pub(super) fn target(&self) -> &Name {
        // A chain begins with the name that was asked for.
        self.chain.last().unwrap_or(&self.zone)
    }

    pub(super) fn apex(&self) -> &Name {
        &self.zone
    }

    pub(super) fn is_delegated(&self) -> bool {
        self.chain.len() > 1
    }

    /// `a -> b`, or the name alone.
    pub(super) fn path(&self) -> String {
        let names: Vec<String> = self.chain.iter().map(name::shown).collect();
        names.join(" -> ")
    }

    /// Refuses a place where a record would take its host off the air.
    pub(super) async fn check(&self, client: &DnsClient) -> Result<(), SolverError> {
        let host = self.chain.first().and_then(name::proved);
        let Some(host) = host
            .filter(|host| !self.is_delegated() && self.zone != *host && self.zone.zone_of(host))
        else {
            return Ok(());
        };
        if !lives_by_wildcard(client, &host).await? {
            return Ok(());
        }
        let (shown, above) = (name::shown(&host), name::shown(&host.base_name()));
        Err(SolverError {
            reason: Reason::PolicyDenied,
            message: format!(
                "{shown} is there only by the wildcard record *.{above}: a record at {} would take \
                 it off the air; use a certificate for *.{above}, or another challenge",
                self.name()
            ),
        })
    }
}

/// Whether an alias is that of a wildcard, which a name that nobody declared has as well.
async fn is_wildcard(client: &DnsClient, name: &Name, target: &Name) -> Result<bool, DnsError> {
    let Some(stranger) = name::stranger(name) else {
        return Ok(false);
    };
    Ok(client.alias(&stranger).await?.as_ref() == Some(target))
}

/// Whether a host exists only as what a wildcard above it stands for. A wildcard stands for names
/// of any depth, but not for those below a name that exists (RFC 4592, 2.2.1): what is below a host
/// tells it from one that was declared with the same records.
pub(super) async fn lives_by_wildcard(client: &DnsClient, host: &Name) -> Result<bool, DnsError> {
    let Some(beside) = name::stranger(host) else {
        return Ok(false);
    };
    let Some(below) = host
        .prepend_label("x")
        .ok()
        .and_then(|child| name::stranger(&child))
    else {
        return Ok(false);
    };
    for kind in [RecordType::CNAME, RecordType::A, RecordType::AAAA] {
        let at = |name| async move { client.at(name, kind).await.map(|answer| gist(&answer)) };
        let own = at(host).await?;
        if !own.is_empty() && own == at(&beside).await? && own == at(&below).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What an answer says, whoever owns it and in whatever order.
fn gist(answer: &Answer) -> Vec<String> {
    let mut gist: Vec<String> = match answer {
        Answer::Alias(target) => vec![name::shown(target)],
        Answer::Records(records) => records
            .iter()
            .map(|record| record.data.to_string())
            .collect(),
        Answer::NoData | Answer::NoName => Vec::new(),
    };
    gist.sort();
    gist
}

impl From<DnsError> for SolverError {
    fn from(error: DnsError) -> Self {
        Self {
            reason: reason_of(&error),
            message: error.to_string(),
        }
    }
}

/// What a failure to ask means for who waits for a certificate.
pub(super) fn reason_of(error: &DnsError) -> Reason {
    match error {
        DnsError::Loop { .. } | DnsError::TooManyAliases { .. } => Reason::DnsLoop,
        DnsError::Name { .. } => Reason::PolicyDenied,
        DnsError::NoZone { .. } => Reason::DnsNotFound,
        DnsError::NoServers
        | DnsError::Timeout { .. }
        | DnsError::Unreachable { .. }
        | DnsError::Failed { .. }
        | DnsError::Malformed { .. }
        | DnsError::Lame { .. }
        | DnsError::NoAuthorities { .. } => Reason::DnsUnreachable,
    }
}

/// The servers of the zone of a place.
pub(super) async fn zone(
    client: &DnsClient,
    place: &Place,
) -> Result<std::sync::Arc<Zone>, DnsError> {
    client.zone_of(place.target()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::test_util::TestDns;

    const ZONES: &str = "
        edu SOA
        vt.edu SOA
        _acme-challenge.app1.vt.edu CNAME app1.acme.vt.edu
        _acme-challenge.loop.vt.edu CNAME _acme-challenge.loop.vt.edu
        app2.vt.edu A 192.0.2.9
        acme.vt.edu SOA
        aws.vt.edu SOA
        k8s-1.aws.vt.edu A 192.0.2.1
        *.k8s-1.aws.vt.edu CNAME k8s-1.aws.vt.edu
        own.k8s-1.aws.vt.edu CNAME k8s-1.aws.vt.edu
        *.flat.vt.edu A 192.0.2.2
        same.flat.vt.edu A 192.0.2.2";

    async fn find(dns: &TestDns, host: &str) -> Result<Place, DnsError> {
        Place::find(&dns.client(), &name::challenge(host).unwrap()).await
    }

    #[tokio::test]
    async fn a_record_goes_where_the_aliases_end() {
        let dns = TestDns::start(ZONES).await;
        let cases = [
            (
                "app1.vt.edu",
                "app1.acme.vt.edu",
                "acme.vt.edu",
                "delegated",
            ),
            (
                "app2.vt.edu",
                "_acme-challenge.app2.vt.edu",
                "vt.edu",
                "not delegated",
            ),
            (
                "k8s-1.aws.vt.edu",
                "_acme-challenge.k8s-1.aws.vt.edu",
                "aws.vt.edu",
                "the alias is the wildcard's",
            ),
        ];
        for (host, name, zone, why) in cases {
            let place = find(&dns, host).await.unwrap();
            assert_eq!((&*place.name(), &*place.zone()), (name, zone), "{why}");
            assert_eq!(place.host(), host);
            place.check(&dns.client()).await.unwrap();
        }
        let error = find(&dns, "loop.vt.edu").await.unwrap_err();
        assert!(matches!(error, DnsError::Loop { .. }), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_written_below_a_name_that_lives_by_a_wildcard() {
        let dns = TestDns::start(ZONES).await;
        let cases = [
            ("foo.k8s-1.aws.vt.edu", false, "an alias by wildcard"),
            ("foo.flat.vt.edu", false, "an address by wildcard"),
            (
                "own.k8s-1.aws.vt.edu",
                true,
                "declared with the wildcard's alias",
            ),
            (
                "same.flat.vt.edu",
                true,
                "declared with the wildcard's address",
            ),
            ("k8s-1.aws.vt.edu", true, "what the wildcard is below of"),
            ("app2.vt.edu", true, "no wildcard"),
            ("nothing.vt.edu", true, "no wildcard, and no name"),
        ];
        for (host, want, why) in cases {
            let place = find(&dns, host).await.unwrap();
            let checked = place.check(&dns.client()).await;
            assert_eq!(checked.is_ok(), want, "{host}: {why}: {checked:?}");
        }
        let place = find(&dns, "foo.k8s-1.aws.vt.edu").await.unwrap();
        let error = place.check(&dns.client()).await.unwrap_err();
        assert_eq!(error.reason, Reason::PolicyDenied);
        let certificate = "use a certificate for *.k8s-1.aws.vt.edu";
        assert!(error.message.contains(certificate), "{error}");
    }
}
