//! The vocabulary of the gateway, its declared configuration, and routing: values in, values out.
//!
//! Nothing here does I/O, reads a clock, or knows Kubernetes, hyper or wasmtime. Both sources of
//! configuration (files and the cluster) produce the same [`config::Config`], and both the data
//! plane and the commands that explain it ask the same [`route::RouteTable`].
//!
//! One word a thing:
//!
//! | word | means |
//! |---|---|
//! | downstream, upstream | towards the client; towards the application |
//! | listener | an address, protocol and TLS mode that accepts connections |
//! | route, rule, match | host names with rules; a match with policies and backends; one conjunction of conditions |
//! | policy | one step on request and response |
//! | plugin, component, instance | a configured policy in WebAssembly; its compiled code; one isolated use |
//! | upstream, endpoint | a named group with balancing and pools; one address in it |
//! | `...Spec` | declared: plain, comparable, from a source |
//! | problem, origin | a finding about configuration, and where it is |
//!
//! Reading order: [`name`], [`hostname`], [`path`], [`header`], [`request`] (the canonical
//! request), [`config`] (what may be declared), [`route`] (which rule answers), [`policy`] (what
//! policies decide), [`balance`] and [`retry`] (which endpoint, and how often).

pub mod address;
pub mod balance;
pub mod config;
pub mod header;
pub mod hostname;
pub mod name;
pub mod path;
pub mod policy;
pub mod proxy_protocol;
pub mod request;
pub mod retry;
pub mod route;
