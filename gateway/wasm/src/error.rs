//! Everything that can go wrong with a plugin, from its file to its calls.
//!
//! An operator reads `Display` and the causes; metrics and the access record use
//! [`PluginError::reason`]. Nothing of it goes to a client.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::component::MAX_COMPONENT_BYTES;
use crate::metrics::MetricError;
use crate::plugin::MIN_TICK_MS;

/// Why a plugin is not taken into service, or why a call of it failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("the plugin engine cannot be set up")]
    Engine(#[source] Cause),
    #[error("the thread that measures plugins cannot be started")]
    Ticker(#[source] io::Error),
    #[error("the compile cache {} cannot be used", path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error(
        "the compile cache {} is not a directory of this user that no one else may write to",
        path.display()
    )]
    CacheNotPrivate { path: PathBuf },

    #[error("the file has {size} bytes; a component may have {MAX_COMPONENT_BYTES}")]
    TooLarge { size: usize },
    #[error("the file is not WebAssembly")]
    NotWasm,
    #[error("the file is a core module, not a component: `postern plugin componentize` makes one")]
    CoreModule,
    #[error("the file is precompiled machine code, which is never taken from outside")]
    Precompiled,
    #[error("the component does not compile")]
    Compile(#[source] Cause),
    #[error("the component imports `{name}`, which this host does not offer")]
    UnknownImport { name: String },
    #[error("the component exports the phase `{name}`, which this host does not serve")]
    UnknownExport { name: String },
    #[error("the component does not export `{name}`")]
    MissingExport { name: &'static str },
    #[error("the component exports no phase")]
    NoPhase,
    #[error("the component uses an interface in another shape than this host")]
    Link(#[source] Cause),
    #[error("the core module cannot be made a component")]
    Encode(#[source] Cause),

    #[error("the plugin refuses its configuration: {0}")]
    Refused(String),
    #[error("the plugin asks for `{name}` in its {view} view, which is not known")]
    View { view: &'static str, name: String },
    #[error("the plugin asks for more than {limit} names in its {view} view")]
    ViewSize { view: &'static str, limit: usize },
    #[error("the plugin asks for {what}, and does not export `{phase}`")]
    MissingPhase {
        what: &'static str,
        phase: &'static str,
    },
    #[error("the plugin asks to be called every {ms} ms; {MIN_TICK_MS} is the least")]
    TickTooShort { ms: u32 },
    #[error("the component {what}, which needs a grant")]
    NotGranted { what: String },

    #[error("the plugin trapped: {0}")]
    Trap(TrapKind),
    #[error("the plugin used more than {limit:?} of processor time")]
    CpuDeadline { limit: Duration },
    #[error("the plugin did not answer within {limit:?}")]
    Deadline { limit: Duration },
    #[error("the plugin wanted more memory or table elements than its limits allow")]
    Memory,
    #[error("the plugin broke the contract: {0}")]
    Contract(Breach),
    #[error("no instance of the plugin was free within {waited:?}")]
    Overloaded { waited: Duration },
    #[error("no instance of the plugin could be made: the pool is full")]
    PoolFull,
    #[error("the instances of all plugins together have as much memory as they may")]
    MemoryFull,
    #[error("the plugin failed too often and is not called for a while")]
    BreakerOpen,
}

impl PluginError {
    /// Whether the guest failed, and not the gateway to call it.
    pub(crate) fn is_guests_fault(&self) -> bool {
        match self {
            Self::Trap(_)
            | Self::CpuDeadline { .. }
            | Self::Deadline { .. }
            | Self::Memory
            | Self::Contract(_)
            | Self::Refused(_) => true,
            Self::Engine(_)
            | Self::Ticker(_)
            | Self::Cache { .. }
            | Self::CacheNotPrivate { .. }
            | Self::TooLarge { .. }
            | Self::NotWasm
            | Self::CoreModule
            | Self::Precompiled
            | Self::Compile(_)
            | Self::UnknownImport { .. }
            | Self::UnknownExport { .. }
            | Self::MissingExport { .. }
            | Self::NoPhase
            | Self::Link(_)
            | Self::Encode(_)
            | Self::View { .. }
            | Self::ViewSize { .. }
            | Self::MissingPhase { .. }
            | Self::TickTooShort { .. }
            | Self::NotGranted { .. }
            | Self::Overloaded { .. }
            | Self::PoolFull
            | Self::MemoryFull
            | Self::BreakerOpen => false,
        }
    }

    /// The stable label for metrics and the access record.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Engine(_) | Self::Ticker(_) => "plugin-engine",
            Self::Cache { .. } | Self::CacheNotPrivate { .. } => "plugin-cache",
            Self::TooLarge { .. }
            | Self::NotWasm
            | Self::CoreModule
            | Self::Precompiled
            | Self::Compile(_)
            | Self::UnknownImport { .. }
            | Self::UnknownExport { .. }
            | Self::MissingExport { .. }
            | Self::NoPhase
            | Self::Link(_)
            | Self::Encode(_) => "plugin-load",
            Self::Refused(_)
            | Self::View { .. }
            | Self::ViewSize { .. }
            | Self::MissingPhase { .. }
            | Self::TickTooShort { .. }
            | Self::NotGranted { .. } => "plugin-config",
            Self::Trap(_) => "plugin-trap",
            Self::CpuDeadline { .. } => "plugin-cpu",
            Self::Deadline { .. } => "plugin-deadline",
            Self::Memory => "plugin-memory",
            Self::Contract(_) => "plugin-contract",
            Self::Overloaded { .. } | Self::PoolFull | Self::MemoryFull => "plugin-overloaded",
            Self::BreakerOpen => "plugin-breaker",
        }
    }
}

/// What made a guest stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrapKind {
    #[error("it gave up (`unreachable`, as a panic or abort does)")]
    Unreachable,
    #[error("its stack overflowed")]
    Stack,
    #[error("it reached outside its memory or tables")]
    Bounds,
    #[error("an arithmetic error")]
    Arithmetic,
    #[error("it called a function that is not there or has another type")]
    Call,
    #[error("it handed the host something malformed, or more than a call may")]
    Boundary,
}

impl TrapKind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Unreachable,
        Self::Stack,
        Self::Bounds,
        Self::Arithmetic,
        Self::Call,
        Self::Boundary,
    ];

    /// The stable label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Stack => "stack",
            Self::Bounds => "bounds",
            Self::Arithmetic => "arithmetic",
            Self::Call => "call",
            Self::Boundary => "boundary",
        }
    }
}

