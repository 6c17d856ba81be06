//! One worker: a thread, its runtime, and everything that belongs to it alone.
//!
//! A worker sees the configuration through a [`View`]: the current snapshot with this worker's
//! connections, plugin instances and counters beside each part. Views are made when a snapshot is
//! published, and on the next request if that comes first; requests in flight keep theirs.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use postern_core::route::RuleId;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::Upstreams;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::access_log::writer::FLUSH_INTERVAL;
use crate::access_log::writer::LogBuffer;
use crate::access_log::writer::LogWriter;
use crate::callout;
use crate::callout::Desk;
use crate::callout::Orders;
use crate::clock::Clock;
use crate::connection::Connections;
use crate::gateway::Phase;
use crate::listener;
use crate::listener::ListenerSocket;
use crate::listener::takeover::Successor;
use crate::log_calls::LogCalls;
use crate::log_calls::log_calls;
use crate::metrics::Metrics;
use crate::metrics::RouteStats;
use crate::metrics::WorkerStats;
use crate::overload::Overload;
use crate::overload::Share;
use crate::policy::Policy;
use crate::snapshot::PolicyIndex;
use crate::snapshot::Published;
use crate::snapshot::Snapshot;
use crate::snapshot::UpstreamIndex;
use crate::ticks::Ticking;
use crate::upstream::Pool;
use crate::upstream::Upstream;

/// How often unused upstream connections are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(5);
/// How often a draining worker looks whether its last connection has ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// What a worker is started with.
pub(crate) struct WorkerSetup {
    /// From 0.
    pub(crate) index: usize,
    pub(crate) published: Arc<Published>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) overload: Arc<Overload>,
    pub(crate) log: LogBuffer,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) orders: Orders,
}

/// What one thread serves with.
pub(crate) struct Worker {
    index: usize,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// Of the process's connections and memory.
    pub(crate) share: Rc<Share>,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) log: LogBuffer,
    pub(crate) clock: Clock,
    pub(crate) connections: Rc<Connections>,
    pub(crate) log_calls: LogCalls,
    desk: Arc<Desk>,
    /// In the first worker, which ticks for the process.
    ticks: RefCell<Vec<(Arc<Policy>, Ticking)>>,
    view: RefCell<Rc<View>>,
    accepting: RefCell<Vec<Accepting>>,
    is_leaving: Cell<bool>,
    is_draining: Cell<bool>,
    next_id: Cell<u64>,
    turn: Cell<u64>,
}

struct Accepting {
    socket: Arc<ListenerSocket>,
    /// A second handle on the socket, for when it goes: what is queued then, and who follows.
    queue: Option<std::net::TcpListener>,
    task: JoinHandle<()>,
}

/// A snapshot as one worker uses it.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    /// By `UpstreamIndex`.
    pools: Vec<Rc<Pool>>,
    /// By `PolicyIndex`; `None` for policies that are no plugins.
    pub(crate) plugins: Vec<Option<Rc<PluginWorker>>>,
    /// Plugins that answer ACME challenges.
    pub(crate) challengers: Vec<PolicyIndex>,
    /// By route.
    stats: Vec<Arc<RouteStats>>,
    pub(crate) upstreams: Arc<Upstreams>,
}

impl View {
    pub(crate) fn pool(&self, upstream: UpstreamIndex) -> &Rc<Pool> {
        &self.pools[upstream]
    }

    pub(crate) fn route_stats(&self, rule: RuleId) -> &RouteStats {
        &self.stats[rule.route as usize]
    }
}

impl Worker {
    /// The current view. Made anew if a snapshot was published that this worker has not seen, so
    /// that a request after a publish never runs on what was before.
    pub(crate) fn view(self: &Rc<Self>) -> Rc<View> {
        let view = self.view.borrow();
        if self.published.is_current(&view.snapshot) {
            return Rc::clone(&view);
        }
        drop(view);
        self.refresh();
        Rc::clone(&self.view.borrow())
    }

