//! A gateway made of values, for tests of policies on any machine.
//!
//! ```
//! use postern_plugin::mock::{self, Exchange};
//! # use postern_plugin::{Action, Fault, Plugin, Request, Setup};
//! # struct Hello;
//! # impl Plugin for Hello {
//! #     fn configure(_: &str, _: &mut Setup) -> Result<Self, String> { Ok(Self) }
//! #     fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
//! #         request.set("x-hello", "world")?;
//! #         Ok(Action::Next)
//! #     }
//! # }
//! # postern_plugin::export!(Hello: request);
//!
//! let hello = mock::configure::<Hello>("{}").unwrap();
//! let mut exchange = Exchange::new("GET", "/");
//! assert_eq!(hello.on_request(&mut exchange), Ok(Action::Next));
//! assert_eq!(exchange.request.get("x-hello"), Some("world"));
//! ```
//!
//! What it does not do: normalise paths, count limits but that of fields, or know which function belongs in which
//! phase. `postern plugin test` runs the component in the real host, which does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;

use crate::Action;
use crate::Fault;
use crate::Plugin;
use crate::bindings::postern::plugin::callout::CallError;
use crate::callout::Answer;
use crate::callout::Call;
use crate::glue::Running;
use crate::glue::View;

pub(crate) mod functions;

/// Fields that a message may have.
const MAX_FIELDS: usize = 100;

/// What [`export!`](crate::export) knows of a plugin.
#[doc(hidden)]
pub trait Exported {
    const PHASES: &'static [&'static str];
}

/// The gateway around the exchanges of this thread, to be set up before and looked at after a call.
pub struct Gateway {
    /// What `secrets.get` answers.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Unix time in milliseconds. `sleep_ms` advances it.
    pub now_ms: u64,
    /// What `shared` holds. Values do not expire.
    pub shared: BTreeMap<String, Vec<u8>>,
    /// Lines that were logged: level, message, fields.
    pub logs: Vec<LogLine>,
    /// Calls that were made.
    pub calls: Vec<Call>,
    /// Sums of counters and gauges and the last observation of histograms, by name and labels.
    pub metrics: BTreeMap<(String, Vec<String>), f64>,
    /// Answers of `crypto.verify`, except for hs256, which is computed.
    pub verifies: bool,
    answer: Box<dyn FnMut(&Call) -> Result<Answer, CallError>>,
    metric_names: Vec<String>,
    random: u64,
    exchange: Exchange,
}

/// One line that was logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    pub level: &'static str,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            secrets: BTreeMap::new(),
            now_ms: 1_700_000_000_000,
            shared: BTreeMap::new(),
            logs: Vec::new(),
            calls: Vec::new(),
            metrics: BTreeMap::new(),
            verifies: false,
            answer: Box::new(|_| Err(CallError::Denied)),
            metric_names: Vec::new(),
            random: 1,
            exchange: Exchange::new("GET", "/"),
        }
    }
}

impl Gateway {
    /// How callouts are answered. Until this is called they are denied.
    pub fn on_callout(&mut self, answer: impl FnMut(&Call) -> Result<Answer, CallError> + 'static) {
        self.answer = Box::new(answer);
    }

    /// The exchange that the next call is about, for tests of what stands around a plugin.
    #[cfg(test)]
    pub(crate) fn set_exchange(&mut self, exchange: Exchange) {
        self.exchange = exchange;
    }
}

std::thread_local! {
    static GATEWAY: RefCell<Gateway> = RefCell::default();
}

/// The gateway of this thread.
pub fn gateway<T>(look: impl FnOnce(&mut Gateway) -> T) -> T {
    GATEWAY.with_borrow_mut(look)
}

/// A plugin with a configuration that it has accepted.
pub struct Configured<P: 'static>(&'static Running<P>);

/// Shows a plugin its configuration, as the gateway does for each instance.
pub fn configure<P: Plugin + Exported>(config: &str) -> Result<Configured<P>, String> {
    Running::configure(config).map(Configured)
}

impl<P: Plugin + Exported> Configured<P> {
    /// The plugin itself.
    pub fn plugin(&self) -> &P {
        &self.0.plugin
    }

    pub fn select(&self, exchange: &mut Exchange) -> Result<Option<String>, Fault> {
        self.run("route", exchange, || {
            let view = view(&self.0.setup.request_view, false);
            self.0.select(view)
        })
    }

