//! What may be under way to an upstream at once, and stickiness.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use crate::support::several;
use crate::support::until;

fn pending(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("postern_upstream_pending{upstream=\"app\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn connections_are_limited_for_all_workers_together_and_requests_wait() {
    for workers in [1, 2] {
        let (app, mut arrived) = upstream::held().await;
        let keys = "limits = { connections = 2, pending = 2 }\ntimeouts.connect = \"20s\"";
        let set_up = SetUp::new();
        let gateway = set_up
            .start_with(&several(&[app.addr], keys), workers)
            .await;
        let addr = gateway.addr("http");
        let mut requests = tokio::task::JoinSet::new();
        let mut held = Vec::new();
        for _ in 0..2 {
            requests.spawn(client::get(addr, "a.test", "/"));
            held.push(arrived.recv().await.unwrap());
        }
        for waiting in 1..=2 {
            requests.spawn(client::get(addr, "a.test", "/"));
            until("it waits", || pending(&gateway.metrics()) == waiting).await;
        }
        let refused = client::get(addr, "a.test", "/").await;
        assert_eq!(refused.status, 503, "one too many");
        for _ in 0..2 {
            assert!(held.remove(0).release("done"));
            held.push(arrived.recv().await.unwrap());
        }
        for last in held {
            assert!(last.release("done"));
        }
        while let Some(reply) = requests.join_next().await {
            assert_eq!(reply.unwrap().text(), "done", "{workers} workers");
        }
        let lines = gateway.finish().await;
        let outcomes: Vec<_> = lines.iter().map(|line| &line["outcome"]).collect();
        let refused = outcomes.iter().filter(|o| **o == "upstream-overloaded");
        assert_eq!(refused.count(), 1, "{outcomes:?}");
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_answered_at_once() {
    let (app, mut arrived) = upstream::held().await;
    let config = several(&[app.addr], "limits.requests = 1");
    let gateway = SetUp::new().start_with(&config, 2).await;
    let addr = gateway.addr("http");
    let mut first = tokio::task::JoinSet::new();
    first.spawn(client::get(addr, "a.test", "/"));
    let held = arrived.recv().await.unwrap();
    for _ in 0..8 {
        assert_eq!(client::get(addr, "a.test", "/").await.status, 503);
    }
    assert!(held.release("done"));
    assert_eq!(first.join_next().await.unwrap().unwrap().text(), "done");
    // The place is free again, as soon as the response's body has ended.
    until("nothing is in flight", || {
        gateway.metrics().lines().any(|line| {
            line.starts_with("postern_upstream_requests_in_flight") && line.ends_with(" 0")
        })
    })
    .await;
    first.spawn(client::get(addr, "a.test", "/"));
    assert!(arrived.recv().await.unwrap().release("again"));
    assert_eq!(first.join_next().await.unwrap().unwrap().text(), "again");
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_endpoint() {
    let one = Upstream::echo("one").await;
    let two = Upstream::echo("two").await;
    let keys = "sticky = { cookie = \"at\", max-age = \"1h\" }";
    let gateway = SetUp::new()
        .start(&several(&[one.addr, two.addr], keys))
        .await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for _ in 0..2 {
        let first = client.get("a.test", "/").await;
        let cookie = first.header("set-cookie").to_owned();
        assert!(
            cookie.contains("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"),
            "{cookie}"
        );
        assert!(!cookie.contains("127.0.0.1"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let mut request = client.request("GET", "a.test", "/");
            request
                .headers_mut()
                .insert("cookie", pair.parse().unwrap());
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.header("x-upstream"), first.header("x-upstream"));
            assert_eq!(reply.header("set-cookie"), "", "it is there already");
        }
    }
}

#[tokio::test]
async fn a_key_is_always_at_the_same_endpoint() {
    let one = Upstream::echo("one").await;
    let two = Upstream::echo("two").await;
    let keys = "balance = \"hash\"\nhash-key = \"header:x-user\"";
    let config = several(&[one.addr, two.addr], keys);
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut names = std::collections::HashSet::new();
    for user in 0..20 {
        let mut of_user = std::collections::HashSet::new();
        for _ in 0..3 {
            let mut request = client.request("GET", "a.test", "/");
            let value = http::HeaderValue::from(user);
            request.headers_mut().insert("x-user", value);
            let reply = client.send(request).await.unwrap();
            of_user.insert(reply.header("x-upstream").to_owned());
        }
        assert_eq!(of_user.len(), 1, "{user}");
        names.extend(of_user);
    }
    assert_eq!(names.len(), 2, "both have users");
}
