//! Every integration test, in one binary so that the gateway is linked once.
#![cfg(test)]

mod access_log;
mod balancing;
mod documents;
mod drain;
mod foreign;
mod forwarding;
mod framing;
mod grpc;
mod health;
mod plugins;
mod reload;
mod retries;
mod routing;
mod support;
mod timeouts;
mod tls;
mod upgrades;
mod upstream_faults;
mod upstream_limits;
mod upstream_tls;
