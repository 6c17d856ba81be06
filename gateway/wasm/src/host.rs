//! What a guest may call: one file an imported interface.
//!
//! Every function first takes note of the bytes it was handed, then checks that the phase is one
//! it is for, then does its work on the exchange that the instance holds for the call. A function
//! that returns `wasmtime::Result` ends the guest with its error; what a guest may do wrong
//! without ending is the inner result.

use std::sync::Arc;

use http::StatusCode;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::request::RequestHead;

use crate::bindings::postern::plugin::types::EditError;
use crate::callout::Callouts;
use crate::component::Phase;
use crate::error::Breach;
use crate::exchange::Exchange;
use crate::exchange::HeldBody;
use crate::exchange::Notes;
use crate::exchange::ResponseHead;
use crate::host::field::Fields;
use crate::instance::Wall;
use crate::limits::LogBudget;
use crate::limits::Meter;
use crate::limits::breach;
use crate::plugin::Plugin;
use crate::plugin::Powers;

mod body;
mod callout;
mod clock;
mod crypto;
mod exchange;
pub(crate) mod field;
mod log;
mod metrics;
mod request;
pub(crate) mod response;
mod secrets;
mod shared;

/// What belongs to one instance on this side of the boundary.
pub(crate) struct HostState {
    /// The exchange of the call; between calls an empty one.
    pub(crate) exchange: Exchange,
    pub(crate) meter: Meter,
    phase: Phase,
    plugin: PolicyName,
    powers: Arc<Powers>,
    /// None while there is nobody to make them.
    callouts: Option<Arc<dyn Callouts>>,
    log: Arc<LogBudget>,
    /// The body of the call, in the phases that have one.
    body: Option<HeldBody>,
    /// Size of the message under edit, once it was measured in this call.
    field_bytes: Option<usize>,
    /// What the sender of the message is answered if the guest gives up: an edit of this call was
    /// refused because the message is too large for it.
    too_large: Option<StatusCode>,
    undo: Option<Undo>,
    /// What plugins had set beside the messages, before the first setting of a call.
    undo_notes: Option<Box<Notes>>,
}

/// A message as it was before the first edit of a call.
enum Undo {
    /// With the upstream that was chosen.
    Request(Box<RequestHead>, Option<UpstreamName>),
    Response(Box<ResponseHead>),
}

impl HostState {
    /// Waits for something that is not the processor.
    async fn wait<T>(&mut self, future: impl Future<Output = T> + Send) -> T {
        self.meter.begin_wait();
        let output = future.await;
        self.meter.end_wait();
        output
    }

    pub(crate) fn new(
        plugin: &Plugin,
        log: Arc<LogBudget>,
        callouts: Option<Arc<dyn Callouts>>,
    ) -> Self {
        Self {
            exchange: Exchange::default(),
            meter: Meter::new(
                *plugin.limits(),
                Arc::clone(plugin.component().engine().memory()),
            ),
            phase: Phase::Configure,
            plugin: plugin.name().clone(),
            powers: Arc::clone(plugin.powers()),
            callouts,
            log,
            body: None,
            field_bytes: None,
            too_large: None,
            undo: None,
            undo_notes: None,
        }
    }

    pub(crate) fn plugin(&self) -> &PolicyName {
        &self.plugin
    }

    /// Begins a call on `exchange`, which is empty until [`HostState::leave`].
    pub(crate) fn enter(&mut self, phase: Phase, exchange: &mut Exchange, wall: &Wall) {
        std::mem::swap(&mut self.exchange, exchange);
        self.phase = phase;
        self.field_bytes = None;
        self.too_large = None;
        self.undo = None;
        self.undo_notes = None;
        self.meter.begin_call(wall);
    }

    /// The body that a call may read and replace, from [`HostState::enter`] on.
    pub(crate) fn lend_body(&mut self, body: HeldBody) {
        self.body = Some(body);
    }

    pub(crate) fn take_body(&mut self) -> HeldBody {
        self.body.take().unwrap_or_default()
    }

    /// Ends the call: the exchange goes back, without the call's edits if it failed and they were
    /// kept.
    pub(crate) fn leave(&mut self, exchange: &mut Exchange, is_failed: bool) {
        if is_failed {
            match self.undo.take() {
                Some(Undo::Request(request, upstream)) => {
                    self.exchange.request = *request;
                    self.exchange.upstream = upstream;
                }
                Some(Undo::Response(response)) => self.exchange.response = Some(*response),
                None => {}
            }
            if let Some(notes) = self.undo_notes.take() {
                self.exchange.notes = *notes;
            }
        }
        std::mem::swap(&mut self.exchange, exchange);
    }

    /// The status for a message to which the last call could not do its edits, if that was so.
    pub(crate) fn too_large(&self) -> Option<StatusCode> {
        self.too_large
    }

    /// Takes note of an edit of which the message was too large.
    fn note(&mut self, edit: Result<(), EditError>, status: StatusCode) -> Result<(), EditError> {
        if edit == Err(EditError::TooLarge) {
            self.too_large = Some(status);
        }
        edit
    }

    /// Ends the guest unless it is called for an exchange.
    fn in_exchange(&self) -> wasmtime::Result<()> {
        match self.phase {
            Phase::Configure | Phase::Tick | Phase::Solver => Err(breach(Breach::Phase)),
            Phase::Route
            | Phase::Request
            | Phase::RequestBody
            | Phase::RequestStream
            | Phase::Response
            | Phase::ResponseBody
            | Phase::ResponseStream
            | Phase::Log
            | Phase::Challenge => Ok(()),
        }
    }

    /// Ends the guest if it is only being configured.
    fn after_configure(&self) -> wasmtime::Result<()> {
        if self.phase == Phase::Configure {
            return Err(breach(Breach::Phase));
        }
        Ok(())
    }

    /// The response, or the end of the guest if this is no phase to look at all of it.
    fn response(&self) -> wasmtime::Result<&ResponseHead> {
        match (self.phase, &self.exchange.response) {
            (Phase::Response | Phase::ResponseBody, Some(response)) => Ok(response),
            _ => Err(breach(Breach::Phase)),
        }
    }

    fn keep_request(&mut self) {
        if self.exchange.undo && self.undo.is_none() {
            let request = Box::new(self.exchange.request.clone());
            let upstream = self.exchange.upstream.clone();
            self.undo = Some(Undo::Request(request, upstream));
        }
    }

    fn keep_response(&mut self) {
        if self.exchange.undo
            && self.undo.is_none()
            && let Some(response) = &self.exchange.response
        {
            self.undo = Some(Undo::Response(Box::new(response.clone())));
        }
    }

    fn keep_notes(&mut self) {
        if self.exchange.undo && self.undo_notes.is_none() {
            self.undo_notes = Some(Box::new(self.exchange.notes.clone()));
        }
    }

    fn request_fields(&mut self) -> Fields<'_> {
        Fields::new(&mut self.exchange.request.headers, &mut self.field_bytes)
    }
}
