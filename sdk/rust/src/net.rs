//! Addresses of clients.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;

/// Addresses with a common beginning. One of IPv4 also matches where IPv6 carries it
/// (`::ffff:192.0.2.1`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    addr: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads "192.0.2.0/24" or a single address. The error says what it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let shape =
            || format!("\"{text}\" must be an address or a network, as in \"192.0.2.0/24\"");
        let addr: IpAddr = addr.parse().map_err(|_| shape())?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| shape())?
            }
            Some(_) => return Err(shape()),
            None => most,
        };
        if prefix > most {
            return Err(shape());
        }
        if let IpAddr::V6(mapped) = addr
            && let Some(addr) = mapped.to_ipv4_mapped()
            && let Some(prefix) = prefix.checked_sub(96)
        {
            // No client would be in it: their addresses are read as IPv4.
            return Err(format!(
                "\"{text}\" is a network of IPv4; write \"{addr}/{prefix}\""
            ));
        }
        let network = Self {
            addr: truncated(addr, prefix),
            prefix,
        };
        if network.addr != addr {
            return Err(format!(
                "\"{text}\" has bits behind its prefix; did you mean \"{network}\"?"
            ));
        }
        Ok(network)
    }

    /// The lowest of its addresses.
    pub fn first(&self) -> IpAddr {
        self.addr
    }

    /// The highest of its addresses.
    pub fn last(&self) -> IpAddr {
        let prefix = u32::from(self.prefix);
        match self.addr {
            IpAddr::V4(addr) => {
                let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V4((u32::from(addr) | rest).into())
            }
            IpAddr::V6(addr) => {
                let rest = u128::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(addr) | rest))
            }
        }
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.addr.is_ipv4() && truncated(addr, self.prefix) == self.addr
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The first `prefix` bits of an address, the others zero.
pub fn truncated(addr: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V4((u32::from(addr) & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(addr) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.7", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("::1", "::1", true),
        ];
        for (network, addr, want) in cases {
            let network = Network::parse(network).unwrap();
            assert_eq!(
                network.contains(addr.parse().unwrap()),
                want,
                "{network} {addr}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_it_might_be() {
        let cases = [
            ("192.0.2.1/24", "did you mean \"192.0.2.0/24\""),
            ("2001:db8::1/64", "did you mean \"2001:db8::/64\""),
            ("::ffff:192.0.2.0/120", "write \"192.0.2.0/24\""),
            ("::ffff:192.0.2.1", "write \"192.0.2.1/32\""),
            ("192.0.2.0/33", "must be an address"),
            ("192.0.2.0/+8", "must be an address"),
            ("192.0.2.0/", "must be an address"),
            ("192.0.2/24", "must be an address"),
            ("example.com", "must be an address"),
            ("", "must be an address"),
        ];
        for (text, want) in cases {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.0", "192.0.2.255"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ];
        for (text, first, last) in cases {
            let network = Network::parse(text).unwrap();
            assert_eq!(network.first().to_string(), first, "{text}");
            assert_eq!(network.last().to_string(), last, "{text}");
        }
    }

    #[test]
    fn an_address_is_cut_at_any_bit() {
        let cases = [
            ("192.0.2.255", 24, "192.0.2.0"),
            ("192.0.2.255", 0, "0.0.0.0"),
            ("192.0.2.255", 32, "192.0.2.255"),
            ("2001:db8:1:2:3::4", 64, "2001:db8:1:2::"),
            ("2001:db8::1", 0, "::"),
            ("2001:db8::1", 128, "2001:db8::1"),
        ];
        for (addr, prefix, want) in cases {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(truncated(addr, prefix).to_string(), want, "{addr}/{prefix}");
        }
    }
}
