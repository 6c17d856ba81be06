//! The program: command line, sources of configuration, control loop, admin listener.
//!
//! What serves requests is in `postern-proxy`; what may be configured is in `postern-core`. Here
//! they are put together.
//!
//! Reading order: [`run`] (the whole program on one screen), [`control`] (how a change becomes a
//! snapshot), [`source`], [`cluster`] and [`certificates`] (where
//! changes come from), [`fetch`] (plugins that are no
//! files), [`admin`] and [`explain`] (what runs, and why), [`cli`] (the commands), [`plugin`] (what
//! authors of plugins are given), [`view`] (a configuration as it is shown).

pub mod admin;
pub mod certificates;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod explain;
pub mod fetch;
pub mod plugin;
pub mod run;
pub mod solver;
pub mod source;
pub mod telemetry;
pub mod view;
pub mod webhook;

mod machine;