/// Which rule of the interface a guest broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Breach {
    #[error("a body was asked for in a body phase, or by a plugin without one")]
    NeedBody,
    #[error("a host function was called in a phase that it is not for")]
    Phase,
    #[error("the call handed the host more bytes than its limit")]
    HostBytes,
    #[error("more random bytes were asked for than a call gives")]
    RandomBytes,
    #[error("the response has a status outside 200 to 599")]
    ResponseStatus,
    #[error("the response has a field that is malformed or not a plugin's to set")]
    ResponseField,
    #[error("the response has too many fields")]
    ResponseSize,
    #[error("the response has a body with a status that allows none")]
    ResponseBody,
    #[error("what was put in the place of a piece of a body is too large")]
    ChunkSize,
    #[error("the answer to a challenge is not ASCII, or too long")]
    KeyAuthorization,
    #[error("a key of the shared state is too long")]
    SharedKey,
    #[error("a host function was called that needs a grant")]
    NotGranted,
    #[error("a function of WASI was called; there is no system behind it")]
    Stubbed,
    #[error("{0}")]
    Metric(MetricError),
    #[error("the name that was selected cannot be a name")]
    Selected,
    #[error("an instance answered another spec than the first one")]
    SpecChanged,
}

/// An error of the Wasm engine, as text: its type stays inside this crate.
pub struct Cause(wasmtime::Error);

impl Cause {
    pub(crate) fn new(error: wasmtime::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

// The whole chain is in `Display`, so there is no further source.
impl std::error::Error for Cause {}
