//! Every metric of the data plane: its name, its labels, its help text.
//!
//! Each worker counts for itself, without locks and without shared cache lines; reading sums up.
//! Labels are names of configured things and stable reasons, never anything a client sent; what
//! plugins count themselves is bounded by the plugin host.

mod plugins;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use postern_core::name::RouteName;

use crate::guard::Abuse;
use crate::guard::AbuseLog;
use crate::snapshot::Snapshot;
use crate::upstream::endpoint::Endpoint;

/// A counter with one writer, its worker, and any number of readers.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Not a read-modify-write: nobody else writes, so nothing can be lost between the two.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency histogram, in microseconds, about a factor of 2.5 apart.
const BUCKETS: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// What one worker counts for one route.
#[derive(Default)]
pub(crate) struct RouteStats {
    /// By the first digit of the status; 0 for requests that got no answer.
    by_class: [Counter; 6],
    buckets: [Counter; BUCKETS.len() + 1],
    microseconds: Counter,
    request_bytes: Counter,
    response_bytes: Counter,
}

impl RouteStats {
    pub(crate) fn record(
        &self,
        status: Option<StatusCode>,
        took: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        self.by_class[class].add(1);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS.partition_point(|&bound| bound < took)].add(1);
        self.microseconds.add(took);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }
}

/// What one worker counts besides.
#[derive(Default)]
pub(crate) struct WorkerStats {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) tunnels: Counter,
    pub(crate) panics: Counter,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) passed_through: Counter,
    pub(crate) mirrors_sent: Counter,
    pub(crate) mirrors_dropped: Counter,
    /// Requests that were not proxied as asked, by reason. Locked by its worker and by readers,
    /// and only off the common path.
    errors: Mutex<BTreeMap<&'static str, u64>>,
    /// HTTP/2 connections ended because of what their client did, by what it did.
    abuses: Mutex<BTreeMap<&'static str, u64>>,
    abuse_log: AbuseLog,
}

impl WorkerStats {
    pub(crate) fn abuse(&self, abuse: Abuse, peer: SocketAddr) {
        let mut abuses = self.abuses.lock().unwrap_or_else(PoisonError::into_inner);
        *abuses.entry(abuse.reason()).or_default() += 1;
        drop(abuses);
        self.abuse_log.note(abuse, peer);
    }

    pub(crate) fn error(&self, reason: &'static str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(reason).or_default() += 1;
    }
}

/// Routes that are gone and still shown: a counter that vanishes and comes back at zero looks like
/// a restart. Of more, those that went first are let go.
const MAX_GONE_ROUTES: usize = 100;

/// Everything that is counted.
pub(crate) struct Metrics {
    workers: Vec<Arc<WorkerStats>>,
    /// Access log lines that could not be written. The log's thread counts.
    pub(crate) log_lines_lost: Arc<Counter>,
    routes: Mutex<HashMap<RouteName, CountedRoute>>,
}

/// What is counted for one route.
struct CountedRoute {
    by_worker: Vec<Arc<RouteStats>>,
    /// The first generation without it, if it is gone.
    gone_since: Option<u64>,
}

