//! What else a policy may ask of the gateway: one module an interface, documented in
//! `wit/host.wit`.

/// The functions themselves: the gateway's in Wasm, the mock's elsewhere.
pub(crate) mod raw {
    #[cfg(target_family = "wasm")]
    pub(crate) use crate::bindings::postern::plugin::*;
    #[cfg(not(target_family = "wasm"))]
    pub(crate) use crate::mock::functions::*;
}

/// The body that the plugin asked for.
pub mod body {
    use super::raw;
    use crate::EditError;

    /// The body of the message in `on_request_body` and `on_response_body`. It stays with the
    /// gateway, and is read from there.
    #[derive(Clone, Copy, Debug)]
    pub struct Body {
        pub(crate) length: u64,
        pub(crate) truncated: bool,
    }

    impl Body {
        /// How many bytes are there to be read.
        pub fn len(&self) -> u64 {
            self.length
        }

        pub fn is_empty(&self) -> bool {
            self.length == 0
        }

        /// Whether there are more, which pass untouched.
        pub fn is_truncated(&self) -> bool {
            self.truncated
        }

        /// At most `length` bytes from `offset` on.
        pub fn read(&self, offset: u64, length: u32) -> Vec<u8> {
            raw::body::read(offset, length)
        }

        /// All of it.
        pub fn read_all(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < self.length {
                let piece = raw::body::read(bytes.len() as u64, 64 << 10);
                if piece.is_empty() {
                    break;
                }
                bytes.extend_from_slice(&piece);
            }
            bytes
        }

        /// Replaces the whole body.
        pub fn replace(&self, body: &[u8]) -> Result<(), EditError> {
            raw::body::replace(body)
        }
    }
}

/// What is known of the current exchange beside its messages.
pub mod exchange {
    use super::raw;
    use crate::EditError;

    /// The same in all phases of an exchange, unique in the process.
    pub fn id() -> u64 {
        raw::exchange::id()
    }

    /// The `traceparent` field that goes upstream; empty if there is none.
    pub fn traceparent() -> String {
        raw::exchange::traceparent()
    }

    /// "peer.ip", "peer.port", "client.ip", "tls.sni", "listener", "route", "upstream" or
    /// "http.version".
    pub fn attribute(name: &str) -> Option<String> {
        raw::exchange::attribute(name)
    }

    /// Keeps bytes, at most 4 KiB, for the later phases of this plugin.
    pub fn set_state(state: &[u8]) -> Result<(), EditError> {
        raw::exchange::set_state(state)
    }

    /// What was kept last; empty at first.
    pub fn state() -> Vec<u8> {
        raw::exchange::state()
    }

    /// A value for later plugins and the access log.
    pub fn set_var(name: &str, value: &str) -> Result<(), EditError> {
        raw::exchange::set_var(name, value)
    }

    /// What a plugin has set.
    pub fn var(name: &str) -> Option<String> {
        raw::exchange::var(name)
    }
}

/// The gateway's log.
pub mod log {
    use super::raw;

    pub use crate::bindings::postern::plugin::log::Level;

    /// Whether a line of this level would be written; saves making it.
    pub fn enabled(level: Level) -> bool {
        raw::log::enabled(level)
    }

    /// Writes one line.
    pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let fields: Vec<(String, String)> = fields.iter().map(own).collect();
        raw::log::write(level, message, &fields);
    }

    pub fn debug(message: &str, fields: &[(&str, &str)]) {
        write(Level::Debug, message, fields);
    }

    pub fn info(message: &str, fields: &[(&str, &str)]) {
        write(Level::Info, message, fields);
    }

    pub fn warn(message: &str, fields: &[(&str, &str)]) {
        write(Level::Warn, message, fields);
    }

    pub fn error(message: &str, fields: &[(&str, &str)]) {
        write(Level::Error, message, fields);
    }
}

/// Time.
pub mod clock {
    use super::raw;

    /// Unix time in milliseconds.
    pub fn now_ms() -> u64 {
        raw::clock::now_ms()
    }

