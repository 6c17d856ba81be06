//! Which endpoint of an upstream gets a request, and over which connection.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use crate::support::plain;

fn two_endpoints(one: &Upstream, two: &Upstream, balance: &str) -> String {
    format!(
        "listeners.http.bind = \"127.0.0.1:0\"\n[upstreams.app]\n\
         endpoints = [\"{}\", \"{}\"]\nbalance = \"{balance}\"\n\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        one.addr, two.addr
    )
}

#[tokio::test]
async fn round_robin_goes_round() {
    let one = Upstream::echo("one").await;
    let two = Upstream::echo("two").await;
    let config = two_endpoints(&one, &two, "round-robin");
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        let reply = client.get("a.test", "/").await;
        order.push(reply.header("x-upstream").to_owned());
    }
    assert_eq!(order, ["one", "two", "one", "two"]);
}

#[tokio::test]
async fn least_requests_avoids_the_busy_endpoint() {
    let (busy, mut arrived) = upstream::held().await;
    let free = Upstream::echo("free").await;
    let config = two_endpoints(&busy, &free, "least-requests");
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    // Whichever comes first, at most one request waits before the busy one is known to be busy.
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(client::get(addr, "a.test", "/"));
    let held = arrived.recv().await.unwrap();
    for _ in 0..6 {
        let reply = client::get(addr, "a.test", "/").await;
        assert_eq!(reply.header("x-upstream"), "free");
    }
    assert!(held.release("done"));
    assert_eq!(waiting.join_next().await.unwrap().unwrap().text(), "done");
}

#[tokio::test]
async fn a_connection_to_an_endpoint_is_used_again() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    for _ in 0..5 {
        // Each from a client of its own.
        client::get(gateway.addr("http"), "a.test", "/").await;
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_costs_no_request() {
    // Closes after every answer, without saying so.
    let app = Upstream::bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for _ in 0..50 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
}

#[tokio::test]
async fn requests_over_http2_share_a_connection() {
    let app = Upstream::http2(|request| upstream::echo("app", request)).await;
    let config = plain(app.addr).replace("[[routes]]", "protocol = \"http2\"\n[[routes]]");
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        requests.spawn(client::get(addr, "a.test", "/"));
    }
    while let Some(reply) = requests.join_next().await {
        assert_eq!(reply.unwrap().header("x-upstream"), "app");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_a_bad_gateway() {
    let gone = Upstream::echo("gone").await;
    let addr = gone.addr;
    drop(gone);
    let gateway = SetUp::new().start(&plain(addr)).await;
    // Dropping aborts the task; its socket closes with it, at the latest when the runtime gets to
    // it, which is before this client is answered.
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(reply.status, 502);
}