impl CountedRoute {
    /// Whether a worker still counts here, or a request that it serves.
    fn is_in_use(&self) -> bool {
        self.by_worker
            .iter()
            .any(|stats| Arc::strong_count(stats) > 1)
    }
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            log_lines_lost: Arc::default(),
            routes: Mutex::default(),
        }
    }

    pub(crate) fn worker(&self, worker: usize) -> Arc<WorkerStats> {
        Arc::clone(&self.workers[worker])
    }

    /// Called when a worker takes up a snapshot, not by requests.
    pub(crate) fn route(&self, worker: usize, name: &RouteName) -> Arc<RouteStats> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(name.clone()).or_insert_with(|| CountedRoute {
            by_worker: self.workers.iter().map(|_| Arc::default()).collect(),
            gone_since: None,
        });
        Arc::clone(&route.by_worker[worker])
    }

    /// Called with each generation and the routes that it has.
    pub(crate) fn follow<'r>(
        &self,
        generation: u64,
        names: impl IntoIterator<Item = &'r RouteName>,
    ) {
        let names: HashSet<&RouteName> = names.into_iter().collect();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, route) in &mut *routes {
            route.gone_since = match names.contains(name) {
                true => None,
                false => route.gone_since.or(Some(generation)),
            };
        }
        let gone = routes.iter();
        let mut gone: Vec<(u64, RouteName)> = gone
            .filter_map(|(name, route)| Some((route.gone_since?, name.clone())))
            .collect();
        let excess = gone.len().saturating_sub(MAX_GONE_ROUTES);
        gone.sort_unstable();
        for (_, name) in &gone[..excess] {
            // A worker that has not seen this generation may skip it, and count on for the route
            // in one that has it again.
            if !routes.get(name).is_some_and(CountedRoute::is_in_use) {
                routes.remove(name);
            }
        }
    }

    /// In the text format of Prometheus.
    pub(crate) fn render(&self, snapshot: &Snapshot, memory_percent: u8) -> String {
        let mut out = Page(String::with_capacity(16 << 10));
        let sum = |field: fn(&WorkerStats) -> &Counter| -> u64 {
            self.workers.iter().map(|stats| field(stats).value()).sum()
        };
        out.counter(
            "postern_connections_accepted_total",
            "Connections accepted.",
            sum(|s| &s.connections_accepted),
        );
        out.counter(
            "postern_connections_refused_total",
            "Connections closed because their listener, the process or its memory was full.",
            sum(|s| &s.connections_refused),
        );
        out.counter(
            "postern_accept_errors_total",
            "Failed attempts to accept a connection.",
            sum(|s| &s.accept_errors),
        );
        out.counter(
            "postern_handshakes_failed_total",
            "Connections that ended before their first request: TLS handshake or first byte.",
            sum(|s| &s.handshakes_failed),
        );
        out.counter(
            "postern_tunnels_total",
            "Connections that became WebSocket tunnels.",
            sum(|s| &s.tunnels),
        );
        out.counter(
            "postern_passed_through_total",
            "TLS connections passed on by their server name.",
            sum(|s| &s.passed_through),
        );
        out.counter(
            "postern_mirrors_sent_total",
            "Copies of requests that were answered.",
            sum(|s| &s.mirrors_sent),
        );
        out.counter(
            "postern_mirrors_dropped_total",
            "Copies of requests that were not sent, or not answered in time.",
            sum(|s| &s.mirrors_dropped),
        );
        out.counter(
            "postern_panics_total",
            "Connections ended by a panic.",
            sum(|s| &s.panics),
        );
        out.counter(
            "postern_access_log_dropped_total",
            "Access log lines lost: the log could not keep up, or could not be written.",
            sum(|s| &s.log_lines_dropped) + self.log_lines_lost.value(),
        );
        out.head(
            "postern_memory_percent",
            "gauge",
            "Memory in use, of what the control group allows; 0 without a limit.",
        );
        out.line("postern_memory_percent", &[], memory_percent);
        self.render_errors(&mut out);
        self.render_abuses(&mut out);
        render_listeners(&mut out, snapshot);
        self.render_routes(&mut out);
        render_upstreams(&mut out, snapshot);
        render_certificates(&mut out, snapshot);
        plugins::render(&mut out, snapshot);
        out.0
    }

    fn render_errors(&self, out: &mut Page) {
        let mut errors: BTreeMap<&'static str, u64> = BTreeMap::new();
        for stats in &self.workers {
            let counts = stats.errors.lock().unwrap_or_else(PoisonError::into_inner);
            for (reason, count) in counts.iter() {
                *errors.entry(reason).or_default() += count;
            }
        }
        out.head(
            "postern_request_errors_total",
            "counter",
            "Requests that were refused or failed, by reason.",
        );
        for (reason, count) in errors {
            out.line("postern_request_errors_total", &[("reason", reason)], count);
        }
    }

    fn render_abuses(&self, out: &mut Page) {
        const ABUSES: &str = "postern_http2_abuse_total";
        let mut abuses: BTreeMap<&'static str, u64> = BTreeMap::new();
        for stats in &self.workers {
            let counts = stats.abuses.lock().unwrap_or_else(PoisonError::into_inner);
            for (kind, count) in counts.iter() {
                *abuses.entry(kind).or_default() += count;
            }
        }
        out.head(
            ABUSES,
            "counter",
            "HTTP/2 connections ended because of what their client sent, by kind.",
        );
        for (kind, count) in abuses {
            out.line(ABUSES, &[("kind", kind)], count);
        }
    }

    fn render_routes(&self, out: &mut Page) {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes: Vec<_> = routes
            .iter()
            .map(|(name, route)| (name, route.by_worker.as_slice()))
            .collect();
        routes.sort_unstable_by_key(|(name, _)| *name);
        let sum = |stats: &[Arc<RouteStats>], field: &dyn Fn(&RouteStats) -> u64| -> u64 {
            stats.iter().map(|stats| field(stats)).sum()
        };
        const REQUESTS: &str = "postern_requests_total";
        out.head(
            REQUESTS,
            "counter",
            "Requests by route and class of status; class 0 got no answer.",
        );
        for (name, stats) in &routes {
            for class in 0..6_usize {
                let count = sum(stats, &|s| s.by_class[class].value());
                if count > 0 {
                    let label = ["0", "1xx", "2xx", "3xx", "4xx", "5xx"][class];
                    out.line(
                        REQUESTS,
                        &[("route", name.as_str()), ("class", label)],
                        count,
                    );
                }
            }
        }
        const SECONDS: &str = "postern_request_duration_seconds";
        out.head(
            SECONDS,
            "histogram",
            "From the request's head to the end of its response.",
        );
        for (name, stats) in &routes {
            let mut total = 0;
            for index in 0..=BUCKETS.len() {
                total += sum(stats, &|s| s.buckets[index].value());
                let bound = BUCKETS.get(index);
                let bound =
                    bound.map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
                let labels = [("route", name.as_str()), ("le", bound.as_str())];
                out.line("postern_request_duration_seconds_bucket", &labels, total);
            }
            let seconds = sum(stats, &|s| s.microseconds.value()) as f64 / 1e6;
            let labels = [("route", name.as_str())];
            out.line("postern_request_duration_seconds_sum", &labels, seconds);
            out.line("postern_request_duration_seconds_count", &labels, total);
        }
        out.head(
            "postern_request_bytes_total",
            "counter",
            "Bytes of request bodies.",
        );
        for (name, stats) in &routes {
            let bytes = sum(stats, &|s| s.request_bytes.value());
            out.line(
                "postern_request_bytes_total",
                &[("route", name.as_str())],
                bytes,
            );
        }
        out.head(
            "postern_response_bytes_total",
            "counter",
            "Bytes of response bodies.",
        );
        for (name, stats) in &routes {
            let bytes = sum(stats, &|s| s.response_bytes.value());
            out.line(
                "postern_response_bytes_total",
                &[("route", name.as_str())],
                bytes,
            );
        }
    }
}

