//! A component: bytes from outside, checked, compiled and linked once.
//!
//! Everything that can be known without running the guest is known here, so that a file which is
//! not a plugin of this interface is refused before it reaches traffic, with a reason that names
//! what is wrong with it.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use sha2::Digest;
use sha2::Sha256;
use tokio::time::Instant;
use wasmtime::Engine;
use wasmtime::component::InstancePre;

use crate::bindings::exports::postern::plugin::lifecycle;
use crate::bindings::exports::postern::plugin::request_phase;
use crate::bindings::exports::postern::plugin::response_phase;
use crate::bindings::exports::postern::plugin::route_phase;
use crate::engine::PluginEngine;
use crate::error::Cause;
use crate::error::PluginError;
use crate::host::HostState;

pub(crate) mod cache;
pub(crate) mod encode;

/// Largest component file. Compiling takes time and memory in proportion.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// The interface package, and the version of it that this host serves.
const PACKAGE: &str = "postern:plugin/";
const VERSION: &str = "0.1.0";
/// Versions that a plugin may have been built for: those that agree with ours in this prefix.
const VERSION_TRACK: &str = "0.1.";
/// The imports that the host serves.
const OFFERED: [&str; 7] = [
    "types", "request", "response", "exchange", "log", "clock", "random",
];

/// A call into a plugin.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    /// `lifecycle.configure`, before any exchange.
    Configure,
    /// `route-phase.select`.
    Route,
    /// `request-phase.on-request`.
    Request,
    /// `response-phase.on-response`.
    Response,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Route => "route",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Which phases a component exports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Phases {
    pub route: bool,
    pub request: bool,
    pub response: bool,
}

/// A compiled component, linked to the host.
pub struct Component {
    /// Keeps the clock of the guests running.
    engine: Arc<PluginEngine>,
    linked: InstancePre<HostState>,
    pub(crate) exports: Exports,
    digest: String,
    size: usize,
    compile_time: Duration,
    was_cached: bool,
    imports: Vec<String>,
}

/// Where the exported functions are in the component.
pub(crate) struct Exports {
    pub(crate) lifecycle: lifecycle::GuestIndices,
    pub(crate) route: Option<route_phase::GuestIndices>,
    pub(crate) request: Option<request_phase::GuestIndices>,
    pub(crate) response: Option<response_phase::GuestIndices>,
}

impl Component {
    /// Checks, compiles and links a component. Takes seconds for a large one that is not in the
    /// cache: not for a worker.
    pub fn load(engine: &Arc<PluginEngine>, bytes: &[u8]) -> Result<Arc<Self>, PluginError> {
        check_format(bytes)?;
        let digest = hex(&Sha256::digest(bytes));
        let started = Instant::now();
        let (code, was_cached) = compile(engine, bytes, &digest)?;
        let compile_time = started.elapsed();

        let kind = code.component_type();
        let mut imports: Vec<String> = Vec::new();
        for (name, _) in kind.imports(engine.wasmtime()) {
            if !is_offered(name) {
                return Err(PluginError::UnknownImport { name: name.into() });
            }
            imports.push(name.into());
        }
        let link = |e| PluginError::Link(Cause::new(e));
        let linked = engine.linker().instantiate_pre(&code).map_err(link)?;
        let mut has_lifecycle = false;
        let mut phases = Phases::default();
        for (name, _) in kind.exports(engine.wasmtime()) {
            // Whatever else a toolchain exports is never called.
            let Some(interface) = name.strip_prefix(PACKAGE) else {
                continue;
            };
            match interface_of_track(interface) {
                Some("lifecycle") => has_lifecycle = true,
                Some("route-phase") => phases.route = true,
                Some("request-phase") => phases.request = true,
                Some("response-phase") => phases.response = true,
                // Its author relies on being called; silence would switch a policy off.
                _ => return Err(PluginError::UnknownExport { name: name.into() }),
            }
        }
        if !has_lifecycle {
            return Err(PluginError::MissingExport {
                name: "postern:plugin/lifecycle",
            });
        }
        if phases == Phases::default() {
            return Err(PluginError::NoPhase);
        }

        let exports = Exports {
            lifecycle: lifecycle::GuestIndices::new(&linked).map_err(link)?,
            route: when(phases.route, || route_phase::GuestIndices::new(&linked)).map_err(link)?,
            request: when(phases.request, || request_phase::GuestIndices::new(&linked))
                .map_err(link)?,
            response: when(phases.response, || {
                response_phase::GuestIndices::new(&linked)
            })
            .map_err(link)?,
        };
        Ok(Arc::new(Self {
            engine: Arc::clone(engine),
            linked,
            exports,
            digest,
            size: bytes.len(),
            compile_time,
            was_cached,
            imports,
        }))
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the file.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How long compiling took, or loading if [`Component::was_cached`].
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    pub fn was_cached(&self) -> bool {
        self.was_cached
    }

    /// The interfaces that it imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    pub fn phases(&self) -> Phases {
        Phases {
            route: self.exports.route.is_some(),
            request: self.exports.request.is_some(),
            response: self.exports.response.is_some(),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<PluginEngine> {
        &self.engine
    }

    pub(crate) fn linked(&self) -> &InstancePre<HostState> {
        &self.linked
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("digest", &self.digest)
            .field("phases", &self.phases())
            .finish_non_exhaustive()
    }
}

/// Tells apart what people hand over by mistake, by the first bytes alone.
fn check_format(bytes: &[u8]) -> Result<(), PluginError> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(PluginError::TooLarge { size: bytes.len() });
    }
    // Machine code is trusted as it stands, so it comes from our own cache only.
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(PluginError::Precompiled);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(PluginError::NotWasm);
    }
    // The layer field: 0 is a core module, 1 a component.
    if bytes.get(6..8) == Some(&[0, 0]) {
        return Err(PluginError::CoreModule);
    }
    Ok(())
}

fn compile(
    engine: &PluginEngine,
    bytes: &[u8],
    digest: &str,
) -> Result<(wasmtime::component::Component, bool), PluginError> {
    // The lock guards no data, so a panic under it spoils none.
    let one_at_a_time = engine.compiling.lock();
    let _one_at_a_time = one_at_a_time.unwrap_or_else(PoisonError::into_inner);
    if let Some(cache) = &engine.cache
        && let Some(code) = cache.load(engine.wasmtime(), digest)
    {
        return Ok((code, true));
    }
    let code = wasmtime::component::Component::from_binary(engine.wasmtime(), bytes)
        .map_err(|e| PluginError::Compile(Cause::new(e)))?;
    if let Some(cache) = &engine.cache {
        cache.store(digest, &code);
    }
    Ok((code, false))
}

fn is_offered(import: &str) -> bool {
    import
        .strip_prefix(PACKAGE)
        .and_then(interface_of_track)
        .is_some_and(|interface| OFFERED.contains(&interface))
}

/// `request` of `request@0.1.3`, if that version is one this host serves.
fn interface_of_track(name: &str) -> Option<&str> {
    let (interface, version) = name.split_once('@')?;
    debug_assert!(VERSION.starts_with(VERSION_TRACK));
    version.starts_with(VERSION_TRACK).then_some(interface)
}

fn when<T, E>(condition: bool, make: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
    condition.then(make).transpose()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
