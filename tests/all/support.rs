//! Configurations that many tests begin with.

use std::net::SocketAddr;
use std::time::Duration;

use postern_tests::process;
use tokio::net::TcpListener;

/// How long something that has to happen may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);

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

/// An upstream of several endpoints, with more keys.
pub(crate) fn several(endpoints: &[SocketAddr], keys: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "[listeners.http]\nbind = \"127.0.0.1:0\"\n\n[upstreams.app]\nendpoints = [{endpoints}]\n\
         {keys}\n[[routes]]\nrules = [{{ upstream = \"app\" }}]\n"
    )
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Waits for something that happens apart from the test.
pub(crate) async fn until(what: &str, mut has_happened: impl FnMut() -> bool) {
    let waiting = async {
        while !has_happened() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    assert!(waited.is_ok(), "{what}");
}

/// Runs the program: whether it went well, and what it printed.
pub(crate) async fn postern(arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(process::postern().unwrap());
    let output = command.args(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}
