//! Whether CAA records let a CA issue for a name (RFC 8659, and `validationmethods` of RFC 8657).
//!
//! Asked before an order is placed: a CA that has to refuse counts the refusal.

use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::CAA;

use super::client::Answer;
use super::client::DnsClient;
use super::name;
use super::wire::DnsError;

/// Names above a host where records are looked for. A longer name is not judged.
const MAX_STEPS: usize = 16;
/// CAs named in a message.
const MAX_SHOWN: usize = 8;

/// The records that forbid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Forbidden {
    /// Where they are.
    pub(super) owner: Name,
    /// Whom they allow, or that they allow nobody.
    pub(super) allows: String,
    pub(super) is_wild: bool,
}

/// The records that count for a host: those of the nearest name at it or above it that has any.
pub(super) async fn forbidden(
    client: &DnsClient,
    host: &str,
    identities: &[String],
    method: &str,
) -> Result<Option<Forbidden>, DnsError> {
    let is_wild = host.starts_with("*.");
    let mut owner = name::parse(host.strip_prefix("*.").unwrap_or(host))?;
    for _ in 0..MAX_STEPS {
        if owner.is_root() {
            break;
        }
        // Aliases are followed, and climbing goes on from the name and not from its target.
        let found = client.lookup(&owner, RecordType::CAA).await?;
        if let Answer::Records(records) = found.answer {
            let records: Vec<&CAA> = records
                .iter()
                .filter_map(|record| match &record.data {
                    RData::CAA(caa) => Some(caa),
                    _ => None,
                })
                .collect();
            let allows = refusal(&records, is_wild, identities, method);
            return Ok(allows.map(|allows| Forbidden {
                owner,
                allows,
                is_wild,
            }));
        }
        owner = owner.base_name();
    }
    Ok(None)
}

impl Forbidden {
    /// The record that would allow it.
    pub(super) fn record(&self, identities: &[String]) -> Option<String> {
        let tag = if self.is_wild { "issuewild" } else { "issue" };
        let (owner, identity) = (name::absolute(&self.owner), identities.first()?);
        Some(format!("{owner} 3600 IN CAA 0 {tag} \"{identity}\""))
    }
}

/// Whom the records allow instead; `None` if they allow one of the identities.
fn refusal(records: &[&CAA], is_wild: bool, identities: &[String], method: &str) -> Option<String> {
    let known = [
        "issue",
        "issuewild",
        "iodef",
        "contactemail",
        "contactphone",
        "issuemail",
    ];
    let is_known = |caa: &CAA| known.iter().any(|tag| caa.tag.eq_ignore_ascii_case(tag));
    if let Some(unknown) = records
        .iter()
        .find(|caa| caa.issuer_critical && !is_known(caa))
    {
        let tag: String = unknown.tag.escape_default().take(32).collect();
        return Some(format!("nobody who does not know the property {tag}"));
    }
    let tagged = |tag: &str| -> Vec<Issue> {
        let own = records
            .iter()
            .filter(|caa| caa.tag.eq_ignore_ascii_case(tag));
        own.map(|caa| Issue::parse(&caa.value)).collect()
    };
    let mut issues = tagged(if is_wild { "issuewild" } else { "issue" });
    if is_wild && issues.is_empty() {
        issues = tagged("issue");
    }
    let is_ours = |issue: &Issue| {
        identities
            .iter()
            .any(|identity| identity.eq_ignore_ascii_case(&issue.domain))
    };
    if issues.is_empty()
        || issues
            .iter()
            .any(|issue| is_ours(issue) && issue.allows_method(method))
    {
        return None;
    }
    if issues.iter().any(is_ours) {
        return Some("that CA by other challenges only".to_owned());
    }
    let named: Vec<String> = issues
        .iter()
        .filter(|issue| !issue.domain.is_empty())
        .take(MAX_SHOWN)
        .map(|issue| issue.domain.clone())
        .collect();
    Some(if named.is_empty() {
        "no CA".to_owned()
    } else {
        named.join(", ")
    })
}

/// The value of a property `issue` or `issuewild`.
struct Issue {
    /// Empty: nobody, which is also what malformed values mean.
    domain: String,
    methods: Option<String>,
}

impl Issue {
    fn parse(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let mut parts = text.split(';').map(str::trim);
        let domain = parts.next().unwrap_or_default();
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let is_domain = domain.len() <= 253 && domain.split('.').all(is_label);
        let methods = parts.find_map(|parameter| {
            let (tag, value) = parameter.split_once('=')?;
            let is_methods = tag.trim().eq_ignore_ascii_case("validationmethods");
            is_methods.then(|| value.trim().to_owned())
        });
        Self {
            domain: if is_domain {
                domain.to_ascii_lowercase()
            } else {
                String::new()
            },
            methods,
        }
    }

