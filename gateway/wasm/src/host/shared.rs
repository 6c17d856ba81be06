//! `shared`: state beyond one instance, of the granted size.

use std::time::Duration;

use crate::bindings::postern::plugin::shared::Host;
use crate::bindings::postern::plugin::shared::Quota;
use crate::error::Breach;
use crate::host::HostState;
use crate::limits::MAX_SHARED_KEY;
use crate::limits::breach;
use crate::shared::BucketRule;
use crate::shared::SharedState;

impl HostState {
    /// The store, once it is clear that this call may use it with this key.
    fn shared(&mut self, key: &str, bytes: usize) -> wasmtime::Result<&SharedState> {
        self.meter.take_bytes(key.len() + bytes)?;
        self.after_configure()?;
        if key.len() > MAX_SHARED_KEY {
            return Err(breach(Breach::SharedKey));
        }
        let shared = self.powers.shared.as_deref();
        shared.ok_or_else(|| breach(Breach::NotGranted))
    }
}

impl Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.shared(&key, 0)?.get(&key))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) -> wasmtime::Result<bool> {
        let shared = self.shared(&key, value.len())?;
        Ok(shared.set(&key, value, ttl(ttl_ms)))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<()> {
        self.shared(&key, 0)?.remove(&key);
        Ok(())
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> wasmtime::Result<bool> {
        let bytes = expected.as_ref().map_or(0, Vec::len) + value.len();
        let shared = self.shared(&key, bytes)?;
        Ok(shared.compare_and_set(&key, expected.as_deref(), value, ttl(ttl_ms)))
    }

    fn increment(&mut self, key: String, delta: i64, ttl_ms: u64) -> wasmtime::Result<i64> {
        Ok(self.shared(&key, 0)?.increment(&key, delta, ttl(ttl_ms)))
    }

    fn take(
        &mut self,
        key: String,
        tokens: u32,
        rate: u32,
        per_ms: u32,
        burst: u32,
    ) -> wasmtime::Result<Quota> {
        let rule = BucketRule {
            rate,
            period: Duration::from_millis(per_ms.max(1).into()),
            burst,
        };
        let quota = self.shared(&key, 0)?.take(&key, tokens, rule);
        Ok(Quota {
            allowed: quota.is_allowed,
            remaining: quota.remaining,
            retry_after_ms: quota.retry_after_ms,
        })
    }
}

fn ttl(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}
