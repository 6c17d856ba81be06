//! Which requests are sent once more, and which never.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use http::StatusCode;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use postern_tests::client::Client;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::full;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::nobody;
use crate::support::plain;
use crate::support::several;
use crate::support::upstream_table;

fn retries(gateway: &Running) -> u64 {
    let metrics = gateway.metrics();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("postern_upstream_retries_total{upstream=\"app\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    let app = Upstream::echo("app").await;
    let config = several(&[nobody().await, app.addr], "ejection.failures = 0");
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for method in ["GET", "POST", "PATCH", "PUT", "DELETE"] {
        for _ in 0..2 {
            let mut request = client.request(method, "a.test", "/");
            *request.body_mut() = full("body");
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.header("x-upstream"), "app", "{method}");
            assert!(reply.text().ends_with("\n\nbody"), "{}", reply.text());
        }
    }
    assert_eq!(retries(&gateway), 5);
    let lines = gateway.finish().await;
    assert!(
        lines
            .iter()
            .all(|line| line["endpoint"] == app.addr.to_string()),
        "{lines:?}"
    );
}

/// Answers the first request of each connection, reads the second one whole, and closes.
/// Remembers every request with its body.
async fn fickle() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let shared = Arc::clone(&seen);
    let upstream = Upstream::accept(move |stream| fickle_connection(stream, Arc::clone(&shared)));
    (upstream.await, seen)
}

async fn fickle_connection(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    for turn in 0..2 {
        let mut bytes = Vec::new();
        let request = loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let method = head.split(' ').next().unwrap_or_default();
                break format!("{method} {}", body.len());
            }
        };
        seen.lock().unwrap().push(request);
        if turn == 0 {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_closes_under_a_request_costs_no_repeatable_one() {
    let (app, seen) = fickle().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for _ in 0..4 {
            let mut request = client.request(method, "a.test", "/");
            if method == "PUT" {
                *request.body_mut() = full("x".repeat(60_000));
            }
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.status, 200, "{method}");
        }
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 20, "some were closed: {seen:?}");
    let puts: Vec<_> = seen
        .iter()
        .filter(|request| request.starts_with("PUT"))
        .collect();
    assert!(
        puts.iter().all(|put| *put == "PUT 60000"),
        "each whole: {puts:?}"
    );
}

#[tokio::test]
async fn time_that_a_policy_takes_is_not_taken_from_another_attempt() {
    let (app, _) = fickle().await;
    // Longer than an answer may take.
    let auth = Upstream::http1(|_| async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Response::new(full(""))
    })
    .await;
    let policy = "policies.ask = { kind = \"forward-auth\", upstream = \"auth\", path = \"/\" }";
    let config = plain(app.addr)
        .replace("[listeners.http]", &format!("{policy}\n[listeners.http]"))
        .replace(
            "upstream = \"app\" }",
            "upstream = \"app\", policies = [\"ask\"] }",
        )
        .replace(
            "[[routes]]",
            &format!(
                "timeouts.first-byte = \"500ms\"\n{}[[routes]]",
                upstream_table("auth", auth.addr)
            ),
        );
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for turn in 0..3 {
        let reply = client.get("a.test", "/").await;
        assert_eq!(reply.status, 200, "{turn}");
    }
}

#[tokio::test]
async fn what_an_endpoint_may_have_acted_on_is_never_sent_twice() {
    let (app, seen) = fickle().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let large = 100_000;
    for (method, length) in [("POST", 0), ("PATCH", 4), ("POST", 4), ("PUT", large)] {
        seen.lock().unwrap().clear();
        // Leaves a connection that will close under the next request.
        while client.get("a.test", "/").await.status != 200 {}
        let before = seen.lock().unwrap().len();
        assert!(before > 0);
        let mut request = client.request(method, "a.test", "/");
        *request.body_mut() = full("x".repeat(length));
        let status = client.send(request).await.unwrap().status;
        let wanted = format!("{method} {length}");
        let seen = seen.lock().unwrap().clone();
        let copies = seen.iter().filter(|request| **request == wanted).count();
        assert_eq!(copies, 1, "{wanted}: {seen:?}");
        // The connection was the first one's, or it was not: then it got its answer.
        assert!(status == 502 || status == 200, "{wanted}: {status}");
    }
    let lines = gateway.finish().await;
    let resets = lines
        .iter()
        .filter(|line| line["outcome"] == "upstream-reset");
    assert!(resets.count() > 0, "{lines:?}");
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let config = several(&[nobody().await, nobody().await], "ejection.failures = 0");
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let requests = 200;
    for _ in 0..requests {
        assert_eq!(client.get("a.test", "/").await.status, 502);
    }
    // A fifth of the requests, the reserve, and what has come back into it meanwhile.
    let retries = retries(&gateway);
    assert!((10..=requests / 5 + 10 + 3).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_slow_attempt_is_given_up_for_another_where_the_method_allows() {
    let silent = Upstream::silent().await;
    let app = Upstream::echo("app").await;
    let keys = "retries.per-try = \"100ms\"\ntimeouts.first-byte = \"400ms\"\n\
                ejection.failures = 0";
    let gateway = SetUp::new()
        .start(&several(&[silent.addr, app.addr], keys))
        .await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for _ in 0..4 {
        assert_eq!(client.get("a.test", "/").await.header("x-upstream"), "app");
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let request = client.request("POST", "a.test", "/");
        statuses.push(client.send(request).await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}

#[tokio::test]
async fn a_status_is_tried_elsewhere_if_that_is_configured() {
    let busy = Upstream::http1(|_| async {
        let mut response = Response::new(full("busy"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let app = Upstream::echo("app").await;
    let endpoints = [busy.addr, app.addr];
    let gateway = SetUp::new().start(&several(&endpoints, "")).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(client.get("a.test", "/").await.status.as_u16());
    }
    assert_eq!(statuses, [503, 200], "not unless it is configured");

    let config = several(&endpoints, "retries.on-status = [502, 503]");
    gateway.reload(&config).await.unwrap();
    for _ in 0..4 {
        assert_eq!(client.get("a.test", "/").await.status, 200);
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let request = client.request("POST", "a.test", "/");
        let reply = client.send(request).await.unwrap();
        statuses.push((reply.status.as_u16(), reply.text().starts_with("busy")));
    }
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [(200, false), (503, true)],
        "POST keeps its answer"
    );
}

/// Says goodbye after every so many streams.
async fn leaving(streams: usize) -> Upstream {
    Upstream::accept(move |stream| async move {
        let left = Arc::new(AtomicUsize::new(streams));
        let (enough, mut leave) = tokio::sync::mpsc::unbounded_channel();
        let service = service_fn(move |request| {
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                let _ = enough.send(());
            }
            async move { Ok::<_, std::convert::Infallible>(upstream::echo("app", request).await) }
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = leave.recv() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    })
    .await
}

#[tokio::test]
async fn an_http2_endpoint_that_leaves_costs_no_request() {
    let app = leaving(50).await;
    let config = plain(app.addr).replace("[[routes]]", "protocol = \"http2\"\n[[routes]]");
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            let mut client = Client::http1(addr).await;
            for turn in 0..125 {
                let method = if turn % 2 == 0 { "GET" } else { "POST" };
                let mut request = client.request(method, "a.test", "/");
                if method == "POST" {
                    *request.body_mut() = full("body");
                }
                let reply = client.send(request).await.unwrap();
                assert_eq!(
                    reply.header("x-upstream"),
                    "app",
                    "{method} {}",
                    reply.status
                );
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    // Streams that were on their way are served too, so it is a little less than one for 50.
    assert!(app.connections() >= 10, "{}", app.connections());
}
