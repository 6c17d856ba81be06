//! What the integration tests and the programs beside them share: a gateway in process, upstreams,
//! clients, certificates, a folder that goes away.
//!
//! Every server listens on a port that the kernel chose. What is proved stands in the tests; here
//! is set-up alone, and set-up that fails ends the test.
#![allow(
    clippy::unwrap_used,
    reason = "set-up that fails ends the test or program that wanted it"
)]

pub mod bundled;
pub mod certificates;
pub mod certs;
pub mod client;
pub mod exhaustion;
pub mod fuzz;
pub mod gateway;
pub mod kubernetes;
pub mod languages;
pub mod plugin_faults;
pub mod plugin_load;
pub mod process;
pub mod registry;
pub mod scratch;
pub mod served;
pub mod soak;
pub mod takeover;
pub mod upstream;
pub mod websocket;
