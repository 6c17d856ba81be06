//! `wrk`, and what it says about failures.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;
use tokio::process::Command;

/// What the load came to.
#[derive(Clone, Debug, Default)]
pub struct Load {
    pub requests: u64,
    pub per_second: f64,
    /// Connections that failed, answers that were no 2xx or 3xx, and timeouts.
    pub failed: u64,
    /// Lines about failures, as `wrk` printed them.
    pub complaints: Vec<String>,
}

pub(super) struct Running(Child);

pub(super) fn start(addr: SocketAddr, length: Duration) -> Result<Running, String> {
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--connections", "16"])
        .args(["--header", "Host: load.test"])
        .arg("--duration")
        .arg(format!("{}s", length.as_secs().max(1)))
        .arg(format!("http://{addr}/load"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
        .spawn()
        .map(Running)
        .map_err(|error| format!("wrk cannot be started ({error}); make setup-tests installs it"))
}

impl Running {
    pub(super) async fn end(self) -> Result<Load, String> {
        let output = self.0.wait_with_output().await;
        let output = output.map_err(|error| format!("wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).ok_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("wrk did not report: {text}{error}")
        })
    }
}

fn parse(text: &str) -> Option<Load> {
    let mut load = Load::default();
    let mut has_requests = false;
    for line in text.lines().map(str::trim) {
        if let Some((requests, _)) = line.split_once(" requests in ") {
            load.requests = requests.parse().ok()?;
            has_requests = true;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            load.per_second = rate.trim().parse().ok()?;
        } else if line.starts_with("Socket errors:") || line.starts_with("Non-2xx") {
            // "Socket errors: connect 0, read 1, write 0, timeout 2"
            // "Non-2xx or 3xx responses: 7"
            let (_, counts) = line.split_once(':')?;
            let counts = counts.split(|c: char| !c.is_ascii_digit());
            let counts = counts.filter_map(|count| count.parse::<u64>().ok());
            load.failed += counts.sum::<u64>();
            load.complaints.push(line.to_owned());
        }
    }
    has_requests.then_some(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_the_footer() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n\
            \x20 1234 requests in 2.00s, 1.00MB read\n\
            \x20 Socket errors: connect 0, read 3, write 0, timeout 1\n\
            \x20 Non-2xx or 3xx responses: 7\nRequests/sec:    617.00\n";
        let load = parse(text).unwrap();
        assert_eq!((load.requests, load.failed), (1234, 11));
        assert!(parse("unable to connect").is_none());
    }
}
