//! ACME challenge: answers HTTP-01 (RFC 8555, 8.3) for an ACME client that runs elsewhere.
//!
//! The answer to a challenge is its token and the thumbprint of the account's key, and the token is
//! in the question. So a gateway that knows the thumbprint answers for the account on every node and
//! without being told of an order ("stateless mode"). The thumbprint is no secret: it lets others
//! prove nothing but that this account may have certificates for these hosts.

use postern_plugin::Plugin;
use postern_plugin::Setup;
use postern_plugin::config;

/// SHA-256 in base64url.
const THUMBPRINT_LEN: usize = 43;
/// RFC 8555 asks for 128 bits of entropy.
const MIN_TOKEN: usize = 22;
const MAX_TOKEN: usize = 256;

/// The policy, configured.
#[derive(Debug)]
pub struct AcmeChallenge {
    accounts: Vec<Account>,
    /// Tokens and their key authorizations, for a client that asks for them to be put there.
    tokens: Vec<(String, String)>,
}

#[derive(Debug)]
struct Account {
    thumbprint: String,
    /// None: every host.
    hosts: Option<Vec<Host>>,
}

#[derive(Debug)]
enum Host {
    Exact(String),
    /// What one label stands before, with its dot.
    Below(String),
}

impl Plugin for AcmeChallenge {
    fn configure(config: &str, _setup: &mut Setup) -> Result<Self, String> {
        config::read(config, |config| {
            let accounts = config.get("accounts").list(|item| {
                item.section(|account| {
                    let thumbprint = account.need("thumbprint").parsed(|text| {
                        match text.len() == THUMBPRINT_LEN && is_base64url(text) {
                            true => Ok(text.to_owned()),
                            false => Err(format!(
                                "must be the thumbprint of the account's key: {THUMBPRINT_LEN} \
                                 characters of base64url"
                            )),
                        }
                    });
                    let hosts = account.get("hosts").list(|item| item.parsed(host));
                    Some(Account {
                        thumbprint: thumbprint?,
                        hosts,
                    })
                })
            });
            let tokens = config.get("tokens").pairs(|token, item| {
                if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !is_base64url(token) {
                    return item
                        .wrong("the key must be a token: 22 characters of base64url or more");
                }
                let prefix = format!("{token}.");
                let authorization = item.parsed(|text| match text.strip_prefix(&prefix) {
                    Some(rest) if rest.len() == THUMBPRINT_LEN && is_base64url(rest) => {
                        Ok(text.to_owned())
                    }
                    _ => Err(
                        "must be the token, a dot, and the thumbprint of the account's key"
                            .to_owned(),
                    ),
                });
                Some((token.to_owned(), authorization?))
            });
            let (accounts, tokens) = (accounts.unwrap_or_default(), tokens.unwrap_or_default());
            if accounts.is_empty() && tokens.is_empty() {
                return config.wrong("give `accounts`, `tokens` or both");
            }
            Some(Self { accounts, tokens })
        })
    }

    fn key_authorization(&self, host: &str, token: &str) -> Option<String> {
        if let Ok(at) = self
            .tokens
            .binary_search_by(|(known, _)| known.as_str().cmp(token))
        {
            return self
                .tokens
                .get(at)
                .map(|(_, authorization)| authorization.clone());
        }
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !is_base64url(token) {
            return None;
        }
        let account = self.accounts.iter().find(|account| account.is_for(host))?;
        Some(format!("{token}.{}", account.thumbprint))
    }
}

impl Account {
    fn is_for(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else {
            return true;
        };
        let host = host.to_ascii_lowercase();
        hosts.iter().any(|known| match known {
            Host::Exact(name) => *name == host,
            Host::Below(parent) => {
                let label = host.strip_suffix(parent.as_str());
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
        })
    }
}

fn host(text: &str) -> Result<Host, String> {
    let lower = text.to_ascii_lowercase();
    let (is_below, name) = match lower.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, lower.as_str()),
    };
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_char) {
        return Err(
            "must be a host name, as in \"www.example.com\" or \"*.example.com\"".to_owned(),
        );
    }
    Ok(match is_below {
        true => Host::Below(format!(".{name}")),
        false => Host::Exact(lower),
    })
}

fn is_base64url(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

postern_plugin::export!(AcmeChallenge: challenge);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;

    use super::*;

    const THUMBPRINT: &str = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";
    const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";

    fn answer(config: &str, host: &str, token: &str) -> Option<String> {
        let plugin = mock::configure::<AcmeChallenge>(config).unwrap();
        plugin.plugin().key_authorization(host, token)
    }

    #[test]
    fn an_account_answers_for_its_hosts() {
        let all = format!(r#"{{ "accounts": [{{ "thumbprint": "{THUMBPRINT}" }}] }}"#);
        let some = format!(
            r#"{{ "accounts": [{{ "thumbprint": "{THUMBPRINT}", "hosts": ["a.test", "*.B.test"] }}] }}"#
        );
        let cases = [
            (&all, "x.test", TOKEN, true),
            (&all, "x.test", "short", false),
            (
                &all,
                "x.test",
                "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ/PCt92wr",
                false,
            ),
            (&some, "A.test", TOKEN, true),
            (&some, "x.b.test", TOKEN, true),
            (&some, "b.test", TOKEN, false),
            (&some, "x.y.b.test", TOKEN, false),
            (&some, "xb.test", TOKEN, false),
        ];
        for (config, host, token, is_known) in cases {
            let want = is_known.then(|| format!("{token}.{THUMBPRINT}"));
            assert_eq!(answer(config, host, token), want, "{host} {token}");
        }
    }

    #[test]
    fn a_token_may_be_put_there() {
        let config = format!(r#"{{ "tokens": {{ "{TOKEN}": "{TOKEN}.{THUMBPRINT}" }} }}"#);
        assert_eq!(
            answer(&config, "a.test", TOKEN),
            Some(format!("{TOKEN}.{THUMBPRINT}"))
        );
        let other = TOKEN.replace("eva", "EVA");
        assert_eq!(answer(&config, "a.test", &other), None);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let short = r#"{ "accounts": [{ "thumbprint": "abc" }] }"#;
        let host =
            format!(r#"{{ "accounts": [{{ "thumbprint": "{THUMBPRINT}", "hosts": ["*"] }}] }}"#);
        let token = format!(r#"{{ "tokens": {{ "{TOKEN}": "{THUMBPRINT}" }} }}"#);
        let cases = [
            ("{}", "give `accounts`, `tokens` or both"),
            (short, "accounts[0].thumbprint: must be the thumbprint"),
            (&host, "accounts[0].hosts[0]: must be a host name"),
            (&token, "must be the token, a dot"),
            (
                r#"{ "tokens": { "x": "x.y" } }"#,
                "tokens.x: the key must be a token",
            ),
            (
                r#"{ "accounts": [{ "tumbprint": "" }] }"#,
                "tumbprint: is not known",
            ),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<AcmeChallenge>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