    pub fn on_request(&self, exchange: &mut Exchange) -> Result<Action, Fault> {
        self.run("request", exchange, || {
            let view = view(&self.0.setup.request_view, false);
            self.0.on_request(view)
        })
    }

    pub fn on_request_body(&self, exchange: &mut Exchange) -> Result<Action, Fault> {
        let length = exchange.body.len() as u64;
        self.run("request_body", exchange, || {
            self.0.on_request_body(length, false)
        })
    }

    pub fn on_response(&self, exchange: &mut Exchange) -> Result<Action, Fault> {
        self.run("response", exchange, || {
            let view = view(&self.0.setup.response_view, true);
            self.0.on_response(view)
        })
    }

    pub fn on_response_body(&self, exchange: &mut Exchange) -> Result<Action, Fault> {
        let length = exchange.body.len() as u64;
        self.run("response_body", exchange, || {
            self.0.on_response_body(length, false)
        })
    }

    fn run<T>(&self, phase: &str, exchange: &mut Exchange, call: impl FnOnce() -> T) -> T {
        // The gateway would not make this call, and a test that does proves nothing.
        assert!(
            P::PHASES.contains(&phase),
            "`{phase}` is not among the phases in export!"
        );
        gateway(|gateway| mem::swap(&mut gateway.exchange, exchange));
        let answered = call();
        gateway(|gateway| mem::swap(&mut gateway.exchange, exchange));
        answered
    }
}

/// One exchange: what the plugin is shown, and what it made of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exchange {
    pub request: Message,
    pub response: Message,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub scheme: String,
    pub status: u16,
    /// Of the message whose body phase is called.
    pub body: Vec<u8>,
    /// The upstream that the plugin chose with `set_upstream`.
    pub upstream: Option<String>,
    /// The upstreams that exist.
    pub upstreams: Vec<String>,
    /// What `exchange.attribute` and the "@" names of a view answer, by the former's names.
    pub attributes: BTreeMap<String, String>,
    pub state: Vec<u8>,
    pub vars: BTreeMap<String, String>,
    pub traceparent: String,
}

impl Exchange {
    /// A request for `localhost` over http, and a response 200 without fields.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            request: Message::default(),
            response: Message::default(),
            method: method.to_owned(),
            path: path.to_owned(),
            authority: "localhost".to_owned(),
            scheme: "http".to_owned(),
            status: 200,
            body: Vec::new(),
            upstream: None,
            upstreams: Vec::new(),
            attributes: BTreeMap::new(),
            state: Vec::new(),
            vars: BTreeMap::new(),
            traceparent: String::new(),
        }
    }

    /// Adds a field to the request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.append(name, value);
        self
    }
}

/// The fields of a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message(Vec<(String, String)>);

impl Message {
    /// The first value of a field.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Every value of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let is_it = move |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.0.iter().filter(is_it).map(|(_, value)| &**value)
    }

    /// Adds a field.
    pub fn append(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Whether a field of this name can be set.
    fn has_room(&self, name: &str) -> bool {
        self.0.len() < MAX_FIELDS || self.get(name).is_some()
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_FIELDS
    }

    fn joined(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.all(name).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The values of a view.
fn view(names: &[String], of_response: bool) -> View {
    let value = |name: &String| {
        gateway(|gateway| {
            let exchange = &gateway.exchange;
            if of_response && !name.starts_with('@') {
                return match name.strip_prefix("req.") {
                    Some(name) => request_value(exchange, name),
                    None if name == ":status" => Some(exchange.status.to_string()),
                    None => exchange.response.joined(name),
                };
            }
            request_value(exchange, name)
        })
    };
    names.iter().map(value).collect()
}

fn request_value(exchange: &Exchange, name: &str) -> Option<String> {
    let attribute = |name: &str| exchange.attributes.get(name).cloned();
    match name {
        ":method" => Some(exchange.method.clone()),
        ":path" => Some(exchange.path.clone()),
        ":scheme" => Some(exchange.scheme.clone()),
        ":authority" | "host" => Some(exchange.authority.clone()),
        "@peer-ip" => attribute("peer.ip"),
        "@client-ip" => attribute("client.ip"),
        "@sni" => attribute("tls.sni"),
        "@http-version" => attribute("http.version"),
        "@state" => String::from_utf8(exchange.state.clone()).ok(),
        "@traceparent" => Some(exchange.traceparent.clone()),
        name => match name.strip_prefix('@') {
            Some(name) => attribute(name),
            None => exchange.request.joined(name),
        },
    }
}

#[cfg(test)]
mod tests;
