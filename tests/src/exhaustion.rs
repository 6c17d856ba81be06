//! The built gateway on a machine that has run out: of file descriptors, of memory, of disk, of
//! somebody who reads what it prints.
//!
//! Each trial starts a gateway of its own, takes something away, and looks at what clients notice.
//! All of them want root: for a limit that holds, a control group, a file system that is full.

mod disk;
mod files;
mod memory;
mod pipes;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Response;
use tokio::time::timeout;

use crate::client::Client;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use crate::upstream;
use crate::upstream::Upstream;

/// A trial that takes longer hangs.
const TRIAL: Duration = Duration::from_secs(60);
/// How long a gateway may take to be ready. It is started on a machine that is busy with tests.
const READY: Duration = Duration::from_secs(20);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(5);

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    what: String,
    found: String,
    holds: bool,
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Report(Vec<Check>);

impl Report {
    fn check(&mut self, holds: bool, what: &str, found: impl fmt::Display) {
        self.0.push(Check {
            what: what.to_owned(),
            found: found.to_string(),
            holds,
        });
    }

    pub fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, found, holds } in &self.0 {
            let verdict = if *holds { "ok  " } else { "FAIL" };
            writeln!(f, "{verdict}  {what:<64}  {found}")?;
        }
        Ok(())
    }
}

/// Runs every trial, one after the other.
pub async fn run(report: &mut Report) -> Result<(), String> {
    if !is_root() {
        return Err("this wants root: it sets limits, makes control groups and mounts".to_owned());
    }
    let hangs = |what: &str| format!("the trial of {what} did not end in {TRIAL:?}");
    timeout(TRIAL, files::run(report))
        .await
        .map_err(|_| hangs("files"))??;
    timeout(TRIAL, memory::run(report))
        .await
        .map_err(|_| hangs("memory"))??;
    timeout(TRIAL, disk::run(report))
        .await
        .map_err(|_| hangs("disk"))??;
    timeout(TRIAL, pipes::run(report))
        .await
        .map_err(|_| hangs("pipes"))??;
    Ok(())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// A gateway with a configuration, and where it is reached.
struct Trial {
    dir: Scratch,
    app: Upstream,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Trial {
    /// `settings` come before the route; an answer is `length` bytes long.
    async fn new(settings: &str, length: usize) -> Self {
        let body = "x".repeat(length);
        let app = Upstream::http1(move |_| {
            let body = body.clone();
            async move { Response::new(upstream::full(body)) }
        })
        .await;
        let trial = Self {
            dir: Scratch::new(),
            app,
            http: process::free_addr(),
            admin: process::free_addr(),
        };
        let config = format!(
            "{settings}\n[admin]\nbind = \"{}\"\n[listeners.http]\nbind = \"{}\"\n\
             timeouts = {{ write-idle = \"3s\", request-head = \"5s\", keep-alive = \"30s\" }}\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n[[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
            trial.admin, trial.http, trial.app.addr
        );
        trial.dir.write("postern.toml", config);
        trial
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("postern.toml")
    }

    /// Starts the gateway by a shell command line in which `"$@"` is the gateway's own.
    async fn start(&self, shell: &str) -> Result<Program, String> {
        let postern = process::postern()?;
        let (postern, config) = (postern.display().to_string(), self.config());
        let config = config.display().to_string();
        let arguments = ["-c", shell, "sh", &postern, "run", "--config", &config];
        let mut program = Program::start("/bin/sh".as_ref(), &arguments, false)
            .map_err(|error| error.to_string())?;
        program.ready(self.admin, READY).await?;
        Ok(program)
    }

    /// One request over a connection of its own.
    async fn get(&self) -> Result<u16, String> {
        get(self.http, "/").await.map(|(status, _)| status)
    }

    /// How many of so many requests, one after the other, are not answered 200.
    async fn failures(&self, requests: usize) -> usize {
        let mut failures = 0;
        for _ in 0..requests {
            failures += usize::from(self.get().await != Ok(200));
        }
        failures
    }

    /// The value of a metric, summed up over its labels.
    async fn metric(&self, name: &str) -> Result<u64, String> {
        let (_, text) = get(self.admin, "/metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum())
    }
}

async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let asking = async {
        let stream = tokio::net::TcpStream::connect(addr).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let client = Client::over_http1(stream).await;
        let mut client = client.map_err(|error| error.to_string())?;
        let request = client.request("GET", &addr.to_string(), path);
        let reply = client
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        Ok((reply.status.as_u16(), reply.text()))
    };
    let asked = timeout(REQUEST, asking).await;
    asked.unwrap_or_else(|_| Err("no answer".to_owned()))
}
