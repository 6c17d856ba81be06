//! One line a request, whatever became of it.
//!
//! The record travels with the request and writes its line when it is dropped: so a request that
//! was rejected before routing, or whose client went away and whose future was cancelled, has a
//! line too.

pub(crate) mod writer;

use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Version;
use http::uri::PathAndQuery;
use postern_core::config::AccessLogFormat;
use postern_core::name::PolicyName;
use postern_core::request::RequestHead;
use postern_core::route::RuleId;
use postern_wasm::Exchange;
use postern_wasm::exchange::Summary;
use tokio::time::Instant;

use crate::body::BodyError;
use crate::connection::Connection;
use crate::error::ProxyError;
use crate::log_calls::LogCall;
use crate::policy::Permit;
use crate::upstream::Pool;
use crate::worker::View;
use crate::worker::Worker;

/// What is known of one request so far.
pub(crate) struct AccessRecord {
    worker: Rc<Worker>,
    view: Rc<View>,
    connection: Rc<Connection>,
    started: Instant,
    id: u64,
    version: Version,
    method: Option<Method>,
    host: Option<HeaderValue>,
    path: Option<PathAndQuery>,
    client: Option<std::net::IpAddr>,
    rule: Option<RuleId>,
    upstream: Option<(Rc<Pool>, usize)>,
    /// The policy that answered, if one did.
    policy: Option<PolicyName>,
    /// Counted as in flight until the record is dropped.
    permits: Vec<Permit>,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    request_bytes: Rc<Cell<u64>>,
    response_bytes: u64,
    is_complete: bool,
    /// Plugins that want to know how it ended.
    log_call: Option<Box<LogCall>>,
}

impl AccessRecord {
    pub(crate) fn start(
        worker: &Rc<Worker>,
        view: &Rc<View>,
        connection: &Rc<Connection>,
        method: &Method,
        version: Version,
    ) -> Box<Self> {
        Box::new(Self {
            id: worker.next_id(),
            worker: Rc::clone(worker),
            view: Rc::clone(view),
            connection: Rc::clone(connection),
            started: Instant::now(),
            version,
            method: Some(method.clone()),
            host: None,
            path: None,
            client: None,
            rule: None,
            upstream: None,
            policy: None,
            permits: Vec::new(),
            status: None,
            reason: None,
            request_bytes: Rc::default(),
            response_bytes: 0,
            is_complete: false,
            log_call: None,
        })
    }

    /// Has plugins called when the exchange has ended.
    pub(crate) fn log_call(&mut self, call: LogCall) {
        self.log_call = Some(Box::new(call));
    }

    /// What plugins set since then, for those that are called at the end.
    pub(crate) fn note(&mut self, exchange: &Exchange) {
        if let Some(call) = &mut self.log_call {
            call.exchange.join(exchange);
        }
    }

