//! Every integration test, in one binary so that the gateway is linked once.
#![cfg(test)]

mod access_log;
mod balancing;
mod client_auth;
mod documents;
mod drain;
mod explain_run;
mod foreign;
mod forwarding;
mod framing;
mod fuzz;
mod grpc;
mod health;
mod http2;
mod kubernetes;
mod limits;
mod passthrough;
mod plugin_grants;
mod plugin_phases;
mod plugin_refusals;
mod plugin_sources;
mod plugins;
mod policies;
mod proxy_protocol;
mod reload;
mod responses;
mod retries;
mod routing;
mod slow;
mod support;
mod timeouts;
mod tls;
mod upgrades;
mod upstream_faults;
mod upstream_limits;
mod upstream_tls;
