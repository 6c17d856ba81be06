//! The one Wasm engine of the process: how code is compiled, where instances live, how time is
//! measured.
//!
//! Decisions, each for a measured reason:
//! - calls run on fibers, so that a guest which burns processor time can be suspended between two
//!   of its instructions while the worker goes on with other connections;
//! - time is measured in epochs, a counter that compiled code compares at loops and calls: cheaper
//!   than fuel by half on loops;
//! - instances live in a pool of reserved address space, which halves the cost of a fresh one.
//!
//! Compiling takes seconds for large components: callers do it off the data plane. One component
//! at a time, on one thread, so that it costs a busy gateway one core at most.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use wasmtime::Config;
use wasmtime::Engine;
use wasmtime::InstanceAllocationStrategy;
use wasmtime::PoolingAllocationConfig;
use wasmtime::component::HasSelf;
use wasmtime::component::Linker;

use crate::bindings::Gateway;
use crate::component::cache::Cache;
use crate::engine::memory::MemoryBudget;
use crate::engine::ticker::Activity;
use crate::engine::ticker::Ticker;
use crate::error::Cause;
use crate::error::PluginError;
use crate::host::HostState;

pub(crate) mod alarm;
pub(crate) mod memory;
pub(crate) mod thread_time;
pub(crate) mod ticker;
pub(crate) mod turns;

/// Wasm stack of a call. Deep enough for the interpreters of JavaScript and Python.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The fiber's stack: the Wasm stack and what host functions need above it.
const FIBER_STACK_BYTES: usize = 1 << 20;
/// Instances in the process, of all plugins and workers together. Each reserves 4 GiB of address
/// space, so that compiled code needs no bounds checks; memory is used only where it is touched.
const POOL_INSTANCES: u32 = 1000;
/// Core instances, memories and tables a component. Toolchains make three core instances of one
/// module (itself and two of glue); Python makes a dozen.
const POOL_CORE_INSTANCES: u32 = 4 * POOL_INSTANCES;
const POOL_TABLES: u32 = 4 * POOL_INSTANCES;
/// Elements a table may have at most; [`PluginLimits`](postern_core::config::plugin::PluginLimits)
/// decides below that.
const POOL_TABLE_ELEMENTS: usize = 100_000;
/// What a free slot keeps of its memory, zeroed by hand: cheaper than giving the pages back and
/// faulting them in again, as long as the guest is small.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;
/// Free slots that keep it.
const WARM_SLOTS: u32 = 64;

/// The engine, its compile cache, and the thread that measures time.
pub struct PluginEngine {
    engine: Engine,
    linker: Linker<HostState>,
    ticker: Ticker,
    memory: Arc<MemoryBudget>,
    pub(crate) cache: Option<Cache>,
    /// Held while a component is compiled.
    pub(crate) compiling: Mutex<()>,
    is_pooled: bool,
}

impl PluginEngine {
    /// Sets the engine up. `cache_dir` is created if it is missing and refused if others may
    /// write to it, for what stands there is executed.
    pub fn new(cache_dir: Option<PathBuf>) -> Result<Arc<Self>, PluginError> {
        let (engine, is_pooled) = match Engine::new(&config(Some(pool()))) {
            Ok(engine) => (engine, true),
            Err(error) => {
                // Address space is limited in some containers. Instances then cost more to make,
                // and everything else is the same.
                tracing::warn!(
                    error = format!("{error:#}"),
                    "no address space for the instance pool"
                );
                let engine = Engine::new(&config(None));
                (
                    engine.map_err(|e| PluginError::Engine(Cause::new(e)))?,
                    false,
                )
            }
        };
        let mut linker = Linker::new(&engine);
        Gateway::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)
            .map_err(|e| PluginError::Engine(Cause::new(e)))?;
        let cache = cache_dir.map(|dir| Cache::open(dir, &engine)).transpose()?;
        let ticker = Ticker::start(engine.weak()).map_err(PluginError::Ticker)?;
        Ok(Arc::new(Self {
            engine,
            linker,
            ticker,
            memory: Arc::new(MemoryBudget::unlimited()),
            cache,
            compiling: Mutex::new(()),
            is_pooled,
        }))
    }

    /// Whether instances come from reserved address space.
    pub fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Bounds the linear memory of all instances together, in bytes. A guest that asks for more is
    /// told that there is none.
    pub fn limit_memory(&self, bytes: u64) {
        self.memory.limit(bytes);
    }

    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    pub(crate) fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<HostState> {
        &self.linker
    }

    /// What a worker uses to say that a call is running.
    pub(crate) fn activity(&self) -> Activity {
        self.ticker.activity()
    }
}

fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // On by default where it is compiled in, and twice the cost of a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_memory64(false)
        .parallel_compilation(false);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_INSTANCES)
        .total_core_instances(POOL_CORE_INSTANCES)
        .total_memories(POOL_INSTANCES)
        .total_tables(POOL_TABLES)
        .total_stacks(POOL_INSTANCES)
        .table_elements(POOL_TABLE_ELEMENTS)
        .max_tables_per_module(4)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(WARM_SLOTS);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_fits_where_the_tests_run() {
        let engine = PluginEngine::new(None).unwrap();
        assert!(engine.is_pooled());
    }
}
