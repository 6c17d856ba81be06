//! What a policy is: [`Plugin`], and the values that its functions take and give.

use std::fmt;

use crate::Request;
use crate::Response;
use crate::bindings::postern::plugin::callout::CallError;
use crate::bindings::postern::plugin::types::EditError;

pub use crate::bindings::dns_solver::exports::postern::plugin::dns_solver::Progress;
pub use crate::bindings::dns_solver::exports::postern::plugin::dns_solver::TxtRecord;
pub use crate::bindings::lifecycle::exports::postern::plugin::lifecycle::BodyMode;
pub use crate::bindings::log::exports::postern::plugin::log_phase::Summary;
pub use crate::bindings::postern::plugin::types::ChunkAction;
pub use crate::bindings::postern::plugin::types::Overflow;

/// A policy.
///
/// `configure` is called once in each instance, before any phase; the value that it gives lives as
/// long as the instance and serves many exchanges. The other functions are phases: the gateway
/// calls those that [`export!`](crate::export) lists. Two phases of one exchange may run in two
/// instances, so what has to follow an exchange goes through [`exchange`](crate::exchange), and
/// what instances share through [`shared`](crate::shared).
///
/// An `Err` from a phase ends the call: it is logged, and the exchange gets what the operator chose
/// for a plugin that fails, 503 by default.
#[allow(unused_variables, reason = "the defaults look at nothing")]
pub trait Plugin: Sized + 'static {
    /// Reads `config`, the plugin's section of the gateway's configuration as JSON text ("{}" if
    /// there is none). An error is shown to the operator and refuses the new configuration.
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String>;

    /// Phase `route`. The upstream for this request, or none to let the rule decide.
    fn select(&self, request: &Request) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    /// Phase `request`.
    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        Ok(Action::Next)
    }

    /// Phase `request_body`, after `on_request` answered [`Action::NeedBody`].
    fn on_request_body(
        &self,
        request: &mut Request,
        body: &crate::body::Body,
    ) -> Result<Action, Fault> {
        Ok(Action::Next)
    }

    /// Phase `request_stream`: one piece of the body. Wants [`Setup::request_body`].
    fn on_request_chunk(&self, chunk: &[u8], last: bool) -> Result<ChunkAction, Fault> {
        Ok(ChunkAction::Pass)
    }

    /// Phase `response`.
    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        Ok(Action::Next)
    }

    /// Phase `response_body`, after `on_response` answered [`Action::NeedBody`].
    fn on_response_body(
        &self,
        response: &mut Response,
        body: &crate::body::Body,
    ) -> Result<Action, Fault> {
        Ok(Action::Next)
    }

    /// Phase `response_stream`: one piece of the body. Wants [`Setup::response_body`].
    fn on_response_chunk(&self, chunk: &[u8], last: bool) -> Result<ChunkAction, Fault> {
        Ok(ChunkAction::Pass)
    }

    /// Phase `log`: the exchange has ended. Nobody waits for this, and it can change nothing.
    fn on_log(&self, summary: &Summary) -> Result<(), Fault> {
        Ok(())
    }

    /// Phase `background`. Wants [`Setup::tick_ms`].
    fn on_tick(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Phase `challenge`: the key authorization for an HTTP-01 token, if it is this plugin's.
    fn key_authorization(&self, host: &str, token: &str) -> Option<String> {
        None
    }

    /// Phase `dns_solver`: whether this plugin can write records below `zone`.
    fn supports(&self, zone: &str) -> bool {
        false
    }

    /// Phase `dns_solver`: adds one value.
    fn present(&self, txt: &TxtRecord) -> Result<Progress, String> {
        Err("not supported".to_owned())
    }

    /// Phase `dns_solver`: asks again after [`Progress::Pending`].
    fn poll(&self, txt: &TxtRecord) -> Result<Progress, String> {
        Err("not supported".to_owned())
    }

    /// Phase `dns_solver`: removes exactly this value.
    fn cleanup(&self, txt: &TxtRecord) -> Result<(), String> {
        Err("not supported".to_owned())
    }
}

/// What the plugin wants to be given. The default is nothing.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) request_view: Vec<String>,
    pub(crate) response_view: Vec<String>,
    /// Whether `on_request_chunk` is called.
    pub request_body: BodyMode,
    /// Whether `on_response_chunk` is called.
    pub response_body: BodyMode,
    /// Milliseconds between two calls of `on_tick`; 100 at least, or 0 for never.
    pub tick_ms: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            request_view: Vec::new(),
            response_view: Vec::new(),
            request_body: BodyMode::None,
            response_body: BodyMode::None,
            tick_ms: 0,
        }
    }
}

impl Setup {
    /// Names the values of the request that `select` and `on_request` look at in most calls: they
    /// are handed over with the call, where [`Request::get`] finds them, which is faster than
    /// asking the gateway for each. The names are those of `request-view` in `wit/phases.wit`.
    pub fn request_view<N: Into<String>>(&mut self, names: impl IntoIterator<Item = N>) {
        self.request_view = names.into_iter().map(Into::into).collect();
    }

    /// As [`Setup::request_view`], for `on_response`.
    pub fn response_view<N: Into<String>>(&mut self, names: impl IntoIterator<Item = N>) {
        self.response_view = names.into_iter().map(Into::into).collect();
    }
}

/// What happens to the exchange next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Go on with the next plugin.
    Next,
    /// Answer with this.
    Respond(Reply),
    /// Hold the message, collect at most `limit` bytes of its body, then call `on_request_body` or
    /// `on_response_body`.
    NeedBody {
        /// How many bytes to hold.
        limit: u32,
        /// What to do with a longer body.
        on_overflow: Overflow,
    },
    /// End the connection or stream without an answer.
    Abort,
}

/// A response that the plugin makes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The gateway writes `content-length`.
    pub body: Vec<u8>,
}

impl Reply {
    /// A response with this status, no fields and no body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// A response with a text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::new(status)
            .header("content-type", "text/plain; charset=utf-8")
            .body(text)
    }

    /// Adds a field.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl From<Reply> for Action {
    fn from(reply: Reply) -> Self {
        Self::Respond(reply)
    }
}

/// Why a phase could not be carried out. It goes to the gateway's log, never to the client.
///
/// One is not a fault of the plugin: an edit that is refused because the message would be too large
/// ([`EditError::TooLarge`]). Whoever sent the message made it so, and it must not look as if the
/// plugin failed, which the gateway counts and acts upon. Such a request is answered 431 (RFC 6585,
/// 5), such a response replaced by 502.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    text: String,
    is_too_large: bool,
}

impl Fault {
    pub(crate) fn is_too_large(&self) -> bool {
        self.is_too_large
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self {
            text,
            is_too_large: false,
        }
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Self {
        Self {
            text: format!("an edit was refused: {}", error.message()),
            is_too_large: error == EditError::TooLarge,
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        format!("a callout failed: {}", error.message()).into()
    }
}
