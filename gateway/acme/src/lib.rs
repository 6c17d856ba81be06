//! Certificates that the gateway gets for itself, by ACME (RFC 8555), and says why where it has
//! none.
//!
//! It asks nothing of the data plane: what is issued comes out as bytes, which the control plane
//! puts beside what files and a cluster declare, and what a CA looks for is shown by [`challenge`].
//!
//! Reading order: [`reason`] (why there is no certificate), [`engine`] (which certificate is worked
//! on when), [`order`] (one certificate, from a name to a chain), [`account`]; then what they use:
//! [`client`] (the authority), [`store`] and [`document`] (what is kept), [`dns`], [`renewal`],
//! [`ledger`], [`verify`].

mod account;
pub mod challenge;
mod client;
pub mod clock;
pub mod dns;
pub mod document;
pub mod engine;
mod http;
mod key;
mod ledger;
mod order;
mod protocol;
pub mod reason;
mod renewal;
pub mod store;
pub mod verify;

pub use reason::Reason;
