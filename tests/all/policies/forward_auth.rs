//! Another service decides who may pass.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use postern_tests::client::Client;
use postern_tests::client::Reply;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use super::with_policies;
use crate::support::upstream_table;

fn config(app: &Upstream, auth: std::net::SocketAddr, settings: &str) -> String {
    let policy = format!(
        "policies.ask = {{ kind = \"forward-auth\", upstream = \"auth\", path = \"/verify\", upstream-headers = [\"x-user\"], {settings} }}\n{}",
        upstream_table("auth", auth)
    );
    // The table of the upstream has to come after every key of the file itself.
    let (policy, table) = policy.split_once('\n').unwrap();
    with_policies(app.addr, &format!("{policy}\n{table}"), r#"["ask"]"#)
}

async fn get(client: &mut Client, cookie: &str) -> Reply {
    let mut request = client.request("GET", "a.test", "/x?y=1");
    let headers = request.headers_mut();
    headers.insert("x-user", HeaderValue::from_static("root"));
    headers.insert("if-none-match", HeaderValue::from_static("\"e\""));
    headers.insert("cookie", cookie.parse().unwrap());
    client.send(request).await.unwrap()
}

/// Lets `ok` pass as ann, knows `bad`, fails for `broken`; counts what it is asked.
async fn service(asked: Arc<AtomicUsize>) -> Upstream {
    Upstream::http1(move |request| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_eq!(request.method(), "GET");
            assert_eq!(request.uri(), "/verify");
            let headers = request.headers();
            assert_eq!(headers["x-original-url"], "http://a.test/x?y=1");
            assert_eq!(headers["x-original-method"], "GET");
            assert!(!headers.contains_key("if-none-match"));
            let mut response = Response::new(upstream::full("the page"));
            let fields = response.headers_mut();
            fields.insert("x-user", HeaderValue::from_static("ann"));
            fields.insert("x-page", HeaderValue::from_static("1"));
            *response.status_mut() = match headers["cookie"].to_str().unwrap() {
                "ok" => StatusCode::OK,
                "new" => {
                    let cookie = HeaderValue::from_static("s=1");
                    response.headers_mut().insert("set-cookie", cookie);
                    StatusCode::OK
                }
                "unknown" => StatusCode::UNAUTHORIZED,
                "bad" => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            response
        }
    })
    .await
}

#[tokio::test]
async fn a_service_lets_requests_pass_or_answers_them() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (app, auth) = (
        Upstream::echo("app").await,
        service(Arc::clone(&asked)).await,
    );
    let gateway = SetUp::new().start(&config(&app, auth.addr, "")).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let reply = get(&mut client, "ok").await;
    assert_eq!(reply.status, 200);
    // Its word, and not the client's.
    assert_eq!(reply.echoed("x-user"), ["ann"]);
    assert_eq!(reply.header("set-cookie"), "");
    let reply = get(&mut client, "new").await;
    assert_eq!(reply.header("set-cookie"), "s=1");
    for (cookie, want) in [("unknown", 401), ("bad", 403)] {
        let reply = get(&mut client, cookie).await;
        assert_eq!(reply.status, want);
        assert_eq!(reply.text(), "the page");
        assert_eq!(reply.header("x-page"), "1");
    }
    assert_eq!(get(&mut client, "broken").await.status, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    drop(client);
    let lines = gateway.finish().await;
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str()).collect();
    let unavailable = Some("forward-auth-unavailable");
    let refused = Some("forward-auth");
    let want = [Some("ok"), Some("ok"), refused, refused, unavailable];
    assert_eq!(outcomes, want);
}

