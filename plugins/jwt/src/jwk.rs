//! A key of a JWK set (RFC 7517), as SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), which the gateway
//! verifies with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_plugin::json::Value;

use crate::token::Algorithm;

/// Longest modulus, in bytes: 8192 bits.
const MAX_MODULUS: usize = 1024;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// AlgorithmIdentifiers, whole: rsaEncryption with NULL; id-ecPublicKey with a curve; id-Ed25519.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

/// A key that signatures are verified with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Jwk {
    pub(crate) id: Option<String>,
    /// What it may be used for. One kind of key never serves the algorithm of another.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) spki: Vec<u8>,
}

impl Jwk {
    /// None: not a key for signatures, or not of a kind that is known. A set may hold any (RFC 7517,
    /// 5).
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = value.get("key_ops").and_then(Value::as_array)
            && !operations
                .iter()
                .any(|operation| operation.as_str() == Some("verify"))
        {
            return None;
        }
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let is_point = x.len() == length && y.len() == length;
            is_point.then(|| [&[4][..], &x, &y].concat())
        };
        let (mut algorithms, spki) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                if modulus.len() > MAX_MODULUS || exponent.len() > 8 {
                    return None;
                }
                let numbers = [integer(&modulus)?, integer(&exponent)?].concat();
                let key = spki(RSA, &element(SEQUENCE, &numbers));
                (vec![Algorithm::Rs256, Algorithm::Ps256], key)
            }
            ("EC", Some("P-256")) => (vec![Algorithm::Es256], spki(P256, &point(32)?)),
            ("EC", Some("P-384")) => (vec![Algorithm::Es384], spki(P384, &point(48)?)),
            ("OKP", Some("Ed25519")) => {
                let key = bytes("x").filter(|key| key.len() == 32)?;
                (vec![Algorithm::EdDsa], spki(ED25519, &key))
            }
            _ => return None,
        };
        if let Some(name) = text("alg") {
            let only = match name {
                // RFC 9864's name for it.
                "Ed25519" => Some(Algorithm::EdDsa),
                name => Algorithm::parse(name),
            };
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        (!algorithms.is_empty()).then(|| Self {
            id: text("kid").map(str::to_owned),
            algorithms,
            spki,
        })
    }
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = element(BIT_STRING, &[&[0][..], key].concat());
    element(SEQUENCE, &[algorithm, &bits].concat())
}

/// An unsigned number. None for zero.
fn integer(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let number = &bytes[start..];
    // The highest bit is the sign.
    let sign: &[u8] = if number[0] & 0x80 == 0 { &[] } else { &[0] };
    Some(element(INTEGER, &[sign, number].concat()))
}

/// Tag, length and content (X.690, 8.1). Contents here have fewer than 65,536 bytes.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut bytes = vec![tag];
    match (high, low) {
        (0, 0..=0x7F) => bytes.push(low),
        (0, _) => bytes.extend([0x81, low]),
        _ => bytes.extend([0x82, high, low]),
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Jwk> {
        Jwk::read(&Value::parse(text).unwrap())
    }

    #[test]
    fn a_key_serves_its_own_kind_of_algorithm() {
        let ed =
            r#""kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let ec = r#""kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        let rsa = r#""kty": "RSA", "n": "AMIB", "e": "AQAB""#;
        let both = vec![Algorithm::Rs256, Algorithm::Ps256];
        let cases = [
            (ed, "", Some(vec![Algorithm::EdDsa])),
            (ed, r#", "alg": "Ed25519""#, Some(vec![Algorithm::EdDsa])),
            (ed, r#", "alg": "ES256""#, None),
            (ec, "", Some(vec![Algorithm::Es256])),
            (ec, r#", "use": "enc""#, None),
            (ec, r#", "use": "sig", "key_ops": ["sign"]"#, None),
            (
                ec,
                r#", "key_ops": ["verify"]"#,
                Some(vec![Algorithm::Es256]),
            ),
            (rsa, "", Some(both)),
            (rsa, r#", "alg": "PS256""#, Some(vec![Algorithm::Ps256])),
            (rsa, r#", "alg": "HS256""#, None),
            (r#""kty": "oct", "k": "c2VjcmV0""#, "", None),
            (r#""kty": "EC", "crv": "P-521", "x": "", "y": """#, "", None),
            (
                r#""kty": "EC", "crv": "P-256", "x": "AA", "y": "AA""#,
                "",
                None,
            ),
            (r#""kty": "RSA", "n": "AAAA", "e": "AQAB""#, "", None),
            (r#""kty": "RSA", "n": "!", "e": "AQAB""#, "", None),
            (r#""kty": 1"#, "", None),
        ];
        for (key, more, want) in cases {
            let got = read(&format!("{{ {key}{more} }}")).map(|key| key.algorithms);
            assert_eq!(got, want, "{key}{more}");
        }
    }

    #[test]
    fn a_number_is_written_without_zeros_and_without_a_sign() {
        let cases: [(&[u8], Option<&[u8]>); 5] = [
            (&[1, 0, 1], Some(&[2, 3, 1, 0, 1])),
            (&[0, 0, 1], Some(&[2, 1, 1])),
            (&[0x80], Some(&[2, 2, 0, 0x80])),
            (&[0], None),
            (&[], None),
        ];
        for (bytes, want) in cases {
            assert_eq!(integer(bytes).as_deref(), want, "{bytes:?}");
        }
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_takes() {
        for (length, head) in [
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
        ] {
            let element = element(4, &vec![0; length]);
            assert!(element.starts_with(&head), "{length}");
            assert_eq!(element.len(), head.len() + length);
        }
    }
}
