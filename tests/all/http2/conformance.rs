//! h2spec, which others wrote, against clear text and TLS.

use std::net::SocketAddr;
use std::path::Path;

use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use tokio::process::Command;

use super::config;
use crate::support::upstream_table;

/// Runs every case, the strict ones too. What fails is in the message.
async fn h2spec(addr: SocketAddr, options: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let program = root.join(".cache/h2spec/h2spec");
    assert!(
        program.is_file(),
        "there is no h2spec; run: make setup-tests"
    );
    let output = Command::new(program)
        .args([
            "--strict",
            "--timeout",
            "4",
            "--host",
            "127.0.0.1",
            "--port",
        ])
        .arg(addr.port().to_string())
        .args(options)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.lines().find(|line| line.contains(" tests, "));
    let counts = counts.unwrap_or_default();
    assert!(counts.contains(" 0 failed"), "{counts}\n{text}");
    let count: u32 = counts.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 140, "{counts}");
}

/// Larger than the windows that it tries.
async fn app() -> Upstream {
    Upstream::echo("app").await
}

#[tokio::test]
async fn clear_text_conforms() {
    let app = app().await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    h2spec(gateway.addr("http"), &[]).await;
}

#[tokio::test]
async fn tls_conforms() {
    let app = app().await;
    let config = format!(
        "listeners.https = {{ bind = \"127.0.0.1:0\", tls = {{}} }}\n\
         certificates.one = {{ cert-file = \"one.pem\", key-file = \"one.key\" }}\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().certificate("one", &["127.0.0.1", "localhost", "one.test"]);
    let gateway = set_up.start(&config).await;
    h2spec(gateway.addr("https"), &["--tls", "--insecure"]).await;
}
