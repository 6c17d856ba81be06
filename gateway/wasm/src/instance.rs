//! One instance: a store, the guest in it, and one call at a time.
//!
//! An instance has no opinion about its own life. Whoever holds it ([`worker`](crate::worker))
//! drops it after a fault; that also ends a call that is suspended in the middle.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use postern_core::config::plugin::PluginLimits;
use tokio::time::Instant;
use tokio::time::Sleep;
use wasmtime::Store;
use wasmtime::Trap;

use crate::bindings::postern::plugin::types;
use crate::callout::Callouts;
use crate::component::Phase;
use crate::component::exports::Guests;
use crate::engine::turns;
use crate::error::Breach;
use crate::error::PluginError;
use crate::error::TrapKind;
use crate::exchange::Action;
use crate::exchange::BodyRequest;
use crate::exchange::ChunkAction;
use crate::exchange::Exchange;
use crate::exchange::HeldBody;
use crate::exchange::LocalResponse;
use crate::exchange::Overflow;
use crate::exchange::Summary;
use crate::host::HostState;
use crate::host::field::Fields;
use crate::host::response::is_bodiless;
use crate::host::response::parse_status;
use crate::limits::HostFault;
use crate::limits::LogBudget;
use crate::limits::MAX_CHUNK_REPLACEMENT;
use crate::limits::MAX_REFUSAL;
use crate::limits::push_escaped;
use crate::plugin::Plugin;
use crate::plugin::PluginSpec;
use crate::solver::Progress;
use crate::solver::Solve;
use crate::view::ViewBuffer;

mod rare;

/// Resource handles an instance may hold. The interface has none, so a guest that makes them
/// does it for itself.
const MAX_HANDLES: usize = 1000;
/// Longest name that `select` may answer.
const MAX_SELECTED: usize = postern_core::name::MAX_NAME_LEN;

/// What a list of bytes may be lifted with beside its content: the records around it.
const LIFT_MARGIN: u64 = 64 << 10;

/// A guest that has accepted its configuration.
pub(crate) struct Instance {
    store: Store<HostState>,
    guests: Guests,
    view: ViewBuffer,
}

