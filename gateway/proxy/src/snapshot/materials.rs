//! The bytes of every file that a configuration refers to.
//!
//! Read by a source, before compiling: so compiling does no file I/O, and "nothing changed" can be
//! told by comparing values, also when a certificate was renewed under the same name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::PluginSpec;
use postern_core::config::PolicySpec;
use postern_core::config::plugin::PluginSource;
use postern_core::config::plugin::SecretSource;
use postern_core::config::source::RemoteSource;

/// Largest file that is read, in bytes: a plugin component of that size is refused anyway.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Why a file could not be read. Comparable, so that a lasting failure is no change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no such file")]
    Missing,
    #[error("it may not be read by this user")]
    Permission,
    #[error("it is no regular file")]
    NotRegular,
    #[error("it is larger than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("{0}")]
    Other(io::ErrorKind),
}

/// Components by where they come from, as far as they are there.
pub type Fetched = BTreeMap<RemoteSource, Result<Arc<[u8]>, Absence>>;

/// Why a component that has to be fetched is not there. Comparable, so that a lasting failure is no
/// change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Absence {
    /// What an operator is told.
    pub message: String,
    /// Trying again is no use until somebody changes something.
    pub is_lasting: bool,
}

/// The files of one configuration, and what was fetched for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Materials {
    files: BTreeMap<PathBuf, Result<Arc<[u8]>, ReadError>>,
    fetched: Fetched,
}

impl Materials {
    /// Every file that the configuration names and does not hold itself.
    pub fn paths(config: &Config) -> BTreeSet<PathBuf> {
        let certificates = config.certificates.values();
        let plugins = config.policies.values().filter_map(PolicySpec::plugin);
        let plugins = plugins.flat_map(plugin_files);
        let policies = config.policies.values().filter_map(PolicySpec::file);
        let policies = policies.map(|(_, path)| path.to_owned());
        let listeners = config.listeners.values();
        let of_listeners = listeners.filter_map(|listener| listener.tls.as_ref());
        let of_listeners = of_listeners.flat_map(|tls| {
            let roots = tls.client_auth.iter().map(|spec| &spec.ca_file);
            roots.chain(&tls.ticket_keys).cloned()
        });
        let tls = config.upstreams.values();
        let tls = tls.filter_map(|upstream| upstream.tls.as_ref());
        let of_upstreams = tls.flat_map(|tls| {
            let client = tls.client.iter();
            let pairs = client.flat_map(|pair| [pair.cert_file.clone(), pair.key_file.clone()]);
            tls.ca_file.iter().cloned().chain(pairs)
        });
        certificates
            .flat_map(|spec| [spec.cert_file.clone(), spec.key_file.clone()])
            .chain(plugins)
            .chain(policies)
            .chain(of_listeners)
            .chain(of_upstreams)
            .filter(|path| !config.held.contains_key(path))
            .collect()
    }

    /// Reads them all. Blocks on the file system, and on nothing else.
    pub fn read(config: &Config) -> Self {
        let read = |path: PathBuf| {
            let bytes = read_file(&path).map(Arc::from);
            (path, bytes)
        };
        let held = config.held.iter();
        let held = held.map(|(path, held)| (path.clone(), Ok(Arc::clone(held.bytes()))));
        let files = Self::paths(config).into_iter().map(read);
        Self {
            files: files.chain(held).collect(),
            fetched: Fetched::new(),
        }
    }

    /// Those of another configuration: files that were read are not read again. Blocks on the file
    /// system for the others.
    #[must_use]
    pub fn renewed(&self, config: &Config) -> Self {
        let held = config.held.iter();
        let held = held.map(|(path, held)| (path.clone(), Ok(Arc::clone(held.bytes()))));
        let files = Self::paths(config).into_iter().map(|path| {
            let known = self.files.get(&path).cloned();
            let bytes = known.unwrap_or_else(|| read_file(&path).map(Arc::from));
            (path, bytes)
        });
        Self {
            files: files.chain(held).collect(),
            fetched: Fetched::new(),
        }
    }

    /// Everything that the configuration names and that is no file.
    pub fn remotes(config: &Config) -> BTreeSet<RemoteSource> {
        let plugins = config.policies.values().filter_map(PolicySpec::plugin);
        let remotes = plugins.filter_map(|plugin| match &plugin.source {
            PluginSource::Remote(remote) => Some(remote.clone()),
            PluginSource::File(_) => None,
        });
        remotes.collect()
    }

    #[must_use]
    pub fn with_fetched(self, fetched: Fetched) -> Self {
        Self { fetched, ..self }
    }

    pub(crate) fn fetched(&self, source: &RemoteSource) -> Result<Arc<[u8]>, Absence> {
        let nothing = || Absence {
            message: "nobody has fetched it".to_owned(),
            is_lasting: false,
        };
        self.fetched
            .get(source)
            .map_or_else(|| Err(nothing()), Clone::clone)
    }

    pub(crate) fn get(&self, path: &Path) -> Result<Arc<[u8]>, ReadError> {
        self.files
            .get(path)
            .map_or(Err(ReadError::Missing), Clone::clone)
    }
}

fn plugin_files(plugin: &PluginSpec) -> Vec<PathBuf> {
    let component = match &plugin.source {
        PluginSource::File(path) => Some(path.clone()),
        PluginSource::Remote(_) => None,
    };
    let secrets = plugin.grants.secrets.values();
    let secrets = secrets.filter_map(|source| match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Env(_) => None,
    });
    component.into_iter().chain(secrets).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Missing,
        io::ErrorKind::PermissionDenied => ReadError::Permission,
        kind => ReadError::Other(kind),
    };
    // Asked before opening: opening a FIFO blocks until somebody writes to it.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}
