//! What authors of plugins need: a project to begin with, a component built from it, its cases run
//! in the real host without a gateway, and what it costs.
//!
//! Reading order: [`project`] (what a folder with a `plugin.toml` says), [`template`] (a new one),
//! [`build`] (from source to component), [`case`] (what a test says), [`runner`] (how it is run, and
//! what it costs), [`verdict`] (whether what became of it is what was expected).

pub mod build;
pub mod case;
pub mod project;
pub mod runner;
pub mod template;
pub mod verdict;
