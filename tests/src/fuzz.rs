//! What the fuzzers run: one function a target, from bytes to "nothing is wrong" or a panic.
//!
//! `tests/fuzz` runs them under libFuzzer; a test replays the inputs in `tests/fuzz/corpus` without
//! one. Nothing here is random and nothing depends on the input that came before, except that
//! connections to upstreams may be reused, as they are in a gateway.
//!
//! Reading order: [`http1`] and [`oracle`] (what a request has to be), [`harness`] (a gateway over
//! memory), [`edge`] and [`frames`] (what clients and upstreams send to it), [`values`] (the pure
//! parts), [`balancer`], [`plugins`], [`sockets`] (what only a socket can show).

mod balancer;
mod edge;
mod frames;
mod harness;
mod http1;
mod oracle;
mod plugins;
mod sockets;
mod values;

pub use balancer::proxy_protocol;
pub use edge::h1_differential;
pub use edge::h1_edge;
pub use edge::h1_upstream_response;
pub use frames::h2_frames;
pub use plugins::component_load;
pub use plugins::plugin_verdict;
pub use sockets::client_hello;
pub use values::access_log;
pub use values::config_toml;
pub use values::forwarded_headers;
pub use values::hostname;
pub use values::request_path;

/// A target by its name, which is that of its folder in the corpus.
pub const TARGETS: [(&str, fn(&[u8])); 13] = [
    ("access_log", access_log),
    ("client_hello", client_hello),
    ("component_load", component_load),
    ("config_toml", config_toml),
    ("forwarded_headers", forwarded_headers),
    ("h1_differential", h1_differential),
    ("h1_edge", h1_edge),
    ("h1_upstream_response", h1_upstream_response),
    ("h2_frames", h2_frames),
    ("hostname", hostname),
    ("plugin_verdict", plugin_verdict),
    ("proxy_protocol", proxy_protocol),
    ("request_path", request_path),
];
