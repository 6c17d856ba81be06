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

use postern_core::config::plugin::Grants;
use sha2::Digest;
use sha2::Sha256;
use tokio::time::Instant;
use wasmtime::Engine;
use wasmtime::component::InstancePre;
use wasmtime::component::types::ComponentItem;

use crate::component::exports::Exports;
use crate::component::stub::is_stubbed;
use crate::component::stub::stub;
use crate::engine::PluginEngine;
use crate::error::Cause;
use crate::error::PluginError;
use crate::host::HostState;

pub(crate) mod cache;
pub(crate) mod encode;
pub(crate) mod exports;
mod stub;

pub use exports::Phases;

/// Largest component file. Compiling takes time and memory in proportion.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// The interface package, and the version of it that this host serves.
const PACKAGE: &str = "postern:plugin/";
const VERSION: &str = "0.1.0";
/// Versions that a plugin may have been built for: those that agree with ours in this prefix.
const VERSION_TRACK: &str = "0.1.";
/// The imports that the host serves.
const OFFERED: [&str; 13] = [
    "types", "request", "response", "body", "exchange", "log", "metrics", "shared", "callout",
    "clock", "random", "secrets", "crypto",
];

/// The functions of `request` that need its fields.
const FIELD_READERS: [&str; 4] = ["get", "get-all", "get-bytes", "names"];

/// A call into a plugin.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    /// `lifecycle.configure`, before any exchange.
    Configure,
    /// `route-phase.select`.
    Route,
    /// `request-phase.on-request`.
    Request,
    /// `request-body-phase.on-request-body`.
    RequestBody,
    /// `request-stream.on-request-chunk`.
    RequestStream,
    /// `response-phase.on-response`.
    Response,
    /// `response-body-phase.on-response-body`.
    ResponseBody,
    /// `response-stream.on-response-chunk`.
    ResponseStream,
    /// `log-phase.on-log`.
    Log,
    /// `challenge-phase.key-authorization`.
    Challenge,
    /// `background.on-tick`, outside any exchange.
    Tick,
    /// A function of `dns-solver`, outside any exchange.
    Solver,
}

impl Phase {
    pub(crate) const ALL: [Self; 12] = [
        Self::Configure,
        Self::Route,
        Self::Request,
        Self::RequestBody,
        Self::RequestStream,
        Self::Response,
        Self::ResponseBody,
        Self::ResponseStream,
        Self::Log,
        Self::Challenge,
        Self::Tick,
        Self::Solver,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Route => "route",
            Self::Request => "request",
            Self::RequestBody => "request-body",
            Self::RequestStream => "request-stream",
            Self::Response => "response",
            Self::ResponseBody => "response-body",
            Self::ResponseStream => "response-stream",
            Self::Log => "log",
            Self::Challenge => "challenge",
            Self::Tick => "tick",
            Self::Solver => "solver",
        }
    }
}

/// Something that a component needs the operator's leave for, and has not got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingGrant {
    /// What the component does, as in "imports `postern:plugin/callout@0.1.0`".
    pub what: String,
    /// The key that would grant it, as TOML.
    pub grant: &'static str,
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
    stubbed: Vec<String>,
    reads_request_fields: bool,
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
        let mut stubbed: Vec<String> = Vec::new();
        let mut linker = None;
        let link = |e| PluginError::Link(Cause::new(e));
        let mut reads_request_fields = false;
        for (name, item) in kind.imports(engine.wasmtime()) {
            if is_stubbed(name)
                && let ComponentItem::ComponentInstance(interface) = &item.ty
            {
                let linker = linker.get_or_insert_with(|| engine.linker().clone());
                stub(linker, engine.wasmtime(), name, interface).map_err(link)?;
                stubbed.push(name.into());
                continue;
            }
            if !is_offered(name) {
                return Err(PluginError::UnknownImport { name: name.into() });
            }
            if let ComponentItem::ComponentInstance(interface) = item.ty
                && name.starts_with("postern:plugin/request@")
            {
                // Toolchains import the functions that are used, and no others.
                let mut functions = interface.exports(engine.wasmtime());
                reads_request_fields |= functions.any(|(name, _)| FIELD_READERS.contains(&name));
            }
            imports.push(name.into());
        }
        let linker = linker.as_ref().unwrap_or_else(|| engine.linker());
        let linked = linker.instantiate_pre(&code).map_err(link)?;
        let mut has_lifecycle = false;
        let mut phases = Phases::default();
        for (name, _) in kind.exports(engine.wasmtime()) {
            // Whatever else a toolchain exports is never called.
            let Some(interface) = name.strip_prefix(PACKAGE) else {
                continue;
            };
            match interface_of_track(interface) {
                Some("lifecycle") => has_lifecycle = true,
                Some(interface) if phases.note(interface) => {}
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

        let exports = Exports::new(&linked, phases).map_err(link)?;
        Ok(Arc::new(Self {
            engine: Arc::clone(engine),
            linked,
            exports,
            digest,
            size: bytes.len(),
            compile_time,
            was_cached,
            imports,
            stubbed,
            reads_request_fields,
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

    /// Interfaces of WASI that it imports. They are there so that it links, and do nothing: there
    /// is no file system, no socket and no environment, and calling one ends the instance.
    pub fn stubbed(&self) -> &[String] {
        &self.stubbed
    }

    /// Whether it can ask for fields of the request whenever it is called.
    pub(crate) fn reads_request_fields(&self) -> bool {
        self.reads_request_fields
    }

    pub fn phases(&self) -> Phases {
        self.exports.phases()
    }

    /// What it imports or exports that these grants do not cover.
    pub fn missing_grants(&self, grants: &Grants) -> Vec<MissingGrant> {
        let imports = self.imports.iter().filter_map(|import| {
            let interface = import.strip_prefix(PACKAGE).and_then(interface_of_track)?;
            let grant = match interface {
                "callout" if grants.upstreams.is_empty() => "grants.upstreams = [\"UPSTREAM\"]",
                "secrets" if grants.secrets.is_empty() => {
                    "grants.secrets.NAME = { file = \"PATH\" }"
                }
                "shared" if grants.shared_state.is_none() => "grants.shared-state = \"1MiB\"",
                _ => return None,
            };
            let what = format!("imports `{import}`");
            Some(MissingGrant { what, grant })
        });
        let phases = self.phases();
        let exports = [
            (phases.challenge && !grants.challenges)
                .then_some(("challenge-phase", "grants.challenges = true")),
            (phases.solver && !grants.dns).then_some(("dns-solver", "grants.dns = true")),
        ];
        let exports = exports.into_iter().flatten().map(|(name, grant)| {
            let what = format!("exports `{PACKAGE}{name}`");
            MissingGrant { what, grant }
        });
        imports.chain(exports).collect()
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(crate) mod tests;
