//! The functions of the gateway, with the signatures that the generator gives them.

use super::gateway;
use crate::EditError;

/// Names and values as the gateway checks them, as far as a policy's test can tell.
fn check(name: &str, value: &str) -> Result<(), EditError> {
    const FRAMING: [&str; 5] = [
        "connection",
        "content-length",
        "host",
        "transfer-encoding",
        "upgrade",
    ];
    if name.starts_with(':') || FRAMING.contains(&&*name.to_ascii_lowercase()) {
        return Err(EditError::Forbidden);
    }
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    let is_value = !value.chars().any(|c| c.is_control() && c != '\t');
    if is_name && is_value {
        Ok(())
    } else {
        Err(EditError::Invalid)
    }
}

macro_rules! message_functions {
    ($message:ident) => {
        pub(crate) fn get(name: &str) -> Option<String> {
            gateway(|g| g.exchange.$message.joined(name))
        }
        pub(crate) fn get_all(name: &str) -> Vec<String> {
            gateway(|g| g.exchange.$message.all(name).map(str::to_owned).collect())
        }
        pub(crate) fn get_bytes(name: &str) -> Vec<Vec<u8>> {
            get_all(name).into_iter().map(String::into_bytes).collect()
        }
        pub(crate) fn names() -> Vec<String> {
            gateway(|g| g.exchange.$message.names())
        }
        pub(crate) fn set(name: &str, value: &str) -> Result<(), EditError> {
            super::check(name, value)?;
            gateway(|g| {
                if !g.exchange.$message.has_room(name) {
                    return Err(EditError::TooLarge);
                }
                g.exchange.$message.remove(name);
                g.exchange.$message.append(name, value);
                Ok(())
            })
        }
        pub(crate) fn append(name: &str, value: &str) -> Result<(), EditError> {
            super::check(name, value)?;
            gateway(|g| {
                if g.exchange.$message.is_full() {
                    return Err(EditError::TooLarge);
                }
                g.exchange.$message.append(name, value);
                Ok(())
            })
        }
        pub(crate) fn remove(name: &str) -> Result<(), EditError> {
            super::check(name, "")?;
            gateway(|g| g.exchange.$message.remove(name));
            Ok(())
        }
    };
}

pub(crate) mod request {
    use super::gateway;
    use crate::EditError;

    message_functions!(request);

    pub(crate) fn method() -> String {
        gateway(|g| g.exchange.method.clone())
    }
    pub(crate) fn path() -> String {
        gateway(|g| g.exchange.path.clone())
    }
    pub(crate) fn authority() -> String {
        gateway(|g| g.exchange.authority.clone())
    }
    pub(crate) fn scheme() -> String {
        gateway(|g| g.exchange.scheme.clone())
    }
    pub(crate) fn set_method(method: &str) -> Result<(), EditError> {
        if ["CONNECT", "TRACE"].contains(&method) {
            return Err(EditError::Forbidden);
        }
        gateway(|g| g.exchange.method = method.to_owned());
        Ok(())
    }
    pub(crate) fn set_path(path: &str) -> Result<(), EditError> {
        if !path.starts_with('/') {
            return Err(EditError::Invalid);
        }
        gateway(|g| g.exchange.path = path.to_owned());
        Ok(())
    }
    pub(crate) fn set_authority(authority: &str) -> Result<(), EditError> {
        gateway(|g| g.exchange.authority = authority.to_owned());
        Ok(())
    }
    pub(crate) fn set_upstream(name: &str) -> Result<(), EditError> {
        gateway(|g| {
            if !g.exchange.upstreams.iter().any(|known| known == name) {
                return Err(EditError::UnknownUpstream);
            }
            g.exchange.upstream = Some(name.to_owned());
            Ok(())
        })
    }
}

pub(crate) mod response {
    use super::gateway;
    use crate::EditError;

    message_functions!(response);

    pub(crate) fn status() -> u16 {
        gateway(|g| g.exchange.status)
    }
    pub(crate) fn set_status(status: u16) -> Result<(), EditError> {
        if !(200..600).contains(&status) {
            return Err(EditError::Invalid);
        }
        gateway(|g| g.exchange.status = status);
        Ok(())
    }
}

pub(crate) mod body {
    use super::gateway;
    use crate::EditError;

    pub(crate) fn read(offset: u64, length: u32) -> Vec<u8> {
        gateway(|g| {
            let bytes = g.exchange.body.iter().skip(offset as usize);
            bytes.take(length as usize).copied().collect()
        })
    }
    pub(crate) fn replace(body: &[u8]) -> Result<(), EditError> {
        gateway(|g| g.exchange.body = body.to_vec());
        Ok(())
    }
}

