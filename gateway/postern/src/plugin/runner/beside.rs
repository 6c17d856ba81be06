//! The phases beside an exchange: ticks, DNS records, and what is told when it is over.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginError;
use postern_wasm::Solver;
use postern_wasm::callout::Callouts;
use postern_wasm::exchange::Summary;
use postern_wasm::solver::Progress;
use postern_wasm::solver::TxtRecord;

use super::Bodies;
use super::Failure;
use super::answers::Answers;
use super::fault;
use crate::plugin::case::Case;
use crate::plugin::case::GivenRecord;
use crate::plugin::verdict::Outcome;

/// How often a solver is asked whether a record is published.
const MAX_POLLS: usize = 100;

/// Calls the background phase in an instance that does nothing else, as the gateway does.
pub(super) async fn tick(
    plugin: &Arc<Plugin>,
    case: &Case,
    calls: &Arc<Answers>,
) -> Result<(), PluginError> {
    if case.ticks == 0 {
        return Ok(());
    }
    let worker = plugin.worker_with(Arc::clone(calls) as Arc<dyn Callouts>);
    for _ in 0..case.ticks {
        worker.on_tick().await?;
    }
    Ok(())
}

/// Writes a record, asks until it is there, and removes it.
pub(super) async fn solve(
    plugin: &Arc<Plugin>,
    given: &GivenRecord,
    calls: Arc<Answers>,
) -> Result<Outcome, Failure> {
    let Some(solver) = plugin.solver(Some(calls as Arc<dyn Callouts>)) else {
        let error = anyhow::anyhow!("dns: the plugin has no DNS solver");
        return Err(Failure::Setup(error));
    };
    let record = TxtRecord {
        name: given.name.clone(),
        zone: given.zone.clone(),
        value: given.value.clone(),
        identifier: given.identifier.clone(),
    };
    let mut outcome = Outcome::default();
    match solved(&solver, &record).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => outcome.dns_error = Some(error),
        Err(error) => outcome.fault = Some(fault(&error)),
    }
    Ok(outcome)
}

async fn solved(solver: &Solver, record: &TxtRecord) -> Result<Result<(), String>, PluginError> {
    if !solver.supports(&record.zone).await? {
        return Ok(Err(format!("the zone {} is not supported", record.zone)));
    }
    let mut progress = solver.present(record).await?;
    for _ in 0..MAX_POLLS {
        match progress {
            Ok(Progress::Pending(_)) => progress = solver.poll(record).await?,
            Ok(Progress::Ready) => return solver.cleanup(record).await,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Err(format!("still pending after {MAX_POLLS} polls")))
}

/// How the exchange ended, for the log phase.
pub(super) fn summary(
    exchange: &Exchange,
    bodies: &Bodies,
    outcome: &Outcome,
    error: Option<&PluginError>,
) -> Summary {
    let reply = outcome.reply.as_ref();
    let status = reply.and_then(|reply| StatusCode::from_u16(reply.status).ok());
    let response_bytes = reply.map_or(bodies.response.len(), |reply| reply.body.len());
    Summary {
        status: status.or_else(|| exchange.response.as_ref().map(|r| r.status)),
        request_bytes: bodies.request.len() as u64,
        response_bytes: response_bytes as u64,
        duration: Duration::from_millis(1),
        upstream: exchange.upstream.clone(),
        outcome: error.map_or("ok", PluginError::reason),
    }
}
