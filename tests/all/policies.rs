//! Built-in policies on the way of real requests, a file for what belongs together.

mod access;
mod answers;
mod compression;
mod forward_auth;
mod limits;
mod rate_limit;
mod traffic;

use std::net::SocketAddr;

use crate::support::upstream_table;

/// A listener, the upstream `app`, these policies, and one rule with all of them by name.
pub(crate) fn with_policies(app: SocketAddr, policies: &str, names: &str) -> String {
    format!(
        "listeners.http.bind = \"127.0.0.1:0\"\n{policies}\n{}\n[[routes]]\nrules = [{{ upstream = \"app\", policies = {names} }}]\n",
        upstream_table("app", app)
    )
}
