//! One line about abuse, however much there is of it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Abuse;

/// How long a worker says nothing about abuse after it has said something.
const QUIET: Duration = Duration::from_secs(10);

/// When a worker last wrote about abuse. Locked by its worker alone.
#[derive(Default)]
pub(crate) struct AbuseLog(Mutex<Since>);

#[derive(Default)]
struct Since {
    last: Option<Instant>,
    /// Connections that were ended without a line.
    silent: u64,
}

impl AbuseLog {
    pub(crate) fn note(&self, abuse: Abuse, peer: SocketAddr) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if since.last.is_some_and(|last| now - last < QUIET) {
            since.silent += 1;
            return;
        }
        since.last = Some(now);
        let others = std::mem::take(&mut since.silent);
        drop(since);
        tracing::warn!(
            client.addr = %peer,
            kind = abuse.reason(),
            others,
            "an HTTP/2 connection was ended because of what its client sent"
        );
    }
}
