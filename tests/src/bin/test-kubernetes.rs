//! The controller against a real API server: applies `config/kubernetes`, runs three gateways with
//! its rights, asks each what the Ingress specification promises, changes everything under load, gives
//! it manifests that are wrong, lets `postern webhook` judge what is applied, and takes the API server and gateways away.
//!
//! `tests/kubernetes/setup.sh` builds the servers. Wants to be root, or to be allowed namespaces of
//! the user's own. Prints what it sees; exits 1 if anything is not as it should be.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its purpose"
)]

use std::process::ExitCode;
use std::time::Duration;

use postern_tests::kubernetes::Site;
use postern_tests::kubernetes::changes;
use postern_tests::kubernetes::faults;
use postern_tests::kubernetes::hostile;
use postern_tests::kubernetes::manifests;
use postern_tests::kubernetes::namespace;
use postern_tests::kubernetes::table;
use postern_tests::kubernetes::webhook;

const USAGE: &str = "usage: test-kubernetes [--outage SECONDS]";
/// How long the API server is away; two minutes for a closing note.
const OUTAGE: u64 = 20;
/// Nodes.
const GATEWAYS: u8 = 3;

fn main() -> ExitCode {
    // Before there are threads.
    let arguments = match namespace::enter() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("test-kubernetes: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outage = match arguments.as_slice() {
        [] => OUTAGE,
        [name, seconds] if name == "--outage" => match seconds.parse() {
            Ok(seconds) => seconds,
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("test-kubernetes: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(Duration::from_secs(outage))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-kubernetes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

async fn run(outage: Duration) -> Result<(), String> {
    let mut site = Site::new().await?;
    println!("etcd and kube-apiserver run, and config/kubernetes/base is applied");
    println!("{}", manifests::check(&site.server).await?);
    table::create(&mut site).await?;
    site.start_gateways(GATEWAYS).await?;
    site.pretend_pods().await?;
    println!("{GATEWAYS} gateways are ready, with the rights of the manifests");

    let rows = table::ROWS.len() + table::DEFAULT_ROWS.len();
    let mut asked = table::check(&site, table::ROWS).await?;
    table::create_default(&site).await?;
    site.see("the default backend", "my-host", "/", |reply| {
        reply.status == 200
    })
    .await?;
    asked += table::check(&site, table::DEFAULT_ROWS).await?;
    table::delete_default(&site).await?;
    site.see("no default backend", "my-host", "/", |reply| {
        reply.status == 404
    })
    .await?;
    println!("{rows} rows of hosts and paths: {asked} answers, all as they should be");

    let (times, requests) = changes::check(&mut site).await?;
    for (what, time) in times {
        println!("{what:<28}{time:>8.0?}");
    }
    println!("under changes: {requests} requests, 0 failed");
    println!("{}", hostile::check(&mut site).await?);
    println!("{}", webhook::check(&site).await?);
    println!("{}", faults::outage(&mut site, outage).await?);
    println!("{}", faults::replaced(&mut site).await?);
    println!("{}", faults::gateway_killed(&mut site).await?);
    println!("{}", faults::leader_killed(&mut site).await?);
    println!("all of it is as it should be");
    Ok(())
}
