//! Configurations that many tests begin with.

use std::net::SocketAddr;

/// A clear-text listener `http`, one upstream `app`, and a route of every request to it.
pub(crate) fn plain(upstream: SocketAddr) -> String {
    with_rules(upstream, "{ upstream = \"app\" }")
}

/// The same with other rules.
pub(crate) fn with_rules(upstream: SocketAddr, rules: &str) -> String {
    format!(
        "[listeners.http]\nbind = \"127.0.0.1:0\"\n\n{}\n[[routes]]\nrules = [{rules}]\n",
        upstream_table("app", upstream)
    )
}

pub(crate) fn upstream_table(name: &str, upstream: SocketAddr) -> String {
    format!("[upstreams.{name}]\nendpoints = [\"{upstream}\"]\n")
}
