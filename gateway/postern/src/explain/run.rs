//! The policies run for the request that is explained.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use postern_core::config::AccessLogFormat;
use postern_core::config::AccessLogSpec;
use postern_core::config::Config;
use postern_core::config::Problem;
use postern_core::config::upstream::EndpointSpec;
use postern_proxy::rehearsal;
use postern_proxy::rehearsal::Given;
use postern_proxy::rehearsal::Rehearsal;
use tokio::task::LocalSet;

use super::Question;
use super::Scheme;
use crate::check::Checker;

/// How the policies are run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Whom the request comes from.
    pub client: IpAddr,
    /// Whether what policies ask upstreams for is sent.
    pub callouts: bool,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Ran {
    pub rehearsal: Rehearsal,
    pub callouts: bool,
}

/// Why they were not.
pub enum Failure {
    Problems(Vec<Problem>),
    Other(anyhow::Error),
}

impl Question {
    /// Takes the request through the policies of its rule. `None` if no rule is asked.
    pub fn run(&self, main: &Path, run: Run) -> Result<Option<Ran>, Failure> {
        let checker = Checker::new().map_err(Failure::Other)?;
        let (snapshot, runtime) = checker
            .snapshot(main, |config| prepare(config, run))
            .map_err(Failure::Problems)?;
        let listener = self.listener(&snapshot.config).ok().flatten();
        let Ok(head) = self.head(listener) else {
            return Ok(None);
        };
        let is_tls = self.scheme == Scheme::Https;
        let given = Given {
            head,
            client: run.client,
            listener: listener.map(|(name, _)| name.clone()),
            port: self.port.unwrap_or(if is_tls { 443 } else { 80 }),
        };
        let local = LocalSet::new();
        let rehearsing = rehearsal::rehearse(snapshot, given);
        let rehearsed = runtime.block_on(local.run_until(rehearsing));
        let rehearsed = rehearsed.context("cannot run the policies");
        let rehearsal = rehearsed.map_err(Failure::Other)?;
        Ok(rehearsal.map(|rehearsal| Ran {
            rehearsal,
            callouts: run.callouts,
        }))
    }
}

/// Leaves out what a rehearsal must not do: write lines and, unless asked to, reach anybody.
fn prepare(config: &mut Config, run: Run) {
    config.access_log = AccessLogSpec {
        format: AccessLogFormat::Off,
        path: None,
    };
    if run.callouts {
        return;
    }
    for upstream in config.upstreams.values_mut() {
        for endpoint in &mut Arc::make_mut(upstream).endpoints {
            // Nobody can listen on port 0: such a connection fails before anything is sent.
            *endpoint = EndpointSpec {
                host: "127.0.0.1".to_owned(),
                port: 0,
            };
        }
    }
}
