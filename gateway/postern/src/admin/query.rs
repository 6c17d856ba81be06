//! Query strings (`application/x-www-form-urlencoded`), read and written.

/// The pairs in their order. A malformed escape stands for itself.
pub(super) fn parse(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// One name or value.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let escaped = escaped.and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            // `from_str_radix` takes a sign.
            let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
            u8::from_str_radix(text, 16).ok().filter(|_| is_hex)
        });
        match (escaped, byte) {
            (Some(byte), _) => {
                decoded.push(byte);
                at += 2;
            }
            (None, b'+') => decoded.push(b' '),
            (None, byte) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let values = [
            "",
            "a b+c",
            "https://a.test/x?y=1&z=%2F#f",
            "Accept: */*",
            "ü€\u{1F600}",
            "\n",
        ];
        for value in values {
            let query = format!("a=1&v={}", encode(value));
            assert_eq!(parse(&query)[1], ("v".to_owned(), value.to_owned()));
        }
    }

    #[test]
    fn a_malformed_escape_stands_for_itself() {
        let cases = [
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+1", "% 1"),
            ("%41+%", "A %"),
            ("%ff", "\u{fffd}"),
        ];
        for (text, want) in cases {
            assert_eq!(decode(text), want, "{text}");
        }
    }
}
