//! What objects are called, and what is wrong with them.

use std::fmt;
use std::sync::Arc;

pub use postern_core::config::problem::Severity;

/// Kinds of objects that are read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    IngressClass,
    /// Ours: what the parameters of an IngressClass refer to.
    ClassDefaults,
    Ingress,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    /// Ours: a policy in WebAssembly.
    Plugin,
    /// Ours: a built-in policy.
    Policy,
}

/// Every kind, in the order in which a summary names them.
pub const KINDS: [Kind; 9] = [
    Kind::IngressClass,
    Kind::ClassDefaults,
    Kind::Ingress,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::Plugin,
    Kind::Policy,
];

/// The API group of our own kinds.
pub const GROUP: &str = "postern.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IngressClass => "IngressClass",
            Self::ClassDefaults => "ClassDefaults",
            Self::Ingress => "Ingress",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Plugin => "Plugin",
            Self::Policy => "Policy",
        }
    }

    /// The `apiVersion` that is read.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::IngressClass | Self::Ingress => "networking.k8s.io/v1",
            Self::Service | Self::Secret | Self::ConfigMap => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ClassDefaults | Self::Plugin | Self::Policy => "postern.dev/v1alpha1",
        }
    }

    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::IngressClass)
    }

    /// The kind that a manifest names.
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        KINDS
            .into_iter()
            .find(|known| known.as_str() == kind && known.api_version() == api_version)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name. Objects without a namespace have an empty one.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Another object of the same namespace.
    #[must_use]
    pub fn beside(&self, name: &Arc<str>) -> Self {
        Self {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(name),
        }
    }
}

/// `namespace/name`, or the name alone.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectRef {
    pub kind: Kind,
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One thing wrong with an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectProblem {
    pub object: ObjectRef,
    /// As in `spec.rules[0].host`; empty for the object as a whole.
    pub field: String,
    pub severity: Severity,
    /// A stable word, for Events and conditions.
    pub reason: Reason,
    /// What is wrong: lower-case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ObjectProblem {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// For a log: one line.
impl fmt::Display for ObjectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// What kind of thing is wrong; the `reason` of Events and conditions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The object cannot be read. Its last good version stays in use.
    Malformed,
    /// Part of it is what another controller understands, or nobody.
    Unsupported,
    /// It is taken, and probably not what was meant.
    Doubtful,
    /// Another object has it already.
    Conflict,
    /// It names a Service, or a port of one, that is not there.
    BackendMissing,
    /// It names a Service that may not be used.
    BackendRefused,
    /// It names a Secret that is not there or cannot be used.
    SecretMissing,
    /// It names a policy or plugin that is not there or cannot be used.
    PolicyMissing,
    /// It names something of another namespace, which does not allow it.
    NotGranted,
    /// It cannot be put to use: a plugin that cannot be fetched or compiled.
    Unusable,
    /// An issuer does not give the certificate that it wants; why, in a word of another closed list.
    NotIssued(&'static str),
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::Unsupported => "Unsupported",
            Self::Doubtful => "Doubtful",
            Self::Conflict => "Conflict",
            Self::BackendMissing => "BackendMissing",
            Self::BackendRefused => "BackendRefused",
            Self::SecretMissing => "SecretMissing",
            Self::PolicyMissing => "PolicyMissing",
            Self::NotGranted => "NotGranted",
            Self::Unusable => "Unusable",
            Self::NotIssued(why) => why,
        }
    }
}
