//! What authorities send (RFC 8555, RFC 9773), as far as it is looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use instant_acme::AuthorizationState;
use instant_acme::AuthorizationStatus;
use instant_acme::ChallengeStatus;
use instant_acme::ChallengeType;
use instant_acme::Identifier;
use instant_acme::OrderStatus;
use serde::Deserialize;
use tokio::sync::Mutex;

/// Longest text of an authority that is kept and shown.
const MAX_DETAIL: usize = 1000;
const ERROR: &str = "urn:ietf:params:acme:error:";

/// Where things are at an authority (RFC 8555, 7.1.1).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directory {
    pub(crate) new_nonce: String,
    pub(crate) new_account: String,
    #[serde(default)]
    pub(crate) renewal_info: Option<String>,
    #[serde(default)]
    pub(crate) meta: Meta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) external_account_required: bool,
    /// How records of the DNS may call it.
    pub(crate) caa_identities: Vec<String>,
    pub(crate) profiles: BTreeMap<String, serde_json::Value>,
}

/// An order as it was when it was last asked for (RFC 8555, 7.1.3).
pub(crate) struct Order {
    pub(crate) url: String,
    pub(crate) status: OrderStatus,
    pub(crate) error: Option<Problem>,
    pub(crate) profile: Option<String>,
    /// What further requests are made with.
    pub(crate) handle: Arc<Mutex<instant_acme::Order>>,
}

impl Order {
    pub(crate) fn new(mut placed: instant_acme::Order) -> Self {
        let state = placed.state();
        let (status, error) = (state.status, state.error.clone());
        let profile = state.profile.clone();
        Self {
            url: placed.url().to_owned(),
            status,
            error: error.map(Problem::from),
            profile,
            handle: Arc::new(Mutex::new(placed)),
        }
    }

    /// The same order after another request.
    pub(crate) fn seen(
        placed: &mut instant_acme::Order,
        handle: Arc<Mutex<instant_acme::Order>>,
    ) -> Self {
        let url = placed.url().to_owned();
        let state = placed.state();
        Self {
            url,
            status: state.status,
            error: state.error.clone().map(Problem::from),
            profile: state.profile.clone(),
            handle,
        }
    }
}

/// RFC 8555, 7.1.4.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) is_pending: bool,
    /// The name, without the star of a wildcard.
    pub(crate) host: String,
    pub(crate) wildcard: bool,
    pub(crate) challenges: Vec<Offer>,
}

impl Authorization {
    pub(crate) fn of(state: &AuthorizationState) -> Self {
        let identifier = state.identifier();
        let offers = state.challenges.iter().map(|challenge| Offer {
            kind: match &challenge.r#type {
                ChallengeType::Http01 => "http-01".to_owned(),
                ChallengeType::Dns01 => "dns-01".to_owned(),
                ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
                ChallengeType::Unknown(kind) => kind.clone(),
                _ => String::new(),
            },
            url: challenge.url.clone(),
            is_pending: challenge.status == ChallengeStatus::Pending,
            token: challenge.token.clone(),
            error: challenge.error.clone().map(Problem::from),
        });
        Self {
            is_pending: state.status == AuthorizationStatus::Pending,
            host: match identifier.identifier {
                Identifier::Dns(name) => name.clone(),
                _ => String::new(),
            },
            wildcard: identifier.wildcard,
            challenges: offers.collect(),
        }
    }
}

/// A challenge that may be taken.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) kind: String,
    pub(crate) url: String,
    pub(crate) is_pending: bool,
    pub(crate) token: String,
    pub(crate) error: Option<Problem>,
}

impl Offer {
    pub(crate) fn challenge_type(&self) -> ChallengeType {
        match self.kind.as_str() {
            "http-01" => ChallengeType::Http01,
            "dns-01" => ChallengeType::Dns01,
            "tls-alpn-01" => ChallengeType::TlsAlpn01,
            other => ChallengeType::Unknown(other.to_owned()),
        }
    }
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

impl From<instant_acme::Problem> for Problem {
    fn from(problem: instant_acme::Problem) -> Self {
        let subproblems = problem.subproblems.into_iter();
        Self {
            kind: problem.r#type.unwrap_or_default(),
            detail: problem.detail.unwrap_or_default(),
            subproblems: subproblems
                .map(|sub| Subproblem {
                    kind: sub.r#type.unwrap_or_default(),
                    detail: sub.detail.unwrap_or_default(),
                })
                .collect(),
        }
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
    }
}