    /// Unique in the process: the worker is in the upper bits.
    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        (self.index as u64) << 48 | id
    }

    /// Counts up with each request that chooses between weighted upstreams.
    pub(crate) fn turn(&self) -> u64 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Whether clients should go elsewhere with their next request.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    fn refresh(self: &Rc<Self>) {
        let snapshot = self.published.load();
        if Arc::ptr_eq(&snapshot, &self.view.borrow().snapshot) {
            return;
        }
        let next = Rc::new(self.view_of(snapshot));
        // Sockets that go are emptied while the view still knows their listener.
        self.stop_accepting(|socket| {
            !next
                .snapshot
                .listeners
                .iter()
                .any(|listener| Arc::ptr_eq(&listener.socket, socket))
        });
        *self.view.borrow_mut() = next;
        self.tick();
        if !self.is_draining.get() {
            self.start_accepting();
        }
    }

    /// Plugins that are gone tick no more, though a request may still use them; new ones begin.
    fn tick(&self) {
        if self.index != 0 {
            return;
        }
        let view = Rc::clone(&self.view.borrow());
        let policies = &view.snapshot.policies;
        let mut ticks = self.ticks.borrow_mut();
        ticks.retain(|(policy, _)| policies.iter().any(|p| Arc::ptr_eq(p, policy)));
        for policy in policies {
            if let Policy::Plugin(live) = &**policy
                && let Some(period) = live.plugin.tick()
                && !ticks.iter().any(|(p, _)| Arc::ptr_eq(p, policy))
            {
                let worker = live.plugin.worker_with(Arc::<Desk>::clone(&self.desk));
                ticks.push((Arc::clone(policy), Ticking::start(worker, period)));
            }
        }
    }

    fn view_of(&self, snapshot: Arc<Snapshot>) -> View {
        let previous = self.view.borrow();
        make_view(snapshot, &previous, &self.metrics, self.index, &self.desk)
    }

    fn start_accepting(self: &Rc<Self>) {
        let view = Rc::clone(&self.view.borrow());
        for listener in &view.snapshot.listeners {
            // Answers once; from then on this worker accepts from it.
            let Some(socket) = listener.socket.take(self.index) else {
                continue;
            };
            let queue = socket.try_clone().ok();
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let address = Arc::clone(&listener.socket);
                    let task = listener::accept(Rc::clone(self), Arc::clone(&address), socket);
                    self.accepting.borrow_mut().push(Accepting {
                        socket: address,
                        queue,
                        // Aborted by `stop_accepting`.
                        task: tokio::task::spawn_local(task),
                    });
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(listener = %listener.name, error, "cannot accept connections");
                }
            }
        }
    }

    fn stop_accepting(self: &Rc<Self>, goes: impl Fn(&Arc<ListenerSocket>) -> bool) {
        let going: Vec<Accepting> = {
            let mut accepting = self.accepting.borrow_mut();
            accepting
                .extract_if(.., |accepting| goes(&accepting.socket))
                .collect()
        };
        for Accepting {
            socket,
            queue,
            task,
        } in going
        {
            task.abort();
            if let Some(queue) = queue {
                listener::drain_queue(self, &socket, &queue);
            }
        }
    }

    fn leave_to(&self, successor: Successor) {
        self.is_leaving.set(true);
        for accepting in &*self.accepting.borrow() {
            if let Some(own) = &accepting.queue {
                accepting.socket.leave_to(successor, own);
            }
        }
    }

    fn drain(self: &Rc<Self>) {
        self.leave_to(Successor::First);
        self.is_draining.set(true);
        self.stop_accepting(|_| true);
        self.connections.drain();
    }
}

fn make_view(
    snapshot: Arc<Snapshot>,
    previous: &View,
    metrics: &Metrics,
    worker: usize,
    desk: &Arc<Desk>,
) -> View {
    // What is the same object in both snapshots keeps this worker's part of it.
    // Both are in the order of names; one that was made anew has the same name and other pools.
    let mut known = previous.pools.iter().peekable();
    let pool = |upstream: &Arc<Upstream>| {
        while known
            .next_if(|pool| pool.upstream.name < upstream.name)
            .is_some()
        {}
        match known.next_if(|pool| Arc::ptr_eq(&pool.upstream, upstream)) {
            Some(pool) => Rc::clone(pool),
            None => Rc::new(Pool::new(Arc::clone(upstream))),
        }
    };
    let pools = snapshot.upstreams.iter().map(pool).collect();
    let names = &snapshot.upstream_names;
    let has_same_upstreams =
        Arc::ptr_eq(names, &previous.snapshot.upstream_names) && !previous.pools.is_empty();
    let upstreams = match has_same_upstreams {
        true => Arc::clone(&previous.upstreams),
        false => Arc::new(Upstreams::new(names.iter().cloned())),
    };
    let plugins: HashMap<_, _> = previous
        .snapshot
        .policies
        .iter()
        .map(Arc::as_ptr)
        .zip(&previous.plugins)
        .collect();
    let plugin = |policy: &Arc<Policy>| match (&**policy, plugins.get(&Arc::as_ptr(policy))) {
        (_, Some(plugin)) => (*plugin).clone(),
        (Policy::Plugin(live), None) => {
            Some(Rc::new(live.plugin.worker_with(Arc::<Desk>::clone(desk))))
        }
        (Policy::Native(_) | Policy::Absent(_), None) => None,
    };
    let plugins: Vec<_> = snapshot.policies.iter().map(plugin).collect();
    let challengers = plugins.iter().enumerate();
    let challengers = challengers.filter_map(|(index, plugin)| {
        let is_asked = plugin.as_ref().is_some_and(|p| p.has_challenge_phase());
        is_asked.then_some(index)
    });
    View {
        pools,
        challengers: challengers.collect(),
        plugins,
        stats: route_stats(&snapshot, previous, metrics, worker),
        upstreams,
        snapshot,
    }
}

