//! The built gateway as a child process, in a folder of the caller's: for what outlives a process,
//! and for what only the whole program does.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http::header;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::client;
use crate::client::Client;
use crate::client::Reply;
use crate::process;
use crate::process::Program;

/// How long a step may take; it is a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is asked for that is awaited.
const PROBE: Duration = Duration::from_millis(10);

/// A running gateway with a listener `http`.
pub struct Served {
    config: PathBuf,
    workers: u32,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub program: Program,
}

/// Addresses and log settings, before what a test declares.
fn head(dir: &Path, workers: u32, http: SocketAddr, admin: SocketAddr) -> String {
    let cache = dir.join("cache");
    format!(
        "runtime = {{ workers = {workers}, cache-dir = \"{}\" }}\naccess-log.format = \"off\"\n\
         admin.bind = \"{admin}\"\nlisteners.http.bind = \"{http}\"\n",
        cache.display()
    )
}

impl Served {
    /// Starts it on `postern.toml` in this folder, which gets this text behind a head of four lines,
    /// and waits until it is ready. Its cache is in the folder too.
    pub async fn start(dir: &Path, config: &str) -> Self {
        Self::start_program(&process::postern().unwrap(), 1, dir, config).await
    }

    /// The same with a program of the caller's, and so many workers.
    pub async fn start_program(postern: &Path, workers: u32, dir: &Path, config: &str) -> Self {
        let (http, admin) = (process::free_addr(), process::free_addr());
        let path = dir.join("postern.toml");
        std::fs::write(&path, head(dir, workers, http, admin) + config).unwrap();
        let text = path.display().to_string();
        let arguments = ["run", "--config", &text, "--accept-for", "0s"];
        let mut program = Program::start(postern, &arguments, false).unwrap();
        program.ready(admin, PATIENCE).await.unwrap();
        Self {
            config: path,
            workers,
            http,
            admin,
            program,
        }
    }

    /// Replaces the configuration; does not wait.
    pub fn configure(&self, config: &str) {
        let dir = self.config.parent().unwrap();
        let next = dir.join("postern.toml.next");
        std::fs::write(
            &next,
            head(dir, self.workers, self.http, self.admin) + config,
        )
        .unwrap();
        std::fs::rename(next, &self.config).unwrap();
    }

    pub async fn get(&self, path: &str) -> Reply {
        client::get(self.http, "a.test", path).await
    }

    /// Asks until the answer is as wanted; fails the test with the log if that takes too long.
    pub async fn answers(&self, path: &str, what: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
        let start = Instant::now();
        loop {
            let reply = self.get(path).await;
            if wanted(&reply) {
                return reply;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{path} does not become {what}: {}\n{}",
                reply.status,
                self.program.output()
            );
            sleep(PROBE).await;
        }
    }

    /// Waits for text in the log.
    pub async fn logs(&self, text: &str) {
        let is_there = self.program.prints(PATIENCE, |log| log.contains(text));
        assert!(is_there.await, "no '{text}' in:\n{}", self.program.output());
    }

    /// A figure of `/metrics`, by its name with labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = self.metrics().await;
        Self::find(&page, name).unwrap_or_else(|| panic!("no {name} in:\n{page}"))
    }

    /// The page of all figures.
    pub async fn metrics(&self) -> String {
        let mut client = Client::http1(self.admin).await;
        let mut request = client.request("GET", "localhost", "/metrics");
        let host = self.admin.to_string().parse().unwrap();
        request.headers_mut().insert(header::HOST, host);
        client.send(request).await.unwrap().text()
    }

    /// A whole figure of the page, by its name with labels.
    pub fn find(page: &str, name: &str) -> Option<u64> {
        let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
        values.find_map(|rest| rest.strip_prefix(' ')?.parse().ok())
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(mut self) -> String {
        let status = self.program.terminate().await.unwrap();
        let output = self.program.output();
        assert!(status.success(), "{status}:\n{output}");
        output
    }
}
