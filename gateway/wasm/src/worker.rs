//! A plugin in one worker: its instances, and one call from the outside.
//!
//! Instances wait on a stack: the one used last is used next, so that its memory is warm and the
//! others can be given up. Taking one, calling it and putting it back involves no other worker.
//!
//! A call's future may be dropped at any moment, because the client went away. The instance then
//! goes with it: its guest stands somewhere in the middle of something.

use std::cell::Cell;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_core::config::plugin::Isolation;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::callout::Callouts;
use crate::component::Phases;
use crate::engine::ticker::Activity;
use crate::error::Breach;
use crate::error::PluginError;
use crate::exchange::Action;
use crate::exchange::ChunkAction;
use crate::exchange::Exchange;
use crate::exchange::HeldBody;
use crate::exchange::Summary;
use crate::instance::Answer;
use crate::instance::Ask;
use crate::instance::Instance;
use crate::instance::Wall;
use crate::limits::LogBudget;
use crate::plugin::Plugin;
use crate::stats::PluginStats;
use crate::stats::add;

/// After how many calls an instance is replaced, at least and at most. What a guest leaks is so
/// given back; the spread keeps workers from replacing theirs at the same time.
const MIN_USES: u32 = 10_000;
const MAX_USES: u32 = 20_000;

/// One worker's share of a [`Plugin`]. Belongs to one thread.
pub struct PluginWorker {
    plugin: Arc<Plugin>,
    callouts: Option<Arc<dyn Callouts>>,
    idle: RefCell<Vec<Pooled>>,
    /// The fewest that were idle at any time since the last [`PluginWorker::reap`].
    least_idle: Cell<usize>,
    live: Cell<u32>,
    waiting: Cell<u32>,
    freed: Notify,
    stats: Arc<PluginStats>,
    log: Arc<LogBudget>,
    activity: Activity,
    random: Cell<u64>,
}

struct Pooled {
    instance: Instance,
    uses_left: u32,
}

/// An instance, or the right to make one, for one call. What is not returned is gone.
struct Lease<'a> {
    worker: &'a PluginWorker,
    pooled: Option<Pooled>,
    is_settled: bool,
}

