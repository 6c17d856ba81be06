//! Sends a copy of a request to another upstream. Nobody waits for it, and nobody sees its answer.
//!
//! The request goes its way as ever. Its body is copied while it passes by, up to a limit; when all
//! of it has passed, a task of the worker sends the copy. A body that is larger, or that does not
//! end, and a copy for which there is no place, are let go of and counted.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body::Body as _;
use postern_core::config::policy::traffic::MirrorSpec;
use postern_core::request::RequestHead;

use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::body::Tap;
use crate::error::ProxyError;
use crate::request::subrequest;
use crate::worker::View;
use crate::worker::Worker;

/// Bytes of an answer that are read to no purpose but to use the connection again.
const MAX_ANSWER: usize = 256 << 10;

pub(super) struct Mirror(Arc<Shared>);

struct Shared {
    spec: MirrorSpec,
    /// Copies that are being made and sent.
    copies: AtomicU32,
    /// Requests, for the share of them that is copied.
    turn: AtomicU64,
}

/// A request that is to be copied once it is certain that it goes upstream.
pub(crate) struct Copying(Arc<Shared>);

/// Counts a copy until it is over.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.copies.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mirror {
    pub(super) fn new(spec: &MirrorSpec) -> Self {
        Self(Arc::new(Shared {
            spec: spec.clone(),
            copies: AtomicU32::new(0),
            turn: AtomicU64::new(0),
        }))
    }

    /// Of a hundred requests, so many, evenly.
    pub(super) fn on_request(&self) -> Option<Copying> {
        let percent = u64::from(self.0.spec.percent);
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let is_chosen = (turn % 100 * percent) % 100 < percent;
        is_chosen.then(|| Copying(Arc::clone(&self.0)))
    }
}

impl Copying {
    /// The request as the upstream gets it.
    pub(crate) fn start(
        self,
        worker: &Rc<Worker>,
        view: &Rc<View>,
        head: &RequestHead,
        body: &mut RequestBody,
    ) {
        let shared = self.0;
        let before = shared.copies.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&shared));
        let limit = shared.spec.body;
        let is_large = body.size_hint().lower() > limit;
        if before >= shared.spec.requests || is_large {
            worker.stats.mirrors_dropped.add(1);
            return;
        }
        let passed = (!body.is_over()).then(|| body.tap(Tap::new(limit)));
        let (worker, view, head) = (Rc::clone(worker), Rc::clone(view), head.clone());
        // Ends with the body, which has a deadline, and then with its own.
        tokio::task::spawn_local(async move {
            let body = match passed {
                None => Some(Bytes::new()),
                Some(passed) => passed.await.ok(),
            };
            let Some(body) = body else {
                worker.stats.mirrors_dropped.add(1);
                return;
            };
            let spec = &place.0.spec;
            let sending = send(&worker, &view, spec, head, body);
            match worker.clock.timeout(spec.timeout, sending).await {
                Some(Ok(())) => worker.stats.mirrors_sent.add(1),
                failed => {
                    worker.stats.mirrors_dropped.add(1);
                    if let Some(Err(error)) = failed {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(upstream = %spec.upstream, error, "copy not sent");
                    }
                }
            }
        });
    }
}

async fn send(
    worker: &Rc<Worker>,
    view: &View,
    spec: &MirrorSpec,
    head: RequestHead,
    body: Bytes,
) -> Result<(), ProxyError> {
    let response = subrequest(worker, view, &spec.upstream, head, body).await?;
    let mut body: ResponseBody = response.into_body();
    let mut read = 0;
    while read <= MAX_ANSWER {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { break };
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}
