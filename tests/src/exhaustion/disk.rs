//! The disk of the access log is full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use super::Report;
use super::Trial;
use crate::scratch::Scratch;

/// Some two hundred lines.
const SIZE: &str = "64k";
const REQUESTS: usize = 1000;
/// Within which lines are written again.
const RESUMED: Duration = Duration::from_secs(5);

pub(super) async fn run(report: &mut Report) -> Result<(), String> {
    let disk = Mounted::new()?;
    let log = disk.0.path().join("access.log");
    let settings = format!("[access-log]\npath = \"{}\"", log.display());
    let trial = Trial::new(&settings, 2).await;
    let _program = trial.start("exec \"$@\"").await?;
    let failures = trial.failures(REQUESTS).await;
    report.check(
        failures == 0,
        "disk: requests are answered",
        format!("{failures} of {REQUESTS} failed"),
    );
    let size = length(&log);
    report.check(
        size >= 48 << 10,
        "disk: it was full, or this shows nothing",
        format!("{size} bytes"),
    );
    let dropped = trial.metric("postern_access_log_dropped_total").await?;
    report.check(
        dropped > 0,
        "disk: lines that were lost are counted",
        dropped,
    );

    // Somebody makes room.
    let emptied = fs::OpenOptions::new().write(true).truncate(true).open(&log);
    emptied.map_err(|error| error.to_string())?;
    let began = Instant::now();
    while length(&log) == 0 && began.elapsed() < 2 * RESUMED {
        trial.get().await?;
        sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    report.check(
        took < RESUMED,
        "disk: lines are written once there is room",
        format!("{} ms", took.as_millis()),
    );
    Ok(())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A small file system, gone when it is dropped.
struct Mounted(Scratch);

impl Mounted {
    fn new() -> Result<Self, String> {
        let dir = Scratch::new();
        let options = format!("size={SIZE}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .status();
        match mounted {
            Ok(status) if status.success() => Ok(Self(dir)),
            other => Err(format!("no file system can be mounted here: {other:?}")),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // At once for its path, later for the gateway that still has a file in it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