impl PluginWorker {
    pub(crate) fn new(plugin: Arc<Plugin>, callouts: Option<Arc<dyn Callouts>>) -> Self {
        let stats = plugin.record.stats.open();
        let log = LogBudget::new(plugin.limits().log_lines, Arc::clone(&stats));
        Self {
            idle: RefCell::default(),
            least_idle: Cell::new(0),
            live: Cell::new(0),
            waiting: Cell::new(0),
            freed: Notify::new(),
            log: Arc::new(log),
            activity: plugin.component().engine().activity(),
            // Any number will do; only workers should differ.
            random: Cell::new(getrandom::u64().unwrap_or(1)),
            stats,
            callouts,
            plugin,
        }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    pub fn stats(&self) -> &Arc<PluginStats> {
        &self.stats
    }

    pub fn phases(&self) -> Phases {
        self.plugin.phases()
    }

    pub fn has_route_phase(&self) -> bool {
        self.phases().route
    }

    pub fn has_request_phase(&self) -> bool {
        self.phases().request
    }

    pub fn has_response_phase(&self) -> bool {
        self.phases().response
    }

    /// Whether request bodies pass through the plugin in pieces.
    pub fn has_request_stream(&self) -> bool {
        self.plugin.spec().request_chunks
    }

    /// Whether response bodies pass through the plugin in pieces.
    pub fn has_response_stream(&self) -> bool {
        self.plugin.spec().response_chunks
    }

    pub fn has_log_phase(&self) -> bool {
        self.phases().log
    }

    pub fn has_challenge_phase(&self) -> bool {
        self.phases().challenge
    }

    /// Calls `route-phase.select`: the upstream that the plugin names, if it names one. Without
    /// that phase it names none. The name is not checked against what is configured.
    pub async fn select(&self, exchange: &mut Exchange) -> Result<Option<String>, PluginError> {
        if !self.has_route_phase() {
            return Ok(None);
        }
        match self.call(Ask::Route, exchange).await? {
            Answer::Selected(name) => Ok(name),
            _ => Ok(None),
        }
    }

    /// Calls `request-phase.on-request`. Without that phase the answer is `Next`.
    pub async fn on_request(&self, exchange: &mut Exchange) -> Result<Action, PluginError> {
        if !self.has_request_phase() {
            return Ok(Action::Next);
        }
        self.act(Ask::Request, exchange).await
    }

    /// Calls `response-phase.on-response`. Without that phase, or without a response, the answer
    /// is `Next`.
    pub async fn on_response(&self, exchange: &mut Exchange) -> Result<Action, PluginError> {
        if !self.has_response_phase() || exchange.response.is_none() {
            return Ok(Action::Next);
        }
        self.act(Ask::Response, exchange).await
    }

    /// Calls `request-body-phase.on-request-body`, after `Action::NeedBody`. The answer is never
    /// that again; the body is left as the plugin wants it.
    pub async fn on_request_body(
        &self,
        exchange: &mut Exchange,
        body: &mut HeldBody,
    ) -> Result<Action, PluginError> {
        self.act(Ask::RequestBody(body), exchange).await
    }

    /// As [`PluginWorker::on_request_body`], for the response.
    pub async fn on_response_body(
        &self,
        exchange: &mut Exchange,
        body: &mut HeldBody,
    ) -> Result<Action, PluginError> {
        self.act(Ask::ResponseBody(body), exchange).await
    }

    /// Calls `request-stream.on-request-chunk`. A chunk has at most
    /// [`MAX_CHUNK`](crate::limits::MAX_CHUNK) bytes.
    pub async fn on_request_chunk(
        &self,
        exchange: &mut Exchange,
        chunk: &[u8],
        is_last: bool,
    ) -> Result<ChunkAction, PluginError> {
        let ask = Ask::RequestChunk { chunk, is_last };
        self.pass(ask, exchange).await
    }

    /// As [`PluginWorker::on_request_chunk`], for the response.
    pub async fn on_response_chunk(
        &self,
        exchange: &mut Exchange,
        chunk: &[u8],
        is_last: bool,
    ) -> Result<ChunkAction, PluginError> {
        let ask = Ask::ResponseChunk { chunk, is_last };
        self.pass(ask, exchange).await
    }

    /// Calls `log-phase.on-log`. Nobody should wait for it.
    pub async fn on_log(
        &self,
        exchange: &mut Exchange,
        summary: &Summary,
    ) -> Result<(), PluginError> {
        self.call(Ask::Log(summary), exchange).await.map(|_| ())
    }

    /// Calls `challenge-phase.key-authorization`.
    pub async fn key_authorization(
        &self,
        exchange: &mut Exchange,
        host: &str,
        token: &str,
    ) -> Result<Option<String>, PluginError> {
        match self.call(Ask::Challenge { host, token }, exchange).await? {
            Answer::KeyAuthorization(answer) => Ok(answer),
            _ => Ok(None),
        }
    }

    /// Calls `background.on-tick`. By one worker in the process, which then makes no other calls:
    /// so they all reach one instance, as long as that lives.
    pub async fn on_tick(&self) -> Result<(), PluginError> {
        let time = self.plugin.limits().time;
        self.call_alone(Ask::Tick, time).await.map(|_| ())
    }

    /// Gives up the instances that nobody has needed since this was last called, but one: they hold
    /// a place in the pool, and memory, that other plugins and workers share.
    pub fn reap(&self) {
        let mut idle = self.idle.borrow_mut();
        let count = self.least_idle.get().min(idle.len().saturating_sub(1));
        // The first are those that have waited for longest.
        idle.drain(..count);
        self.least_idle.set(idle.len());
        self.count_live(self.live.get() - count as u32);
    }

    async fn act(&self, ask: Ask<'_>, exchange: &mut Exchange) -> Result<Action, PluginError> {
        match self.call(ask, exchange).await? {
            Answer::Action(action) => Ok(action),
            _ => Ok(Action::Next),
        }
    }

    async fn pass(
        &self,
        ask: Ask<'_>,
        exchange: &mut Exchange,
    ) -> Result<ChunkAction, PluginError> {
        match self.call(ask, exchange).await? {
            Answer::Chunk(action) => Ok(action),
            _ => Ok(ChunkAction::Pass),
        }
    }

    /// A call outside any exchange.
    pub(crate) async fn call_alone(
        &self,
        ask: Ask<'_>,
        time: Duration,
    ) -> Result<Answer, PluginError> {
        self.call_within(ask, &mut Exchange::default(), time).await
    }

    async fn call(&self, ask: Ask<'_>, exchange: &mut Exchange) -> Result<Answer, PluginError> {
        let time = self.plugin.limits().time;
        self.call_within(ask, exchange, time).await
    }

    async fn call_within(
        &self,
        ask: Ask<'_>,
        exchange: &mut Exchange,
        time: Duration,
    ) -> Result<Answer, PluginError> {
        let phase = ask.phase();
        let is_timed = self.stats.begin(phase);
        let breaker = self.plugin.breaker(phase);
        if breaker.is_open() {
            self.stats.count_fault(&PluginError::BreakerOpen);
            return Err(PluginError::BreakerOpen);
        }
        let started = is_timed.then(Instant::now);
        let _running = self.activity.enter();
        // Costs a load where nobody listens at that level.
        let span = tracing::debug_span!(
            "policy",
            policy = self.plugin.name().as_str(),
            phase = phase.as_str()
        );
        let called = self.call_leased(ask, exchange, Wall::new(time));
        let answered = called.instrument(span).await;
        match &answered {
            Ok(_) => breaker.succeeded(phase),
            Err(error) => {
                self.stats.count_fault(error);
                if error.is_guests_fault() {
                    breaker.failed(phase);
                }
            }
        }
        if let Some(started) = started {
            self.stats.took(phase, started.elapsed());
        }
        answered
    }

    async fn call_leased(
        &self,
        ask: Ask<'_>,
        exchange: &mut Exchange,
        mut wall: Wall,
    ) -> Result<Answer, PluginError> {
        let mut lease = self.lease(&mut wall).await?;
        let (answered, is_whole) = match lease.instance(&mut wall).await {
            Ok(instance) => {
                let spec = self.plugin.spec();
                let answered = instance.call(ask, spec, exchange, &mut wall).await;
                let is_whole = answered.is_ok();
                (answered.or_else(|error| instance.excuse(error)), is_whole)
            }
            Err(error) => (Err(error), false),
        };
        lease.settle(is_whole);
        answered
    }

    /// An idle instance, else the right to make one, else waits for either.
    async fn lease(&self, wall: &mut Wall) -> Result<Lease<'_>, PluginError> {
        if let Some(lease) = self.try_lease() {
            return Ok(lease);
        }
        add(&self.stats.waited, 1);
        let waiting = Waiting::new(&self.waiting);
        let freed = async {
            loop {
                self.freed.notified().await;
                if let Some(lease) = self.try_lease() {
                    return lease;
                }
            }
        };
        let waited = wall.within(freed).await;
        drop(waiting);
        waited.map_err(|_| PluginError::Overloaded {
            waited: wall.limit(),
        })
    }

