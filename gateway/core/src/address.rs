//! Addresses that lead back: to this machine, or to what is there for this machine alone.

use std::net::IpAddr;

/// Whether an address is this machine, its link, or where a cloud keeps its metadata service. What
/// a stranger names must not be one of them: the gateway would fetch its own secrets for it.
pub fn is_local(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(addr) => {
            addr.is_loopback()
                || addr.is_link_local()
                || addr.is_multicast()
                || addr.is_broadcast()
                // All of 0.0.0.0/8 is this host (RFC 1122, 3.2.1.3).
                || addr.octets()[0] == 0
        }
        IpAddr::V6(addr) => {
            addr.is_loopback()
                || addr.is_unspecified()
                || addr.is_multicast()
                || addr.is_unicast_link_local()
                // The metadata service of AWS.
                || addr.segments()[..3] == [0xfd00, 0x0ec2, 0]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_neighborhood_are_local() {
        let cases = [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("fd00::1", false),
            ("2001:db8::1", false),
            ("::ffff:10.0.0.1", false),
        ];
        for (addr, want) in cases {
            assert_eq!(is_local(addr.parse().unwrap()), want, "{addr}");
        }
    }
}
