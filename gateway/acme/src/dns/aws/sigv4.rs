//! Signature version 4 of AWS: the fields that prove who sent a request.
//!
//! `fixtures/sigv4.py` asks botocore for the signatures that the test compares with.

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::credentials::Credentials;
use super::http::AwsError;

const DATE_NAME: &str = "x-amz-date";
const TOKEN_NAME: &str = "x-amz-security-token";
const DATE: HeaderName = HeaderName::from_static(DATE_NAME);
const TOKEN: HeaderName = HeaderName::from_static(TOKEN_NAME);

/// What is signed of a request.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Of characters that need no escape.
    pub(super) path: &'a str,
    /// As [`query`] makes it.
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

/// The fields to add to a request.
pub(super) fn sign(
    request: &Request<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
    now: Timestamp,
) -> Result<Vec<(HeaderName, HeaderValue)>, AwsError> {
    let now = now.to_zoned(TimeZone::UTC);
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let (day, _) = date.split_at(8);
    let mut fields = vec![("host", request.host), (DATE_NAME, &date)];
    if let Some(token) = &credentials.token {
        fields.push((TOKEN_NAME, token));
    }
    let canonical: String = fields
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let request = format!(
        "{}\n{}\n{}\n{canonical}\n{names}\n{}",
        request.method,
        request.path,
        request.query,
        sha256(request.body)
    );
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        sha256(request.as_bytes())
    );

    let secret = format!("AWS4{}", credentials.secret);
    let mut key = secret.into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, text.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.key_id
    );
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| AwsError::Credentials);
    let mut headers = vec![
        (DATE, value(&date)?),
        (AUTHORIZATION, value(&authorization)?),
    ];
    if let Some(token) = &credentials.token {
        let mut token = value(token)?;
        token.set_sensitive(true);
        headers.push((TOKEN, token));
    }
    Ok(headers)
}

/// Sorted and escaped, as it is signed and sent.
pub(super) fn query(pairs: &[(&'static str, String)]) -> String {
    let mut pairs: Vec<(String, String)> = pairs
        .iter()
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// RFC 3986, 2.3: what is not unreserved is escaped.
fn encode(text: &str) -> String {
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

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::Value;

    #[test]
    fn signatures_are_those_of_botocore() {
        let file = include_str!("../../../fixtures/sigv4.json");
        let file: Value = serde_json::from_str(file).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let url: http::Uri = text("url").parse().unwrap();
            let request = Request {
                method: text("method"),
                host: url.authority().unwrap().as_str(),
                path: url.path(),
                query: url.query().unwrap_or_default(),
                body: text("body").as_bytes(),
            };
            let credentials = Credentials {
                key_id: file["key"].as_str().unwrap().to_owned(),
                secret: file["secret"].as_str().unwrap().to_owned(),
                token: vector["token"].as_str().map(str::to_owned),
                expires: None,
            };
            let now: Timestamp = "2026-11-23T21:30:05Z".parse().unwrap();
            let (region, service) = (text("region"), text("service"));
            let headers = sign(&request, &credentials, region, service, now).unwrap();
            let sent = |wanted: &HeaderName| {
                let found = headers.iter().find(|(name, _)| name == wanted);
                found.map(|(_, value)| value.to_str().unwrap())
            };
            assert_eq!(sent(&DATE), Some(text("date")));
            assert_eq!(
                sent(&AUTHORIZATION),
                Some(text("authorization")),
                "{}",
                text("name")
            );
            assert_eq!(sent(&TOKEN), vector["token"].as_str());
        }
    }

    #[test]
    fn a_query_is_sorted_and_escaped() {
        let pairs = [
            ("type", "TXT".to_owned()),
            ("name", "_acme-challenge.a b.vt.edu.".to_owned()),
            ("maxitems", "1".to_owned()),
        ];
        let want = "maxitems=1&name=_acme-challenge.a%20b.vt.edu.&type=TXT";
        assert_eq!(query(&pairs), want);
    }

    #[test]
    fn credentials_that_no_field_can_hold_are_no_panic() {
        let request = Request {
            method: "GET",
            host: "a.test",
            path: "/",
            query: "",
            body: b"",
        };
        let credentials = Credentials {
            key_id: "a\nb".to_owned(),
            secret: String::new(),
            token: None,
            expires: None,
        };
        let signed = sign(&request, &credentials, "r", "s", Timestamp::UNIX_EPOCH);
        assert_eq!(signed.unwrap_err(), AwsError::Credentials);
    }
}
