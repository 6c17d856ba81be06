//! DNS by HTTP: writes the TXT records of DNS-01 challenges (RFC 8555, 8.4) through an HTTP API.
//!
//! The gateway finds out where a record goes, waits until it is seen and takes it back; this only
//! tells an API of it. Adding twice and removing what is not there are no errors, since both happen
//! after a crash.

use postern_plugin::Plugin;
use postern_plugin::Progress;
use postern_plugin::Setup;
use postern_plugin::TxtRecord;
use postern_plugin::callout::Answer;
use postern_plugin::callout::Call;
use postern_plugin::config;
use postern_plugin::secrets;

/// Of an answer; what is longer is no answer to a record.
const MAX_ANSWER: u32 = 64 << 10;
/// Characters of an answer that are told when it is an error.
const MAX_EXCERPT: usize = 200;
const DEFAULT_TIMEOUT_MS: u32 = 10_000;

/// The policy, configured.
#[derive(Debug)]
pub struct DnsHttp {
    upstream: String,
    present: String,
    cleanup: String,
    name_field: String,
    value_field: String,
    /// None: every zone.
    zones: Option<Vec<String>>,
    /// The name of a secret.
    authorization: String,
    timeout_ms: u32,
}

impl Plugin for DnsHttp {
    fn configure(config: &str, _setup: &mut Setup) -> Result<Self, String> {
        config::read(config, |config| {
            let path = |key, default: &str| {
                let item = config.get(key);
                match item.is_given() {
                    true => item.path(),
                    false => Some(default.to_owned()),
                }
            };
            let field = |key, default: &str| {
                let item = config.get(key);
                match item.is_given() {
                    true => item.parsed(|text| match text.is_empty() {
                        true => Err("must be the name of a field".to_owned()),
                        false => Ok(text.to_owned()),
                    }),
                    false => Some(default.to_owned()),
                }
            };
            let upstream = config.need("upstream").text();
            let (present, cleanup) = (path("present", "/present"), path("cleanup", "/cleanup"));
            let names = (field("name-field", "fqdn"), field("value-field", "value"));
            let zones = config.get("zones").list(|item| item.parsed(zone));
            let authorization = config.need("authorization").parsed(|name| {
                // Read now, so that one that is missing is told before anything depends on it.
                authorization(name).map(|_| name.to_owned())
            });
            let timeout = config.get("timeout").duration_ms(100..=50_000);
            Some(Self {
                upstream: upstream?,
                present: present?,
                cleanup: cleanup?,
                name_field: names.0?,
                value_field: names.1?,
                zones,
                authorization: authorization?,
                timeout_ms: timeout
                    .and_then(|ms| ms.try_into().ok())
                    .unwrap_or(DEFAULT_TIMEOUT_MS),
            })
        })
    }

    fn supports(&self, zone: &str) -> bool {
        let Some(zones) = &self.zones else {
            return true;
        };
        let zone = zone.trim_end_matches('.').to_ascii_lowercase();
        zones.iter().any(|known| {
            let above = zone.strip_suffix(known.as_str());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    }

    fn present(&self, txt: &TxtRecord) -> Result<Progress, String> {
        let answer = self.tell(&self.present, txt)?;
        match answer.status {
            200..300 => Ok(Progress::Ready),
            _ => Err(self.refused(&self.present, &answer)),
        }
    }

    fn cleanup(&self, txt: &TxtRecord) -> Result<(), String> {
        let answer = self.tell(&self.cleanup, txt)?;
        match answer.status {
            // Gone is what it was to be.
            200..300 | 404 | 410 => Ok(()),
            _ => Err(self.refused(&self.cleanup, &answer)),
        }
    }
}

impl DnsHttp {
    fn tell(&self, path: &str, txt: &TxtRecord) -> Result<Answer, String> {
        let body = format!(
            "{{{}:{},{}:{}}}",
            quoted(&self.name_field),
            quoted(&format!("{}.", txt.name.trim_end_matches('.'))),
            quoted(&self.value_field),
            quoted(&txt.value)
        );
        let mut call = Call::post(self.upstream.as_str(), path, body)
            .header("content-type", "application/json")
            // Read at each call: it may be another one since.
            .header("authorization", authorization(&self.authorization)?)
            .timeout_ms(self.timeout_ms);
        call.max_response_bytes = MAX_ANSWER;
        let answer = call.send();
        answer.map_err(|error| format!("POST {path} to {}: {}", self.upstream, error.message()))
    }

    fn refused(&self, path: &str, answer: &Answer) -> String {
        let text = String::from_utf8_lossy(&answer.body);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let excerpt: String = words.chars().take(MAX_EXCERPT).collect();
        format!(
            "POST {path} to {} was answered {}: {excerpt}",
            self.upstream, answer.status
        )
    }
}

/// What the field `authorization` says.
fn authorization(secret: &str) -> Result<String, String> {
    let text = secrets::get(secret).ok_or_else(|| {
        format!("there is no secret \"{secret}\"; grant one with grants.secrets.{secret}")
    })?;
    let text = String::from_utf8(text).unwrap_or_default();
    let text = text.trim();
    // Never the text itself.
    match text.is_empty() || text.contains(char::is_control) {
        true => Err(format!(
            "the secret \"{secret}\" cannot be the value of a field"
        )),
        false => Ok(text.to_owned()),
    }
}

fn zone(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match !name.is_empty() && name.bytes().all(is_char) {
        true => Ok(name),
        false => Err("must be the name of a zone, as in \"example.com\"".to_owned()),
    }
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

postern_plugin::export!(DnsHttp: dns_solver);

#[cfg(test)]
mod tests;
