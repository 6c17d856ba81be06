//! Headers: sets, adds and removes fields, rewrites paths and denies requests, by rules.
//!
//! [`rules`] holds what is decided, as values in and edits out; it knows nothing of the gateway
//! and is tested on any machine. `plugin` ties it to the interface and exists in Wasm only.

pub mod rules;

#[cfg(target_family = "wasm")]
mod plugin;