fn render_listeners(out: &mut Page, snapshot: &Snapshot) {
    out.head(
        "postern_connections_open",
        "gauge",
        "Open connections by listener.",
    );
    for listener in &snapshot.listeners {
        let open = listener.socket.connections.load(Ordering::Relaxed);
        let labels = [("listener", listener.name.as_str())];
        out.line("postern_connections_open", &labels, open);
    }
}

fn render_upstreams(out: &mut Page, snapshot: &Snapshot) {
    type Figure = fn(&Endpoint) -> u64;
    let figures: [(&str, &str, &str, Figure); 4] = [
        (
            "postern_upstream_requests_in_flight",
            "gauge",
            "Requests in flight by endpoint.",
            |endpoint| endpoint.in_flight.load(Ordering::Relaxed).into(),
        ),
        (
            "postern_upstream_connections_open",
            "gauge",
            "Open connections by endpoint.",
            |endpoint| endpoint.connections.load(Ordering::Relaxed).into(),
        ),
        (
            "postern_upstream_endpoint_up",
            "gauge",
            "Whether an endpoint is neither down by its health check nor ejected.",
            |endpoint| u64::from(endpoint.label() == "up"),
        ),
        (
            "postern_upstream_ejections_total",
            "counter",
            "How often an endpoint was left alone because it failed requests in a row.",
            |endpoint| endpoint.ejections_total.load(Ordering::Relaxed),
        ),
    ];
    for (metric, kind, help, figure) in figures {
        out.head(metric, kind, help);
        for upstream in &snapshot.upstreams {
            for endpoint in &upstream.endpoints {
                let name = endpoint.spec.to_string();
                let labels = [
                    ("upstream", upstream.name.as_str()),
                    ("endpoint", name.as_str()),
                ];
                out.line(metric, &labels, figure(endpoint));
            }
        }
    }
    const RETRIES: &str = "postern_upstream_retries_total";
    out.head(RETRIES, "counter", "Attempts after the first one.");
    for upstream in &snapshot.upstreams {
        let retries = upstream.retries_total.load(Ordering::Relaxed);
        out.line(RETRIES, &[("upstream", upstream.name.as_str())], retries);
    }
    const PENDING: &str = "postern_upstream_pending";
    out.head(PENDING, "gauge", "Requests that wait for a connection.");
    for upstream in &snapshot.upstreams {
        let pending = upstream.pending.load(Ordering::Relaxed);
        out.line(PENDING, &[("upstream", upstream.name.as_str())], pending);
    }
}

fn render_certificates(out: &mut Page, snapshot: &Snapshot) {
    out.head(
        "postern_certificate_not_after_seconds",
        "gauge",
        "Unix time at which a certificate expires.",
    );
    for (name, not_after) in snapshot.certificate_expiries() {
        let labels = [("certificate", name)];
        out.line("postern_certificate_not_after_seconds", &labels, not_after);
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Label values are configured names and constants: nothing in them needs escaping.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_are_gone_are_shown_up_to_a_bound() {
        let names: Vec<RouteName> = (0..MAX_GONE_ROUTES + 3)
            .map(|n| RouteName::parse(&format!("preview-{n}")).unwrap())
            .collect();
        let metrics = Metrics::new(2);
        let shown = || {
            let routes = metrics.routes.lock().unwrap();
            names
                .iter()
                .filter(|name| routes.contains_key(name))
                .count()
        };
        let mut held = Vec::new();
        for (generation, name) in (1..).zip(&names) {
            metrics.follow(generation, [name]);
            let stats = metrics.route(0, name);
            metrics.route(1, name);
            if generation == 1 {
                held.push(stats);
            }
        }
        // One is there, and the first one of those that are gone is in use.
        assert_eq!(shown(), MAX_GONE_ROUTES + 2);
        assert!(metrics.routes.lock().unwrap().contains_key(&names[0]));
        held.clear();
        metrics.follow(1000, [&names[1]]);
        assert_eq!(shown(), MAX_GONE_ROUTES);
    }
}
