//! The cluster as a source of configuration: what its objects say becomes the same
//! [`Config`](postern_core::config::Config) that files become.
//!
//! Objects are read loosely, one by one, from what the API server or a manifest gives: what is
//! malformed costs the object that it is in, and that keeps its last good record. [`Cluster`]
//! holds the records, small and without anything of the API's types. [`translate()`] makes a
//! configuration of them: a pure function, the same whatever the order in which objects came.
//!
//! Nothing here knows the data plane.
//!
//! Reading order: [`object`] (names of objects, and what is wrong with them), [`read`] (a look at
//! JSON that never fails whole), [`record`] (what is kept of an object), [`cluster`],
//! [`mod@translate`]; then [`watch`] and [`source`] (how objects come), [`lease`] and [`writer`] (what
//! is written back, and by whom), [`secrets`] and [`peers`] (what is kept there, and who else is a
//! gateway), [`rbac`]; [`offline`] and [`admission`] (objects looked at without a
//! cluster).

pub mod admission;
pub mod client;
pub mod cluster;
pub mod crd;
pub mod error;
pub mod lease;
pub mod manifest;
pub mod object;
pub mod offline;
pub mod peers;
pub mod rbac;
mod read;
pub mod record;
pub mod secrets;
pub mod source;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
pub mod translate;
pub mod watch;
pub mod writer;

pub use cluster::Cluster;
pub use kube::Client;
pub use object::Kind;
pub use object::ObjectName;
pub use object::ObjectProblem;
pub use object::ObjectRef;
pub use translate::Settings;
pub use translate::Translation;
pub use translate::Translator;
pub use translate::translate;
