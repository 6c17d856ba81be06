//! Calls beside the common three: bodies, ends of exchanges, and what has no exchange.

use wasmtime::Store;

use super::Answer;
use super::Ask;
use super::Instance;
use super::Wall;
use super::decide;
use super::fault;
use crate::bindings::exports::postern::plugin::dns_solver;
use crate::bindings::exports::postern::plugin::log_phase;
use crate::bindings::postern::plugin::types;
use crate::component::exports::Guests;
use crate::error::Breach;
use crate::error::PluginError;
use crate::exchange::ChunkAction;
use crate::exchange::Summary;
use crate::host::HostState;
use crate::limits::MAX_CHUNK_REPLACEMENT;
use crate::limits::MAX_KEY_AUTHORIZATION;
use crate::limits::MAX_REFUSAL;
use crate::limits::push_escaped;
use crate::solver::Progress;
use crate::solver::Solve;
use crate::solver::TxtRecord;

impl Instance {
    pub(super) async fn answer_rarely(
        &mut self,
        ask: Ask<'_>,
        wall: &mut Wall,
    ) -> Result<Answer, PluginError> {
        let Self { store, guests, .. } = self;
        store.set_epoch_deadline(1);
        match ask {
            Ask::RequestBody(body) => {
                let guest = guests.request_body.as_ref().ok_or(PluginError::NoPhase)?;
                let (length, is_truncated) = (body.bytes.len() as u64, body.is_truncated);
                store.data_mut().lend_body(std::mem::take(body));
                let calling = guest.call_on_request_body(&mut *store, length, is_truncated);
                let called = wall.within(calling).await;
                *body = store.data_mut().take_body();
                let action = called?.map_err(|error| fault(&error, store.data()))?;
                decide(action, false, store.data())
            }
            Ask::ResponseBody(body) => {
                let guest = guests.response_body.as_ref().ok_or(PluginError::NoPhase)?;
                let (length, is_truncated) = (body.bytes.len() as u64, body.is_truncated);
                store.data_mut().lend_body(std::mem::take(body));
                let calling = guest.call_on_response_body(&mut *store, length, is_truncated);
                let called = wall.within(calling).await;
                *body = store.data_mut().take_body();
                let action = called?.map_err(|error| fault(&error, store.data()))?;
                decide(action, false, store.data())
            }
            Ask::RequestChunk { chunk, is_last } => {
                let guest = guests.request_stream.as_ref().ok_or(PluginError::NoPhase)?;
                let calling = guest.call_on_request_chunk(&mut *store, chunk, is_last);
                let called = wall.within(calling).await?;
                chunk_action(called.map_err(|error| fault(&error, store.data()))?)
            }
            Ask::ResponseChunk { chunk, is_last } => {
                let guest = guests.response_stream.as_ref();
                let guest = guest.ok_or(PluginError::NoPhase)?;
                let calling = guest.call_on_response_chunk(&mut *store, chunk, is_last);
                let called = wall.within(calling).await?;
                chunk_action(called.map_err(|error| fault(&error, store.data()))?)
            }
            Ask::Log(summary) => {
                let guest = guests.log.as_ref().ok_or(PluginError::NoPhase)?;
                let summary = log_summary(summary);
                let called = wall.within(guest.call_on_log(&mut *store, summary)).await?;
                called.map_err(|error| fault(&error, store.data()))?;
                Ok(Answer::Done)
            }
            Ask::Challenge { host, token } => {
                let guest = guests.challenge.as_ref().ok_or(PluginError::NoPhase)?;
                let calling = guest.call_key_authorization(&mut *store, host, token);
                let called = wall.within(calling).await?;
                let answer = called.map_err(|error| fault(&error, store.data()))?;
                let is_sound = |text: &String| {
                    text.len() <= MAX_KEY_AUTHORIZATION
                        && text.bytes().all(|b| b.is_ascii_graphic())
                };
                if !answer.as_ref().is_none_or(is_sound) {
                    return Err(PluginError::Contract(Breach::KeyAuthorization));
                }
                Ok(Answer::KeyAuthorization(answer))
            }
            Ask::Tick => {
                let guest = guests.background.as_ref().ok_or(PluginError::NoPhase)?;
                let called = wall.within(guest.call_on_tick(&mut *store)).await?;
                called.map_err(|error| fault(&error, store.data()))?;
                Ok(Answer::Done)
            }
            Ask::Solve(solve) => self::solve(store, guests, solve, wall).await,
            Ask::Route | Ask::Request | Ask::Response => Err(PluginError::NoPhase),
        }
    }
}

async fn solve(
    store: &mut Store<HostState>,
    guests: &Guests,
    solve: Solve<'_>,
    wall: &mut Wall,
) -> Result<Answer, PluginError> {
    let guest = guests.solver.as_ref().ok_or(PluginError::NoPhase)?;
    let called = match solve {
        Solve::Supports(zone) => {
            let called = wall.within(guest.call_supports(&mut *store, zone)).await?;
            return match called {
                Ok(is_supported) => Ok(Answer::Supported(is_supported)),
                Err(error) => Err(fault(&error, store.data())),
            };
        }
        Solve::Present(txt) => {
            let calling = guest.call_present(&mut *store, txt_record(txt));
            wall.within(calling).await?
        }
        Solve::Poll(txt) => {
            let calling = guest.call_poll(&mut *store, txt_record(txt));
            wall.within(calling).await?
        }
        Solve::Cleanup(txt) => {
            let calling = guest.call_cleanup(&mut *store, txt_record(txt));
            let called = wall.within(calling).await?;
            called.map(|answer| answer.map(|()| dns_solver::Progress::Ready))
        }
    };
    let answer = called.map_err(|error| fault(&error, store.data()))?;
    Ok(Answer::Solved(match answer {
        Ok(dns_solver::Progress::Ready) => Ok(Progress::Ready),
        Ok(dns_solver::Progress::Pending(ms)) => Ok(Progress::pending(ms)),
        Err(text) => {
            let mut message = String::new();
            push_escaped(&mut message, &text, MAX_REFUSAL);
            Err(message)
        }
    }))
}

fn chunk_action(action: types::ChunkAction) -> Result<Answer, PluginError> {
    Ok(Answer::Chunk(match action {
        types::ChunkAction::Pass => ChunkAction::Pass,
        types::ChunkAction::Replace(bytes) if bytes.len() > MAX_CHUNK_REPLACEMENT => {
            return Err(PluginError::Contract(Breach::ChunkSize));
        }
        types::ChunkAction::Replace(bytes) => ChunkAction::Replace(bytes.into()),
        types::ChunkAction::Abort => ChunkAction::Abort,
    }))
}

fn log_summary(summary: &Summary) -> log_phase::Summary<'_> {
    log_phase::Summary {
        status: summary.status.map_or(0, |status| status.as_u16()),
        request_bytes: summary.request_bytes,
        response_bytes: summary.response_bytes,
        duration_us: u64::try_from(summary.duration.as_micros()).unwrap_or(u64::MAX),
        upstream: summary.upstream.as_ref().map(|name| name.as_str()),
        outcome: summary.outcome,
    }
}

fn txt_record(txt: &TxtRecord) -> dns_solver::TxtRecord<'_> {
    dns_solver::TxtRecord {
        name: &txt.name,
        zone: &txt.zone,
        value: &txt.value,
        identifier: &txt.identifier,
    }
}
