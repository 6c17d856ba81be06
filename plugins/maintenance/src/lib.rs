//! Maintenance: answers everybody while something is repaired, but for those who repair it.

use std::net::IpAddr;

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::crypto;
use postern_plugin::net::Network;

/// A token that lets past is not one to be guessed.
const MIN_TOKEN: usize = 16;
const DEFAULT_BODY: &str = "This service is being worked on and will be back soon.\n";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The policy, configured.
#[derive(Debug)]
pub struct Maintenance {
    is_on: bool,
    status: u16,
    retry_after: Option<u64>,
    content_type: String,
    body: String,
    addresses: Vec<Network>,
    /// Field and token.
    header: Option<(String, String)>,
    paths: Vec<String>,
}

impl Plugin for Maintenance {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view([":path", "@client-ip"]);
        config::read(config, |config| {
            let is_on = config.get("enabled").flag();
            let status = config.get("status").number(400..=599);
            let retry_after = config.get("retry-after").duration_ms(1000..=30 * DAY_MS);
            let body = config.get("body").text();
            let content_type = config.get("content-type").field_value();
            let bypass = config.get("bypass").section(|bypass| {
                let addresses = bypass.get("addresses").list(|item| item.network());
                let header = bypass.get("header").section(|header| {
                    let name = header.need("name").field_name();
                    let token = header.need("token");
                    let token = token.parsed(|token| match token.len() >= MIN_TOKEN {
                        true => Ok(token.to_owned()),
                        false => Err(format!("must have {MIN_TOKEN} characters or more")),
                    });
                    Some((name?, token?))
                });
                let paths = bypass.get("paths").list(|item| item.path());
                Some((
                    addresses.unwrap_or_default(),
                    header,
                    paths.unwrap_or_default(),
                ))
            });
            let (addresses, header, paths) = bypass.unwrap_or_default();
            let body = body.unwrap_or_else(|| DEFAULT_BODY.to_owned());
            let guessed = match body.trim_ascii_start().bytes().next() {
                Some(b'<') => "text/html; charset=utf-8",
                Some(b'{') => "application/json",
                _ => "text/plain; charset=utf-8",
            };
            Some(Self {
                is_on: is_on.unwrap_or(true),
                status: status.and_then(|s| s.try_into().ok()).unwrap_or(503),
                retry_after: retry_after.map(|ms| ms.div_ceil(1000)),
                content_type: content_type.unwrap_or_else(|| guessed.to_owned()),
                body,
                addresses,
                header,
                paths,
            })
        })
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let has_token = match &self.header {
            Some((name, token)) => {
                let sent = request.get_bytes(name);
                // It is between the client and this policy, and nobody behind it has to see it.
                if !sent.is_empty() {
                    request.remove(name)?;
                }
                sent.iter()
                    .any(|sent| crypto::equal(sent, token.as_bytes()))
            }
            None => false,
        };
        if !self.is_on || has_token || self.lets_past(request) {
            return Ok(Action::Next);
        }
        let mut reply = Reply::new(self.status)
            .header("content-type", self.content_type.as_str())
            // A cache that kept it would go on when the repair is done.
            .header("cache-control", "no-store")
            .body(self.body.as_str());
        if let Some(seconds) = self.retry_after {
            reply = reply.header("retry-after", seconds.to_string());
        }
        Ok(reply.into())
    }
}

impl Maintenance {
    fn lets_past(&self, request: &Request) -> bool {
        if !self.addresses.is_empty() {
            let client: Option<IpAddr> = request.get("@client-ip").and_then(|ip| ip.parse().ok());
            if client.is_some_and(|ip| self.addresses.iter().any(|n| n.contains(ip))) {
                return true;
            }
        }
        if self.paths.is_empty() {
            return false;
        }
        let target = request.path();
        let path = target.split('?').next().unwrap_or_default();
        self.paths.iter().any(|prefix| {
            let prefix = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

postern_plugin::export!(Maintenance: request);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    const CONFIG: &str = r#"{
        "retry-after": "10m",
        "body": "<h1>Back soon</h1>",
        "bypass": {
            "addresses": ["10.0.0.0/8"],
            "header": { "name": "x-maintenance", "token": "0123456789abcdef" },
            "paths": ["/healthz"]
        }
    }"#;

    fn exchange(client: &str, path: &str) -> Exchange {
        let mut exchange = Exchange::new("GET", path);
        exchange
            .attributes
            .insert("client.ip".into(), client.into());
        exchange
    }

    #[test]
    fn everybody_is_told_when_to_come_back() {
        let plugin = mock::configure::<Maintenance>(CONFIG).unwrap();
        let answered = plugin.on_request(&mut exchange("192.0.2.1", "/x")).unwrap();
        let want = Reply::new(503)
            .header("content-type", "text/html; charset=utf-8")
            .header("cache-control", "no-store")
            .body("<h1>Back soon</h1>")
            .header("retry-after", "600");
        assert_eq!(answered, want.into());
    }

    #[test]
    fn who_repairs_is_served() {
        let plugin = mock::configure::<Maintenance>(CONFIG).unwrap();
        let cases = [
            ("10.1.2.3", "/", "", true),
            ("192.0.2.1", "/healthz", "", true),
            ("192.0.2.1", "/healthz/x?y", "", true),
            ("192.0.2.1", "/healthzz", "", false),
            ("192.0.2.1", "/?/healthz", "", false),
            ("192.0.2.1", "/", "0123456789abcdef", true),
            ("192.0.2.1", "/", "0123456789abcdeg", false),
            ("192.0.2.1", "/", "", false),
        ];
        for (client, path, token, is_served) in cases {
            let mut exchange = exchange(client, path).header("x-maintenance", token);
            let action = plugin.on_request(&mut exchange).unwrap();
            assert_eq!(action == Action::Next, is_served, "{client} {path} {token}");
            assert_eq!(exchange.request.get("x-maintenance"), None);
        }
    }

    #[test]
    fn it_can_stand_by() {
        let plugin = mock::configure::<Maintenance>(r#"{ "enabled": false }"#).unwrap();
        assert_eq!(
            plugin.on_request(&mut exchange("192.0.2.1", "/")),
            Ok(Action::Next)
        );
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            (r#"{ "status": 200 }"#, "status: must be"),
            (
                r#"{ "retry-after": 600 }"#,
                "retry-after: must be a time with its unit",
            ),
            (
                r#"{ "bypass": { "header": { "name": "x", "token": "short" } } }"#,
                "bypass.header.token: must have 16",
            ),
            (
                r#"{ "bypass": { "header": { "name": "x" } } }"#,
                "bypass.header.token: is missing",
            ),
            (r#"{ "bypass": { "ips": [] } }"#, "bypass.ips: is not known"),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<Maintenance>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