pub(crate) mod exchange {
    use super::gateway;
    use crate::EditError;

    pub(crate) fn id() -> u64 {
        1
    }
    pub(crate) fn traceparent() -> String {
        gateway(|g| g.exchange.traceparent.clone())
    }
    pub(crate) fn attribute(name: &str) -> Option<String> {
        gateway(|g| g.exchange.attributes.get(name).cloned())
    }
    pub(crate) fn set_state(state: &[u8]) -> Result<(), EditError> {
        if state.len() > 4 << 10 {
            return Err(EditError::TooLarge);
        }
        gateway(|g| g.exchange.state = state.to_vec());
        Ok(())
    }
    pub(crate) fn state() -> Vec<u8> {
        gateway(|g| g.exchange.state.clone())
    }
    pub(crate) fn set_var(name: &str, value: &str) -> Result<(), EditError> {
        gateway(|g| g.exchange.vars.insert(name.to_owned(), value.to_owned()));
        Ok(())
    }
    pub(crate) fn var(name: &str) -> Option<String> {
        gateway(|g| g.exchange.vars.get(name).cloned())
    }
}

pub(crate) mod log {
    use super::gateway;
    use crate::log::Level;
    use crate::mock::LogLine;

    pub(crate) fn enabled(_level: Level) -> bool {
        true
    }
    pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let line = LogLine {
            level,
            message: message.to_owned(),
            fields: fields.to_vec(),
        };
        gateway(|g| g.logs.push(line));
    }
}

pub(crate) mod clock {
    use super::gateway;

    pub(crate) fn now_ms() -> u64 {
        gateway(|g| g.now_ms)
    }
    pub(crate) fn monotonic_ns() -> u64 {
        gateway(|g| g.now_ms * 1_000_000)
    }
    pub(crate) fn sleep_ms(ms: u32) {
        gateway(|g| g.now_ms += u64::from(ms));
    }
}

/// Numbers that only look random, and are the same in each run.
pub(crate) mod random {
    use super::gateway;

    pub(crate) fn bytes(length: u32) -> Vec<u8> {
        (0..length).map(|_| (number() >> 32) as u8).collect()
    }
    pub(crate) fn number() -> u64 {
        gateway(|g| {
            // xorshift64; never zero.
            let mut x = g.random;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            g.random = x;
            x
        })
    }
}

pub(crate) mod metrics {
    use super::gateway;

    fn define(name: &str) -> u32 {
        gateway(|g| {
            let known = g.metric_names.iter().position(|n| n == name);
            let at = known.unwrap_or_else(|| {
                g.metric_names.push(name.to_owned());
                g.metric_names.len() - 1
            });
            at as u32
        })
    }
    fn change(metric: u32, labels: &[String], change: impl FnOnce(&mut f64)) {
        gateway(|g| {
            let Some(name) = g.metric_names.get(metric as usize) else {
                return;
            };
            let key = (name.clone(), labels.to_vec());
            change(g.metrics.entry(key).or_default());
        });
    }
    pub(crate) fn counter(name: &str, _help: &str, _labels: &[String]) -> u32 {
        define(name)
    }
    pub(crate) fn gauge(name: &str, _help: &str, _labels: &[String]) -> u32 {
        define(name)
    }
    pub(crate) fn histogram(name: &str, _help: &str, _: &[String], _buckets: &[f64]) -> u32 {
        define(name)
    }
    pub(crate) fn add(metric: u32, delta: f64, labels: &[String]) {
        change(metric, labels, |sum| *sum += delta);
    }
    pub(crate) fn set(metric: u32, value: f64, labels: &[String]) {
        change(metric, labels, |sum| *sum = value);
    }
    pub(crate) fn observe(metric: u32, value: f64, labels: &[String]) {
        set(metric, value, labels);
    }
}

