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

use tokio::sync::Notify;

use crate::component::Phase;
use crate::component::Phases;
use crate::engine::ticker::Activity;
use crate::error::Breach;
use crate::error::PluginError;
use crate::exchange::Action;
use crate::exchange::Exchange;
use crate::instance::Answer;
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
    idle: RefCell<Vec<Pooled>>,
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
    pub(crate) fn new(plugin: Arc<Plugin>) -> Self {
        let stats = Arc::new(PluginStats::default());
        let log = LogBudget::new(plugin.limits().log_lines, Arc::clone(&stats));
        Self {
            idle: RefCell::default(),
            live: Cell::new(0),
            waiting: Cell::new(0),
            freed: Notify::new(),
            log: Arc::new(log),
            activity: plugin.component().engine().activity(),
            // Any number will do; only workers should differ.
            random: Cell::new(getrandom::u64().unwrap_or(1)),
            stats,
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

    /// Calls `route-phase.select`: the upstream that the plugin names, if it names one. Without
    /// that phase it names none. The name is not checked against what is configured.
    pub async fn select(&self, exchange: &mut Exchange) -> Result<Option<String>, PluginError> {
        if !self.has_route_phase() {
            return Ok(None);
        }
        match self.call(Phase::Route, exchange).await? {
            Answer::Selected(name) => Ok(name),
            Answer::Action(_) => Ok(None),
        }
    }

    /// Calls `request-phase.on-request`. Without that phase the answer is `Next`.
    pub async fn on_request(&self, exchange: &mut Exchange) -> Result<Action, PluginError> {
        if !self.has_request_phase() {
            return Ok(Action::Next);
        }
        self.act(Phase::Request, exchange).await
    }

    /// Calls `response-phase.on-response`. Without that phase, or without a response, the answer
    /// is `Next`.
    pub async fn on_response(&self, exchange: &mut Exchange) -> Result<Action, PluginError> {
        if !self.has_response_phase() || exchange.response.is_none() {
            return Ok(Action::Next);
        }
        self.act(Phase::Response, exchange).await
    }

    async fn act(&self, phase: Phase, exchange: &mut Exchange) -> Result<Action, PluginError> {
        match self.call(phase, exchange).await? {
            Answer::Action(action) => Ok(action),
            Answer::Selected(_) => Ok(Action::Next),
        }
    }

    async fn call(&self, phase: Phase, exchange: &mut Exchange) -> Result<Answer, PluginError> {
        add(&self.stats.calls, 1);
        let _running = self.activity.enter();
        let answered = self.call_leased(phase, exchange).await;
        if let Err(error) = &answered {
            self.stats.count_fault(error);
        }
        answered
    }

    async fn call_leased(
        &self,
        phase: Phase,
        exchange: &mut Exchange,
    ) -> Result<Answer, PluginError> {
        let mut wall = Wall::new(self.plugin.limits().time);
        let mut lease = self.lease(&mut wall).await?;
        let answered = match lease.instance(&mut wall).await {
            Ok(instance) => {
                let spec = self.plugin.spec();
                instance.call(phase, spec, exchange, &mut wall).await
            }
            Err(error) => Err(error),
        };
        lease.settle(answered.is_ok());
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
            let (instance, spec) = Instance::start(&worker.plugin, log, wall).await?;
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
    fn settle(mut self, is_ok: bool) {
        self.is_settled = true;
        let Some(mut pooled) = self.pooled.take() else {
            return;
        };
        pooled.uses_left -= 1;
        if is_ok && pooled.uses_left > 0 && !pooled.instance.is_starved() {
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
