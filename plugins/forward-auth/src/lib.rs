//! Forward auth: asks a service whether a request may pass, and who sent it.
//!
//! Invariants:
//! - A field that the service is to set never reaches the application as the client sent it.
//! - What the service is told of the request is what the gateway knows, not what the client says.

use std::cell::Cell;

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::callout::Answer;
use postern_plugin::callout::Call;
use postern_plugin::config;
use postern_plugin::exchange;
use postern_plugin::log;

/// Of an answer that refuses: a page to log in, at most.
const MAX_ANSWER: u32 = 64 << 10;
const DEFAULT_ASK: [&str; 2] = ["authorization", "cookie"];
const DEFAULT_REPLY: [&str; 4] = [
    "www-authenticate",
    "location",
    "content-type",
    "cache-control",
];
/// What the service is told in its own right.
const OWN: [&str; 5] = [
    "x-forwarded-method",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-uri",
    "x-forwarded-for",
];

/// The policy, configured.
#[derive(Debug)]
pub struct ForwardAuth {
    upstream: String,
    path: String,
    timeout_ms: u32,
    /// Fields of the request that the service is shown.
    ask: Vec<String>,
    /// Fields of its answer that the application gets.
    set: Vec<String>,
    /// Fields of its answer that the client gets if it refuses.
    reply: Vec<String>,
    allows_on_outage: bool,
    /// Whether the last answer was an outage: a change is logged, not every request.
    is_out: Cell<bool>,
}

impl Plugin for ForwardAuth {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, |config| {
            let upstream = config.need("upstream").text();
            let path = config.get("path");
            let path = path.parsed(|path| match path.starts_with('/') {
                true => Ok(path.to_owned()),
                false => Err("must be a path that begins with `/`".to_owned()),
            });
            let timeout = config.get("timeout").duration_ms(10..=60_000);
            let names = |key, default: &[&str]| {
                let item = config.get(key);
                match item.is_given() {
                    true => item.list(|item| item.field_name()).unwrap_or_default(),
                    false => default.iter().map(|name| (*name).to_owned()).collect(),
                }
            };
            let ask = names("ask-headers", &DEFAULT_ASK);
            let set = names("set-headers", &[]);
            let reply = names("reply-headers", &DEFAULT_REPLY);
            if let Some(own) = ask.iter().find(|name| OWN.contains(&name.as_str())) {
                config.wrong::<()>(&format!(
                    "ask-headers: {own} is always sent, as the gateway knows it"
                ));
            }
            let outage = config.get("on-outage");
            let outage = outage.one_of(&[("deny", false), ("allow", true)]);
            Some(Self {
                upstream: upstream?,
                path: path.unwrap_or_else(|| "/".to_owned()),
                timeout_ms: timeout.and_then(|ms| ms.try_into().ok()).unwrap_or(0),
                ask,
                set,
                reply,
                allows_on_outage: outage.unwrap_or(false),
                is_out: Cell::new(false),
            })
        })?;
        let view = [":method", ":scheme", ":authority", ":path", "@client-ip"].into_iter();
        setup.request_view(
            view.chain(
                made.ask
                    .iter()
                    .map(String::as_str)
                    .filter(|n| *n != "set-cookie"),
            ),
        );
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let answered = self.call(request).send();
        for name in &self.set {
            request.remove(name)?;
        }
        match answered {
            Ok(answer) if (200..300).contains(&answer.status) => {
                self.is_out.set(false);
                for name in &self.set {
                    for value in values(&answer, name) {
                        request.append(name, value)?;
                    }
                }
                Ok(Action::Next)
            }
            Ok(answer) if (300..500).contains(&answer.status) => {
                self.is_out.set(false);
                Ok(self.refusal(answer).into())
            }
            Ok(answer) => self.outage(&format!("it answered {}", answer.status)),
            Err(error) => self.outage(error.message()),
        }
    }
}

impl ForwardAuth {
    fn call(&self, request: &Request) -> Call {
        let client = request.get("@client-ip").unwrap_or_default();
        let mut call = Call::get(self.upstream.as_str(), self.path.as_str())
            .header("x-forwarded-method", request.method())
            .header("x-forwarded-proto", request.scheme())
            .header("x-forwarded-host", request.authority())
            .header("x-forwarded-uri", request.path())
            .header("x-forwarded-for", client)
            .timeout_ms(self.timeout_ms);
        call.max_response_bytes = MAX_ANSWER;
        for name in &self.ask {
            if let Some(value) = request.get(name) {
                // Joined from several fields it may end with a space, which no field does.
                call = call.header(name.as_str(), value.trim());
            }
        }
        let trace = exchange::traceparent();
        if !trace.is_empty() {
            call = call.header("traceparent", trace);
        }
        call
    }

    fn refusal(&self, answer: Answer) -> Reply {
        let mut reply = Reply::new(answer.status);
        for name in &self.reply {
            for value in values(&answer, name) {
                reply = reply.header(name.as_str(), value);
            }
        }
        match answer.status {
            // It has no body, whatever came.
            304 => reply,
            _ => reply.body(answer.body),
        }
    }

    fn outage(&self, reason: &str) -> Result<Action, Fault> {
        if !self.is_out.replace(true) {
            let fields = [("upstream", self.upstream.as_str()), ("error", reason)];
            log::warn("the service that decides is out", &fields);
        }
        if self.allows_on_outage {
            return Ok(Action::Next);
        }
        let reply = Reply::text(503, "try again later\n").header("cache-control", "no-store");
        Ok(reply.into())
    }
}

fn values<'a>(answer: &'a Answer, name: &'a str) -> impl Iterator<Item = &'a str> {
    let is_it = move |(n, _): &&(String, String)| n == name;
    answer
        .headers
        .iter()
        .filter(is_it)
        .map(|(_, value)| value.as_str())
}

postern_plugin::export!(ForwardAuth: request);

#[cfg(test)]
mod tests;
