//! A WebSocket after its 101: bytes in both directions, nothing looked at.

use std::rc::Rc;

use http::HeaderValue;
use http::Response;
use http::header;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use postern_core::header::remove_hop_by_hop;

use crate::access_log::AccessRecord;
use crate::body::ResponseBody;
use crate::connection::Connection;
use crate::connection::InFlight;
use crate::upstream::Lease;

/// Bytes buffered for each direction.
const BUFFER_BYTES: usize = 16 << 10;

/// Two connections that are about to be joined.
pub(super) struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    lease: Lease,
}

impl Tunnel {
    pub(super) fn new(client: OnUpgrade, upstream: OnUpgrade, lease: Lease) -> Self {
        Self {
            client,
            upstream,
            lease,
        }
    }

    /// Joins them once the client has its 101. What the tunnel holds keeps the connection counted
    /// and the access line open until it ends.
    pub(super) fn spawn(
        self,
        mut record: Box<AccessRecord>,
        in_flight: InFlight,
        connection: Rc<Connection>,
    ) {
        // Ends when either side closes, or with its worker.
        tokio::task::spawn_local(async move {
            let Self {
                client,
                upstream,
                lease,
            } = self;
            if let (Ok(client), Ok(upstream)) = (client.await, upstream.await) {
                let mut client = TokioIo::new(client);
                let mut upstream = TokioIo::new(upstream);
                let copied = tokio::io::copy_bidirectional_with_sizes(
                    &mut client,
                    &mut upstream,
                    BUFFER_BYTES,
                    BUFFER_BYTES,
                );
                if let Ok((up, down)) = copied.await {
                    record.tunnelled(up, down);
                }
                record.completed();
            }
            drop((record, in_flight, connection, lease));
        });
    }
}

/// The 101 for the client, with the two fields that make it one.
pub(super) fn switching(response: Response<Incoming>) -> Response<ResponseBody> {
    let (mut parts, _) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    let upgrade = HeaderValue::from_static("upgrade");
    parts.headers.insert(header::CONNECTION, upgrade);
    let websocket = HeaderValue::from_static("websocket");
    parts.headers.insert(header::UPGRADE, websocket);
    Response::from_parts(parts, ResponseBody::full(bytes::Bytes::new()))
}
