//! Requests that plugins make, over the very pools that requests of clients use.
//!
//! A plugin's call may be moved between threads as far as the compiler knows, and a pool may not:
//! so an order goes over a channel to a task of the same worker, which sends the request and hands
//! the answer back. When the plugin's call ends early, so does its order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Body as _;
use hyper::body::Incoming;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::header::has_plain_framing;
use postern_core::header::remove_hop_by_hop;
use postern_wasm::callout::Callout;
use postern_wasm::callout::CalloutError;
use postern_wasm::callout::CalloutFuture;
use postern_wasm::callout::Callouts;
use postern_wasm::callout::Reply;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::body::BodyError;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::clock::Timer;
use crate::error::ProxyError;
use crate::request::send::Unsent;
use crate::request::send::h2_uri;
use crate::upstream::Addresses;
use crate::upstream::Ask;
use crate::upstream::Lease;
use crate::upstream::Sender;
use crate::worker::Worker;

/// Orders that may wait for their worker to take them up, which it does at once when it can.
const WAITING: usize = 1024;
/// How long a callout may take, whatever its plugin has.
const LONGEST: Duration = Duration::from_secs(60);

/// Where the plugins of one worker hand in their requests. May be used from other threads too.
pub(crate) struct Desk(mpsc::Sender<Order>);

/// The other end of a [`Desk`].
pub(crate) struct Orders(mpsc::Receiver<Order>);

struct Order {
    callout: Callout,
    answer: oneshot::Sender<Result<Reply, CalloutError>>,
}

pub(crate) fn desk() -> (Arc<Desk>, Orders) {
    let (orders, receiver) = mpsc::channel(WAITING);
    (Arc::new(Desk(orders)), Orders(receiver))
}

impl Callouts for Desk {
    fn send(&self, callout: Callout) -> CalloutFuture {
        let (answer, answered) = oneshot::channel();
        let ordered = self.0.try_send(Order { callout, answer });
        Box::pin(async move {
            if ordered.is_err() {
                return Err(CalloutError::Overloaded);
            }
            // Not answered at all: the worker is ending.
            answered.await.unwrap_or(Err(CalloutError::Connect))
        })
    }
}

impl Orders {
    /// Carries orders out until the worker ends.
    pub(crate) async fn serve(mut self, worker: Rc<Worker>) {
        while let Some(Order {
            callout,
            mut answer,
        }) = self.0.recv().await
        {
            let worker = Rc::clone(&worker);
            // Ends when nobody waits for the answer any more.
            tokio::task::spawn_local(async move {
                let answered = tokio::select! {
                    biased;
                    () = answer.closed() => return,
                    answered = send(&worker, callout) => answered,
                };
                // The plugin's call may have ended in this moment.
                let _ = answer.send(answered);
            });
        }
    }
}

async fn send(worker: &Rc<Worker>, callout: Callout) -> Result<Reply, CalloutError> {
    let view = worker.view();
    // Granted names are checked when a configuration is read; a plugin that was replaced in the
    // middle of a call may still hold one that is gone.
    let upstream = view.snapshot.upstream_index(callout.upstream.as_str());
    let upstream = upstream.ok_or(CalloutError::Denied)?;
    let ask = Ask {
        headers: &callout.headers,
        client: Addresses::NOBODY.client.ip(),
    };
    let lease = view.pool(upstream).lease(&ask).map_err(not_sent)?;
    drop(view);
    let limit = callout.timeout.min(LONGEST);
    let exchanged = exchange(worker, lease, callout);
    let exchanged = worker.clock.timeout(limit, exchanged).await;
    exchanged.unwrap_or(Err(CalloutError::Timeout))
}

async fn exchange(worker: &Worker, lease: Lease, callout: Callout) -> Result<Reply, CalloutError> {
    let clock = &worker.clock;
    let max = callout.max_response;
    let request = request(&lease, callout);
    let upload = request.body().progress();
    let addresses = Addresses::NOBODY;
    let mut sender = lease.connection(addresses, clock).await.map_err(|error| {
        if error.blames_endpoint() {
            lease.failed();
        }
        not_sent(error)
    })?;
    let mut sent = sender.send(request, &upload).await;
    if let Err(Unsent::Returned(request)) = sent {
        // The connection closed before anything was written: nobody has seen the request.
        lease.forget_of(&sender);
        sender = lease.connection(addresses, clock).await.map_err(not_sent)?;
        sent = sender.send(*request, &upload).await;
    }
    match &sent {
        Ok(_) => lease.succeeded(),
        Err(_) => lease.failed(),
    }
    let response = sent.map_err(|unsent| match unsent {
        Unsent::Returned(_) => CalloutError::Connect,
        Unsent::Failed(_) => CalloutError::Protocol,
        Unsent::TimedOut(_) => CalloutError::Timeout,
    })?;
    // A switch of protocols that nobody asked for, or a length in doubt.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        || !has_plain_framing(response.headers())
    {
        return Err(CalloutError::Protocol);
    }
    read(response, clock.timer(), sender, lease, max).await
}

fn not_sent(error: ProxyError) -> CalloutError {
    match error {
        ProxyError::Overloaded { .. } | ProxyError::NoSockets { .. } => CalloutError::Overloaded,
        _ => CalloutError::Connect,
    }
}

fn request(lease: &Lease, callout: Callout) -> Request<RequestBody> {
    let host = callout.host.unwrap_or_else(|| {
        // A configured host and port are a valid value.
        let endpoint = HeaderValue::try_from(lease.endpoint().to_string());
        endpoint.unwrap_or_else(|_| HeaderValue::from_static("localhost"))
    });
    let mut headers = callout.headers;
    let uri = match lease.upstream().spec.protocol {
        UpstreamProtocol::Http1 => {
            headers.insert(header::HOST, host);
            callout.target.into()
        }
        UpstreamProtocol::Http2 => h2_uri(lease, &host, callout.target),
    };
    let mut request = Request::new(RequestBody::full(callout.body));
    *request.method_mut() = callout.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

async fn read(
    response: Response<Incoming>,
    timer: Timer,
    sender: Sender,
    lease: Lease,
    max: usize,
) -> Result<Reply, CalloutError> {
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    let idle = lease.upstream().spec.timeouts.body_idle;
    let connection = sender.into_http1();
    let mut body = ResponseBody::upstream(body, timer, idle, connection, lease);
    if body.size_hint().lower() > max as u64 {
        return Err(CalloutError::TooLarge);
    }
    let mut bytes = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx));
        match frame.await {
            None => break,
            Some(Ok(frame)) => {
                // Trailers are not handed on.
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if bytes.len() + data.len() > max {
                    return Err(CalloutError::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
            Some(Err(BodyError::Idle)) => return Err(CalloutError::Timeout),
            Some(Err(_)) => return Err(CalloutError::Protocol),
        }
    }
    Ok(Reply {
        status: parts.status,
        headers: parts.headers,
        body: bytes.freeze(),
    })
}
