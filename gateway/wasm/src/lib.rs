//! The plugin host: compiles components, keeps instances, runs their phases within limits.
//!
//! Five things, each with a life of its own:
//!
//! | thing | lives | made by |
//! |---|---|---|
//! | [`PluginEngine`] | as long as the process | start-up |
//! | [`Component`] | as long as a plugin uses its code; compiled once, linked once | the control plane |
//! | [`Plugin`] | as long as a snapshot names it: a component with a configuration | the control plane |
//! | [`PluginWorker`] | as long as its plugin, in one worker; holds the idle instances | the worker |
//! | instance | many calls, one at a time; never past a fault | the worker, when it needs one |
//!
//! Invariants:
//! - Nothing that a guest does panics, blocks a worker or outlives its deadline.
//! - An instance that trapped, exceeded a limit, or whose call was dropped is never used again.
//! - What a guest hands over is checked in the host call that takes it ([`host`]).
//! - No type of the Wasm engine, and no generated one, is visible outside this crate.
//!
//! Reading order: [`engine`], [`component`], [`plugin`], [`exchange`] (what a call is about),
//! [`worker`] (one call from the outside), [`instance`] (the same from the inside), [`limits`],
//! [`host`], [`error`]. What outlives an instance: [`shared`], [`metrics`], [`stats`], [`breaker`],
//! and [`record`], which ties them to the plugin's name.

pub mod callout;
pub mod component;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod interface;
pub mod limits;
pub mod metrics;
pub mod plugin;
pub mod solver;
pub mod stats;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
pub mod worker;

mod bindings;
mod breaker;
mod host;
mod instance;
mod record;
mod shared;
mod view;

pub use component::Component;
pub use component::encode::encode_component;
pub use component::encode::encode_plugin;
pub use engine::PluginEngine;
pub use error::PluginError;
pub use exchange::Action;
pub use exchange::Exchange;
pub use plugin::Plugin;
pub use plugin::PluginSetup;
pub use solver::Solver;
pub use worker::PluginWorker;
