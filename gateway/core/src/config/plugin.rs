//! A plugin as it is declared: where its component is, what it is given, what it may use.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use crate::name::UpstreamName;

/// A policy in WebAssembly.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginSpec {
    pub source: PluginSource,
    /// JSON text for `lifecycle.configure`; `{}` if the file gives none.
    pub config: String,
    pub on_error: OnError,
    pub isolation: Isolation,
    pub limits: PluginLimits,
    pub grants: Grants,
}

/// Where a component comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PluginSource {
    File(PathBuf),
}

/// What a request gets when its plugin fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnError {
    /// 503.
    #[default]
    Deny,
    /// The request goes on as if the plugin were not there, with none of its edits.
    Allow,
    /// This status, 400 to 599.
    Status(StatusCode),
}

/// What the calls of a plugin may know of each other through its memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Isolation {
    /// An instance serves many requests, one after the other.
    #[default]
    Plugin,
    /// Each call has an instance of its own, and pays for it.
    Request,
}

/// What a plugin may do beyond looking at its own exchange. Nothing of it without a grant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    /// Where callouts may go.
    pub upstreams: BTreeSet<UpstreamName>,
    /// By the name that the plugin asks for.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Bytes that the instances may share.
    pub shared_state: Option<u64>,
    /// Answering ACME HTTP-01 challenges.
    pub challenges: bool,
    /// Writing DNS records for certificates.
    pub dns: bool,
}

/// Where a secret comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretSource {
    File(PathBuf),
    /// A variable of the gateway's environment.
    Env(String),
}

/// Processor time a call.
pub const DEFAULT_CPU: Duration = Duration::from_millis(50);
/// Wall time a call, waiting included.
pub const DEFAULT_TIME: Duration = Duration::from_secs(1);
/// Linear memory an instance, in bytes.
pub const DEFAULT_MEMORY: u64 = 64 << 20;
/// Elements in all tables of an instance. Enough for the languages that ship (Python wants most).
pub const DEFAULT_TABLE_ELEMENTS: u32 = 10_000;
/// Instances of one plugin in one worker.
pub const DEFAULT_INSTANCES: u32 = 32;
/// Bytes that one call may hand to the host, all host calls together.
pub const DEFAULT_HOST_BYTES: u64 = 1 << 20;
/// Log lines a second; more are dropped and counted.
pub const DEFAULT_LOG_LINES: u32 = 100;
/// Bytes of a body that the gateway holds for a plugin, or takes from it in its place.
pub const DEFAULT_BODY: u64 = 1 << 20;
/// Callouts a call.
pub const DEFAULT_CALLOUTS: u32 = 16;

/// What one plugin may use. Every field has a default and none can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PluginLimits {
    /// Processor time a call.
    pub cpu: Duration,
    /// Wall time a call, waiting included.
    pub time: Duration,
    /// Linear memory an instance, in bytes.
    pub memory: u64,
    /// Elements in all tables of an instance.
    pub table_elements: u32,
    /// Instances in one worker; calls beyond it wait, and fail after `time`.
    pub instances: u32,
    /// Bytes that one call may hand to the host, all host calls together.
    pub host_bytes: u64,
    /// Log lines a second; more are dropped and counted.
    pub log_lines: u32,
    /// Bytes of a body that the gateway holds for it, or takes from it in its place.
    pub body: u64,
    /// Callouts a call.
    pub callouts: u32,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            cpu: DEFAULT_CPU,
            time: DEFAULT_TIME,
            memory: DEFAULT_MEMORY,
            table_elements: DEFAULT_TABLE_ELEMENTS,
            instances: DEFAULT_INSTANCES,
            host_bytes: DEFAULT_HOST_BYTES,
            log_lines: DEFAULT_LOG_LINES,
            body: DEFAULT_BODY,
            callouts: DEFAULT_CALLOUTS,
        }
    }
}
