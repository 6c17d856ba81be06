//! Health checks: the control plane asks each endpoint, the workers see the result.
//!
//! Each endpoint of an upstream with a check has a task of its own on the control runtime, which
//! ends when the upstream is gone from the snapshot. A check opens its own connection, so that it
//! shows what a new client would find.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::header;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use postern_core::balance;
use postern_core::config::upstream::HealthCheckSpec;
use postern_core::config::upstream::UpstreamProtocol;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use super::Addresses;
use super::ConnectError;
use super::Upstream;
use super::connect::dial;
use super::endpoint;
use super::endpoint::Endpoint;
use crate::snapshot::Snapshot;

/// What endpoints are told who asks.
const USER_AGENT: HeaderValue = HeaderValue::from_static("postern-health-check");

/// The checks of one snapshot.
#[derive(Default)]
pub(crate) struct Probes {
    running: Vec<(Arc<Upstream>, JoinSet<()>)>,
}

impl Probes {
    /// Begins checks of new upstreams, ends those of upstreams that are gone, and leaves the others
    /// alone. Needs the control runtime: without one nothing is checked.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        // Dropping a set ends its tasks.
        self.running.retain(|(upstream, _)| {
            let mut upstreams = snapshot.upstreams.iter();
            upstreams.any(|other| Arc::ptr_eq(other, upstream))
        });
        for upstream in &snapshot.upstreams {
            let mut running = self.running.iter();
            if upstream.spec.health_check.is_none()
                || running.any(|(other, _)| Arc::ptr_eq(other, upstream))
            {
                continue;
            }
            let mut tasks = JoinSet::new();
            for endpoint in &upstream.endpoints {
                let checking = check_for_ever(Arc::clone(upstream), Arc::clone(endpoint));
                let _: AbortHandle = tasks.spawn_on(checking, &runtime);
            }
            self.running.push((Arc::clone(upstream), tasks));
        }
    }
}

async fn check_for_ever(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>) {
    let Some(check) = &upstream.spec.health_check else {
        return;
    };
    let name = endpoint.spec.to_string();
    let mut tally = Tally::after(endpoint.last_found());
    for round in 0_u64.. {
        let asked = ask(&upstream, &endpoint, check);
        let failure = match tokio::time::timeout(check.timeout, asked).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure::TimedOut),
        };
        if let Some(is_up) = tally.count(failure.is_none(), check)
            && endpoint.found(is_up, upstream.spec.slow_start)
        {
            match &failure {
                Some(failure) => {
                    let error = failure as &dyn std::error::Error;
                    tracing::warn!(upstream = %upstream.name, endpoint = name, error, "endpoint is down");
                }
                None => {
                    tracing::info!(upstream = %upstream.name, endpoint = name, "endpoint is up")
                }
            }
        }
        tokio::time::sleep(spread(check.interval, &name, round)).await;
    }
}

/// The interval, give or take a tenth: checks of many gateways do not fall together.
fn spread(interval: Duration, name: &str, round: u64) -> Duration {
    let chance = balance::mix(balance::hash(name.as_bytes()) ^ round ^ endpoint::now());
    interval.mul_f64(0.9 + 0.2 * (chance % 1000) as f64 / 1000.0)
}

/// Answers in a row.
#[derive(Debug)]
struct Tally {
    /// The last answer, and how many in a row were like it.
    run: Option<(bool, u32)>,
}

impl Tally {
    /// `found` is what an endpoint is known for: checks begin anew with each change of its upstream,
    /// and one bad answer must not undo what it takes several to find.
    fn after(found: Option<bool>) -> Self {
        Self {
            run: found.map(|is_up| (is_up, u32::MAX)),
        }
    }

    /// What the answers amount to, if they amount to something. The very first counts at once:
    /// nothing else is known.
    fn count(&mut self, is_good: bool, check: &HealthCheckSpec) -> Option<bool> {
        let run = match self.run {
            None => u32::MAX,
            Some((last, run)) if last == is_good => run.saturating_add(1),
            Some(_) => 1,
        };
        self.run = Some((is_good, run));
        let needed = if is_good {
            check.healthy
        } else {
            check.unhealthy
        };
        (run >= needed).then_some(is_good)
    }
}

