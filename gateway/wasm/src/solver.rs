//! DNS-01 by plugin (RFC 8555, 8.4): adds and removes TXT records at a provider.
//!
//! Called by whoever orders certificates, never on a request's path. It may take its time: a
//! provider's API is slower than a policy may be.

use std::time::Duration;

use crate::error::PluginError;
use crate::instance::Answer;
use crate::instance::Ask;
use crate::worker::PluginWorker;

/// Wall time of one call, whatever the plugin's limit for requests is.
const SOLVER_TIME: Duration = Duration::from_secs(60);
/// Longest and shortest time that a plugin may ask to be left alone.
const MAX_PENDING: Duration = Duration::from_secs(10 * 60);
const MIN_PENDING: Duration = Duration::from_millis(100);

/// A plugin that writes DNS records. Belongs to one thread, and is called once at a time.
pub struct Solver {
    worker: PluginWorker,
}

/// One TXT record for one proof.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TxtRecord {
    /// Where the record goes, after CNAMEs were followed; no trailing dot.
    pub name: String,
    /// The zone that holds `name`; no trailing dot.
    pub zone: String,
    pub value: String,
    /// The certificate's name that is being proved.
    pub identifier: String,
}

/// How far a provider is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The provider says that the record is published.
    Ready,
    /// To be asked again after this time.
    Pending(Duration),
}

/// A function of `dns-solver`.
pub(crate) enum Solve<'a> {
    Supports(&'a str),
    Present(&'a TxtRecord),
    Poll(&'a TxtRecord),
    Cleanup(&'a TxtRecord),
}

impl Progress {
    pub(crate) fn pending(ms: u32) -> Self {
        let time = Duration::from_millis(ms.into());
        Self::Pending(time.clamp(MIN_PENDING, MAX_PENDING))
    }
}

impl Solver {
    pub(crate) fn new(worker: PluginWorker) -> Self {
        Self { worker }
    }

    /// Whether the plugin can write records below `zone`.
    pub async fn supports(&self, zone: &str) -> Result<bool, PluginError> {
        let answer = self.call(Solve::Supports(zone)).await?;
        Ok(matches!(answer, Answer::Supported(true)))
    }

    /// Adds one value. The inner error is what the provider said.
    pub async fn present(&self, txt: &TxtRecord) -> Result<Result<Progress, String>, PluginError> {
        self.solved(Solve::Present(txt)).await
    }

    /// Asks how far the provider is.
    pub async fn poll(&self, txt: &TxtRecord) -> Result<Result<Progress, String>, PluginError> {
        self.solved(Solve::Poll(txt)).await
    }

    /// Removes exactly this value.
    pub async fn cleanup(&self, txt: &TxtRecord) -> Result<Result<(), String>, PluginError> {
        let solved = self.solved(Solve::Cleanup(txt)).await?;
        Ok(solved.map(|_| ()))
    }

    async fn solved(&self, solve: Solve<'_>) -> Result<Result<Progress, String>, PluginError> {
        match self.call(solve).await? {
            Answer::Solved(solved) => Ok(solved),
            _ => Err(PluginError::NoPhase),
        }
    }

    async fn call(&self, solve: Solve<'_>) -> Result<Answer, PluginError> {
        self.worker.call_alone(Ask::Solve(solve), SOLVER_TIME).await
    }
}