/// By route. To ask for each takes a lock and a search, and with ten thousand of them a worker would
/// serve nobody meanwhile: most stand where they stood, or one place on.
fn route_stats(
    snapshot: &Snapshot,
    previous: &View,
    metrics: &Metrics,
    worker: usize,
) -> Vec<Arc<RouteStats>> {
    let before = &previous.snapshot.config.routes;
    let mut at = 0;
    let routes = snapshot.config.routes.iter();
    let stats = routes.map(|route| {
        let mut places = at..at + 2;
        let place = places.find(|place| before.get(*place).is_some_and(|b| b.name == route.name));
        match place.and_then(|place| Some((place, previous.stats.get(place)?))) {
            Some((place, stats)) => {
                at = place + 1;
                Arc::clone(stats)
            }
            None => metrics.route(worker, &route.name),
        }
    });
    stats.collect()
}

impl Worker {
    /// A worker on this thread's runtime. The tasks it spawns end with that runtime.
    pub(crate) fn start(setup: WorkerSetup) -> Rc<Self> {
        let WorkerSetup {
            index,
            published,
            metrics,
            overload,
            log,
            desk,
            orders,
            ..
        } = setup;
        let snapshot = published.load();
        // Holds nothing that could be taken over.
        let before = View {
            snapshot: Arc::clone(&snapshot),
            pools: Vec::new(),
            plugins: Vec::new(),
            challengers: Vec::new(),
            stats: Vec::new(),
            upstreams: Arc::default(),
        };
        let view = make_view(snapshot, &before, &metrics, index, &desk);
        let (log_calls, jobs) = log_calls();
        let worker = Rc::new(Self {
            index,
            published,
            stats: metrics.worker(index),
            metrics,
            share: Share::new(&overload, index),
            log,
            clock: Clock::default(),
            connections: Rc::default(),
            log_calls,
            desk,
            ticks: RefCell::default(),
            view: RefCell::new(Rc::new(view)),
            accepting: RefCell::default(),
            is_leaving: Cell::new(false),
            is_draining: Cell::new(false),
            next_id: Cell::new(1),
            turn: Cell::new(0),
        });
        tokio::task::spawn_local(worker.clock.clone().run());
        tokio::task::spawn_local(housekeeping(Rc::clone(&worker)));
        tokio::task::spawn_local(orders.serve(Rc::clone(&worker)));
        tokio::task::spawn_local(jobs.serve());
        worker.tick();
        worker
    }
}

/// A worker without sockets, and what has to live as long.
pub(crate) struct Alone {
    pub(crate) worker: Rc<Worker>,
    _log: LogWriter,
    _phase: watch::Sender<Phase>,
}

impl Alone {
    /// On the current thread, whose runtime runs local tasks.
    pub(crate) fn start(snapshot: Snapshot) -> io::Result<Self> {
        let log = LogWriter::start(snapshot.config.access_log.path.clone(), Arc::default())?;
        let metrics = Arc::new(Metrics::new(1));
        let buffer = log.buffer(metrics.worker(0));
        let (desk, orders) = callout::desk();
        let (phase, follow) = watch::channel(Phase::Serving { generation: 1 });
        let worker = Worker::start(WorkerSetup {
            index: 0,
            published: Arc::new(Published::new(snapshot)),
            metrics,
            overload: Overload::start(1),
            log: buffer.ok_or(io::ErrorKind::BrokenPipe)?,
            phase: follow,
            desk,
            orders,
        });
        Ok(Self {
            worker,
            _log: log,
            _phase: phase,
        })
    }
}

/// Runs a worker until the gateway stops.
pub(crate) async fn run(setup: WorkerSetup) {
    let mut phase = setup.phase.clone();
    let worker = Worker::start(setup);
    worker.start_accepting();
    while phase.changed().await.is_ok() {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Serving { .. } => worker.refresh(),
            Phase::Leaving { to } => worker.leave_to(to),
            Phase::Draining => {
                worker.drain();
                let is_busy = || worker.connections.count() > 0 || worker.log_calls.open() > 0;
                while is_busy() && *phase.borrow() == Phase::Draining {
                    tokio::time::sleep(DRAIN_INTERVAL).await;
                }
                break;
            }
            Phase::Stopped => break,
        }
    }
    worker.log.flush();
}

async fn housekeeping(worker: Rc<Worker>) {
    let mut reaped = Instant::now();
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        worker.log.flush();
        for pool in &worker.view.borrow().pools {
            pool.make_room();
        }
        if reaped.elapsed() >= REAP_INTERVAL {
            reaped = Instant::now();
            let view = worker.view();
            for pool in &view.pools {
                pool.reap(reaped);
            }
            for plugin in view.plugins.iter().flatten() {
                plugin.reap();
            }
        }
    }
}

/// Lets hyper spawn its HTTP/2 streams on this worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        // Ends with its connection, which drops the stream that it serves.
        tokio::task::spawn_local(future);
    }
}
