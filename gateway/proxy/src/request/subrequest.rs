//! A request that the gateway itself sends to an upstream, on behalf of a policy.

use std::rc::Rc;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use hyper::body::Incoming;
use postern_core::header::has_plain_framing;
use postern_core::name::UpstreamName;
use postern_core::request::RequestHead;

use super::send::Unsent;
use super::send::downstream_response;
use super::send::first_byte;
use super::send::upstream_request;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::clock::Timer;
use crate::error::ProxyError;
use crate::upstream::Addresses;
use crate::upstream::Ask;
use crate::upstream::Lease;
use crate::upstream::Sender;
use crate::worker::View;
use crate::worker::Worker;

/// Sends it with this body, over the same connections as any request. The caller bounds the time.
pub(crate) async fn subrequest(
    worker: &Rc<Worker>,
    view: &View,
    upstream: &UpstreamName,
    mut head: RequestHead,
    body: Bytes,
) -> Result<Response<ResponseBody>, ProxyError> {
    // A configuration that names an upstream holds it.
    let index = view.snapshot.upstream_index(upstream.as_str());
    let ask = Ask {
        headers: &head.headers,
        client: Addresses::NOBODY.client.ip(),
    };
    let lease = view.pool(index.ok_or(ProxyError::NoRoute)?).lease(&ask)?;
    let answered = exchange(worker, &lease, &mut head, body).await;
    let (response, sender, timer) = match answered {
        Ok(answered) => answered,
        Err(error) => {
            if error.blames_endpoint() {
                lease.failed();
            }
            return Err(error);
        }
    };
    lease.succeeded();
    let idle = lease.upstream().spec.timeouts.body_idle;
    let connection = sender.into_http1();
    Ok(downstream_response(
        response, timer, idle, connection, lease, false,
    ))
}

async fn exchange(
    worker: &Worker,
    lease: &Lease,
    head: &mut RequestHead,
    body: Bytes,
) -> Result<(Response<Incoming>, Sender, Timer), ProxyError> {
    let clock = &worker.clock;
    let limit = lease.upstream().spec.timeouts.first_byte;
    let body = RequestBody::full(body);
    let upload = body.progress();
    let request = upstream_request(head, body, lease, false, false);
    let timer = clock.timer();
    let mut sender = lease.connection(Addresses::NOBODY, clock).await?;
    timer.arm(limit);
    let mut sent = first_byte(sender.send(request, &upload), &timer, limit, &upload).await;
    if let Err(Unsent::Returned(request)) = sent {
        // The connection closed before anything was written: nobody has seen the request.
        timer.disarm();
        lease.forget_of(&sender);
        sender = lease.connection(Addresses::NOBODY, clock).await?;
        timer.arm(limit);
        sent = first_byte(sender.send(*request, &upload), &timer, limit, &upload).await;
    }
    if let (Err(Unsent::TimedOut(_)), Sender::Http2(_)) = (&sent, &sender) {
        // It may be dead without a sign.
        lease.forget_of(&sender);
    }
    let response = sent.map_err(|unsent| unsent.into_error(lease))?;
    timer.disarm();
    let (name, endpoint) = (&lease.upstream().name, lease.endpoint());
    if !has_plain_framing(response.headers()) {
        return Err(ProxyError::Framing {
            upstream: name.clone(),
            endpoint: endpoint.clone(),
        });
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ProxyError::UnaskedUpgrade {
            upstream: name.clone(),
            endpoint: endpoint.clone(),
        });
    }
    Ok((response, sender, timer))
}
