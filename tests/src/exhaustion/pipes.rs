//! Nobody reads what the gateway prints, on either stream.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;

use super::READY;
use super::Report;
use super::Trial;
use crate::client::Client;
use crate::process;

/// Their access lines are several times what the pipe and the gateway hold.
const REQUESTS: usize = 20_000;

pub(super) async fn run(report: &mut Report) -> Result<(), String> {
    let trial = Trial::new("", 2).await;
    let mut child = Command::new(process::postern()?)
        .args(["run", "--log-level", "trace", "--config"])
        .arg(trial.config())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let began = Instant::now();
    while trial.get().await != Ok(200) {
        if began.elapsed() > READY {
            return Err("the gateway is not ready".to_owned());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let stream = tokio::net::TcpStream::connect(trial.http).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let client = Client::over_http1(stream).await;
    let mut client = client.map_err(|error| error.to_string())?;
    let began = Instant::now();
    let mut failures = 0;
    for _ in 0..REQUESTS {
        let request = client.request("GET", "a.test", "/");
        // The gateway ends a connection after its ten thousandth request.
        match client.send(request).await {
            Ok(reply) if reply.status == 200 => {
                if reply.header("connection") == "close" {
                    let stream = tokio::net::TcpStream::connect(trial.http).await;
                    let stream = stream.map_err(|error| error.to_string())?;
                    let next = Client::over_http1(stream).await;
                    client = next.map_err(|error| error.to_string())?;
                }
            }
            _ => failures += 1,
        }
    }
    report.check(
        failures == 0,
        "pipes: requests are answered",
        format!(
            "{failures} of {REQUESTS} failed, {} ms",
            began.elapsed().as_millis()
        ),
    );
    let dropped = trial.metric("postern_access_log_dropped_total").await?;
    report.check(
        dropped > 0,
        "pipes: lines that were lost are counted",
        dropped,
    );
    // It can still be told to end.
    let id = child.id().ok_or("the gateway has ended")?.to_string();
    let told = Command::new("kill").args(["-TERM", &id]).status().await;
    told.map_err(|error| error.to_string())?;
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
    report.check(
        ended.is_ok(),
        "pipes: the gateway ends when it is told to",
        format!("{} ms", began.elapsed().as_millis()),
    );
    Ok(())
}
