//! Clients and servers that are not ours talk through the gateway: the Python packages `grpcio`
//! and `websockets`, which `make setup-tests` installs.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;

use crate::support::upstream_table;

const HOST: &str = "foreign.test";
/// A client that has not finished by then hangs; Python alone takes a second to start.
const LIMIT: Duration = Duration::from_secs(60);

fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python: PathBuf = root.join(".cache/tests-venv/bin/python");
    assert!(
        python.is_file(),
        "the tests' Python environment is missing; run: make setup-tests"
    );
    let mut command = Command::new(python);
    command
        .arg(root.join("tests/clients").join(name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts a server script; it serves until the returned process is dropped.
async fn serve(name: &str) -> (SocketAddr, Child) {
    let mut server = script(name).spawn().unwrap();
    let stdout = server.stdout.take().unwrap();
    let port = BufReader::new(stdout).lines().next_line().await.unwrap();
    let Some(port) = port else {
        let output = server.wait_with_output().await.unwrap();
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    };
    (
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
        server,
    )
}

/// Runs a client script against the gateway and gives what it printed.
async fn talk(name: &str, gateway: &Running) -> String {
    let ca_file = gateway.set_up.path("ca.pem");
    let mut client = script(name);
    client
        .arg(gateway.addr("https").port().to_string())
        .arg(ca_file)
        .arg(HOST);
    let output = tokio::time::timeout(LIMIT, client.output()).await;
    let output = output.expect("the client hangs").unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn gateway(upstream: SocketAddr, settings: &str, rule: &str) -> Running {
    let config = format!(
        r#"
        listeners.https = {{ bind = "127.0.0.1:0", tls = {{}} }}
        certificates.one = {{ cert-file = "one.pem", key-file = "one.key" }}
        {}{settings}
        [[routes]]
        rules = [{rule}]
        "#,
        upstream_table("app", upstream)
    );
    let set_up = SetUp::new().certificate("one", &[HOST]);
    let authority = set_up.authority.pem().to_owned();
    set_up.file("ca.pem", authority).start(&config).await
}

#[tokio::test]
async fn grpcio_speaks_with_grpcio() {
    let (upstream, _server) = serve("grpc_server.py").await;
    let gateway = gateway(upstream, "protocol = \"http2\"", "{ upstream = \"app\" }").await;
    let said = talk("grpc_client.py", &gateway).await;
    assert_eq!(said, "unary: ok\nfailure: ok\nstream: ok\n");
}

#[tokio::test]
async fn websockets_speaks_with_websockets() {
    let (upstream, _server) = serve("websocket_server.py").await;
    let rule = "{ path = { prefix = \"/chat\" }, upstream = \"app\" }";
    let gateway = gateway(upstream, "", rule).await;
    let said = talk("websocket_client.py", &gateway).await;
    assert_eq!(said, "messages: ok\nrefusal: ok\n");
}
