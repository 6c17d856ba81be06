//! What authors of plugins need: a project to begin with, a component built from it, its cases run
//! in the real host without a gateway, and what it costs.
//!
//! Reading order: [`project`] (what a folder with a `plugin.toml` says), [`template`] (a new one),
//! [`build`] (from source to component), [`case`] (what a test says), [`runner`] (how it is run),
//! [`edits`] (what a plugin did), [`verdict`] (whether that is what was expected), [`cost`].

pub mod build;
pub mod case;
pub mod cost;
pub mod edits;
pub mod project;
pub mod runner;
pub mod template;
pub mod verdict;
