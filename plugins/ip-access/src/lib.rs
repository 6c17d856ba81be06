//! IP access: lets addresses in or keeps them out.
//!
//! What is denied is denied whatever is allowed. With an `allow` list, what is on neither is denied.

use std::net::IpAddr;

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::net::Network;

/// The policy, configured.
#[derive(Debug)]
pub struct IpAccess {
    allow: Option<Ranges>,
    deny: Ranges,
    address: &'static str,
    status: u16,
    body: String,
}

impl Plugin for IpAccess {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, |config| {
            let allow = config.get("allow").list(|item| item.network());
            let deny = config.get("deny").list(|item| item.network());
            let address = config.get("address");
            let address = address.one_of(&[("client", "@client-ip"), ("peer", "@peer-ip")]);
            let status = config.get("status").number(400..=599);
            let body = config.get("body").text();
            if allow.is_none() && deny.is_none() {
                return config.wrong("give `allow`, `deny` or both");
            }
            Some(Self {
                allow: allow.map(Ranges::new),
                deny: Ranges::new(deny.unwrap_or_default()),
                address: address.unwrap_or("@client-ip"),
                status: status.and_then(|s| s.try_into().ok()).unwrap_or(403),
                body: body.unwrap_or_default(),
            })
        })?;
        setup.request_view([made.address]);
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let address = request.get(self.address).and_then(|ip| ip.parse().ok());
        // An address that is not known is on no list, and is not let in because of that.
        let is_allowed = address.is_some_and(|ip| self.allows(ip));
        Ok(match is_allowed {
            true => Action::Next,
            false if self.body.is_empty() => Reply::new(self.status).into(),
            false => Reply::text(self.status, self.body.as_str()).into(),
        })
    }
}

impl IpAccess {
    fn allows(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        !self.deny.contains(addr) && self.allow.as_ref().is_none_or(|allow| allow.contains(addr))
    }
}

/// First and last addresses, sorted and apart: a list of ten thousand costs a few comparisons.
#[derive(Debug)]
struct Ranges(Vec<(IpAddr, IpAddr)>);

impl Ranges {
    fn new(networks: Vec<Network>) -> Self {
        let mut ranges: Vec<_> = networks.iter().map(|n| (n.first(), n.last())).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                // Networks overlap only by one holding the other.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn contains(&self, addr: IpAddr) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= addr);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|(_, last)| addr <= *last)
    }
}

postern_plugin::export!(IpAccess: request);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    fn is_allowed(config: &str, client: &str) -> bool {
        let plugin = mock::configure::<IpAccess>(config).unwrap();
        let mut exchange = Exchange::new("GET", "/");
        exchange
            .attributes
            .insert("client.ip".into(), client.into());
        exchange
            .attributes
            .insert("peer.ip".into(), "198.51.100.1".into());
        plugin.on_request(&mut exchange).unwrap() == Action::Next
    }

    #[test]
    fn lists_decide() {
        let office = r#"{ "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"] }"#;
        let spam = r#"{ "deny": ["203.0.113.0/24"] }"#;
        let nobody = r#"{ "allow": [] }"#;
        let peer = r#"{ "allow": ["198.51.100.1"], "address": "peer" }"#;
        let cases = [
            (office, "10.8.255.255", true),
            (office, "10.9.0.0", false),
            (office, "10.9.255.255", false),
            (office, "10.10.0.0", true),
            (office, "11.0.0.0", false),
            (office, "9.255.255.255", false),
            (office, "2001:db8:ffff::1", true),
            (office, "2001:db7::1", false),
            (office, "::ffff:10.1.2.3", true),
            (office, "::ffff:10.9.2.3", false),
            (office, "", false),
            (office, "nonsense", false),
            (spam, "203.0.113.7", false),
            (spam, "2001:db8::1", true),
            (nobody, "10.0.0.1", false),
            (peer, "10.0.0.1", true),
        ];
        for (config, client, want) in cases {
            assert_eq!(is_allowed(config, client), want, "{config} {client}");
        }
    }

    #[test]
    fn many_ranges_answer_as_a_search_through_all_does() {
        let networks: Vec<Network> = (0..=255_u32)
            .flat_map(|n| {
                let wide = format!("{}.0.0.0/{}", n, 8 + n % 3 * 8);
                let narrow = format!("{}.{}.0.0/16", n, n * 7 % 256);
                [
                    wide,
                    narrow,
                    format!("2001:db8:{n:x}::/{}", 48 + n % 2 * 16),
                ]
            })
            .map(|text| Network::parse(&text).unwrap())
            .collect();
        let ranges = Ranges::new(networks.clone());
        for n in 0..20_000_u32 {
            let addr: IpAddr = match n % 2 {
                0 => std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761)).into(),
                _ => format!("2001:db8:{:x}:{:x}::1", n % 300, n % 3)
                    .parse()
                    .unwrap(),
            };
            let naive = networks.iter().any(|network| network.contains(addr));
            assert_eq!(ranges.contains(addr), naive, "{addr}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            ("{}", "give `allow`, `deny` or both"),
            (
                r#"{ "allow": ["10.0.0.1/8", "x"] }"#,
                "allow[0]: \"10.0.0.1/8\" has bits",
            ),
            (
                r#"{ "allow": ["10.0.0.1/8", "x"] }"#,
                "allow[1]: \"x\" must be an address",
            ),
            (
                r#"{ "deny": [], "address": "header" }"#,
                "address: must be one of",
            ),
            (r#"{ "deny": [], "status": 200 }"#, "status: must be"),
            (r#"{ "block": [] }"#, "block: is not known"),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<IpAccess>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
