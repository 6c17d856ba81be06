//! Request id: gives each request an id that goes through every log.
//!
//! What a client calls its request is kept only where it is trusted to, and only if it looks like
//! an id: it will stand in the logs of others.

use std::net::IpAddr;

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Request;
use postern_plugin::Response;
use postern_plugin::Setup;
use postern_plugin::clock;
use postern_plugin::config;
use postern_plugin::exchange;
use postern_plugin::json::Value;
use postern_plugin::net::Network;
use postern_plugin::random;

const DEFAULT_HEADER: &str = "x-request-id";
/// The variable by which later plugins and the access log see the id.
const VARIABLE: &str = "request-id";
/// Longest id that is kept.
const MAX_LEN: usize = 128;

/// The policy, configured.
#[derive(Debug)]
pub struct RequestId {
    header: String,
    trust: Trust,
    format: Format,
    responds: bool,
}

#[derive(Debug)]
enum Trust {
    Nobody,
    Everybody,
    /// The other ends of connections: proxies in front of this one.
    Peers(Vec<Network>),
}

#[derive(Clone, Copy, Debug)]
enum Format {
    /// RFC 9562, 5.4: random.
    Uuid,
    /// RFC 9562, 5.7: begins with the time, so that ids sort by it.
    UuidV7,
    /// 32 digits, as a trace id of W3C Trace Context.
    Hex,
}

impl Plugin for RequestId {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, |config| {
            let header = config.get("header").field_name();
            let trust = config.get("trust");
            let trust = match trust.value() {
                None | Some(Value::Bool(false)) => Trust::Nobody,
                Some(Value::Bool(true)) => Trust::Everybody,
                Some(Value::Array(_)) => Trust::Peers(trust.list(|item| item.network())?),
                Some(_) => return trust.wrong("must be true, false or a list of networks"),
            };
            let format = config.get("format").one_of(&[
                ("uuid", Format::Uuid),
                ("uuid-v7", Format::UuidV7),
                ("hex", Format::Hex),
            ]);
            let responds = config.get("respond").flag();
            Some(Self {
                header: header.unwrap_or_else(|| DEFAULT_HEADER.to_owned()),
                trust,
                format: format.unwrap_or(Format::Uuid),
                responds: responds.unwrap_or(true),
            })
        })?;
        match made.trust {
            Trust::Nobody => {}
            Trust::Everybody => setup.request_view([made.header.as_str()]),
            Trust::Peers(_) => setup.request_view([made.header.as_str(), "@peer-ip"]),
        }
        setup.response_view(["@state"]);
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let kept = match &self.trust {
            Trust::Nobody => None,
            Trust::Everybody => request.get(&self.header),
            Trust::Peers(networks) => {
                let peer: Option<IpAddr> = request.get("@peer-ip").and_then(|ip| ip.parse().ok());
                let is_known = peer.is_some_and(|ip| networks.iter().any(|n| n.contains(ip)));
                is_known.then(|| request.get(&self.header)).flatten()
            }
        };
        let id = match kept.filter(|id| is_id(id)) {
            Some(id) => id,
            None => {
                let id = self.format.make(clock::now_ms(), random_u128());
                request.set(&self.header, &id)?;
                id
            }
        };
        exchange::set_var(VARIABLE, &id)?;
        if self.responds {
            exchange::set_state(id.as_bytes())?;
        }
        Ok(Action::Next)
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        if self.responds
            && let Some(id) = response.get("@state").filter(|id| !id.is_empty())
        {
            response.set(&self.header, &id)?;
        }
        Ok(Action::Next)
    }
}

/// Letters and digits, and what ids are put together with; no field value can be longer than one
/// that a log likes to show.
fn is_id(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"-_.:+/=".contains(&b);
    (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_char)
}

fn random_u128() -> u128 {
    u128::from(random::number()) << 64 | u128::from(random::number())
}

