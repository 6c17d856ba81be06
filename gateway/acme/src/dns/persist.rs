//! dns-persist-01 (draft-ietf-acme-dns-persist): one record that stays, by which the owner of a zone
//! lets an account have certificates for a name.
//!
//! Nothing is written here. The record is asked for, in the words of a zone file, and looked for
//! before an order is placed, since a hostmaster takes days and an authority counts failures. So the
//! authority's name is taken from its directory; the list in a challenge comes with an order.

use hickory_proto::rr::RecordType;

use super::client::Answer;
use super::client::DnsClient;
use super::client::text_of;
use super::name;
use super::place::lives_by_wildcard;
use super::place::reason_of;
use super::preflight::Verdict;
use super::wire::DnsError;
use crate::clock::DAY;
use crate::clock::Seconds;
use crate::clock::shown;
use crate::protocol::one_line;
use crate::reason::Reason;

const LABEL: &str = "_validation-persist";
/// Longest string in a TXT record (RFC 1035, 3.3.14).
const MAX_STRING: usize = 255;
/// A record that ends sooner is told of.
const NOTICE: Seconds = 30 * DAY;
/// Foreign records of one name that are told of.
const MAX_SHOWN: usize = 4;

/// What a record has to say.
pub(crate) struct Wanted<'a> {
    /// The names by which the authority may be called, as in CAA records. Not empty.
    pub(crate) identities: &'a [String],
    /// The URL of the account.
    pub(crate) account: &'a str,
    /// Whether a wildcard is wanted too.
    pub(crate) is_wild: bool,
    pub(crate) now: Seconds,
}

/// Looks for the record of a host, which is no wildcard.
pub(crate) async fn look(client: &DnsClient, host: &str, wanted: &Wanted<'_>) -> Verdict {
    match examine(client, host, wanted).await {
        Ok(verdict) => verdict,
        Err(error) => Verdict::waits(reason_of(&error), error.to_string()),
    }
}

async fn examine(client: &DnsClient, host: &str, wanted: &Wanted<'_>) -> Result<Verdict, DnsError> {
    let place = name::parse(&format!("{LABEL}.{host}"))?;
    let found = client.lookup(&place, RecordType::TXT).await?;
    let values: Vec<String> = match &found.answer {
        Answer::Records(records) => {
            let texts = records.iter().filter_map(text_of);
            texts
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .collect()
        }
        Answer::Alias(_) | Answer::NoData | Answer::NoName => Vec::new(),
    };
    let seen = match wanted.judge(&values) {
        Ok(until) => {
            if let Some(until) = until.filter(|until| *until < wanted.now + NOTICE) {
                let until = shown(until);
                tracing::warn!(host, until, "the record for dns-persist-01 ends soon");
            }
            let message = format!("OK by DNS: {}", name::shown(&place));
            return Ok(Verdict::Ready { message });
        }
        Err(seen) => seen,
    };
    let host_name = name::parse(host)?;
    if values.is_empty() && lives_by_wildcard(client, &host_name).await? {
        let above = name::shown(&host_name.base_name());
        let message = format!(
            "{host} is there only by the wildcard record *.{above}: a record at {LABEL}.{host} would \
             take it off the air; use a certificate for *.{above}, or another challenge"
        );
        return Ok(Verdict::waits(Reason::PolicyDenied, message));
    }
    let seen = format!("{LABEL}.{host}: {seen}");
    let record = Some(wanted.record(host));
    Ok(Verdict::wanting(Reason::DnsNotFound, seen, record))
}

