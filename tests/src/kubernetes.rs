//! A real API server with its etcd, on this machine: what `test-kubernetes` and `kubernetes-scale`
//! run gateways against.
//!
//! The programs are those that `tests/kubernetes/setup.sh` builds. Everything listens on loopback,
//! in a network namespace of its own, and is ended with the value that started it.

pub mod api;
pub mod changes;
pub mod faults;
pub mod hostile;
pub mod load;
pub mod manifests;
pub mod namespace;
pub mod objects;
pub mod scale;
pub mod scripted;
pub mod server;
pub mod site;
pub mod table;
pub mod webhook;

pub use api::Api;
pub use server::ApiServer;
pub use site::Site;
