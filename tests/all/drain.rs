//! The end of a gateway: nothing new, nothing lost, and no waiting without end.

use std::time::Duration;

use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::plain;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_in_flight_finish_and_idle_connections_close() {
    let (app, mut arrived) = upstream::held().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let addr = gateway.addr("http");
    let mut idle = TcpStream::connect(addr).await.unwrap();
    let bytes = b"GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n";
    idle.write_all(bytes).await.unwrap();
    assert!(arrived.recv().await.unwrap().release("first"));
    let mut answer = vec![0; 1024];
    assert!(idle.read(&mut answer).await.unwrap() > 0);

    let mut requests = tokio::task::JoinSet::new();
    let mut held = Vec::new();
    for version in [1, 2] {
        let mut client = match version {
            1 => Client::http1(addr).await,
            _ => Client::http2(addr).await,
        };
        let request = client.request("GET", "a.test", "/in-flight");
        requests.spawn(async move { client.send(request).await.unwrap() });
        held.push(arrived.recv().await.unwrap());
    }

    let draining = gateway.drain(LONG);
    let ends = async {
        // The idle connection ends first, while the others are still served.
        idle.read_to_end(&mut answer).await.unwrap();
        for held in held {
            assert!(held.release("done"));
        }
        while let Some(reply) = requests.join_next().await {
            assert_eq!(reply.unwrap().text(), "done");
        }
    };
    let (has_finished, ()) = tokio::join!(draining, ends);
    assert!(has_finished);
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn what_has_not_finished_at_the_deadline_is_cut() {
    let (app, mut arrived) = upstream::held().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let request = client.request("GET", "a.test", "/");
    let waiting = tokio::spawn(async move { client.send(request).await });
    let _held = arrived.recv().await.unwrap();
    assert!(!gateway.drain(Duration::from_millis(100)).await);
    drop(gateway);
    assert!(waiting.await.unwrap().is_err());
}