    fn try_lease(&self) -> Option<Lease<'_>> {
        let pooled = self.idle.borrow_mut().pop();
        let idle = self.idle.borrow().len();
        self.least_idle.set(self.least_idle.get().min(idle));
        if pooled.is_none() {
            if self.live.get() >= self.plugin.limits().instances.max(1) {
                return None;
            }
            self.count_live(self.live.get() + 1);
        }
        Some(Lease {
            worker: self,
            pooled,
            is_settled: false,
        })
    }

    fn count_live(&self, live: u32) {
        self.live.set(live);
        self.stats.live.store(live.into(), Ordering::Relaxed);
    }

    /// A number of uses for a new instance.
    fn uses(&self) -> u32 {
        if self.plugin.isolation() == Isolation::Request {
            return 1;
        }
        // xorshift64; never zero.
        let mut x = self.random.get() | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        MIN_USES + (x >> 32) as u32 % (MAX_USES - MIN_USES)
    }
}

impl Lease<'_> {
    /// The instance, made now if there was none.
    async fn instance(&mut self, wall: &mut Wall) -> Result<&mut Instance, PluginError> {
        if self.pooled.is_none() {
            let worker = self.worker;
            let log = Arc::clone(&worker.log);
            let callouts = worker.callouts.clone();
            let (instance, spec) = Instance::start(&worker.plugin, log, callouts, wall).await?;
            if spec != *worker.plugin.spec() {
                return Err(PluginError::Contract(Breach::SpecChanged));
            }
            add(&worker.stats.created, 1);
            self.pooled = Some(Pooled {
                instance,
                uses_left: worker.uses(),
            });
        }
        match &mut self.pooled {
            Some(pooled) => Ok(&mut pooled.instance),
            None => unreachable!("an instance was just put there"),
        }
    }

    /// Ends the lease of a call that ran to its end.
    fn settle(mut self, is_whole: bool) {
        self.is_settled = true;
        let Some(mut pooled) = self.pooled.take() else {
            return;
        };
        pooled.uses_left -= 1;
        let stats = &self.worker.stats;
        stats.note_memory(pooled.instance.memory());
        stats.count_cpu(pooled.instance.take_burned());
        if is_whole && pooled.uses_left > 0 && !pooled.instance.is_starved() {
            self.pooled = Some(pooled);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let worker = self.worker;
        match self.pooled.take() {
            Some(pooled) if self.is_settled => worker.idle.borrow_mut().push(pooled),
            // A fault, the end of its uses, or a call that was dropped on the way.
            _ => worker.count_live(worker.live.get() - 1),
        }
        if !self.is_settled {
            add(&worker.stats.cancelled, 1);
        }
        if worker.waiting.get() > 0 {
            worker.freed.notify_one();
        }
    }
}

impl Drop for PluginWorker {
    fn drop(&mut self) {
        self.plugin.record.stats.close(&self.stats);
    }
}

/// Counts a waiting call, also if it is dropped.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests;
