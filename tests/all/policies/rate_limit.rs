//! Rate limits: who shares one, what a client is told, and what a reload leaves alone.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;

use super::with_policies;

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let app = Upstream::echo("app").await;
    let policy = r#"policies.limit = { kind = "rate-limit", rate = "3/h" }"#;
    let gateway = SetUp::new()
        .start(&with_policies(app.addr, policy, r#"["limit"]"#))
        .await;
    let addr = gateway.addr("http");
    for left in [2, 1, 0] {
        let reply = client::get(addr, "a.test", "/").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), "\"limit\";q=3;w=3600");
        let start = format!("\"limit\";r={left};t=");
        assert!(reply.header("ratelimit").starts_with(&start), "{reply:?}");
    }
    let refused = client::get(addr, "a.test", "/").await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1190..=1201).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").starts_with("\"limit\";r=0;"));
    assert_eq!(app.connections(), 1);

    let lines = gateway.finish().await;
    assert_eq!(lines[3]["policy"], "limit");
    assert_eq!(lines[3]["outcome"], "rate-limit");
    assert_eq!(lines[2]["outcome"], "ok");
}

#[tokio::test]
async fn a_limit_is_one_for_all_workers() {
    let app = Upstream::echo("app").await;
    let policy = r#"policies.limit = { kind = "rate-limit", rate = "20/d" }"#;
    let config = with_policies(app.addr, policy, r#"["limit"]"#);
    let gateway = SetUp::new().start_with(&config, 4).await;
    let addr = gateway.addr("http");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        // Connections of their own: the kernel spreads them over the workers.
        tasks.spawn(async move { client::get(addr, "a.test", "/").await.status.as_u16() });
    }
    let statuses = tasks.join_all().await;
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 20, "{statuses:?}");
}

#[tokio::test]
async fn keys_have_limits_of_their_own() {
    let app = Upstream::echo("app").await;
    for (key, field) in [("header:x-key", "x-key"), ("cookie:id", "cookie")] {
        let policy =
            format!(r#"policies.limit = {{ kind = "rate-limit", rate = "1/h", key = "{key}" }}"#);
        let config = with_policies(app.addr, &policy, r#"["limit"]"#);
        let gateway = SetUp::new().start(&config).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        for (value, want) in [
            ("id=a", 200),
            ("id=b", 200),
            ("id=a", 429),
            ("", 200),
            ("", 429),
        ] {
            let mut request = client.request("GET", "a.test", "/");
            if !value.is_empty() {
                let value = value.parse().unwrap();
                request.headers_mut().insert(field, value);
            }
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.status, want, "{key} {value}");
        }
    }
}

#[tokio::test]
async fn a_reload_forgives_nobody_but_a_changed_limit_starts_anew() {
    let app = Upstream::echo("app").await;
    let policy = r#"policies.limit = { kind = "rate-limit", rate = "1/h" }"#;
    let config = with_policies(app.addr, policy, r#"["limit"]"#);
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
    let elsewhere = format!("{config}\n[policies.other]\nkind = \"headers\"\n");
    gateway.reload(&elsewhere).await.unwrap();
    assert_eq!(client::get(addr, "a.test", "/").await.status, 429);
    gateway.reload(&config.replace("1/h", "2/h")).await.unwrap();
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
}