/// Why an endpoint counts as bad.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    TimedOut,
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no valid response")]
    Exchange(#[source] hyper::Error),
    #[error("status {0}")]
    Status(u16),
}

async fn ask(
    upstream: &Upstream,
    endpoint: &Endpoint,
    check: &HealthCheckSpec,
) -> Result<(), Failure> {
    // The gateway asks for itself.
    let itself = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let addresses = Addresses {
        client: itself,
        listener: itself,
    };
    let stream = dial(upstream, &endpoint.spec, addresses).await;
    let stream = stream.map_err(|error| match error {
        ConnectError::Failed(error) | ConnectError::Tls(error) => Failure::Connect(error),
        ConnectError::TimedOut => Failure::TimedOut,
    })?;
    let Some(path) = &check.path else {
        return Ok(());
    };
    let host = check.host.as_ref().or(upstream.spec.host.as_ref());
    let host = host.map_or_else(
        || endpoint.spec.to_string(),
        |host| String::from_utf8_lossy(host.as_bytes()).into_owned(),
    );
    let stream = TokioIo::new(stream);
    // The connection's task ends with this check.
    let mut driving = JoinSet::new();
    let request = Request::get(path.as_str()).header(header::USER_AGENT, USER_AGENT);
    let response = match upstream.spec.protocol {
        UpstreamProtocol::Http1 => {
            let request = request.header(header::HOST, host);
            let Ok(request) = request.body(Empty::<Bytes>::new()) else {
                return Ok(());
            };
            let (mut sender, connection) =
                http1::handshake(stream).await.map_err(Failure::Exchange)?;
            driving.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        }
        UpstreamProtocol::Http2 => {
            let scheme = if upstream.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let request = request.uri(format!("{scheme}://{host}{path}"));
            let Ok(request) = request.body(Empty::<Bytes>::new()) else {
                return Ok(());
            };
            let builder = http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) =
                builder.handshake(stream).await.map_err(Failure::Exchange)?;
            driving.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        }
    };
    let status = response.map_err(Failure::Exchange)?.status().as_u16();
    if check.status.contains(&status) {
        Ok(())
    } else {
        Err(Failure::Status(status))
    }
}

#[cfg(test)]
mod tests {
    use postern_core::config::upstream::EndpointSpec;

    use super::*;

    #[test]
    fn answers_in_a_row_decide_and_the_first_alone() {
        let check = HealthCheckSpec {
            healthy: 2,
            unhealthy: 3,
            ..HealthCheckSpec::default()
        };
        // (answer, what it amounts to)
        let answers = [
            (false, Some(false)),
            (true, None),
            (true, Some(true)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(false)),
        ];
        let mut tally = Tally::after(None);
        for (index, (answer, want)) in answers.into_iter().enumerate() {
            assert_eq!(tally.count(answer, &check), want, "{index}");
        }
    }

    #[test]
    fn what_is_known_of_an_endpoint_is_not_undone_by_the_first_answer() {
        let check = HealthCheckSpec {
            healthy: 2,
            unhealthy: 3,
            ..HealthCheckSpec::default()
        };
        let endpoint = Endpoint::new(EndpointSpec {
            host: "a.test".to_owned(),
            port: 80,
        });
        assert_eq!(endpoint.last_found(), None);
        for (is_up, needed) in [(true, check.unhealthy), (false, check.healthy)] {
            endpoint.found(is_up, Duration::ZERO);
            let mut tally = Tally::after(endpoint.last_found());
            for _ in 1..needed {
                assert_eq!(tally.count(!is_up, &check), None, "{is_up}");
            }
            assert_eq!(tally.count(!is_up, &check), Some(!is_up));
        }
    }

    #[test]
    fn checks_are_spread_around_their_interval() {
        let interval = Duration::from_secs(10);
        for round in 0..100 {
            let next = spread(interval, "a", round);
            assert!((9_000..11_001).contains(&next.as_millis()), "{next:?}");
        }
    }
}
