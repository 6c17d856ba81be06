//! Between the generated functions and [`Plugin`]. The same code runs in Wasm and in tests.

use std::cell::Cell;

use crate::Action;
use crate::ChunkAction;
use crate::Fault;
use crate::Plugin;
use crate::Reply;
use crate::Request;
use crate::Response;
use crate::Setup;
use crate::Summary;
use crate::bindings::lifecycle::exports::postern::plugin::lifecycle::Spec;
use crate::bindings::postern::plugin::types;
use crate::body::Body;
use crate::log;

/// RFC 6585, 5.
const REQUEST_TOO_LARGE: u16 = 431;
const RESPONSE_TOO_LARGE: u16 = 502;

pub use types::Action as WitAction;
pub use types::ChunkAction as WitChunkAction;
pub use types::View;

/// Where an instance keeps its plugin.
pub struct Slot<P: 'static>(Cell<Option<&'static Running<P>>>);

/// A configured plugin.
pub struct Running<P> {
    pub(crate) plugin: P,
    pub(crate) setup: Setup,
}

impl<P: Plugin> Running<P> {
    pub(crate) fn configure(config: &str) -> Result<&'static Self, String> {
        let mut setup = Setup::default();
        let plugin = P::configure(config, &mut setup)?;
        // An instance is configured once and ends with its memory.
        Ok(Box::leak(Box::new(Self { plugin, setup })))
    }

    pub(crate) fn select(&'static self, view: View) -> Result<Option<String>, Fault> {
        let request = Request::new(&self.setup.request_view, view);
        self.plugin.select(&request)
    }

    pub(crate) fn on_request(&'static self, view: View) -> Result<Action, Fault> {
        let mut request = Request::new(&self.setup.request_view, view);
        self.plugin.on_request(&mut request)
    }

    pub(crate) fn on_request_body(
        &'static self,
        length: u64,
        truncated: bool,
    ) -> Result<Action, Fault> {
        let mut request = Request::new(&[], Vec::new());
        let body = Body { length, truncated };
        self.plugin.on_request_body(&mut request, &body)
    }

    pub(crate) fn on_response(&'static self, view: View) -> Result<Action, Fault> {
        let mut response = Response::new(&self.setup.response_view, view);
        self.plugin.on_response(&mut response)
    }

    pub(crate) fn on_response_body(
        &'static self,
        length: u64,
        truncated: bool,
    ) -> Result<Action, Fault> {
        let mut response = Response::new(&[], Vec::new());
        let body = Body { length, truncated };
        self.plugin.on_response_body(&mut response, &body)
    }
}

impl<P: Plugin> Slot<P> {
    #[allow(clippy::new_without_default, reason = "made by the macro only")]
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    pub fn configure(&self, config: &str) -> Result<Spec, String> {
        let running = Running::configure(config)?;
        self.0.set(Some(running));
        let setup = running.setup.clone();
        Ok(Spec {
            request_view: setup.request_view,
            response_view: setup.response_view,
            request_body: setup.request_body,
            response_body: setup.response_body,
            tick_ms: setup.tick_ms,
        })
    }

    pub fn plugin(&self) -> &'static P {
        &self.running().plugin
    }

    pub fn select(&self, view: View) -> Option<String> {
        insist(self.running().select(view))
    }

    pub fn on_request(&self, view: View) -> WitAction {
        acted(self.running().on_request(view), REQUEST_TOO_LARGE)
    }

    pub fn on_request_body(&self, length: u64, truncated: bool) -> WitAction {
        acted(
            self.running().on_request_body(length, truncated),
            REQUEST_TOO_LARGE,
        )
    }

    pub fn on_request_chunk(&self, chunk: Vec<u8>, last: bool) -> ChunkAction {
        insist(self.plugin().on_request_chunk(&chunk, last))
    }

    pub fn on_response(&self, view: View) -> WitAction {
        acted(self.running().on_response(view), RESPONSE_TOO_LARGE)
    }

    pub fn on_response_body(&self, length: u64, truncated: bool) -> WitAction {
        acted(
            self.running().on_response_body(length, truncated),
            RESPONSE_TOO_LARGE,
        )
    }

    pub fn on_response_chunk(&self, chunk: Vec<u8>, last: bool) -> ChunkAction {
        insist(self.plugin().on_response_chunk(&chunk, last))
    }

    pub fn on_log(&self, summary: &Summary) {
        insist(self.plugin().on_log(summary));
    }

    pub fn on_tick(&self) {
        insist(self.plugin().on_tick());
    }

    fn running(&self) -> &'static Running<P> {
        self.0
            .get()
            .expect("the gateway configures an instance first")
    }
}

/// What becomes of the exchange. A message that is too large for an edit is answered with `status`.
fn acted(done: Result<Action, Fault>, status: u16) -> WitAction {
    match done {
        Err(fault) if fault.is_too_large() => {
            // Of the sender's doing, so not for every log.
            log::debug(&fault.to_string(), &[]);
            Action::Respond(Reply::new(status)).into()
        }
        done => insist(done).into(),
    }
}

/// A fault ends the call: what the policy was to do is not done, and whether the exchange goes on
/// without it is for the operator to decide.
fn insist<T>(done: Result<T, Fault>) -> T {
    done.unwrap_or_else(|fault| {
        log::error(&fault.to_string(), &[]);
        std::process::abort()
    })
}

impl From<Action> for WitAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Next => Self::Next,
            Action::Respond(reply) => Self::Respond(types::LocalResponse {
                status: reply.status,
                headers: fields(reply.headers),
                body: reply.body,
            }),
            Action::NeedBody { limit, on_overflow } => {
                Self::NeedBody(types::BodyRequest { limit, on_overflow })
            }
            Action::Abort => Self::Abort,
        }
    }
}

pub(crate) fn fields(pairs: Vec<(String, String)>) -> Vec<types::Field> {
    let field = |(name, value)| types::Field { name, value };
    pairs.into_iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock;

    /// Adds a field to whatever it sees.
    struct Adding;

    impl Plugin for Adding {
        fn configure(_config: &str, _setup: &mut Setup) -> Result<Self, String> {
            Ok(Self)
        }

        fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
            request.set("x-new", "1")?;
            Ok(Action::Next)
        }

        fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
            response.set("x-new", "1")?;
            Ok(Action::Next)
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_no_fault_of_the_plugin() {
        let slot = Slot::<Adding>::new();
        slot.configure("{}").unwrap();
        for (fields, is_next) in [(99, true), (100, false)] {
            mock::gateway(|gateway| {
                let mut exchange = mock::Exchange::new("GET", "/");
                for n in 0..fields {
                    exchange.request.append(&format!("x-{n}"), "");
                    exchange.response.append(&format!("x-{n}"), "");
                }
                gateway.set_exchange(exchange);
            });
            for (action, want) in [
                (slot.on_request(Vec::new()), REQUEST_TOO_LARGE),
                (slot.on_response(Vec::new()), RESPONSE_TOO_LARGE),
            ] {
                match action {
                    WitAction::Next => assert!(is_next, "{fields}"),
                    WitAction::Respond(reply) => {
                        assert!(!is_next, "{fields}");
                        assert_eq!(reply.status, want);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