/// What a guest is called for.
pub(crate) enum Ask<'a> {
    Route,
    Request,
    Response,
    RequestBody(&'a mut HeldBody),
    ResponseBody(&'a mut HeldBody),
    RequestChunk { chunk: &'a [u8], is_last: bool },
    ResponseChunk { chunk: &'a [u8], is_last: bool },
    Log(&'a Summary),
    Challenge { host: &'a str, token: &'a str },
    Tick,
    Solve(Solve<'a>),
}

/// What a phase answered.
pub(crate) enum Answer {
    Action(Action),
    Selected(Option<String>),
    Chunk(ChunkAction),
    KeyAuthorization(Option<String>),
    Supported(bool),
    Solved(Result<Progress, String>),
    Done,
}

impl Ask<'_> {
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Route => Phase::Route,
            Self::Request => Phase::Request,
            Self::Response => Phase::Response,
            Self::RequestBody(_) => Phase::RequestBody,
            Self::ResponseBody(_) => Phase::ResponseBody,
            Self::RequestChunk { .. } => Phase::RequestStream,
            Self::ResponseChunk { .. } => Phase::ResponseStream,
            Self::Log(_) => Phase::Log,
            Self::Challenge { .. } => Phase::Challenge,
            Self::Tick => Phase::Tick,
            Self::Solve(_) => Phase::Solver,
        }
    }
}

impl Instance {
    /// Makes an instance and configures it.
    pub(crate) async fn start(
        plugin: &Plugin,
        log: Arc<LogBudget>,
        callouts: Option<Arc<dyn Callouts>>,
        wall: &mut Wall,
    ) -> Result<(Self, PluginSpec), PluginError> {
        let component = plugin.component();
        let state = HostState::new(plugin, log, callouts);
        let mut store = Store::new(component.engine().wasmtime(), state);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(most_lifted(plugin.limits()));
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let engine = store.engine().clone();
            store.data_mut().meter.tick(engine)
        });

        let linked = component.linked();
        let instantiated = wall.within(linked.instantiate_async(&mut store)).await?;
        let guest = instantiated.map_err(|error| fault(&error, store.data()))?;
        let exports = &component.exports;
        let lifecycle = exports.lifecycle.load(&mut store, &guest);
        let lifecycle = lifecycle.map_err(|error| fault(&error, store.data()))?;
        let answered = wall
            .within(lifecycle.call_configure(&mut store, plugin.config()))
            .await?;
        let spec = match answered.map_err(|error| fault(&error, store.data()))? {
            Ok(spec) => PluginSpec::parse(&spec, component.phases())?,
            Err(refusal) => {
                let mut text = String::new();
                push_escaped(&mut text, &refusal, MAX_REFUSAL);
                return Err(PluginError::Refused(text));
            }
        };

        let guests = Guests::load(exports, &mut store, &guest)
            .map_err(|error| PluginError::Link(crate::error::Cause::new(error)))?;
        let instance = Self {
            store,
            guests,
            view: ViewBuffer::default(),
        };
        Ok((instance, spec))
    }

    /// Whether the guest was ever refused memory: it may have kept going with half a structure.
    pub(crate) fn is_starved(&self) -> bool {
        self.store.data().meter.is_starved
    }

    /// Bytes of linear memory.
    pub(crate) fn memory(&self) -> u64 {
        self.store.data().meter.memory()
    }

    /// Processor time since the last time this was asked.
    pub(crate) fn take_burned(&mut self) -> Duration {
        self.store.data_mut().meter.take_burned()
    }

    /// Calls one phase. The exchange is back in its place when this returns, whatever happened;
    /// it is lost only with the whole future.
    pub(crate) async fn call(
        &mut self,
        ask: Ask<'_>,
        spec: &PluginSpec,
        exchange: &mut Exchange,
        wall: &mut Wall,
    ) -> Result<Answer, PluginError> {
        self.store.data_mut().enter(ask.phase(), exchange, wall);
        let answered = match ask {
            Ask::Route | Ask::Request | Ask::Response => self.answer(ask, spec, wall).await,
            // On the heap, or each future of a call would have room for all of them.
            ask => Box::pin(self.answer_rarely(ask, wall)).await,
        };
        self.store.data_mut().leave(exchange, answered.is_err());
        answered
    }

    /// What is answered in place of the fault with which the last call ended: if the guest gave up
    /// over a message that was too large for its edit, the fault is the sender's.
    pub(crate) fn excuse(&self, error: PluginError) -> Result<Answer, PluginError> {
        match (self.store.data().too_large(), error) {
            // A call of WASI is the way in which some runtimes give up.
            (
                Some(status),
                PluginError::Trap(TrapKind::Unreachable) | PluginError::Contract(Breach::Stubbed),
            ) => Ok(Answer::Action(Action::Respond(LocalResponse {
                status,
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            }))),
            (_, error) => Err(error),
        }
    }

    /// The phases that get a view.
    async fn answer(
        &mut self,
        ask: Ask<'_>,
        spec: &PluginSpec,
        wall: &mut Wall,
    ) -> Result<Answer, PluginError> {
        let Self {
            store,
            guests,
            view,
        } = self;
        let names = match ask {
            Ask::Response => &spec.response_view,
            _ => &spec.request_view,
        };
        let state = store.data();
        view.fill(names, &state.exchange, state.plugin());
        store.set_epoch_deadline(1);
        turns::begin(store.engine());
        match ask {
            Ask::Request => {
                let guest = guests.request.as_ref().ok_or(PluginError::NoPhase)?;
                let called = view
                    .lend(async |view| wall.within(guest.call_on_request(&mut *store, view)).await)
                    .await?;
                let action = called.map_err(|error| fault(&error, store.data()))?;
                decide(action, guests.request_body.is_some(), store.data())
            }
            Ask::Response => {
                let guest = guests.response.as_ref().ok_or(PluginError::NoPhase)?;
                let called = view
                    .lend(async |view| wall.within(guest.call_on_response(&mut *store, view)).await)
                    .await?;
                let action = called.map_err(|error| fault(&error, store.data()))?;
                decide(action, guests.response_body.is_some(), store.data())
            }
            Ask::Route => {
                let guest = guests.route.as_ref().ok_or(PluginError::NoPhase)?;
                let called = view
                    .lend(async |view| wall.within(guest.call_select(&mut *store, view)).await)
                    .await?;
                let name = called.map_err(|error| fault(&error, store.data()))?;
                if name.as_ref().is_some_and(|name| name.len() > MAX_SELECTED) {
                    return Err(PluginError::Contract(Breach::Selected));
                }
                Ok(Answer::Selected(name))
            }
            _ => Err(PluginError::NoPhase),
        }
    }
}

