//! What authorities send (RFC 8555, RFC 9773), as far as it is looked at.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Longest text of an authority that is kept and shown.
const MAX_DETAIL: usize = 1000;
const ERROR: &str = "urn:ietf:params:acme:error:";

/// Where things are at an authority (RFC 8555, 7.1.1).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directory {
    pub(crate) new_nonce: String,
    pub(crate) new_account: String,
    pub(crate) new_order: String,
    #[serde(default)]
    pub(crate) renewal_info: Option<String>,
    #[serde(default)]
    pub(crate) meta: Meta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) external_account_required: bool,
    pub(crate) profiles: BTreeMap<String, serde_json::Value>,
}

/// RFC 8555, 7.1.3.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) authorizations: Vec<String>,
    pub(crate) finalize: String,
    #[serde(default)]
    pub(crate) certificate: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<Problem>,
    #[serde(default)]
    pub(crate) profile: Option<String>,
}

/// Of orders, authorizations and challenges.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
    #[serde(other)]
    Unknown,
}

/// RFC 8555, 7.1.4.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Authorization {
    pub(crate) status: Status,
    pub(crate) identifier: Identifier,
    #[serde(default)]
    pub(crate) wildcard: bool,
    #[serde(default)]
    pub(crate) challenges: Vec<Offer>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Identifier {
    pub(crate) value: String,
}

/// A challenge that may be taken.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Offer {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) url: String,
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) error: Option<Problem>,
}

/// RFC 9773, 4.2.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RenewalInfo {
    pub(crate) suggested_window: Window,
    #[serde(rename = "explanationURL", default)]
    pub(crate) explanation_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Window {
    pub(crate) start: String,
    pub(crate) end: String,
}

/// What an authority says is wrong (RFC 9457, RFC 8555, 6.7).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) detail: String,
    pub(crate) subproblems: Vec<Subproblem>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(crate) struct Subproblem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) detail: String,
}

impl Problem {
    /// Whether it is this one of ACME's, as in "badNonce".
    pub(crate) fn is(&self, name: &str) -> bool {
        self.kind.strip_prefix(ERROR) == Some(name)
    }

    /// Whether it, or the authority's words, speak of a certificate that is replaced.
    pub(crate) fn is_about_replacing(&self) -> bool {
        let text = self.to_string().to_ascii_lowercase();
        self.is("alreadyReplaced") || text.contains("replace")
    }
}

/// In the words of the authority, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self
            .kind
            .strip_prefix(ERROR)
            .unwrap_or(&self.kind)
            .to_owned();
        let parts = self.subproblems.iter().map(|sub| &sub.detail);
        for detail in [&self.detail].into_iter().chain(parts) {
            if !detail.is_empty() {
                text.push_str(if text.is_empty() { "" } else { ": " });
                text.push_str(detail);
            }
        }
        f.write_str(&one_line(&text))
    }
}

/// Foreign text that is safe to log and to show.
pub(crate) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_on_one_line() {
        let text = r#"{"type":"urn:ietf:params:acme:error:dns","detail":"no A\nrecord","status":400,
            "subproblems":[{"type":"x","detail":"for a.test","identifier":{}}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert!(problem.is("dns") && !problem.is("caa"));
        assert_eq!(problem.to_string(), "dns: no A record: for a.test");
        let long = Problem {
            detail: "x".repeat(5000),
            ..Problem::default()
        };
        assert_eq!(long.to_string().len(), MAX_DETAIL);
    }

    #[test]
    fn what_is_not_known_of_an_authority_is_no_error() {
        let text = r#"{"newNonce":"a","newAccount":"b","newOrder":"c","new":"d",
            "meta":{"profiles":{"shortlived":"https://x"},"caaIdentities":["x"]}}"#;
        let directory: Directory = serde_json::from_str(text).unwrap();
        assert!(directory.meta.profiles.contains_key("shortlived"));
        let status: Status = serde_json::from_str("\"waiting\"").unwrap();
        assert_eq!(status, Status::Unknown);
    }
}
