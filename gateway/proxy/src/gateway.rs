//! The data plane as a whole: workers, the cell they read, the way they end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use postern_core::name::ListenerName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_wasm::Solver;
use postern_wasm::callout::Callouts;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access_log::writer::LogWriter;
use crate::callout;
use crate::callout::Desk;
use crate::listener::takeover::Successor;
use crate::metrics::Metrics;
use crate::overload::Overload;
use crate::snapshot::Published;
use crate::snapshot::Snapshot;
use crate::upstream::probe::Probes;
use crate::worker;
use crate::worker::WorkerSetup;

/// How often the end of workers is looked for while draining.
const JOIN_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time between a successor getting every connection and the close of our own sockets, in
/// which handshakes that began on those are completed.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// How long the last access lines may take to be written at the end.
const LOG_SYNC: Duration = Duration::from_millis(500);

/// Where the data plane is in its life. Workers follow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Serving {
        generation: u64,
    },
    /// New connections are for the process that follows; without one they are still served.
    Leaving {
        to: Successor,
    },
    /// No new connections; open ones end after what they are serving.
    Draining,
    Stopped,
}

/// One endpoint of an upstream, at this moment.
#[derive(Clone, Debug)]
pub struct EndpointHealth {
    pub upstream: UpstreamName,
    pub endpoint: String,
    /// "up", "down" or "ejected".
    pub state: &'static str,
    pub in_flight: u32,
    pub connections: u32,
}

/// A running data plane.
pub struct Gateway {
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    overload: Arc<Overload>,
    phase: watch::Sender<Phase>,
    log: Mutex<LogWriter>,
    log_path: Mutex<Option<PathBuf>>,
    probes: Mutex<Probes>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Of the first worker: it sends what plugins ask for that run elsewhere.
    desk: Option<Arc<Desk>>,
}