#[tokio::test]
async fn who_is_not_known_is_sent_to_sign_in() {
    let (app, auth) = (Upstream::echo("app").await, service(Arc::default()).await);
    let settings = r#"signin = "https://auth.test/in?a=b""#;
    let gateway = SetUp::new().start(&config(&app, auth.addr, settings)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let reply = get(&mut client, "unknown").await;
    assert_eq!(reply.status, 302);
    assert_eq!(
        reply.header("location"),
        "https://auth.test/in?a=b&rd=http%3A%2F%2Fa.test%2Fx%3Fy%3D1"
    );
    assert_eq!(get(&mut client, "bad").await.status, 403);
}

#[tokio::test]
async fn an_outage_means_what_the_operator_says() {
    let app = Upstream::echo("app").await;
    let gone = Upstream::echo("gone").await.addr;
    let silent = Upstream::silent().await;
    for auth in [gone, silent.addr] {
        for (settings, want) in [
            ("", 503),
            (r#"on-unavailable = "deny", "#, 503),
            (r#"on-unavailable = "allow", "#, 200),
            ("on-unavailable = 502, ", 502),
        ] {
            let settings = format!("{settings}timeout = \"200ms\"");
            let gateway = SetUp::new().start(&config(&app, auth, &settings)).await;
            let mut client = Client::http1(gateway.addr("http")).await;
            let reply = get(&mut client, "ok").await;
            assert_eq!(reply.status, want, "{settings}");
            // Nobody has said so.
            assert!(reply.echoed("x-user").is_empty());
        }
    }
}

#[tokio::test]
async fn what_was_allowed_is_remembered_for_the_same_client_and_url() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (app, auth) = (
        Upstream::echo("app").await,
        service(Arc::clone(&asked)).await,
    );
    let settings = r#"cache = "1h""#;
    let gateway = SetUp::new().start(&config(&app, auth.addr, settings)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut times = async |cookie: &str, status: u16| {
        for _ in 0..3 {
            assert_eq!(get(&mut client, cookie).await.status, status, "{cookie}");
        }
        asked.swap(0, Ordering::SeqCst)
    };
    assert_eq!(times("ok", 200).await, 1);
    // Refusals are not remembered, nor what comes with a cookie.
    assert_eq!(times("unknown", 401).await, 3);
    assert_eq!(times("new", 200).await, 3);
    assert_eq!(times("ok", 200).await, 0);
}

#[tokio::test]
async fn a_pass_is_for_whom_the_service_saw_unless_it_decides_by_less() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // Decides by a field that the gateway knows nothing of.
    let auth = Upstream::http1(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut response = Response::new(upstream::full(""));
            if request.headers()["x-api-key"] != "right" {
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
            response
        }
    })
    .await;
    let app = Upstream::echo("app").await;
    let send = async |client: &mut Client, fields: &[(&'static str, &'static str)]| {
        let mut request = client.request("GET", "a.test", "/x");
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        client.send(request).await.unwrap().status
    };
    for (settings, questions) in [
        (r#"cache = "1h""#, 3),
        (r#"cache = "1h", cache-key = ["x-api-key"]"#, 2),
        (r#"cache = "1h", request-headers = ["x-api-key"]"#, 2),
    ] {
        let gateway = SetUp::new().start(&config(&app, auth.addr, settings)).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let right = ("x-api-key", "right");
        assert_eq!(send(&mut client, &[right]).await, 200, "{settings}");
        let wrong = [("x-api-key", "wrong")];
        assert_eq!(send(&mut client, &wrong).await, 403, "{settings}");
        let other = ("x-other", "1");
        assert_eq!(send(&mut client, &[right, other]).await, 200, "{settings}");
        assert_eq!(send(&mut client, &[other, right]).await, 200, "{settings}");
        assert_eq!(asked.swap(0, Ordering::SeqCst), questions, "{settings}");
    }
}

#[tokio::test]
async fn requests_that_are_alike_are_asked_about_once() {
    let (auth, mut arrived) = upstream::held().await;
    let app = Upstream::echo("app").await;
    let settings = r#"cache = "1h""#;
    let gateway = SetUp::new()
        .start_with(&config(&app, auth.addr, settings), 2)
        .await;
    let addr = gateway.addr("http");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        tasks.spawn(async move {
            let mut client = Client::http1(addr).await;
            get(&mut client, "ok").await.status
        });
    }
    let first = arrived.recv().await.unwrap();
    // Long enough for the others to have asked, if they were going to.
    let second = tokio::time::timeout(Duration::from_millis(300), arrived.recv()).await;
    assert!(second.is_err(), "asked twice");
    assert!(first.release("yes"));
    for status in tasks.join_all().await {
        assert_eq!(status, 200);
    }
}