    /// Nanoseconds since a moment of the gateway's choosing; never goes back.
    pub fn monotonic_ns() -> u64 {
        raw::clock::monotonic_ns()
    }

    /// Waits, at most 10 seconds. Not in `configure`.
    pub fn sleep_ms(ms: u32) {
        raw::clock::sleep_ms(ms);
    }
}

/// Random numbers, fit for secrets.
pub mod random {
    use super::raw;

    /// At most 64 KiB.
    pub fn bytes(length: u32) -> Vec<u8> {
        raw::random::bytes(length)
    }

    pub fn number() -> u64 {
        raw::random::number()
    }
}

/// Figures of the plugin's own. Those are made in `configure`, and kept in the plugin.
pub mod metrics {
    use super::raw;

    /// Goes up.
    #[derive(Clone, Copy, Debug)]
    pub struct Counter(u32);

    /// Goes up and down.
    #[derive(Clone, Copy, Debug)]
    pub struct Gauge(u32);

    /// Counts observations by size.
    #[derive(Clone, Copy, Debug)]
    pub struct Histogram(u32);

    pub fn counter(name: &str, help: &str, labels: &[&str]) -> Counter {
        Counter(raw::metrics::counter(name, help, &own(labels)))
    }

    pub fn gauge(name: &str, help: &str, labels: &[&str]) -> Gauge {
        Gauge(raw::metrics::gauge(name, help, &own(labels)))
    }

    /// `buckets`: upper bounds, ascending.
    pub fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Histogram {
        Histogram(raw::metrics::histogram(name, help, &own(labels), buckets))
    }

    impl Counter {
        /// Adds to the counter of these label values.
        pub fn add(self, delta: f64, labels: &[&str]) {
            raw::metrics::add(self.0, delta, &own(labels));
        }
    }

    impl Gauge {
        pub fn add(self, delta: f64, labels: &[&str]) {
            raw::metrics::add(self.0, delta, &own(labels));
        }

        pub fn set(self, value: f64, labels: &[&str]) {
            raw::metrics::set(self.0, value, &own(labels));
        }
    }

    impl Histogram {
        pub fn observe(self, value: f64, labels: &[&str]) {
            raw::metrics::observe(self.0, value, &own(labels));
        }
    }

    fn own(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }
}

/// State that all instances of this plugin share.
pub mod shared {
    use super::raw;

    pub use crate::bindings::postern::plugin::shared::Quota;

    pub fn get(key: &str) -> Option<Vec<u8>> {
        raw::shared::get(key)
    }

    /// `ttl_ms` 0: it does not expire. Answers whether it was stored.
    pub fn set(key: &str, value: &[u8], ttl_ms: u64) -> bool {
        raw::shared::set(key, value, ttl_ms)
    }

    pub fn remove(key: &str) {
        raw::shared::remove(key);
    }

    /// Stores `value` only if the key holds `expected` now.
    pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8], ttl_ms: u64) -> bool {
        raw::shared::compare_and_set(key, expected, value, ttl_ms)
    }

    /// Adds, in one step, and answers the sum.
    pub fn increment(key: &str, delta: i64, ttl_ms: u64) -> i64 {
        raw::shared::increment(key, delta, ttl_ms)
    }

    /// Takes from a token bucket: `rate` tokens each `per_ms`, at most `burst`.
    pub fn take(key: &str, tokens: u32, rate: u32, per_ms: u32, burst: u32) -> Quota {
        raw::shared::take(key, tokens, rate, per_ms, burst)
    }
}

/// Requests to upstreams that the operator granted to the plugin.
pub mod callout {
    use super::raw;
    use crate::glue::fields;

    pub use crate::bindings::postern::plugin::callout::CallError;

    /// A request. Times and sizes of 0 leave the gateway's own limits.
    #[derive(Clone, Debug, Default, Eq, PartialEq)]
    pub struct Call {
        pub upstream: String,
        pub method: String,
        pub path: String,
        pub headers: Vec<(String, String)>,
        pub body: Vec<u8>,
        pub timeout_ms: u32,
        pub max_response_bytes: u32,
    }