impl Format {
    fn make(self, now_ms: u64, random: u128) -> String {
        let versioned = |bits: u128, version: u128| {
            bits & !(0xF << 76) & !(0x3 << 62) | version << 76 | 0x2 << 62
        };
        let bits = match self {
            Self::Hex => return format!("{random:032x}"),
            Self::Uuid => versioned(random, 4),
            Self::UuidV7 => {
                let time = u128::from(now_ms) << 80;
                versioned(time | random & (u128::MAX >> 48), 7)
            }
        };
        let hex = format!("{bits:032x}");
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        parts.join("-")
    }
}

postern_plugin::export!(RequestId: request, response);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    fn seen(config: &str, sent: &str, peer: &str) -> String {
        let plugin = mock::configure::<RequestId>(config).unwrap();
        let mut exchange = Exchange::new("GET", "/").header("x-request-id", sent);
        exchange.attributes.insert("peer.ip".into(), peer.into());
        assert_eq!(plugin.on_request(&mut exchange), Ok(Action::Next));
        assert_eq!(plugin.on_response(&mut exchange), Ok(Action::Next));
        let id = exchange.request.get("x-request-id").unwrap();
        assert_eq!(exchange.response.get("x-request-id"), Some(id));
        assert_eq!(exchange.vars["request-id"], id);
        id.to_owned()
    }

    #[test]
    fn an_id_is_kept_only_from_who_is_trusted_and_only_if_it_is_one() {
        let long = "a".repeat(MAX_LEN + 1);
        let peers = r#"{ "trust": ["10.0.0.0/8"] }"#;
        let cases = [
            ("{}", "abc", "10.0.0.1", false),
            (
                r#"{ "trust": true }"#,
                "abc-1_2.3:4+5/6=",
                "192.0.2.1",
                true,
            ),
            (r#"{ "trust": true }"#, "a b", "192.0.2.1", false),
            (r#"{ "trust": true }"#, "a\",\"b", "192.0.2.1", false),
            (r#"{ "trust": true }"#, "", "192.0.2.1", false),
            (r#"{ "trust": true }"#, &long, "192.0.2.1", false),
            (peers, "abc", "10.0.0.1", true),
            (peers, "abc", "::ffff:10.0.0.1", true),
            (peers, "abc", "192.0.2.1", false),
        ];
        for (config, sent, peer, is_kept) in cases {
            let id = seen(config, sent, peer);
            assert_eq!(id == sent, is_kept, "{config} {sent} {peer}: {id}");
        }
    }

    #[test]
    fn ids_have_the_form_that_is_asked_for() {
        let uuid = Format::Uuid.make(0, u128::MAX);
        assert_eq!(uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            Format::Uuid.make(0, 0),
            "00000000-0000-4000-8000-000000000000"
        );
        // The example of RFC 9562, A.6.
        let random = 0xCC3_18C4_DC0C_0C07_398F_u128;
        let v7 = Format::UuidV7.make(0x017F_22E2_79B0, random);
        assert!(
            v7.starts_with("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"),
            "{v7}"
        );
        assert_eq!(Format::Hex.make(0, 10), format!("{:032x}", 10));
    }

    #[test]
    fn the_response_tells_it_only_if_it_should() {
        let plugin = mock::configure::<RequestId>(r#"{ "respond": false }"#).unwrap();
        let mut exchange = Exchange::new("GET", "/");
        plugin.on_request(&mut exchange).unwrap();
        plugin.on_response(&mut exchange).unwrap();
        assert_eq!(exchange.response.get("x-request-id"), None);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            (r#"{ "header": "host" }"#, "header: the gateway writes"),
            (
                r#"{ "trust": "all" }"#,
                "trust: must be true, false or a list",
            ),
            (
                r#"{ "trust": ["10.0.0.1/8"] }"#,
                "trust[0]: \"10.0.0.1/8\" has bits",
            ),
            (r#"{ "format": "ulid" }"#, "format: must be one of"),
            (r#"{ "headers": "x" }"#, "headers: is not known"),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<RequestId>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
