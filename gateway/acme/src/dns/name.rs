//! Names as the DNS has them: made of text once, shown without the last dot.

use hickory_proto::rr::Name;

use super::wire::DnsError;

/// The label below which a CA looks for the proof of a name (RFC 8555, 8.4).
const CHALLENGE_LABEL: &str = "_acme-challenge";
/// Random letters of a label that nobody has.
const STRANGER_LEN: usize = 16;

/// Lower case and absolute, whether the text ends in a dot or not.
pub(super) fn parse(text: &str) -> Result<Name, DnsError> {
    let bad = || DnsError::Name {
        name: text.chars().take(256).collect(),
    };
    if text.is_empty() || !text.is_ascii() {
        return Err(bad());
    }
    let mut name = Name::from_ascii(text).map_err(|_| bad())?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

/// As operators write it.
pub(super) fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(short) => short.to_owned(),
    }
}

/// As zone files have it.
pub(super) fn absolute(name: &Name) -> String {
    let text = shown(name);
    if text == "." { text } else { text + "." }
}

/// `None` for the root.
pub(super) fn parent(name: &Name) -> Option<Name> {
    (!name.is_root()).then(|| name.base_name())
}

/// Where a CA looks for the proof of a host; that of a wildcard is that of the name below it.
pub(super) fn challenge(host: &str) -> Result<Name, DnsError> {
    let base = host.strip_prefix("*.").unwrap_or(host);
    parse(&format!("{CHALLENGE_LABEL}.{base}"))
}

/// The host whose proof a challenge name holds.
pub(super) fn proved(challenge: &Name) -> Option<Name> {
    let first = challenge.iter().next()?;
    let is_challenge = first.eq_ignore_ascii_case(CHALLENGE_LABEL.as_bytes());
    is_challenge.then(|| challenge.base_name())
}

/// A name beside this one that nobody has declared: what it answers, a wildcard answers.
pub(super) fn stranger(name: &Name) -> Option<Name> {
    let mut bytes = [0; STRANGER_LEN];
    getrandom::fill(&mut bytes).ok()?;
    let letters = bytes.map(|byte| b'a' + byte % 26);
    let label: &[u8] = &letters;
    parent(name)?.prepend_label(label).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_in_one_form() {
        let cases = [
            ("App1.Example.EDU", "app1.example.edu"),
            ("app1.example.edu.", "app1.example.edu"),
            ("_acme-challenge.a.b", "_acme-challenge.a.b"),
            ("*.a.b", "*.a.b"),
            (".", "."),
        ];
        for (text, want) in cases {
            assert_eq!(shown(&parse(text).unwrap()), want, "{text}");
        }
        let long = format!("{}.edu", "a".repeat(64));
        for bad in ["", "a..b", "bücher.example", &long] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(absolute(&parse("a.b").unwrap()), "a.b.");
    }

    #[test]
    fn a_proof_stands_below_the_host_and_says_whose_it_is() {
        let name = challenge("*.k8s-1.example.edu").unwrap();
        assert_eq!(shown(&name), "_acme-challenge.k8s-1.example.edu");
        assert_eq!(challenge("k8s-1.example.edu").unwrap(), name);
        assert_eq!(shown(&proved(&name).unwrap()), "k8s-1.example.edu");
        assert_eq!(proved(&parse("k8s-1.example.edu").unwrap()), None);
    }

    #[test]
    fn a_stranger_is_a_sibling_and_never_the_same_twice() {
        let name = parse("_acme-challenge.a.b").unwrap();
        let (one, two) = (stranger(&name).unwrap(), stranger(&name).unwrap());
        assert_ne!(one, two);
        assert_eq!(one.base_name(), parse("a.b").unwrap());
        assert_eq!(stranger(&Name::root()), None);
    }
}