    /// The upstream's answer.
    #[derive(Clone, Debug, Default, Eq, PartialEq)]
    pub struct Answer {
        pub status: u16,
        pub headers: Vec<(String, String)>,
        pub body: Vec<u8>,
    }

    impl Call {
        /// A GET without fields.
        pub fn get(upstream: impl Into<String>, path: impl Into<String>) -> Self {
            Self {
                upstream: upstream.into(),
                method: "GET".to_owned(),
                path: path.into(),
                ..Self::default()
            }
        }

        /// A POST with a body.
        pub fn post(
            upstream: impl Into<String>,
            path: impl Into<String>,
            body: impl Into<Vec<u8>>,
        ) -> Self {
            Self {
                method: "POST".to_owned(),
                body: body.into(),
                ..Self::get(upstream, path)
            }
        }

        /// Adds a field.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.headers.push((name.into(), value.into()));
            self
        }

        /// Bounds the time.
        pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
            self.timeout_ms = timeout_ms;
            self
        }

        /// Waits for the answer.
        pub fn send(self) -> Result<Answer, CallError> {
            raw::callout::send(&self.into()).map(Into::into)
        }
    }

    impl Answer {
        /// The first value of a field; `name` in lower case.
        pub fn header(&self, name: &str) -> Option<&str> {
            let found = self.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| &**value)
        }
    }

    /// Sends all at once; the answers are in the order of the calls.
    pub fn send_all(calls: Vec<Call>) -> Vec<Result<Answer, CallError>> {
        let calls: Vec<_> = calls.into_iter().map(Into::into).collect();
        let answers = raw::callout::send_all(&calls).into_iter();
        answers.map(|answer| answer.map(Into::into)).collect()
    }

    impl From<Call> for crate::bindings::postern::plugin::callout::Call {
        fn from(call: Call) -> Self {
            Self {
                upstream: call.upstream,
                method: call.method,
                path: call.path,
                headers: fields(call.headers),
                body: call.body,
                timeout_ms: call.timeout_ms,
                max_response_bytes: call.max_response_bytes,
            }
        }
    }

    impl From<crate::bindings::postern::plugin::callout::Reply> for Answer {
        fn from(reply: crate::bindings::postern::plugin::callout::Reply) -> Self {
            let pairs = reply.headers.into_iter();
            Self {
                status: reply.status,
                headers: pairs.map(|field| (field.name, field.value)).collect(),
                body: reply.body,
            }
        }
    }
}

/// Secrets that the operator granted to the plugin.
pub mod secrets {
    use super::raw;

    pub fn get(name: &str) -> Option<Vec<u8>> {
        raw::secrets::get(name)
    }
}

/// Digests and signatures, made by the gateway.
pub mod crypto {
    use super::raw;

    pub use crate::bindings::postern::plugin::crypto::DigestAlgorithm;
    pub use crate::bindings::postern::plugin::crypto::Key;
    pub use crate::bindings::postern::plugin::crypto::SignatureAlgorithm;

    pub fn digest(algorithm: DigestAlgorithm, data: &[u8]) -> Vec<u8> {
        raw::crypto::digest(algorithm, data)
    }

    pub fn hmac(algorithm: DigestAlgorithm, key: &Key, data: &[u8]) -> Result<Vec<u8>, String> {
        raw::crypto::hmac(algorithm, key, data)
    }

    /// An error is about the key; a signature of the wrong form is false.
    pub fn verify(
        algorithm: SignatureAlgorithm,
        key: &Key,
        data: &[u8],
        signature: &[u8],
    ) -> Result<bool, String> {
        raw::crypto::verify(algorithm, key, data, signature)
    }

    /// Takes the same time wherever the two differ.
    pub fn equal(a: &[u8], b: &[u8]) -> bool {
        raw::crypto::equal(a, b)
    }
}
