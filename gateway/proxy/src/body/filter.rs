//! Plugins that see a body piece by piece, on its way.
//!
//! A piece is read when the other side can take one, goes through the plugins one after the other,
//! and is sent: at most one piece is between the two sides.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::StatusCode;
use http_body::Frame;
use postern_core::config::plugin::OnError;
use postern_wasm::Exchange;
use postern_wasm::PluginError;
use postern_wasm::PluginWorker;
use postern_wasm::error::Breach;
use postern_wasm::exchange::ChunkAction;
use postern_wasm::limits::MAX_CHUNK;
use postern_wasm::limits::MAX_CHUNK_REPLACEMENT;

use super::BodyError;
use super::PolledFrame;

/// Which body it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// One plugin on the way.
pub(crate) struct Stage {
    worker: Rc<PluginWorker>,
    on_error: OnError,
    /// It failed before it changed anything, and is to be passed by.
    is_out: bool,
    has_changed: bool,
}

/// The plugins on the way of one body.
pub(crate) struct Filter {
    /// `None` while a call is under way, which has them.
    crew: Option<Box<Crew>>,
    call: Option<Pin<Box<dyn Future<Output = Passed>>>>,
    /// Read, and not yet given to the plugins.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    is_source_over: bool,
    /// The plugins were given the last piece.
    is_over: bool,
}

struct Crew {
    direction: Direction,
    exchange: Exchange,
    stages: Vec<Stage>,
}

type Passed = (Box<Crew>, Result<Bytes, BodyError>);

impl Stage {
    pub(crate) fn new(worker: Rc<PluginWorker>, on_error: OnError) -> Self {
        Self {
            worker,
            on_error,
            is_out: false,
            has_changed: false,
        }
    }
}

impl Filter {
    /// The stages in the order in which they see the body.
    pub(crate) fn new(direction: Direction, exchange: Exchange, stages: Vec<Stage>) -> Self {
        Self {
            crew: Some(Box::new(Crew {
                direction,
                exchange,
                stages,
            })),
            call: None,
            rest: Bytes::new(),
            trailers: None,
            is_source_over: false,
            is_over: false,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.is_over && self.call.is_none() && self.trailers.is_none()
    }

    /// The next piece that came through. `poll` reads the body, and `is_over` says whether what was
    /// just read was the last of it.
    pub(super) fn poll_frame<S>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        mut poll: impl FnMut(&mut S, &mut Context<'_>) -> PolledFrame<BodyError>,
        is_over: impl Fn(&S) -> bool,
    ) -> PolledFrame<BodyError> {
        loop {
            if let Some(call) = &mut self.call {
                let (crew, passed) = ready!(call.as_mut().poll(cx));
                self.call = None;
                self.crew = Some(crew);
                match passed {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Err(error) => {
                        self.is_over = true;
                        self.trailers = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            if self.is_over {
                return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t))));
            }
            if self.rest.is_empty() && !self.is_source_over {
                match ready!(poll(source, cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            self.rest = data;
                            self.is_source_over = is_over(source);
                            if self.rest.is_empty() && !self.is_source_over {
                                continue;
                            }
                        }
                        Err(frame) => {
                            self.trailers = frame.into_trailers().ok();
                            self.is_source_over = true;
                        }
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.is_source_over = true,
                }
            }
            let Some(crew) = self.crew.take() else {
                // There whenever no call is under way.
                return Poll::Ready(None);
            };
            let piece = self.rest.split_to(self.rest.len().min(MAX_CHUNK));
            self.is_over = self.is_source_over && self.rest.is_empty();
            self.call = Some(Box::pin(crew.pass(piece, self.is_over)));
        }
    }
}

impl Crew {
    /// One piece through all stages.
    async fn pass(mut self: Box<Self>, mut bytes: Bytes, is_last: bool) -> Passed {
        for index in 0..self.stages.len() {
            if self.stages[index].is_out {
                continue;
            }
            bytes = match self.pass_stage(index, bytes, is_last).await {
                Ok(bytes) => bytes,
                Err(error) => return (self, Err(error)),
            };
            if bytes.is_empty() && !is_last {
                break;
            }
        }
        (self, Ok(bytes))
    }

    /// What one stage made of it. It may be larger than a piece, and is then given to the next
    /// stage in pieces.
    async fn pass_stage(
        &mut self,
        index: usize,
        mut bytes: Bytes,
        is_last: bool,
    ) -> Result<Bytes, BodyError> {
        let Self {
            direction,
            exchange,
            stages,
        } = self;
        let stage = &mut stages[index];
        let worker = &stage.worker;
        let mut out = BytesMut::new();
        loop {
            let piece = bytes.split_to(bytes.len().min(MAX_CHUNK));
            let ends = is_last && bytes.is_empty();
            let acted = match direction {
                Direction::Request => worker.on_request_chunk(exchange, &piece, ends).await,
                Direction::Response => worker.on_response_chunk(exchange, &piece, ends).await,
            };
            let made = match acted {
                Ok(ChunkAction::Pass) => piece,
                Ok(ChunkAction::Replace(made)) => {
                    stage.has_changed = true;
                    made
                }
                Ok(ChunkAction::Abort) => {
                    let plugin = worker.plugin().name().clone();
                    return Err(BodyError::Aborted { plugin });
                }
                // As if it were not there; but what it has changed already cannot be taken back.
                Err(error) if stage.on_error == OnError::Allow && !stage.has_changed => {
                    stage.is_out = true;
                    log(worker, &error);
                    out.extend_from_slice(&piece);
                    out.extend_from_slice(&bytes);
                    return Ok(out.freeze());
                }
                Err(error) => return Err(failed(stage, &error)),
            };
            // The common case: one piece in, one piece out.
            if bytes.is_empty() && out.is_empty() {
                return Ok(made);
            }
            if out.len() + made.len() > MAX_CHUNK_REPLACEMENT {
                return Err(failed(stage, &PluginError::Contract(Breach::ChunkSize)));
            }
            out.extend_from_slice(&made);
            if bytes.is_empty() {
                return Ok(out.freeze());
            }
        }
    }
}

fn failed(stage: &Stage, error: &PluginError) -> BodyError {
    log(&stage.worker, error);
    BodyError::Plugin {
        plugin: stage.worker.plugin().name().clone(),
        status: match stage.on_error {
            OnError::Status(status) => status,
            OnError::Deny | OnError::Allow => StatusCode::SERVICE_UNAVAILABLE,
        },
        reason: error.reason(),
    }
}

fn log(worker: &PluginWorker, error: &PluginError) {
    let plugin = worker.plugin().name().as_str();
    let error = error as &dyn std::error::Error;
    tracing::debug!(plugin, error, "plugin failed on a body");
}
