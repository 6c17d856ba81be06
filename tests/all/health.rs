//! Endpoints that are down, that come back, and that are left alone for a while.

use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

use http::Response;
use http::StatusCode;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::full;

use crate::support::nobody;
use crate::support::several;
use crate::support::until;

fn is_up(gateway: &Running, endpoint: std::net::SocketAddr) -> bool {
    let up =
        format!("postern_upstream_endpoint_up{{upstream=\"app\",endpoint=\"{endpoint}\"}} 1\n");
    gateway.metrics().contains(&up)
}

/// Answers `/healthz` with a status that the test sets, and echoes everything else.
async fn checked(name: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shared = Arc::clone(&status);
    let upstream = Upstream::http1(move |request| {
        let status = shared.load(Ordering::SeqCst);
        async move {
            if request.uri().path() != "/healthz" {
                return upstream::echo(name, request).await;
            }
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    })
    .await;
    (upstream, status)
}

const CHECK: &str = "health-check = { path = \"/healthz\", interval = \"20ms\", healthy = 2, \
                     unhealthy = 2 }";

#[tokio::test]
async fn an_endpoint_that_fails_its_check_gets_no_request_until_it_passes() {
    let (sick, status) = checked("sick").await;
    let (well, _) = checked("well").await;
    let gateway = SetUp::new()
        .start(&several(&[sick.addr, well.addr], CHECK))
        .await;
    let mut client = Client::http1(gateway.addr("http")).await;
    status.store(500, Ordering::SeqCst);
    until("it is down", || !is_up(&gateway, sick.addr)).await;
    for _ in 0..6 {
        assert_eq!(client.get("a.test", "/").await.header("x-upstream"), "well");
    }
    // What is known of it outlives a change that does not concern it.
    let third = Upstream::echo("third").await;
    let more = several(&[sick.addr, well.addr, third.addr], CHECK);
    gateway.reload(&more).await.unwrap();
    assert!(!is_up(&gateway, sick.addr));
    assert_ne!(client.get("a.test", "/").await.header("x-upstream"), "sick");

    status.store(204, Ordering::SeqCst);
    until("it is back", || is_up(&gateway, sick.addr)).await;
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(
            client
                .get("a.test", "/")
                .await
                .header("x-upstream")
                .to_owned(),
        );
    }
    assert!(names.contains(&"sick".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_check_without_path_connects() {
    let gone = nobody().await;
    let app = Upstream::silent().await;
    let keys = "health-check.interval = \"20ms\"";
    let gateway = SetUp::new().start(&several(&[gone, app.addr], keys)).await;
    until("nobody is down", || !is_up(&gateway, gone)).await;
    until("it was asked", || app.connections() > 2).await;
    assert!(is_up(&gateway, app.addr));
}

#[tokio::test]
async fn checks_end_with_their_upstream() {
    let app = Upstream::silent().await;
    let keys = "health-check.interval = \"20ms\"";
    let gateway = SetUp::new().start(&several(&[app.addr], keys)).await;
    until("it was asked", || app.connections() > 2).await;
    gateway.reload(&several(&[app.addr], "")).await.unwrap();
    // At most one check was under way.
    let asked = app.connections() + 1;
    let other = Upstream::silent().await;
    let config = several(&[other.addr], keys);
    gateway.reload(&config).await.unwrap();
    until("the other was asked often", || other.connections() > 10).await;
    assert!(app.connections() <= asked, "{} {asked}", app.connections());
}

#[tokio::test]
async fn an_upstream_whose_endpoints_are_all_down_fails_as_it_is_told() {
    let (app, status) = checked("app").await;
    status.store(500, Ordering::SeqCst);
    let gateway = SetUp::new().start(&several(&[app.addr], CHECK)).await;
    until("it is down", || !is_up(&gateway, app.addr)).await;
    let addr = gateway.addr("http");
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200, "open");
    let closed = format!("{CHECK}\nfail-open = false");
    gateway
        .reload(&several(&[app.addr], &closed))
        .await
        .unwrap();
    assert_eq!(client::get(addr, "a.test", "/").await.status, 503, "closed");
    let lines = gateway.finish().await;
    assert_eq!(lines[1]["outcome"], "upstream-unavailable");
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_alone_and_comes_back() {
    let dying = nobody().await;
    let app = Upstream::echo("app").await;
    // Without retries, so that the client sees each failure.
    let keys = "retries.count = 0\nejection = { failures = 3, time = \"300ms\" }";
    let gateway = SetUp::new().start(&several(&[dying, app.addr], keys)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut errors = 0;
    for _ in 0..40 {
        errors += usize::from(client.get("a.test", "/").await.status != 200);
    }
    // Three, and perhaps a trial or two.
    assert!((3..=5).contains(&errors), "{errors}");
    let ejected = gateway.metrics();
    assert!(
        ejected.contains("postern_upstream_ejections_total"),
        "{ejected}"
    );

    let _back = Upstream::http1_at(dying, |request| upstream::echo("back", request))
        .await
        .unwrap();
    let mut names = Vec::new();
    let coming_back = async {
        loop {
            let reply = client.get("a.test", "/").await;
            names.push(reply.header("x-upstream").to_owned());
            if names.last().is_some_and(|name| name == "back") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let limit = std::time::Duration::from_secs(10);
    let came_back = tokio::time::timeout(limit, coming_back).await;
    assert!(came_back.is_ok(), "not within {limit:?}");
    // Back for good: every other request is its own.
    for _ in 0..2 {
        let mut pair = [
            client
                .get("a.test", "/")
                .await
                .header("x-upstream")
                .to_owned(),
            client
                .get("a.test", "/")
                .await
                .header("x-upstream")
                .to_owned(),
        ];
        pair.sort();
        assert_eq!(pair, ["app", "back"]);
    }
}
