//! Stands between one gateway and the API server: lets it hear of Secrets late, and sees what it
//! writes, so that it can be ended between any two writes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::kubernetes::Api;
use crate::upstream::Body;
use crate::upstream::Upstream;
use crate::upstream::channel;
use crate::upstream::full;

/// How much later than it happened a gateway hears of a Secret: some are quick and some are slow.
const DELAYS: [u64; 7] = [300, 900, 450, 600, 750, 330, 840];
/// Events that may be on their way to a gateway.
const EVENTS: usize = 1000;

/// A write of a Secret.
pub(super) struct Write {
    pub(super) method: Method,
    pub(super) path: String,
    /// Of the object that is written; none where it is deleted.
    pub(super) role: String,
    /// What is kept in it.
    pub(super) document: Value,
}

/// Tells of the first write that is as wanted, once it is done. Its answer never arrives.
pub(super) struct Trap {
    pub(super) wanted: fn(&Write) -> bool,
    pub(super) sprung: oneshot::Sender<usize>,
}

/// Set for all gateways at once.
pub(super) type Traps = Arc<Mutex<Option<Trap>>>;

/// The proxy of one gateway; gone when it is dropped.
pub(super) struct Between {
    pub(super) addr: SocketAddr,
    _server: Upstream,
}

impl Between {
    /// Lets the gateway with this number talk as `api` does.
    pub(super) async fn start(api: Api, number: usize, traps: Traps) -> Self {
        let server = Upstream::http1(move |request| {
            let (api, traps) = (api.clone(), Arc::clone(&traps));
            async move {
                let forwarded = forward(api, number, request, traps).await;
                forwarded.unwrap_or_else(|error| {
                    let mut response = Response::new(full(error));
                    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
                    response
                })
            }
        })
        .await;
        Self {
            addr: server.addr,
            _server: server,
        }
    }

    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {{server: \"http://{}\"}}\n\
             users:\n- name: a\n  user: {{token: t}}\ncontexts:\n- name: a\n  context: {{cluster: a, user: a}}\n\
             current-context: a\n",
            self.addr
        )
    }
}

async fn forward(
    api: Api,
    number: usize,
    request: Request<Incoming>,
    traps: Traps,
) -> Result<Response<Body>, String> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let body = body.to_bytes();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let is_of_secrets = path.contains("/secrets");
    let is_watch = query.contains("watch=true") || query.contains("watch=1");
    let write = (is_of_secrets && parts.method != Method::GET).then(|| write(&parts, path, &body));
    let response = api.forward(parts, body).await?;
    if let Some(write) = &write
        && response.status().is_success()
        && let Some(sprung) = spring(&traps, write)
    {
        // Whoever set the trap ends the gateway now.
        let _ = sprung.send(number);
        std::future::pending::<()>().await;
    }
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(
        parts,
        relay(body, is_of_secrets && is_watch),
    ))
}

fn spring(traps: &Traps, write: &Write) -> Option<oneshot::Sender<usize>> {
    let mut set = traps.lock().unwrap();
    let is_wanted = set.as_ref().is_some_and(|trap| (trap.wanted)(write));
    is_wanted
        .then(|| set.take())
        .flatten()
        .map(|trap| trap.sprung)
}

fn write(parts: &http::request::Parts, path: String, body: &Bytes) -> Write {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    let document = object["data"]["document"].as_str().unwrap_or_default();
    let document = STANDARD.decode(document).unwrap_or_default();
    let role = object["metadata"]["labels"]["postern.dev/role"].as_str();
    Write {
        method: parts.method.clone(),
        role: role.unwrap_or_default().to_owned(),
        document: serde_json::from_slice(&document).unwrap_or_default(),
        path,
    }
}

/// Passes a body on, each piece of it late if so wished and none before another.
fn relay(mut body: Incoming, is_late: bool) -> Body {
    let (mut pieces, relayed) = channel();
    let (late, mut due) = mpsc::channel::<(Instant, Bytes)>(EVENTS);
    // Both end with whoever reads, or with the API server.
    tokio::spawn(async move {
        let mut delays = DELAYS.iter().cycle();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let delay = match is_late {
                true => delays.next().copied().unwrap_or_default(),
                false => 0,
            };
            let at = Instant::now() + Duration::from_millis(delay);
            if late.send((at, data)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, data)) = due.recv().await {
            sleep_until(at).await;
            if pieces.send_data(data).await.is_err() {
                return;
            }
        }
    });
    relayed
}
