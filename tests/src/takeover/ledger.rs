//! The upstream's count of what arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::sleep;

use crate::upstream;
use crate::upstream::Body;
use crate::upstream::Upstream;

/// The field that numbers a request.
pub(super) const FIELD: &str = "x-ledger";
/// Events of a stream.
pub(super) const EVENTS: u32 = 20;
/// Between two events.
pub(super) const PACE: Duration = Duration::from_millis(50);

/// How often each request arrived, by its number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: AtomicU64,
    arrived: Mutex<HashMap<u64, u32>>,
}

impl Ledger {
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn arrive(&self, number: u64) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived.entry(number).or_default() += 1;
    }

    pub(super) fn arrivals(&self, number: u64) -> u32 {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.get(&number).copied().unwrap_or_default()
    }

    /// How many requests arrived more than once.
    pub(super) fn twice(&self) -> usize {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.values().filter(|&&count| count > 1).count()
    }
}

/// What is left of a body when its bytes may come in any pieces.
pub(super) fn digest(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u64, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    format!("{} {sum:x}", bytes.len())
}

/// Counts each request, and answers with its digest, or with events for `/events`.
pub(super) async fn upstream(ledger: Arc<Ledger>) -> Upstream {
    Upstream::http1(move |request| answer(Arc::clone(&ledger), request)).await
}

async fn answer(ledger: Arc<Ledger>, request: Request<Incoming>) -> Response<Body> {
    let number = request.headers().get(FIELD);
    let number = number.and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(number) = number {
        ledger.arrive(number);
    }
    if request.uri().path() == "/events" {
        let (mut pieces, body) = upstream::channel();
        tokio::spawn(async move {
            for event in 0..EVENTS {
                let piece = Bytes::from(format!("data: {event}\n\n"));
                // A client that left wants no more.
                if pieces.send_data(piece).await.is_err() {
                    return;
                }
                sleep(PACE).await;
            }
        });
        return Response::new(body);
    }
    match request.into_body().collect().await {
        Ok(body) => Response::new(upstream::full(digest(&body.to_bytes()))),
        Err(_) => Response::new(upstream::full("cut")),
    }
}