    /// Unique in the process; shown to the client with an error.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn parsed(&mut self, head: &RequestHead, client: std::net::IpAddr) {
        self.host = Some(head.authority.value().clone());
        self.path = Some(head.path.as_target().clone());
        self.client = Some(client);
    }

    pub(crate) fn routed(&mut self, rule: RuleId) {
        self.rule = Some(rule);
    }

    pub(crate) fn forwarded(&mut self, pool: &Rc<Pool>, endpoint: usize) {
        self.upstream = Some((Rc::clone(pool), endpoint));
    }

    /// Since the request began.
    pub(crate) fn took(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// With a reason, the policy refused the request.
    pub(crate) fn answered_by(&mut self, policy: &PolicyName, reason: Option<&'static str>) {
        self.policy = Some(policy.clone());
        self.reason = reason.or(self.reason);
    }

    /// Keeps what policies count until the request is over.
    pub(crate) fn hold(&mut self, permits: Vec<Permit>) {
        self.permits = permits;
    }

    pub(crate) fn failed(&mut self, error: &ProxyError) {
        self.reason = Some(error.reason());
        if let Some(plugin) = error.plugin() {
            self.policy = Some(plugin.clone());
        }
        if let ProxyError::BodyTooLarge { policy } = error {
            self.policy = Some(policy.clone());
        }
    }

    /// Writes the line of a request that the HTTP parser refused: all that is known is the answer.
    pub(crate) fn refused(worker: &Rc<Worker>, connection: &Rc<Connection>, status: StatusCode) {
        let (method, version) = (Method::default(), Version::HTTP_11);
        let mut record = Self::start(worker, &worker.view(), connection, &method, version);
        record.method = None;
        record.status = Some(status);
        record.reason = Some(match status {
            StatusCode::REQUEST_TIMEOUT => "request-timeout",
            _ => "bad-request",
        });
    }

    pub(crate) fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The cell that counts bytes of the request body.
    pub(crate) fn request_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.request_bytes)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    pub(crate) fn cut(&mut self, error: &BodyError) {
        self.reason = Some(match error {
            BodyError::Idle => "response-idle",
            BodyError::Cut(_)
            | BodyError::TooLarge
            | BodyError::Trailers
            | BodyError::Coding(_) => "response-cut",
            BodyError::Plugin { plugin, reason, .. } => {
                self.policy = Some(plugin.clone());
                reason
            }
            BodyError::Aborted { plugin } => {
                self.policy = Some(plugin.clone());
                "plugin-abort"
            }
        });
    }

    /// What a tunnel carried to the upstream and back.
    pub(crate) fn tunnelled(&mut self, up: u64, down: u64) {
        self.request_bytes.set(up);
        self.response_bytes = down;
    }

    pub(crate) fn completed(&mut self) {
        self.is_complete = true;
    }

    fn outcome(&self) -> &'static str {
        match self.reason {
            Some(reason) => reason,
            None if self.is_complete => "ok",
            None if self.connection.has_stalled() => "client-stalled",
            None => "client-closed",
        }
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let outcome = self.outcome();
        if outcome != "ok" {
            self.worker.stats.error(outcome);
        }
        if let Some(rule) = self.rule {
            let stats = self.view.route_stats(rule);
            stats.record(
                self.status,
                took,
                self.request_bytes.get(),
                self.response_bytes,
            );
        }
        if let Some(call) = self.log_call.take() {
            let upstream = self.upstream.as_ref();
            let summary = Summary {
                status: self.status,
                request_bytes: self.request_bytes.get(),
                response_bytes: self.response_bytes,
                duration: took,
                upstream: upstream.map(|(pool, _)| pool.upstream.name.clone()),
                outcome,
            };
            self.worker.log_calls.hand_in(*call, summary);
        }
        let format = self.view.snapshot.config.access_log.format;
        if format == AccessLogFormat::Off {
            return;
        }
        self.worker.log.line(|line| {
            let mut fields = Fields {
                line,
                format,
                is_first: true,
            };
            self.write(&mut fields, outcome, took);
            fields.end();
        });
    }
}

impl AccessRecord {
    fn write(&self, out: &mut Fields<'_>, outcome: &str, took: std::time::Duration) {
        out.begin();
        out.raw("time", |line| {
            self.worker.log.write_time(line, SystemTime::now())
        });
        out.number("request.id", self.id);
        out.text(
            "listener",
            self.connection.listener.name.as_str().as_bytes(),
        );
        let client = self.connection.peer_fields.addr.as_bytes();
        match self.client {
            Some(addr) if addr != self.connection.peer_fields.peer => {
                out.text("client.addr", addr.to_string().as_bytes());
                out.text("peer.addr", client);
            }
            _ => out.text("client.addr", client),
        }
        if let Some(balancer) = self.connection.balancer {
            let addr = balancer.ip().to_canonical().to_string();
            out.text("balancer.addr", addr.as_bytes());
        }
        if let Some(method) = &self.method {
            out.text("method", method.as_str().as_bytes());
        }
        if let Some(host) = &self.host {
            out.text("host", host.as_bytes());
        }
        if let Some(path) = &self.path {
            // Without the query: it is where applications put secrets.
            out.text("path", path.path().as_bytes());
        }
        out.text(
            "version",
            match self.version {
                Version::HTTP_10 => b"1.0",
                Version::HTTP_2 => b"2",
                _ => b"1.1",
            },
        );
        match self.status {
            Some(status) => out.number("status", u64::from(status.as_u16())),
            None => out.number("status", 0),
        }
        out.text("outcome", outcome.as_bytes());
        out.number("request.bytes", self.request_bytes.get());
        out.number("response.bytes", self.response_bytes);
        out.number(
            "duration.us",
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
        if let Some(id) = self.rule
            && let Some(rule) = self.view.snapshot.rule(id)
        {
            out.text("route", rule.route.name.as_str().as_bytes());
            // From 1, as `explain` counts.
            out.number("rule", u64::from(id.rule) + 1);
        }
        if let Some((pool, endpoint)) = &self.upstream {
            out.text("upstream", pool.upstream.name.as_str().as_bytes());
            out.text("endpoint", pool.endpoint_name(*endpoint).as_bytes());
        }
        if let Some(policy) = &self.policy {
            out.text("policy", policy.as_str().as_bytes());
        }
        out.number("generation", self.view.snapshot.generation);
    }
}

/// Bytes that stand for themselves in a value, quoted or not.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'=');
        byte += 1;
    }
    plain
};