impl Gateway {
    /// Starts `workers` threads that serve `first`. Health checks run on the caller's runtime.
    pub fn start(first: Snapshot, workers: usize) -> io::Result<Self> {
        let generation = first.generation;
        let log_path = first.config.access_log.path.clone();
        let metrics = Arc::new(Metrics::new(workers));
        let log = LogWriter::start(log_path.clone(), Arc::clone(&metrics.log_lines_lost))?;
        let mut probes = Probes::default();
        probes.follow(&first);
        let published = Arc::new(Published::new(first));
        let overload = Overload::start(workers);
        let (phase, follow) = watch::channel(Phase::Serving { generation });
        let mut threads = Vec::with_capacity(workers);
        let mut first_desk = None;
        for index in 0..workers {
            let Some(buffer) = log.buffer(metrics.worker(index)) else {
                continue;
            };
            let (desk, orders) = callout::desk();
            first_desk.get_or_insert_with(|| Arc::clone(&desk));
            let setup = WorkerSetup {
                index,
                published: Arc::clone(&published),
                metrics: Arc::clone(&metrics),
                overload: Arc::clone(&overload),
                log: buffer,
                phase: follow.clone(),
                desk,
                orders,
            };
            let runtime = runtime::Builder::new_current_thread();
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run_worker(runtime, setup))?;
            threads.push(thread);
        }
        Ok(Self {
            published,
            metrics,
            overload,
            phase,
            log: Mutex::new(log),
            log_path: Mutex::new(log_path),
            probes: Mutex::new(probes),
            threads: Mutex::new(threads),
            desk: first_desk,
        })
    }

    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Makes `next` what is served, in one atomic store. Called by the control loop alone.
    pub fn publish(&self, next: Snapshot) {
        let generation = next.generation;
        let log_path = next.config.access_log.path.clone();
        lock(&self.probes).follow(&next);
        let routes = next.config.routes.iter().map(|route| &route.name);
        self.metrics.follow(generation, routes);
        self.published.publish(next);
        // Workers that are idle take it up too, so that what is gone is let go.
        self.phase.send_if_modified(|phase| {
            let is_serving = matches!(phase, Phase::Serving { .. });
            if is_serving {
                *phase = Phase::Serving { generation };
            }
            is_serving
        });
        let mut current = lock(&self.log_path);
        if *current != log_path {
            current.clone_from(&log_path);
            lock(&self.log).open(log_path);
        }
        tracing::info!(generation, "configuration published");
    }

    /// The plugin of this name as a writer of DNS records, if it is one. It runs in the thread that
    /// asks; its requests go over the connections of a worker.
    pub fn dns_solver(&self, plugin: &PolicyName) -> Option<Solver> {
        let snapshot = self.published.load();
        let plugin = snapshot.plugin(plugin)?;
        let desk = self.desk.clone();
        plugin.solver(desk.map(|desk| desk as Arc<dyn Callouts>))
    }

    /// Metrics of the data plane, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let memory = self.overload.memory_percent();
        self.metrics.render(&self.published.load(), memory)
    }

    /// How the endpoints of every upstream do, in the order of the configuration.
    pub fn health(&self) -> Vec<EndpointHealth> {
        let snapshot = self.published.load();
        let upstreams = snapshot.upstreams.iter();
        let endpoints = upstreams.flat_map(|upstream| {
            upstream.endpoints.iter().map(|endpoint| EndpointHealth {
                upstream: upstream.name.clone(),
                endpoint: endpoint.spec.to_string(),
                state: endpoint.label(),
                in_flight: endpoint.in_flight.load(Ordering::Relaxed),
                connections: endpoint.connections.load(Ordering::Relaxed),
            })
        });
        endpoints.collect()
    }

    /// The addresses that are served, with the ports that the kernel chose.
    pub fn listener_addrs(&self) -> Vec<(ListenerName, SocketAddr)> {
        let snapshot = self.published.load();
        let listeners = snapshot.listeners.iter();
        listeners
            .map(|listener| (listener.name.clone(), listener.socket.addr))
            .collect()
    }

    /// Opens the access log once more, after it was rotated.
    pub fn reopen_access_log(&self) {
        let path = lock(&self.log_path).clone();
        lock(&self.log).open(path);
    }

    /// Ends in order: accepts for a while, so that balancers notice the readiness that the caller
    /// has withdrawn, and leaves new connections to another process that listens on the same
    /// addresses; then lets connections finish. `false` if some had not when `deadline`, from
    /// the call on, was over; those are cut.
    pub async fn drain(&self, accept_for: Duration, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let accept_for = accept_for.min(deadline);
        let last = LAST_HANDSHAKES.min(accept_for / 2);
        let to = Successor::Any;
        self.phase.send_replace(Phase::Leaving { to });
        tokio::time::sleep(accept_for - last).await;
        let to = Successor::First;
        self.phase.send_replace(Phase::Leaving { to });
        tokio::time::sleep(last).await;
        self.phase.send_replace(Phase::Draining);
        let has_finished = loop {
            if lock(&self.threads)
                .iter()
                .all(thread::JoinHandle::is_finished)
            {
                break true;
            }
            if Instant::now() >= end {
                break false;
            }
            tokio::time::sleep(JOIN_INTERVAL).await;
        };
        self.stop_now();
        has_finished
    }

    /// Ends at once: open connections are cut.
    pub fn stop_now(&self) {
        self.phase.send_replace(Phase::Stopped);
        for thread in lock(&self.threads).drain(..) {
            // A worker that panicked has logged it.
            let _ = thread.join();
        }
        lock(&self.log).sync(LOG_SYNC);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_worker(mut builder: runtime::Builder, setup: WorkerSetup) {
    let runtime = builder
        .enable_all()
        .build_local(runtime::LocalOptions::default());
    match runtime {
        Ok(runtime) => {
            runtime.block_on(worker::run(setup));
            // Name look-ups may still run on threads of their own; nobody waits for them.
            runtime.shutdown_background();
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(worker = setup.index, error, "worker cannot start");
        }
    }
}