pub(crate) mod shared {
    use super::gateway;
    use crate::shared::Quota;

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        gateway(|g| g.shared.get(key).cloned())
    }
    pub(crate) fn set(key: &str, value: &[u8], _ttl_ms: u64) -> bool {
        gateway(|g| g.shared.insert(key.to_owned(), value.to_vec()));
        true
    }
    pub(crate) fn remove(key: &str) {
        gateway(|g| g.shared.remove(key));
    }
    pub(crate) fn compare_and_set(
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> bool {
        get(key).as_deref() == expected && set(key, value, ttl_ms)
    }
    pub(crate) fn increment(key: &str, delta: i64, ttl_ms: u64) -> i64 {
        let old = get(key).and_then(|bytes| bytes.try_into().ok());
        let sum = old.map_or(0, i64::from_le_bytes).wrapping_add(delta);
        set(key, &sum.to_le_bytes(), ttl_ms);
        sum
    }
    /// The bucket never fills again: a test says how much is left by how much it took.
    pub(crate) fn take(key: &str, tokens: u32, _rate: u32, per_ms: u32, burst: u32) -> Quota {
        let key = format!("bucket {key}");
        let taken = increment(&key, i64::from(tokens), 0);
        let allowed = taken <= i64::from(burst);
        if !allowed {
            increment(&key, -i64::from(tokens), 0);
        }
        let used = increment(&key, 0, 0);
        Quota {
            allowed,
            remaining: u64::try_from(i64::from(burst) - used).unwrap_or(0),
            retry_after_ms: if allowed { 0 } else { per_ms.into() },
        }
    }
}

pub(crate) mod callout {
    use super::gateway;
    use crate::bindings::postern::plugin::callout as wit;
    use crate::callout::Answer;
    use crate::callout::Call;
    use crate::glue::fields;

    pub(crate) fn send(call: &wit::Call) -> Result<wit::Reply, wit::CallError> {
        let pairs = call.headers.iter();
        let call = Call {
            upstream: call.upstream.clone(),
            method: call.method.clone(),
            path: call.path.clone(),
            headers: pairs.map(|f| (f.name.clone(), f.value.clone())).collect(),
            body: call.body.clone(),
            timeout_ms: call.timeout_ms,
            max_response_bytes: call.max_response_bytes,
        };
        let answered: Result<Answer, _> = gateway(|g| {
            let answered = (g.answer)(&call);
            g.calls.push(call);
            answered
        });
        answered.map(|answer| wit::Reply {
            status: answer.status,
            headers: fields(answer.headers),
            body: answer.body,
        })
    }
    pub(crate) fn send_all(calls: &[wit::Call]) -> Vec<Result<wit::Reply, wit::CallError>> {
        calls.iter().map(send).collect()
    }
}

pub(crate) mod secrets {
    use super::gateway;

    pub(crate) fn get(name: &str) -> Option<Vec<u8>> {
        gateway(|g| g.secrets.get(name).cloned())
    }
}

pub(crate) mod crypto {
    use sha2::Digest as _;
    use sha2::Sha256;
    use sha2::Sha384;
    use sha2::Sha512;

    use super::gateway;
    use super::secrets;
    use crate::crypto::DigestAlgorithm;
    use crate::crypto::Key;
    use crate::crypto::SignatureAlgorithm;

    pub(crate) fn digest(algorithm: DigestAlgorithm, data: &[u8]) -> Vec<u8> {
        match algorithm {
            DigestAlgorithm::Sha256 => Sha256::digest(data).to_vec(),
            DigestAlgorithm::Sha384 => Sha384::digest(data).to_vec(),
            DigestAlgorithm::Sha512 => Sha512::digest(data).to_vec(),
        }
    }
    /// RFC 2104.
    pub(crate) fn hmac(
        algorithm: DigestAlgorithm,
        key: &Key,
        data: &[u8],
    ) -> Result<Vec<u8>, String> {
        let mut key = match key {
            Key::Bytes(bytes) => bytes.clone(),
            Key::Secret(name) => secrets::get(name).ok_or("there is no such secret")?,
        };
        let block = match algorithm {
            DigestAlgorithm::Sha256 => 64,
            DigestAlgorithm::Sha384 | DigestAlgorithm::Sha512 => 128,
        };
        if key.len() > block {
            key = digest(algorithm, &key);
        }
        key.resize(block, 0);
        let padded = |pad: u8, rest: &[u8]| {
            let mut bytes: Vec<u8> = key.iter().map(|byte| byte ^ pad).collect();
            bytes.extend_from_slice(rest);
            digest(algorithm, &bytes)
        };
        Ok(padded(0x5c, &padded(0x36, data)))
    }
    pub(crate) fn verify(
        algorithm: SignatureAlgorithm,
        key: &Key,
        data: &[u8],
        signature: &[u8],
    ) -> Result<bool, String> {
        if matches!(algorithm, SignatureAlgorithm::Hs256) {
            return Ok(hmac(DigestAlgorithm::Sha256, key, data)? == signature);
        }
        Ok(gateway(|g| g.verifies))
    }
    pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}
