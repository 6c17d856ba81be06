//! The admin listener: what probes, Prometheus and people ask a running gateway.
//!
//! It only tells; there is nothing to change here. Its own guards, since it has no password:
//! - a browser that was lured to a foreign name which resolves to this machine (DNS rebinding) says
//!   so in `Host` or `Origin`, and is refused;
//! - connections, their time and their heads are bounded.
//!
//! | path | answers |
//! |---|---|
//! | `/live` | 200 as long as the process answers |
//! | `/ready` | 200 while requests are served, else 503 with the reason |
//! | `/metrics` | the text format of Prometheus |
//! | `/config` | the running configuration, its problems and the health of endpoints, without secrets |
//! | `/certs` | how each certificate does: served from where, until when, what next, and why not |
//! | `/explain?method=&url=&header=&listener=` | what would happen to a request; `format=text` for people |

pub mod client;
mod query;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use postern_acme::clock::Clock;
use postern_acme::engine::State;
use postern_core::hostname::Authority;
use postern_kube::source::Report;
use postern_proxy::Gateway;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::certificates;
use crate::cluster::ClusterStatus;
use crate::cluster::missing;
use crate::control::Status;
use crate::explain::Question;
use crate::explain::json;
use crate::view;
use crate::view::Secrets;

pub use query::encode;

/// Open connections; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// From accept to the end of the request head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A whole connection: a scraper opens another.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Largest request head in bytes. An explained URL and its header fields have to fit.
const HEAD_BYTES: usize = 32 << 10;
/// Most problems of objects that are shown at once.
const MAX_OBJECT_PROBLEMS: usize = 1000;
/// After an accept that failed, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Whether requests are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readiness {
    Starting,
    Ready,
    Draining,
}

/// Everything that the admin listener can tell about.
pub struct Panel {
    readiness: watch::Receiver<Readiness>,
    /// How the cluster is followed, as soon as it is.
    cluster: OnceLock<watch::Receiver<Arc<Report>>>,
    running: OnceLock<Running>,
}

struct Running {
    gateway: Arc<Gateway>,
    status: watch::Receiver<Arc<Status>>,
    /// Of certificates that the gateway gets for itself, if it does.
    certificates: Option<watch::Receiver<Arc<State>>>,
}

impl Panel {
    pub fn new(readiness: watch::Receiver<Readiness>) -> Self {
        Self {
            readiness,
            cluster: OnceLock::new(),
            running: OnceLock::new(),
        }
    }

    /// Tells what is missing of this cluster while nothing runs yet. Only the first call counts.
    pub fn wait_for(&self, cluster: watch::Receiver<Arc<Report>>) {
        let _ = self.cluster.set(cluster);
    }