/// The fields of one line, in either format.
struct Fields<'l> {
    line: &'l mut Vec<u8>,
    format: AccessLogFormat,
    is_first: bool,
}

impl Fields<'_> {
    fn begin(&mut self) {
        if self.format == AccessLogFormat::Json {
            self.line.push(b'{');
        }
    }

    fn end(self) {
        if self.format == AccessLogFormat::Json {
            self.line.push(b'}');
        }
        self.line.push(b'\n');
    }

    fn name(&mut self, name: &str) {
        let is_json = self.format == AccessLogFormat::Json;
        if !self.is_first {
            self.line.push(if is_json { b',' } else { b' ' });
        }
        self.is_first = false;
        if is_json {
            self.line.push(b'"');
            self.line.extend_from_slice(name.as_bytes());
            self.line.extend_from_slice(b"\":");
        } else {
            self.line.extend_from_slice(name.as_bytes());
            self.line.push(b'=');
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        let mut buffer = itoa::Buffer::new();
        self.line.extend_from_slice(buffer.format(value).as_bytes());
    }

    fn raw(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        let is_json = self.format == AccessLogFormat::Json;
        if is_json {
            self.line.push(b'"');
        }
        write(self.line);
        if is_json {
            self.line.push(b'"');
        }
    }

    /// Quoted in JSON always, in text where it would not be one word. What a client sent can
    /// neither end the line nor the value.
    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        let is_json = self.format == AccessLogFormat::Json;
        let is_plain = value.iter().all(|&byte| IS_PLAIN[usize::from(byte)]);
        if is_plain {
            if is_json {
                self.line.push(b'"');
            }
            self.line.extend_from_slice(value);
            if is_json {
                self.line.push(b'"');
            }
            return;
        }
        self.line.push(b'"');
        for &byte in value {
            match byte {
                b'"' | b'\\' => self.line.extend_from_slice(&[b'\\', byte]),
                0x20..=0x7e => self.line.push(byte),
                byte => {
                    const DIGITS: &[u8; 16] = b"0123456789abcdef";
                    self.line.extend_from_slice(b"\\u00");
                    self.line.push(DIGITS[usize::from(byte >> 4)]);
                    self.line.push(DIGITS[usize::from(byte & 15)]);
                }
            }
        }
        self.line.push(b'"');
    }
}

/// A line of these values alone, for tests of other crates.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn line_of(format: AccessLogFormat, values: &[(&str, &[u8])]) -> Vec<u8> {
    let mut line = Vec::new();
    let mut fields = Fields {
        line: &mut line,
        format,
        is_first: true,
    };
    fields.begin();
    for (name, value) in values {
        fields.text(name, value);
    }
    fields.end();
    line
}

/// Seconds since 1970.
fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_cannot_leave_its_value() {
        let cases: [(&[u8], &str, &str); 5] = [
            (b"/plain", "a=/plain\n", "{\"a\":\"/plain\"}\n"),
            (b"two words", "a=\"two words\"\n", "{\"a\":\"two words\"}\n"),
            (
                b"x\" y=\"z",
                "a=\"x\\\" y=\\\"z\"\n",
                "{\"a\":\"x\\\" y=\\\"z\"}\n",
            ),
            (
                b"\r\n\x1b[2J",
                "a=\"\\u000d\\u000a\\u001b[2J\"\n",
                "{\"a\":\"\\u000d\\u000a\\u001b[2J\"}\n",
            ),
            (
                b"\xff\\",
                "a=\"\\u00ff\\\\\"\n",
                "{\"a\":\"\\u00ff\\\\\"}\n",
            ),
        ];
        for (value, text, json) in cases {
            for (format, want) in [(AccessLogFormat::Text, text), (AccessLogFormat::Json, json)] {
                let line = line_of(format, &[("a", value)]);
                assert_eq!(String::from_utf8(line).unwrap(), want);
            }
        }
    }
}
