//! The cluster as a source of configuration.
