//! `clock` and `random`: what a guest cannot know by itself.

use std::sync::LazyLock;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use crate::bindings::postern::plugin::clock;
use crate::bindings::postern::plugin::random;
use crate::error::Breach;
use crate::host::HostState;
use crate::limits::MAX_RANDOM_BYTES;
use crate::limits::MAX_SLEEP_MS;
use crate::limits::breach;

/// The zero of `monotonic-ns`: one for the process, so that instances agree.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl clock::Host for HostState {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 is 1970.
        Ok(since.map_or(0, |since| since.as_millis() as u64))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        Ok(START.elapsed().as_nanos() as u64)
    }

    async fn sleep_ms(&mut self, ms: u32) -> wasmtime::Result<()> {
        self.after_configure()?;
        let ms = ms.min(MAX_SLEEP_MS);
        self.wait(tokio::time::sleep(Duration::from_millis(ms.into())))
            .await;
        Ok(())
    }
}

impl random::Host for HostState {
    fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        if length > MAX_RANDOM_BYTES {
            return Err(breach(Breach::RandomBytes));
        }
        let mut bytes = vec![0; length as usize];
        // No randomness is better than little: the guest ends.
        getrandom::fill(&mut bytes).map_err(wasmtime::Error::new)?;
        Ok(bytes)
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        getrandom::u64().map_err(wasmtime::Error::new)
    }
}
