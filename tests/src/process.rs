//! The built program as a child process: started, watched, ended.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::client::Client;

/// How often a process that is starting is asked whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// Ports below those of the kernel's choice.
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 15_000;

/// A running program and what it has printed. Killed when dropped.
pub struct Program {
    child: Child,
    output: watch::Receiver<String>,
}

impl Program {
    /// Starts it with its output kept; with `shown`, printed as well.
    pub fn start(path: &Path, arguments: &[&str], shown: bool) -> io::Result<Self> {
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in a terminal is for who started it, which then ends it in order.
            .process_group(0)
            .spawn()?;
        let (lines, output) = watch::channel(String::new());
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(collect(stdout, lines.clone(), shown));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(collect(stderr, lines, shown));
        }
        Ok(Self { child, output })
    }

    /// Everything it has printed so far, both streams.
    pub fn output(&self) -> String {
        self.output.borrow().clone()
    }

    /// Waits until what it printed satisfies the predicate; `false` if that is not so in time.
    pub async fn prints(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> bool {
        let mut output = self.output.clone();
        let found = timeout(within, output.wait_for(|text| wanted(text))).await;
        matches!(found, Ok(Ok(_)))
    }

    /// Waits until the admin listener says that it is ready, or says why that will not be.
    pub async fn ready(&mut self, admin: SocketAddr, within: Duration) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}:\n{}", self.output()));
            }
            if is_ready(admin).await {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("it is not ready in {within:?}:\n{}", self.output()));
            }
            sleep(POLL).await;
        }
    }

    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, as a service manager does.
    pub async fn terminate(&mut self) -> io::Result<ExitStatus> {
        if let Some(id) = self.child.id() {
            let id = id.to_string();
            Command::new("kill").args(["-TERM", &id]).status().await?;
        }
        self.child.wait().await
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        // One that has ended is what was wanted.
        let _ = self.child.kill().await;
    }

    /// What it has used of processors so far, in hundredths of a second, if the system tells.
    pub fn processor_ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()?)).ok()?;
        // The name, in parentheses, may hold spaces; user and system time are 12th and 13th after.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut times = rest.split(' ').skip(11).map(str::parse::<u64>);
        Some(times.next()?.ok()? + times.next()?.ok()?)
    }

    /// Its resident memory in MiB, if the system tells.
    pub fn resident_mib(&self) -> Option<u64> {
        self.memory_mib("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_mib(&self) -> Option<u64> {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib >> 10)
    }
}

async fn collect(stream: impl AsyncRead + Unpin, output: watch::Sender<String>, shown: bool) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if shown {
            use std::io::Write as _;
            // Whoever closed our standard output does not want to see more.
            let _ = writeln!(io::stdout(), "{line}");
        }
        output.send_modify(|text| {
            text.push_str(&line);
            text.push('\n');
        });
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(admin).await else {
        return false;
    };
    let Ok(mut client) = Client::over_http1(stream).await else {
        return false;
    };
    let request = client.request("GET", &admin.to_string(), "/ready");
    client
        .send(request)
        .await
        .is_ok_and(|reply| reply.status == 200)
}

/// The `postern` that was built beside this program.
pub fn postern() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut folder = this.parent();
    // A test binary stands one folder below.
    if folder.is_some_and(|folder| folder.ends_with("deps")) {
        folder = folder.and_then(Path::parent);
    }
    let path = folder.unwrap_or_else(|| Path::new("")).join("postern");
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "there is no {}; build it with: cargo build -p postern",
        path.display()
    ))
}

/// A loopback address that was free a moment ago, for a program that cannot be told "any port". Not
/// one of those that the kernel picks for programs that can.
pub fn free_addr() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = process::id() as u16 % PORTS;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + first.wrapping_add(next) % PORTS;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}
