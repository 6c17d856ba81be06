//! The whole program: read, compile, serve, follow changes and signals, end in order.
//!
//! The data plane has threads and runtimes of its own. Everything here runs on the control runtime,
//! where a look at a thousand files or the compilation of a plugin delays no request.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use postern_core::config::Problem;
use postern_proxy::Compiler;
use postern_proxy::Gateway;
use postern_proxy::Successor;
use postern_proxy::leave_to;
use postern_proxy::listen;
use postern_wasm::PluginEngine;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::admin;
use crate::admin::Panel;
use crate::admin::Readiness;
use crate::certificates::Certificates;
use crate::cluster::Cluster;
use crate::cluster::Place;
use crate::control::Control;
use crate::control::Start;
use crate::control::Status;

/// Enough for the control loop beside the admin listener; neither is busy.
const CONTROL_THREADS: usize = 2;
/// All instances of plugins together may have one part in so many of the memory that the process
/// may have.
const PLUGIN_SHARE: u64 = 2;
/// How long stopping may take after a second signal.
const STOP_AT_ONCE: Duration = Duration::from_millis(300);

pub struct Options {
    pub config: PathBuf,
    /// Whether another gateway may be listening on the same addresses, to be followed.
    pub takeover: bool,
    /// How long connections are still accepted after the signal to end.
    pub accept_for: Duration,
    /// When what has not finished is cut, from the signal on.
    pub drain: Duration,
    /// The cluster to follow, if any.
    pub cluster: Option<Place>,
    /// A file that is there as long as the gateway is ready.
    pub ready_file: Option<PathBuf>,
}

/// Why the gateway did not start.
pub enum Failure {
    Problems(Vec<Problem>),
    Other(anyhow::Error),
}

/// How the gateway ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Everything that was being served has been answered.
    Clean,
    /// Something was cut.
    Cut,
}

struct Running {
    gateway: Arc<Gateway>,
    panel: Arc<Panel>,
    readiness: watch::Sender<Readiness>,
    start: Start,
    compiler: Compiler,
    /// The admin listener's socket.
    admin: std::net::TcpListener,
}

/// Runs until a signal ends it. The log has to be started.
pub fn run(options: Options) -> Result<End, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let end = runtime.block_on(serve(options));
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    end
}

async fn serve(options: Options) -> Result<End, Failure> {
    // Before anything else: a signal during the start ends the start.
    let mut ending = Ending::new().context("cannot take signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot take signals")?;
    let ready_file = ReadyFile(options.ready_file);
    // One that was killed has left its own.
    ready_file.take();
    let starting = start(options.config, options.takeover, options.cluster);
    let starting = tokio::spawn(starting);
    let running = tokio::select! {
        running = starting => running.context("the start failed: the gateway has a fault")??,
        () = ending.asked() => return Ok(End::Clean),
    };
    let Running {
        gateway,
        panel,
        readiness,
        start,
        compiler,
        admin,
    } = running;

    let (poke, fetcher) = (start.poke(), start.fetcher());
    // Ended below, before anything else ends.
    let writer = start.cluster().map(Cluster::write);
    let (control, mut status) = Control::new(start, compiler, Arc::clone(&gateway));
    let certificates = control.certificates();
    let states = certificates.map(Certificates::state);
    // From now on: authorities look at the listeners. Ends before the drain, so that who takes
    // over can go on.
    let working = certificates.and_then(|certificates| certificates.work(&gateway));
    panel.attach(Arc::clone(&gateway), status.clone(), states);
    let control = tokio::spawn(control.run());
    for (listener, addr) in gateway.listener_addrs() {
        tracing::info!(listener = listener.as_str(), %addr, "listening");
    }
    let mut is_ready = false;

    loop {
        tokio::select! {
            is_served = is_served(&mut status), if !is_ready => {
                is_ready = true;
                if is_served {
                    readiness.send_replace(Readiness::Ready);
                    ready_file.put();
                    tracing::info!("ready");
                }
            }
            _ = hangup.recv() => {
                tracing::info!("reload asked for");
                gateway.reopen_access_log();
                fetcher.hurry();
                poke.poke();
            }
            () = ending.asked() => break,
        }
    }

    tracing::info!("ending");
    ready_file.take();
    // Who asks from now on asks the process that follows, or this one if there is none.
    if let Err(error) = leave_to(Successor::First, &admin, 1) {
        tracing::warn!(%error, "a successor cannot take the admin listener over without a gap");
    }
    drop(admin);
    readiness.send_replace(Readiness::Draining);
    control.abort();
    drop(working);
    // While requests finish, which takes longer.
    let written = tokio::spawn(async move {
        if let Some(writer) = writer {
            writer.end().await;
        }
    });
    let end = tokio::select! {
        has_finished = gateway.drain(options.accept_for, options.drain) => match has_finished {
            true => End::Clean,
            false => End::Cut,
        },
        () = ending.asked() => {
            tracing::warn!("ending at once");
            let stopping = tokio::task::spawn_blocking(move || gateway.stop_now());
            // The access log gets this long to be written; a worker that hangs, no longer.
            let _ = tokio::time::timeout(STOP_AT_ONCE, stopping).await;
            End::Cut
        }
    };
    // Ends in time by itself.
    let _ = written.await;
    tracing::info!(cut = end == End::Cut, "ended");
    Ok(end)
}

