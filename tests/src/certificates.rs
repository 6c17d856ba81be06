//! Certificates that the gateway gets for itself, from real certificate authorities: what
//! `test-certificates` runs.
//!
//! Every scenario starts the built program beside a Pebble of its own on ports of its own, and says
//! in a line what it saw. `tests/certificates/setup.sh` installs what they run.

pub mod bind;
pub mod dns;
pub mod issue;
pub mod pebble;
pub mod plugin;
pub mod prove;
pub mod python;
pub mod replicas;
pub mod route53;
pub mod scripted;
pub mod second;

use std::fmt::Display;
use std::path::PathBuf;

/// What a scenario says of itself when all was as it should be.
pub type Outcome = Result<String, String>;

/// A tool that `tests/certificates/setup.sh` installs.
pub fn tool(name: &str) -> Result<PathBuf, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join(".cache/tests-bin").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "there is no {}; install it with: tests/certificates/setup.sh",
        path.display()
    ))
}

/// For `map_err`.
pub fn failed<E: Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}
