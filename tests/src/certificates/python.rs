//! Servers of the tests that are in Python, which `tests/certificates/setup.sh` makes a place for.

use std::path::PathBuf;
use std::time::Duration;

use super::failed;
use crate::process::Program;

/// Python starts slowly on a busy machine.
pub const START: Duration = Duration::from_secs(60);

/// Places that the setup makes.
pub const SERVERS: &str = "certificates-venv";
pub const SECOND_CA: &str = "acme2certifier-venv";

/// A program of the tests' own Python, in one of its places.
pub fn python(place: &str, name: &str) -> Result<PathBuf, String> {
    let bin = root().join(".cache").join(place).join("bin");
    let program = bin.join(name);
    match program.is_file() {
        true => Ok(program),
        false => Err(format!(
            "there is no {}; install it with: tests/certificates/setup.sh",
            program.display()
        )),
    }
}

/// Starts a server of `tests/certificates`, which says so when it answers.
pub async fn answering(place: &str, script: &str, arguments: &[&str]) -> Result<Program, String> {
    let path = root().join("tests/certificates").join(script);
    let path = path.display().to_string();
    let arguments: Vec<&str> = std::iter::once(&*path)
        .chain(arguments.iter().copied())
        .collect();
    let server = Program::start(&python(place, "python")?, &arguments, false);
    let server = server.map_err(failed(script))?;
    if !server
        .prints(START, |text| text.contains("answering"))
        .await
    {
        let output = server.output();
        return Err(format!("{script} does not start:\n{output}"));
    }
    Ok(server)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