/// The most that one host call, or one answer, may be lifted from.
fn most_lifted(limits: &PluginLimits) -> usize {
    let most = limits.host_bytes.max(limits.body);
    let most = most.max(MAX_CHUNK_REPLACEMENT as u64) + LIFT_MARGIN;
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn decide(
    action: types::Action,
    has_body_phase: bool,
    state: &HostState,
) -> Result<Answer, PluginError> {
    Ok(Answer::Action(match action {
        types::Action::Next => Action::Next,
        types::Action::Abort => Action::Abort,
        types::Action::Respond(response) => Action::Respond(local_response(response)?),
        types::Action::NeedBody(wish) if has_body_phase => Action::NeedBody(BodyRequest {
            limit: u64::from(wish.limit).min(state.meter.limits().body) as usize,
            on_overflow: match wish.on_overflow {
                types::Overflow::Reject => Overflow::Reject,
                types::Overflow::Truncate => Overflow::Truncate,
            },
        }),
        types::Action::NeedBody(_) => return Err(PluginError::Contract(Breach::NeedBody)),
    }))
}

fn local_response(response: types::LocalResponse) -> Result<LocalResponse, PluginError> {
    let breach = |breach| move |_| PluginError::Contract(breach);
    let status = parse_status(response.status).map_err(breach(Breach::ResponseStatus))?;
    if is_bodiless(status) && !response.body.is_empty() {
        return Err(PluginError::Contract(Breach::ResponseBody));
    }
    let mut headers = http::HeaderMap::new();
    let mut bytes = Some(0);
    let mut fields = Fields::new(&mut headers, &mut bytes);
    for field in response.headers {
        let added = fields.append(&field.name, field.value);
        added.map_err(|error| {
            PluginError::Contract(match error {
                types::EditError::TooLarge => Breach::ResponseSize,
                types::EditError::Forbidden
                | types::EditError::Invalid
                | types::EditError::UnknownUpstream
                | types::EditError::TooLate => Breach::ResponseField,
            })
        })?;
    }
    Ok(LocalResponse {
        status,
        headers,
        body: response.body.into(),
    })
}

/// Why a guest ended. Recognised by type; the text of an error is for the log.
fn fault(error: &wasmtime::Error, state: &HostState) -> PluginError {
    let fault = if let Some(fault) = error.downcast_ref::<HostFault>() {
        match fault {
            HostFault::Cpu => PluginError::CpuDeadline {
                limit: state.meter.limits().cpu,
            },
            HostFault::Breach(breach) => PluginError::Contract(*breach),
        }
    } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        PluginError::PoolFull
    } else if state.meter.is_crowded_out {
        PluginError::MemoryFull
    } else if state.meter.is_starved {
        // Allocators end the guest when they get no memory: the trap is only how.
        PluginError::Memory
    } else {
        PluginError::Trap(match error.downcast_ref::<Trap>() {
            Some(Trap::UnreachableCodeReached) => TrapKind::Unreachable,
            Some(Trap::StackOverflow) => TrapKind::Stack,
            Some(Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::ArrayOutOfBounds) => {
                TrapKind::Bounds
            }
            Some(
                Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger,
            ) => TrapKind::Arithmetic,
            Some(Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference) => {
                TrapKind::Call
            }
            // The rest is the component boundary: strings that are not, lists outside memory,
            // more bytes than the host takes. `Trap` is an open type.
            _ => TrapKind::Boundary,
        })
    };
    tracing::debug!(
        plugin = state.plugin().as_str(),
        reason = fault.reason(),
        error = format!("{error:?}"),
        "plugin ended"
    );
    fault
}

/// The wall clock of a call, waiting for an instance and starting it included.
///
/// A call that is not suspended ends without a clock having been read: reading it, and a timer,
/// would cost as much as a small call does.
pub(crate) struct Wall {
    limit: Duration,
    deadline: Option<Instant>,
}

impl Wall {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// None before it was first suspended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Runs a part of the call.
    pub(crate) async fn within<F: Future>(&mut self, part: F) -> Result<F::Output, PluginError> {
        let mut part = pin!(part);
        let mut timer = pin!(None::<Sleep>);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = part.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if timer.is_none() {
                let limit = self.limit;
                let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
                timer.set(Some(tokio::time::sleep_until(deadline)));
            }
            match timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
                Some(Poll::Ready(())) => {
                    Poll::Ready(Err(PluginError::Deadline { limit: self.limit }))
                }
                Some(Poll::Pending) | None => Poll::Pending,
            }
        })
        .await
    }
}