impl Wanted<'_> {
    /// Until when one of the records is good, if it says; or why none is.
    fn judge(&self, values: &[String]) -> Result<Option<Seconds>, String> {
        let mut faults = Vec::new();
        for value in values {
            match self.judge_one(value) {
                Ok(until) => return Ok(until),
                Err(None) => {}
                Err(Some(fault)) => faults.push(fault),
            }
        }
        faults.truncate(MAX_SHOWN);
        match faults.as_slice() {
            [] => Err("no record is for this authority".to_owned()),
            faults => Err(faults.join("; ")),
        }
    }

    /// `Err(None)`: it is for another authority.
    fn judge_one(&self, value: &str) -> Result<Option<Seconds>, Option<String>> {
        let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
        let issuer = parts.next().unwrap_or_default();
        let is_ours = |known: &String| known.eq_ignore_ascii_case(issuer);
        if !self.identities.iter().any(is_ours) {
            return Err(None);
        }
        let (mut account, mut is_wild, mut until) = (None, false, None);
        for part in parts {
            let malformed = || Some(format!("'{}' is malformed", one_line(part)));
            let (tag, value) = part.split_once('=').ok_or_else(malformed)?;
            let (tag, value) = (tag.trim_end(), value.trim_start());
            match tag.to_ascii_lowercase().as_str() {
                "accounturi" => account = Some(value),
                "policy" => is_wild = value.eq_ignore_ascii_case("wildcard"),
                "persistuntil" => until = Some(value.parse().map_err(|_| malformed())?),
                _ => {}
            }
        }
        match account {
            Some(account) if account == self.account => {}
            Some(other) => {
                return Err(Some(format!(
                    "a record is for the account {}",
                    one_line(other)
                )));
            }
            None => return Err(Some("a record names no account".to_owned())),
        }
        if self.is_wild && !is_wild {
            return Err(Some("the record lacks policy=wildcard".to_owned()));
        }
        match until {
            Some(until) if until <= self.now => {
                Err(Some(format!("the record has ended at {}", shown(until))))
            }
            until => Ok(until),
        }
    }

    /// The line that the zone needs.
    fn record(&self, host: &str) -> String {
        let identity = self.identities.first().map_or("", String::as_str);
        let policy = if self.is_wild {
            "; policy=wildcard"
        } else {
            ""
        };
        let value = format!("{identity}; accounturi={}{policy}", self.account);
        let bytes = value.as_bytes().chunks(MAX_STRING);
        let strings: Vec<String> = bytes
            .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
            .collect();
        format!("{LABEL}.{host}. 3600 IN TXT {}", strings.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::test_util::TestDns;

    const ACCOUNT: &str = "https://ca.test/acct/1";

    fn wanted(identities: &[String], is_wild: bool) -> Wanted<'_> {
        Wanted {
            identities,
            account: ACCOUNT,
            is_wild,
            now: 1_000_000,
        }
    }

    #[test]
    fn a_record_is_good_for_one_account_and_what_it_says() {
        let identities = ["ca.test".to_owned(), "ca.example".to_owned()];
        let other = "ca.test; accounturi=https://ca.test/acct/2";
        let cases: [(&[&str], bool, Result<Option<Seconds>, &str>, &str); 14] = [
            (&[], false, Err("no record is for this authority"), "none"),
            (
                &["other.test; accounturi=https://ca.test/acct/1"],
                false,
                Err("no record is for this authority"),
                "another authority",
            ),
            (
                &["ca.test; accounturi=https://ca.test/acct/1"],
                false,
                Ok(None),
                "plain",
            ),
            (
                &["CA.example;accountURI=https://ca.test/acct/1"],
                false,
                Ok(None),
                "case",
            ),
            (
                &[other],
                false,
                Err("account https://ca.test/acct/2"),
                "another account",
            ),
            (
                &[other, "ca.test; accounturi=https://ca.test/acct/1"],
                false,
                Ok(None),
                "one of two",
            ),
            (&["ca.test"], false, Err("names no account"), "no account"),
            (
                &["ca.test;"],
                false,
                Err("'' is malformed"),
                "an empty parameter",
            ),
            (&["ca.test; x"], false, Err("'x' is malformed"), "no value"),
            (
                &["ca.test; accounturi=https://ca.test/acct/1"],
                true,
                Err("lacks policy=wildcard"),
                "a wildcard without the policy",
            ),
            (
                &["ca.test; accounturi=https://ca.test/acct/1; policy=WildCard; new=1"],
                true,
                Ok(None),
                "a wildcard with it",
            ),
            (
                &["ca.test; accounturi=https://ca.test/acct/1; persistUntil=1000001"],
                false,
                Ok(Some(1_000_001)),
                "until later",
            ),
            (
                &["ca.test; accounturi=https://ca.test/acct/1; persistUntil=1000000"],
                false,
                Err("has ended at 1970-01-12"),
                "until now",
            ),
            (
                &["ca.test; accounturi=https://ca.test/acct/1; persistUntil=soon"],
                false,
                Err("'persistUntil=soon' is malformed"),
                "until nobody knows",
            ),
        ];
        for (values, is_wild, want, why) in cases {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let got = wanted(&identities, is_wild).judge(&values);
            match want {
                Ok(until) => assert_eq!(got, Ok(until), "{why}"),
                Err(part) => {
                    let seen = got.unwrap_err();
                    assert!(seen.contains(part), "{why}: {seen}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_record_is_looked_for_and_never_asked_for_where_it_would_do_harm() {
        let zones = "
            edu SOA
            vt.edu SOA
            app1.vt.edu A 192.0.2.9
            app2.vt.edu A 192.0.2.9
            _validation-persist.app2.vt.edu TXT ca.test; accounturi=https://ca.test/acct/1
            _validation-persist.app3.vt.edu CNAME app3.acme.vt.edu
            app3.acme.vt.edu TXT ca.test; accounturi=https://ca.test/acct/1
            *.k8s.vt.edu A 192.0.2.1";
        let dns = TestDns::start(zones).await;
        let identities = ["ca.test".to_owned()];
        let cases = [
            (
                "app1.vt.edu",
                false,
                Some(Reason::DnsNotFound),
                true,
                "no record",
            ),
            ("app2.vt.edu", false, None, false, "a record"),
            (
                "app2.vt.edu",
                true,
                Some(Reason::DnsNotFound),
                true,
                "no policy",
            ),
            ("app3.vt.edu", false, None, false, "an alias"),
            (
                "foo.k8s.vt.edu",
                false,
                Some(Reason::PolicyDenied),
                false,
                "a wildcard's",
            ),
        ];
        for (host, is_wild, want, is_asked_for, why) in cases {
            let verdict = look(&dns.client(), host, &wanted(&identities, is_wild)).await;
            let (reason, record) = match &verdict {
                Verdict::Ready { .. } => (None, None),
                Verdict::Waits { reason, record, .. } => (Some(*reason), record.as_ref()),
            };
            assert_eq!(reason, want, "{why}: {verdict:?}");
            assert_eq!(record.is_some(), is_asked_for, "{why}: {verdict:?}");
        }
    }

    #[test]
    fn the_record_that_is_asked_for_is_a_good_one() {
        let identities = ["ca.test".to_owned()];
        let wanted = wanted(&identities, true);
        let line = wanted.record("a.test");
        let value = "ca.test; accounturi=https://ca.test/acct/1; policy=wildcard";
        assert_eq!(
            line,
            format!("_validation-persist.a.test. 3600 IN TXT \"{value}\"")
        );
        assert_eq!(wanted.judge(&[value.to_owned()]), Ok(None));
        // Longer than a string may be.
        let account = format!("https://ca.test/{}", "x".repeat(300));
        let long = Wanted {
            account: &account,
            ..wanted
        };
        let line = long.record("a.test");
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.len(), 2);
        assert!(strings.iter().all(|string| string.len() <= MAX_STRING));
        assert_eq!(long.judge(&[strings.concat()]), Ok(None));
    }
}
