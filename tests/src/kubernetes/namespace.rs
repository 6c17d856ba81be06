//! A network namespace of the test's own, so that addresses of pods may be had and port 80 is free.
//!
//! An API server refuses endpoints at 127.0.0.0/8. Inside the namespace, all of [`PODS`] is the
//! loopback interface's, so that any address of it can be listened on.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The addresses that pods have.
pub const PODS: &str = "10.244.0.1/16";
/// What the program is told when it is started again inside.
const INSIDE: &str = "--inside-namespace";

/// Starts this program again in a network namespace of its own, unless it is in one already; gives
/// its arguments. The caller has no threads yet.
pub fn enter() -> Result<Vec<String>, String> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == INSIDE) {
        arguments.remove(0);
        for command in [
            vec!["link", "set", "lo", "up"],
            vec!["addr", "add", PODS, "dev", "lo"],
        ] {
            let status = Command::new("ip").args(&command).status();
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                return Err(format!("ip {}: {status:?}", command.join(" ")));
            }
        }
        return Ok(arguments);
    }
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    // Whoever is not root becomes root of a user namespace, where the system allows it.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !is_root {
        unshare.args(["--user", "--map-root-user"]);
    }
    // Does not return unless it fails.
    let error = unshare.arg(this).arg(INSIDE).args(arguments).exec();
    Err(format!("there is no network namespace to be had: {error}"))
}