/// Completes when all sources have reported and what they declare is served. `false` if that never
/// happens.
async fn is_served(status: &mut watch::Receiver<Arc<Status>>) -> bool {
    let served = status.wait_for(|status| {
        let cluster = status.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.is_served)
    });
    served.await.is_ok()
}

/// For probes that have to ask this process and no other, while one takes over from another.
struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    fn put(&self) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = std::fs::write(path, "ready\n") {
            let path = path.display();
            tracing::error!(%path, %error, "the ready file cannot be written");
        }
    }

    fn take(&self) {
        let Some(path) = &self.0 else { return };
        // One that is not there says the same.
        let _ = std::fs::remove_file(path);
    }
}

async fn start(
    config: PathBuf,
    takeover: bool,
    cluster: Option<Place>,
) -> Result<Running, Failure> {
    let mut start = block_in_place(|| Start::read(config)).map_err(Failure::Problems)?;
    let addr = start.config().admin.bind;
    let admin = listen_admin(addr, takeover).map_err(|error| {
        let mut problem = Problem::error(
            start.origins().find("admin.bind"),
            format!("cannot listen on {addr}: {error}"),
        );
        if error.kind() == io::ErrorKind::AddrInUse && !takeover {
            problem = problem.with_help("to follow a gateway that is running, add --takeover");
        }
        Failure::Problems(vec![problem])
    })?;
    let listener = admin.try_clone().and_then(TcpListener::from_std);
    let listener = listener.context("cannot use the admin listener")?;
    if let Ok(addr) = listener.local_addr() {
        tracing::info!(%addr, "admin listening");
    }
    let (readiness, receiver) = watch::channel(Readiness::Starting);
    let panel = Arc::new(Panel::new(receiver));
    // Ends with the process: it answers probes until the last moment.
    tokio::spawn(admin::serve(listener, Arc::clone(&panel)));

    let runtime = &start.config().runtime;
    let workers = match runtime.workers {
        Some(workers) => workers.get(),
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    let cache_dir = runtime.cache_dir.clone();
    let engine = PluginEngine::new(cache_dir).context("cannot run plugins")?;
    if let Some(bytes) = postern_proxy::memory_limit() {
        engine.limit_memory(bytes / PLUGIN_SHARE);
    }
    let compiler = Compiler::new(engine, workers, true);
    if let Some(place) = cluster {
        let cluster = Cluster::follow(place, start.config()).await?;
        panel.wait_for(cluster.reports());
        start.follow(cluster).await;
    }
    let challenges = compiler.challenges();
    let certificates = match start.cluster().map(Cluster::site) {
        Some(site) => {
            let (files, state) = start.declared();
            Some(Certificates::follow(site, files, state, challenges).await)
        }
        None => Certificates::open(start.config(), start.origins(), challenges)
            .await
            .map_err(|problem| Failure::Problems(vec![problem]))?,
    };
    if let Some(certificates) = certificates {
        start.issue(certificates);
    }
    start.fetch().await;
    let first = start.compile(&compiler).await.map_err(Failure::Problems)?;
    let gateway = Gateway::start(first, workers).context("cannot start the workers")?;
    Ok(Running {
        gateway: Arc::new(gateway),
        panel,
        readiness,
        start,
        compiler,
        admin,
    })
}

/// The listeners for traffic share their addresses without being asked, so this one is also the
/// guard against a second gateway that was started by mistake.
fn listen_admin(addr: SocketAddr, takeover: bool) -> io::Result<std::net::TcpListener> {
    if !takeover {
        // Fails where anybody listens, and is closed again at once.
        std::net::TcpListener::bind(addr)?;
    }
    listen(addr)
}

/// The signals that ask for the end, each time they come.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}
