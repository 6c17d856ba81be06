//! Certificates that the gateway gets for itself, by ACME (RFC 8555), and says why where it has
//! none.
//!
//! It asks nothing of the data plane: what is issued comes out as bytes, which the control plane
//! puts beside what files and a cluster declare, and what a CA looks for is in a table that the
//! data plane may read.

pub mod dns;
pub mod reason;

pub use reason::Reason;