    /// Tells about this gateway from now on. Only the first call counts.
    pub fn attach(
        &self,
        gateway: Arc<Gateway>,
        status: watch::Receiver<Arc<Status>>,
        certificates: Option<watch::Receiver<Arc<State>>>,
    ) {
        let _ = self.running.set(Running {
            gateway,
            status,
            certificates,
        });
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, panel: Arc<Panel>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let panel = Arc::clone(&panel);
                // Ends by itself, within CONNECTION_TIME.
                tokio::spawn(async move {
                    let connection = connection(stream, panel);
                    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "admin connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, panel: Arc<Panel>) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&panel, local.ip(), &request.into_parts().0);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "admin connection failed");
    }
}

fn answer(panel: &Panel, local: IpAddr, request: &http::request::Parts) -> Response<Full<Bytes>> {
    if !is_for_us(&request.headers, local) {
        let message = "this listener is asked as localhost or by its address\n";
        return text(StatusCode::FORBIDDEN, message);
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return response;
    }
    match request.uri.path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => ready(panel),
        "/metrics" => with_running(panel, metrics),
        "/config" => with_running(panel, config),
        "/certs" => with_running(panel, certs),
        "/explain" => {
            let query = request.uri.query().unwrap_or_default();
            with_running(panel, |running| explain(running, query))
        }
        "/" => text(
            StatusCode::OK,
            "/live /ready /metrics /config /certs /explain\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
}

/// Whether the request was meant for this listener by whoever made it.
fn is_for_us(headers: &HeaderMap, local: IpAddr) -> bool {
    let is_ours = |value: &HeaderValue| {
        let Ok(authority) = Authority::parse(value) else {
            return false;
        };
        let host = authority.host();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = |addr: IpAddr| {
            addr.to_canonical() == local.to_canonical() || addr.is_loopback() && local.is_loopback()
        };
        host == "localhost" || literal.parse().is_ok_and(is_local)
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let origin = headers.get(header::ORIGIN).map(|origin| {
        // `null`, and what else is no URL, is foreign.
        let text = origin.to_str().unwrap_or_default();
        let authority = text
            .split_once("://")
            .map_or("", |(_, authority)| authority);
        HeaderValue::from_str(authority).is_ok_and(|value| is_ours(&value))
    });
    is_ours(host) && origin.unwrap_or(true)
}

fn ready(panel: &Panel) -> Response<Full<Bytes>> {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match *panel.readiness.borrow() {
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::Starting => {
            let missing = panel
                .cluster
                .get()
                .and_then(|cluster| missing(&cluster.borrow()));
            let compiling = "the first configuration is being compiled\n";
            text(unavailable, missing.as_deref().unwrap_or(compiling))
        }
        Readiness::Draining => text(unavailable, "the gateway is ending\n"),
    }
}

fn with_running(
    panel: &Panel,
    answer: impl FnOnce(&Running) -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    match panel.running.get() {
        Some(running) => answer(running),
        None => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the first configuration is being compiled\n",
        ),
    }
}

fn metrics(running: &Running) -> Response<Full<Bytes>> {
    let mut body = running.gateway.metrics();
    body.push_str(&running.status.borrow().metrics());
    if let Some(state) = &running.certificates {
        body.push_str(&certificates::view::metrics(
            &state.borrow(),
            Clock::system().now(),
        ));
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    response(StatusCode::OK, kind, body)
}

fn config(running: &Running) -> Response<Full<Bytes>> {
    let snapshot = running.gateway.published().load();
    let status = Arc::clone(&running.status.borrow());
    let listeners = running.gateway.listener_addrs().into_iter();
    let listeners = listeners.map(|(name, addr)| (name.to_string(), json!(addr.to_string())));
    let health = running.gateway.health().into_iter().map(|known| {
        json!({
            "upstream": known.upstream.as_str(),
            "endpoint": known.endpoint,
            "state": known.state,
            "requests": known.in_flight,
            "connections": known.connections,
        })
    });
    let value = json!({
        "generation": snapshot.generation,
        "problems": status.problems.iter().map(view::problem).collect::<Vec<_>>(),
        "objects": status.cluster.as_ref().map(objects),
        "listening": serde_json::Value::Object(listeners.collect()),
        "health": health.collect::<Vec<_>>(),
        "config": view::config(&snapshot.config, Secrets::Hidden),
    });
    response(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// How every certificate does.
fn certs(running: &Running) -> Response<Full<Bytes>> {
    let snapshot = running.gateway.published().load();
    let state = running.certificates.as_ref();
    let state = state.map_or_else(Arc::default, |state| Arc::clone(&state.borrow()));
    let now = Clock::system().now();
    let views = certificates::view::all(snapshot.certificates(), &snapshot.config, &state, now);
    let value = json!({ "certificates": views });
    response(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// What is wrong with objects of the cluster, and with how it is watched.
fn objects(cluster: &ClusterStatus) -> serde_json::Value {
    let problems = cluster
        .problems
        .iter()
        .take(MAX_OBJECT_PROBLEMS)
        .map(|problem| {
            json!({
                "severity": if problem.is_error() { "error" } else { "warning" },
                "kind": problem.object.kind.as_str(),
                "namespace": &*problem.object.name.namespace,
                "name": &*problem.object.name.name,
                "field": problem.field,
                "reason": problem.reason.as_str(),
                "message": problem.message,
                "help": problem.help,
            })
        });
    let failures = cluster.report.failures.iter();
    let failures =
        failures.map(|(target, failure)| json!({ "watch": target, "error": failure.to_string() }));
    json!({
        "served": cluster.is_served,
        "problems": problems.collect::<Vec<_>>(),
        "watches": failures.collect::<Vec<_>>(),
    })
}

fn explain(running: &Running, query: &str) -> Response<Full<Bytes>> {
    let pairs = query::parse(query);
    let one = |name: &str| {
        let mut values = pairs.iter().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str())
    };
    let headers = pairs.iter().filter(|(key, _)| key == "header");
    let Some(url) = one("url") else {
        return text(StatusCode::BAD_REQUEST, "write /explain?url=...\n");
    };
    let question = Question::parse(
        one("method").unwrap_or("GET"),
        url,
        headers.map(|(_, value)| value.as_str()),
        one("listener").map(str::to_owned),
    );
    let snapshot = running.gateway.published().load();
    let status = Arc::clone(&running.status.borrow());
    let explanation = question
        .and_then(|question| question.ask(&snapshot.config, &snapshot.routes, &status.origins))
        .map(|mut explanation| {
            explanation.add_health(&running.gateway.health());
            explanation
        });
    match explanation {
        Ok(explanation) if one("format") == Some("text") => {
            text(StatusCode::OK, &explanation.to_string())
        }
        Ok(explanation) => {
            let value = json::render(&explanation);
            response(StatusCode::OK, "application/json", format!("{value:#}\n"))
        }
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body.to_owned())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What a question quotes must not be taken for a page.
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests;
