//! `make run`: two small upstreams, a development certificate, and the gateway in front of them.
//!
//! Serves `examples/quickstart/postern.toml` until Ctrl-C. Says in a sentence what is in the way if
//! something is.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to a person"
)]

use std::fs;
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use postern_tests::certs::Authority;
use postern_tests::process;
use postern_tests::process::Program;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

const CONFIG: &str = "examples/quickstart/postern.toml";
const PLUGIN: &str = "dev/headers.wasm";
const HOST: &str = "app.localhost";
/// What the configuration names, and what for.
const PORTS: [(u16, &str); 5] = [
    (8080, "HTTP"),
    (8443, "HTTPS"),
    (9001, "the upstream 'app'"),
    (9002, "the upstream 'api'"),
    (ADMIN_PORT, "the admin listener"),
];
const ADMIN_PORT: u16 = 9180;
const START: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("make run: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    if !Path::new(CONFIG).is_file() {
        return Err(format!(
            "there is no {CONFIG} here; start it in the root of the repository"
        ));
    }
    if !Path::new(PLUGIN).is_file() {
        return Err(format!("there is no {PLUGIN}; `make guests` builds it"));
    }
    let postern = process::postern()?;
    for (port, purpose) in PORTS {
        std::net::TcpListener::bind(local(port))
            .map_err(|error| in_the_way(port, purpose, &error))?;
    }
    make_certificate().map_err(|error| format!("the folder dev/ cannot be written: {error}"))?;

    let _app = echo("app", 9001).await?;
    let _api = echo("api", 9002).await?;
    let arguments = [
        "run",
        "--config",
        CONFIG,
        "--accept-for",
        "0s",
        "--drain",
        "3s",
    ];
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| format!("signals cannot be noticed: {error}"))?;
    let mut gateway = Program::start(&postern, &arguments, true)
        .map_err(|error| format!("{} cannot be started: {error}", postern.display()))?;
    gateway
        .ready(local(ADMIN_PORT), START)
        .await
        .map_err(|error| format!("the gateway does not start: {error}"))?;
    print_commands();

    tokio::select! {
        () = asked_to_end(&mut terminate) => {
            let ended = gateway.terminate().await;
            ended.map(|_| ()).map_err(|error| format!("the gateway does not end: {error}"))
        }
        ended = gateway.wait() => Err(match ended {
            Ok(status) => format!("the gateway ended with {status}"),
            Err(error) => format!("the gateway is lost: {error}"),
        }),
    }
}

/// By Ctrl-C or SIGTERM.
async fn asked_to_end(terminate: &mut Signal) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn in_the_way(port: u16, purpose: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port}, wanted for {purpose}, is taken by another program; end that, or change \
             the port in {CONFIG}"
        ),
        _ => format!("port {port}, wanted for {purpose}, cannot be used: {error}"),
    }
}

/// Made once and kept, so that a client that was told to trust it does so tomorrow.
fn make_certificate() -> io::Result<()> {
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| Path::new("dev").join(name));
    if files.iter().all(|file| file.is_file()) {
        return Ok(());
    }
    fs::create_dir_all("dev")?;
    let authority = Authority::new("Postern development authority");
    let leaf = authority.leaf(&[HOST, "localhost"]);
    let [ca, certificate, key] = files;
    fs::write(ca, authority.pem())?;
    fs::write(certificate, leaf.chain)?;
    let mut options = fs::OpenOptions::new();
    // For this user alone, from the first byte on.
    let mut key = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(key)?;
    key.write_all(leaf.key.as_bytes())?;
    println!("made a certificate authority and a certificate for {HOST} in dev/");
    Ok(())
}

async fn echo(name: &'static str, port: u16) -> Result<Upstream, String> {
    let started = Upstream::http1_at(local(port), move |request| upstream::echo(name, request));
    started
        .await
        .map_err(|error| in_the_way(port, &format!("the upstream '{name}'"), &error))
}

fn print_commands() {
    let curl = "curl --cacert dev/ca.pem --resolve app.localhost:8443:127.0.0.1";
    let at = "https://app.localhost:8443";
    println!(
        "\nThe gateway serves {CONFIG}. In another terminal, in this folder:\n\n\
         {curl} -i {at}/hello\n    shows a request field and a response field set by the plugin\n\n\
         {curl} -i {at}/admin\n    is denied by the plugin: 401, without an x-api-key field\n\n\
         {curl} -i {at}/api/users\n    goes to another upstream, as /users\n\n\
         Ctrl-C ends it.\n"
    );
}
