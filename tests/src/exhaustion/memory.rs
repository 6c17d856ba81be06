//! The control group's memory is nearly used up.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Report;
use super::Trial;
use crate::client::frames;

/// What the gateway may use.
const LIMIT: u64 = 128 << 20;
/// Streams of which each makes the gateway hold a piece of a response: several times the limit.
const CONNECTIONS: usize = 60;
const STREAMS: u32 = 100;
/// What the trial itself can keep open.
const MOST_CONNECTIONS: usize = 500;
/// Bytes of each response.
const LENGTH: usize = 256 << 10;
/// How long the pressure lasts.
const PRESSED: Duration = Duration::from_secs(5);
/// When nothing of it may be noticed any more.
const RECOVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(report: &mut Report) -> Result<(), String> {
    let group = Group::new()?;
    let trial = Trial::new("[runtime]\nworkers = 2", LENGTH).await;
    let shell = format!(
        "echo $$ > {}/cgroup.procs && exec \"$@\"",
        group.0.display()
    );
    let mut program = trial.start(&shell).await?;

    // A burst first, of which nothing is in use yet when all of it has arrived; then more of it, for
    // as long as the pressure lasts.
    let mut stalled = Vec::new();
    for _ in 0..CONNECTIONS {
        stalled.extend(stall(&trial).await);
    }
    let began = Instant::now();
    let (mut highest, mut served, mut refused, mut failed) = (0, 0, 0, 0);
    while began.elapsed() < PRESSED {
        highest = highest.max(group.percent());
        match trial.get().await {
            Ok(200) => served += 1,
            Ok(503) => refused += 1,
            _ => failed += 1,
        }
        stalled.extend(stall(&trial).await);
        stalled.truncate(MOST_CONNECTIONS);
    }
    report.check(
        program.is_running(),
        "memory: the gateway is not killed",
        format!("{highest} % at most, {} connections", stalled.len()),
    );
    report.check(
        refused > 0,
        "memory: it was scarce, and requests were told so",
        format!("{served} served, {refused} times 503, {failed} not at all"),
    );
    drop(stalled);
    sleep(RECOVERY).await;
    let failures = trial.failures(200).await;
    report.check(
        failures == 0,
        "memory: served as before ten seconds later",
        format!("{failures} of 200 failed, {} %", group.percent()),
    );
    let panics = trial.metric("postern_panics_total").await?;
    report.check(panics == 0, "memory: no panic", panics);
    // The group can be removed once nobody is in it.
    program.kill().await;
    Ok(())
}

/// A connection whose streams take nothing of their responses, if the gateway wants another one.
async fn stall(trial: &Trial) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(trial.http).await.ok()?;
    let requests = (0..STREAMS).flat_map(|index| frames::get(2 * index + 1, "/"));
    // A window of one byte: what was read from the upstream stays in the gateway.
    let mut opening = frames::opening(&[(4, 1)]);
    opening.extend(requests);
    stream.write_all(&opening).await.ok()?;
    Some(stream)
}

/// A control group with a limit on memory, removed when it is dropped.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self, String> {
        let name = format!("postern-exhaustion-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let path = Path::new(root).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            if fs::write(group.0.join(limit), LIMIT.to_string()).is_ok() {
                return Ok(group);
            }
        }
        Err("no control group for memory can be made here".to_owned())
    }

    fn percent(&self) -> u64 {
        let names = ["memory.usage_in_bytes", "memory.current"];
        let texts = names.map(|name| fs::read_to_string(self.0.join(name)));
        let used = texts.into_iter().flatten().next();
        let used = used.and_then(|text| text.trim().parse::<u64>().ok());
        used.unwrap_or(0) * 100 / LIMIT
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that is left behind is empty, and harms nobody.
        let _ = fs::remove_dir(&self.0);
    }
}
