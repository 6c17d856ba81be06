//! Signed requests (RFC 7515), as an authority checks them.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;

pub(super) struct Signed {
    pub(super) url: String,
    pub(super) nonce: String,
    /// Position among the accounts; `None` for a key of nobody.
    pub(super) account: Option<usize>,
    pub(super) key: Value,
    pub(super) payload: Value,
}

impl Signed {
    pub(super) fn read(body: &[u8], accounts: &[Value]) -> Result<Self, &'static str> {
        let body: Value = serde_json::from_slice(body).map_err(|_| "no JSON")?;
        let part = |name: &str| body[name].as_str().ok_or("a part is missing");
        let (protected, payload) = (part("protected")?, part("payload")?);
        let header: Value = decode(protected)?;
        let text = |name: &str| header[name].as_str().map(str::to_owned);
        let account = text("kid").and_then(|kid| {
            let index = kid.rsplit('/').next()?;
            index.parse::<usize>().ok()
        });
        let key = match account {
            Some(index) => accounts.get(index).ok_or("no such account")?.clone(),
            None => header["jwk"].clone(),
        };
        let signature = BASE64
            .decode(part("signature")?)
            .map_err(|_| "no signature")?;
        let message = format!("{protected}.{payload}");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(&key)?)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| "the signature is wrong")?;
        Ok(Self {
            url: text("url").ok_or("no URL")?,
            nonce: text("nonce").ok_or("no nonce")?,
            account,
            key,
            payload: match payload {
                "" => Value::Null,
                payload => decode(payload)?,
            },
        })
    }
}

/// Whether a binding is of this customer, and for this key.
pub(super) fn is_bound(proof: &Value, id: &str, key: &str, account: &Value) -> bool {
    let part = |name: &str| proof[name].as_str().unwrap_or_default();
    let (protected, payload) = (part("protected"), part("payload"));
    let mac = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key).unwrap_or_default());
    let tag = BASE64.decode(part("signature")).unwrap_or_default();
    let header = decode(protected).unwrap_or_default();
    let message = format!("{protected}.{payload}");
    hmac::verify(&mac, message.as_bytes(), &tag).is_ok()
        && header["kid"] == id
        && header["alg"] == "HS256"
        && decode(payload).as_ref() == Ok(account)
}

fn decode(text: &str) -> Result<Value, &'static str> {
    let bytes = BASE64.decode(text).map_err(|_| "no base64url")?;
    serde_json::from_slice(&bytes).map_err(|_| "no JSON")
}

fn point(key: &Value) -> Result<Vec<u8>, &'static str> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let text = key[name].as_str().ok_or("no key")?;
        point.extend(BASE64.decode(text).map_err(|_| "no key")?);
    }
    Ok(point)
}
