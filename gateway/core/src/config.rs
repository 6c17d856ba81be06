//! What may be declared, valid by construction.

pub mod plugin;
