use super::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn v4_body() -> Vec<u8> {
    let mut body = vec![192, 0, 2, 7, 198, 51, 100, 1];
    body.extend(4000_u16.to_be_bytes());
    body.extend(443_u16.to_be_bytes());
    body
}

fn proxied(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn with(mut body: Vec<u8>, more: &[u8]) -> Vec<u8> {
    body.extend(more);
    body
}

#[test]
fn whole_headers_are_read_and_nothing_behind_them() {
    let mut v6_body = Vec::new();
    v6_body.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    v6_body.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    v6_body.extend([0x0f, 0xa0, 0x01, 0xbb]);
    let four = proxied("192.0.2.7:4000", "198.51.100.1:443");
    let six = proxied("[2001:db8::1]:4000", "[2001:db8::2]:443");
    let cases = [
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n".to_vec(),
            four,
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 4000 443\r\n".to_vec(),
            six,
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), ProxyHeader::Local),
        (
            b"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n".to_vec(),
            ProxyHeader::Local,
        ),
        (v2(0x21, 0x11, &v4_body()), four),
        (v2(0x21, 0x21, &v6_body), six),
        // A record of a kind that nobody knows.
        (v2(0x21, 0x11, &with(v4_body(), &[0xEA, 0, 2, 1, 2])), four),
        (v2(0x20, 0x00, &[]), ProxyHeader::Local),
        (v2(0x20, 0x11, &v4_body()), ProxyHeader::Local),
    ];
    for (bytes, want) in cases {
        let whole = with(bytes.clone(), b"GET / HTTP/1.1\r\n");
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(
            parse(&whole),
            Ok(Parsed::Complete(want, bytes.len())),
            "{shown}"
        );
        for cut in 0..bytes.len() {
            let parsed = parse(&bytes[..cut]).unwrap();
            match parsed {
                Parsed::Undecided => assert!(cut < V2_SIGNATURE.len()),
                Parsed::Partial(more) => assert!(more >= 1 && cut + more <= bytes.len(), "{shown}"),
                other => panic!("{shown} cut at {cut}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_checksum_is_checked() {
    assert_eq!(crc32c([b"123456789", b"", b""]), 0xE306_9283);
    let mut header = v2(
        0x21,
        0x11,
        &with(v4_body(), &[TLV_CRC32C, 0, 4, 0, 0, 0, 0]),
    );
    let sum = crc32c([&header, b"", b""]).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    assert!(matches!(parse(&header), Ok(Parsed::Complete(..))));
    header[at] ^= 1;
    assert_eq!(parse(&header), Err(ProxyHeaderError::Checksum));
}

#[test]
fn what_is_no_header_is_told_from_one_early() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST /",
        b"PUT",
        b"PRI * HTTP/2.0",
        b"PROPFIND /",
        b"\x16\x03\x01",
        b"\r\nGET",
        b"\r\n\r\n\0\r\nQUITX",
        b"proxy TCP4",
        b"PROXYTCP4",
        b" PROXY ",
    ] {
        assert_eq!(parse(bytes), Ok(Parsed::Absent), "{}", bytes.escape_ascii());
    }
    for bytes in [&b""[..], b"P", b"PRO", b"\r\n", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(
            parse(bytes),
            Ok(Parsed::Undecided),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn malformed_lines_are_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1));
    let just_too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15));
    let cases = [
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000\r 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +4000 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04000 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443 1\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY TCP4\t192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 4000 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 4000 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 4000 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 4000 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY TCP6 2001:db8::g 2001:db8::2 4000 443\r\n",
        "PROXY TCP6 [2001:db8::1] 2001:db8::2 4000 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY TCP4 \0 198.51.100.1 4000 443\r\n",
        "PROXY \r\n",
        "PROXY  \r\n",
        &long,
        &just_too_long,
    ];
    for line in cases {
        assert!(parse(line.as_bytes()).is_err(), "{}", line.escape_debug());
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    assert_eq!(longest.len(), MAX_V1);
    assert!(parse(longest.as_bytes()).is_ok());
}

#[test]
fn malformed_binary_headers_are_refused() {
    let huge = vec![0; MAX_V2 - V2_FIXED + 1];
    let cases = [
        ("version 1", v2(0x11, 0x11, &v4_body())),
        ("version 3", v2(0x31, 0x11, &v4_body())),
        ("command 2", v2(0x22, 0x11, &v4_body())),
        ("no family", v2(0x21, 0x00, &[])),
        ("no transport", v2(0x21, 0x10, &v4_body())),
        ("datagram", v2(0x21, 0x12, &v4_body())),
        ("unix", v2(0x21, 0x31, &[0; 216])),
        ("family 4", v2(0x21, 0x41, &v4_body())),
        ("no addresses", v2(0x21, 0x11, &[])),
        ("half an address", v2(0x21, 0x11, &v4_body()[..11])),
        ("v4 for v6", v2(0x21, 0x21, &v4_body())),
        (
            "record cut in its head",
            v2(0x21, 0x11, &with(v4_body(), &[1, 0])),
        ),
        (
            "record past the end",
            v2(0x21, 0x11, &with(v4_body(), &[1, 0, 9, 0])),
        ),
        (
            "second record past the end",
            v2(0x21, 0x11, &with(v4_body(), &[1, 0, 1, 0, 1, 0, 1])),
        ),
        (
            "short checksum",
            v2(0x21, 0x11, &with(v4_body(), &[TLV_CRC32C, 0, 2, 0, 0])),
        ),
        ("too long", v2(0x21, 0x11, &huge)),
        ("too long, local", v2(0x20, 0x00, &huge)),
    ];
    for (what, bytes) in cases {
        assert!(parse(&bytes).is_err(), "{what}");
    }
    // Refused before the rest is waited for.
    assert!(parse(&v2(0x22, 0x11, &v4_body())[..13]).is_err());
    let longest = v2(0x20, 0x00, &huge[1..]);
    assert_eq!(longest.len(), MAX_V2);
    assert!(parse(&longest).is_ok());
}