    fn allows_method(&self, method: &str) -> bool {
        let Some(methods) = &self.methods else {
            return true;
        };
        // An empty method is one that is not known yet.
        method.is_empty() || methods.split(',').any(|one| one.trim() == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use super::super::test_util::TestDns;

    fn caa(flags: u8, tag: &str, value: &str) -> CAA {
        let mut caa = CAA::new_issue(flags & 128 != 0, None, Vec::new());
        caa.tag = tag.to_owned();
        caa.value = value.as_bytes().to_vec();
        caa
    }

    #[test]
    fn records_allow_whom_they_name() {
        let ours = ["letsencrypt.org".to_owned()];
        let cases: [(&[CAA], bool, Option<&str>, &str); 14] = [
            (&[], false, None, "no records"),
            (&[caa(0, "issue", "letsencrypt.org")], false, None, "ours"),
            (
                &[caa(0, "issue", "incommon.org")],
                false,
                Some("incommon.org"),
                "another",
            ),
            (
                &[
                    caa(0, "issue", "incommon.org"),
                    caa(0, "ISSUE", " LetsEncrypt.org ; a=b"),
                ],
                false,
                None,
                "they add up; case and parameters do not matter",
            ),
            (&[caa(0, "issue", ";")], false, Some("no CA"), "nobody"),
            (
                &[caa(0, "issue", "%%%%")],
                false,
                Some("no CA"),
                "malformed is nobody",
            ),
            (
                &[caa(0, "iodef", "mailto:a@b")],
                false,
                None,
                "only where to complain",
            ),
            (
                &[caa(0, "issuewild", ";")],
                false,
                None,
                "not about this name",
            ),
            (
                &[caa(0, "issuewild", ";")],
                true,
                Some("no CA"),
                "about wildcards",
            ),
            (
                &[caa(0, "issue", "incommon.org")],
                true,
                Some("incommon.org"),
                "for all",
            ),
            (
                &[
                    caa(0, "issue", "letsencrypt.org"),
                    caa(0, "issuewild", "incommon.org"),
                ],
                true,
                Some("incommon.org"),
                "issuewild goes first for wildcards",
            ),
            (
                &[caa(128, "auth", "x"), caa(0, "issue", "letsencrypt.org")],
                false,
                Some("nobody who does not know the property auth"),
                "critical and unknown",
            ),
            (
                &[caa(0, "issue", "letsencrypt.org; validationmethods=dns-01")],
                false,
                Some("that CA by other challenges only"),
                "not by this challenge",
            ),
            (
                &[caa(
                    0,
                    "issue",
                    "letsencrypt.org; validationmethods=dns-01,http-01",
                )],
                false,
                None,
                "by this challenge too",
            ),
        ];
        for (records, is_wild, want, why) in cases {
            let records: Vec<&CAA> = records.iter().collect();
            let got = refusal(&records, is_wild, &ours, "http-01");
            assert_eq!(got.as_deref(), want, "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_reading_panic(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let issue = Issue::parse(&value);
            let _ = issue.allows_method("http-01");
        }
    }

    #[tokio::test]
    async fn the_nearest_records_count() {
        let dns = TestDns::start(
            "edu SOA
             vt.edu SOA
             vt.edu CAA 0 issue incommon.org
             app1.vt.edu A 192.0.2.1
             free.vt.edu CAA 0 issue letsencrypt.org
             deep.free.vt.edu A 192.0.2.1
             alias.vt.edu CNAME free.vt.edu",
        )
        .await;
        let ours = ["letsencrypt.org".to_owned()];
        let cases = [
            ("app1.vt.edu", Some("vt.edu")),
            ("*.app1.vt.edu", Some("vt.edu")),
            ("deep.free.vt.edu", None),
            ("alias.vt.edu", None),
            ("x.alias.vt.edu", None),
        ];
        for (host, want) in cases {
            let got = forbidden(&dns.client(), host, &ours, "http-01")
                .await
                .unwrap();
            let owner = got.as_ref().map(|forbidden| name::shown(&forbidden.owner));
            assert_eq!(owner.as_deref(), want, "{host}");
            if let Some(got) = got {
                let tag = if host.starts_with('*') {
                    "issuewild"
                } else {
                    "issue"
                };
                let want = format!("vt.edu. 3600 IN CAA 0 {tag} \"letsencrypt.org\"");
                assert_eq!(got.record(&ours), Some(want));
            }
        }
    }
}
