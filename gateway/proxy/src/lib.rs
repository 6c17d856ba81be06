//! The data plane: from an accepted connection to an answered request.
//!
//! One core, one world. Each worker is a thread with its own single-threaded runtime, its own
//! listening sockets, its own upstream connections and its own plugin instances; a request is
//! served where it was accepted. Workers share immutable snapshots and nothing else, so the request
//! path takes no lock.
//!
//! Reading order, which is the order of a request: [`gateway`] and [`worker`] (who runs), then
//! [`listener`], [`tls`], [`guard`], [`connection`], **[`request`]** (start here), [`policy`],
//! [`upstream`], [`body`], [`response`], [`access_log`]. What they all read: [`snapshot`]; what they
//! may take together: [`overload`]. Beside both: [`challenges`]. Beside requests, for plugins: [`callout`], [`log_calls`],
//! [`ticks`]. Without any client: [`rehearsal`].
//!
//! Deliberately not here: where configuration comes from. This crate knows neither files being
//! watched nor Kubernetes.

mod access_log;
mod body;
mod callout;
mod challenges;
mod clock;
mod connection;
mod error;
mod gateway;
mod guard;
mod listener;
mod log_calls;
mod metrics;
mod overload;
mod policy;
pub mod rehearsal;
mod request;
mod response;
mod snapshot;
mod stream;
#[cfg(feature = "test-util")]
pub mod test_util;
mod ticks;
mod tls;
mod upstream;
mod worker;

pub use challenges::ChallengeError;
pub use challenges::Challenges;
pub use challenges::LookUp;
pub use gateway::EndpointHealth;
pub use gateway::Gateway;
pub use listener::listen;
pub use listener::takeover::Successor;
pub use listener::takeover::leave_to;
pub use overload::memory_limit;
pub use snapshot::Impairment;
pub use snapshot::Published;
pub use snapshot::ServedCertificate;
pub use snapshot::Snapshot;
pub use snapshot::compile::Compiler;
pub use snapshot::component::Builds;
pub use snapshot::materials::Absence;
pub use snapshot::materials::Fetched;
pub use snapshot::materials::Materials;
