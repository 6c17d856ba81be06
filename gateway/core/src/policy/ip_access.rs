//! Whether an address is in a list of networks, however long the list is.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::policy::access::IpAccessSpec;

/// Networks, merged and sorted, so that ten thousand of them cost a dozen comparisons.
#[derive(Debug, Default)]
pub struct AddressRanges(Vec<(u128, u128)>);

impl AddressRanges {
    pub fn new(networks: &[IpNet]) -> Self {
        let ends = |network: &IpNet| (number(network.network()), number(network.broadcast()));
        let mut all: Vec<(u128, u128)> = networks.iter().map(ends).collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = number(addr);
        let after = self.0.partition_point(|(first, _)| *first <= addr);
        after > 0 && self.0[after - 1].1 >= addr
    }
}

/// IPv4 as IPv6 maps it, which is how a dual-stack listener shows it too.
fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// Who may pass, by address.
#[derive(Debug)]
pub struct IpAccess {
    allow: AddressRanges,
    deny: AddressRanges,
}

impl IpAccess {
    pub fn new(spec: &IpAccessSpec) -> Self {
        Self {
            allow: AddressRanges::new(&spec.allow),
            deny: AddressRanges::new(&spec.deny),
        }
    }

    pub fn allows(&self, client: IpAddr) -> bool {
        !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn deny_wins_and_an_empty_allow_list_allows() {
        let of = |allow: &[&str], deny: &[&str]| {
            IpAccess::new(&IpAccessSpec {
                allow: networks(allow),
                deny: networks(deny),
            })
        };
        let cases = [
            (of(&["10.0.0.0/8"], &[]), "10.1.2.3", true),
            (of(&["10.0.0.0/8"], &[]), "11.0.0.0", false),
            (of(&["10.0.0.0/8"], &[]), "9.255.255.255", false),
            (of(&["10.0.0.0/8"], &[]), "::ffff:10.1.2.3", true),
            (of(&["10.0.0.0/8"], &["10.1.0.0/16"]), "10.1.2.3", false),
            (of(&[], &["10.1.0.0/16"]), "10.2.0.0", true),
            (of(&[], &["0.0.0.0/0"]), "10.2.0.0", false),
            (of(&[], &["0.0.0.0/0"]), "2001:db8::1", true),
            (of(&["2001:db8::/32"], &[]), "2001:db8:ffff::1", true),
            (of(&["2001:db8::/32"], &[]), "10.0.0.1", false),
            (of(&["::/0"], &[]), "2001:db8::1", true),
        ];
        for (access, client, want) in cases {
            let client = client.parse().unwrap();
            assert_eq!(access.allows(client), want, "{access:?} {client}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_search_one_by_one(
            list in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            addr in any::<u32>(),
        ) {
            let list: Vec<IpNet> = list
                .into_iter()
                .map(|(addr, prefix)| IpNet::new(std::net::Ipv4Addr::from(addr).into(), prefix).unwrap().trunc())
                .collect();
            let addr = IpAddr::from(std::net::Ipv4Addr::from(addr));
            let want = list.iter().any(|network| network.contains(&addr));
            prop_assert_eq!(AddressRanges::new(&list).contains(addr), want);
        }
    }
}
