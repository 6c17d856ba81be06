//! The addresses of this machine, as the kernel lists them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Those of this network namespace now; none where there is no such list.
pub(crate) fn addresses() -> BTreeSet<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses = ipv4(&read("/proc/net/fib_trie"));
    addresses.extend(ipv6(&read("/proc/net/if_inet6")));
    addresses
}

/// An address is on the line before the one that calls it local.
fn ipv4(text: &str) -> BTreeSet<IpAddr> {
    let lines = text.lines().zip(text.lines().skip(1));
    let own = lines.filter(|(_, kind)| kind.trim() == "/32 host LOCAL");
    own.filter_map(|(line, _)| line.trim().strip_prefix("|-- "))
        .filter_map(|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from))
        .collect()
}

/// Each line begins with an address in hexadecimal.
fn ipv6(text: &str) -> BTreeSet<IpAddr> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words
        .filter(|word| word.len() == 32)
        .filter_map(|word| u128::from_str_radix(word, 16).ok())
        .map(|bits| IpAddr::from(Ipv6Addr::from(bits)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_the_kernel_are_understood() {
        let trie = "Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 192.0.2.0/30 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
        |-- 192.0.2.2
           /32 host LOCAL
";
        assert_eq!(ipv4(trie), [IpAddr::from([192, 0, 2, 2])].into());
        let list = "fd000000000000000000000000000002 04 40 00 82     eth0\n\nx\n";
        assert_eq!(ipv6(list), ["fd00::2".parse().unwrap()].into());
        assert!(addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
