//! HTTP/2 connections that cost more than they bring: each ends, and nobody beside them notices.

mod budgets;
mod conformance;
mod downgrade;
mod stalls;

use std::net::SocketAddr;

use postern_tests::client::frames::CALM;
use postern_tests::client::frames::Connection;
use postern_tests::client::frames::GOAWAY;
use postern_tests::client::frames::get;
use postern_tests::gateway::Running;

use crate::support::upstream_table;

/// A clear-text listener with these settings, and a route of every request to `app`.
fn config(app: SocketAddr, settings: &str) -> String {
    format!(
        "[listeners.http]\nbind = \"127.0.0.1:0\"\n{settings}\n{}[[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app)
    )
}

/// The connection ends with ENHANCE_YOUR_CALM.
async fn is_calmed(connection: Connection, what: &str) {
    let frames = connection.rest().await;
    let said: Vec<u32> = frames
        .iter()
        .filter(|frame| frame.kind == GOAWAY)
        .map(postern_tests::client::frames::Frame::code)
        .collect();
    assert_eq!(said, [CALM], "{what}");
}

/// The connection answers a request.
async fn is_served(connection: &mut Connection, stream: u32, what: &str) {
    assert!(connection.send(&get(stream, "/after")).await, "{what}");
    let outcome = connection.outcome(stream).await;
    assert_eq!(outcome.status, Some(200), "{what}: {outcome:?}");
}

/// How many connections were ended for this reason.
fn abuses(gateway: &Running, kind: &str) -> u64 {
    let metrics = gateway.metrics();
    let name = format!("postern_http2_abuse_total{{kind=\"{kind}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}
