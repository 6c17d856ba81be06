//! A change of configuration while requests are served.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;
use postern_tests::websocket;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::plain;
use crate::support::upstream_table;

/// `plain` with a response field that tells configurations apart.
fn marked(upstream: std::net::SocketAddr, mark: &str) -> String {
    plain(upstream).replace(
        "upstream = \"app\" }",
        &format!(
            "upstream = \"app\", response-headers = {{ set = {{ x-config = \"{mark}\" }} }} }}"
        ),
    )
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_configuration() {
    let (old, mut arrived) = upstream::held().await;
    let new = Upstream::echo("new").await;
    let gateway = SetUp::new().start(&marked(old.addr, "one")).await;
    let addr = gateway.addr("http");

    let in_flight = tokio::spawn(client::get(addr, "a.test", "/"));
    let held = arrived.recv().await.unwrap();
    gateway.reload(&marked(new.addr, "two")).await.unwrap();

    let later = client::get(addr, "a.test", "/").await;
    assert_eq!(
        (later.header("x-config"), later.header("x-upstream")),
        ("two", "new")
    );

    assert!(held.release("old"));
    let earlier = in_flight.await.unwrap();
    assert_eq!(
        (earlier.header("x-config"), earlier.text().as_str()),
        ("one", "old")
    );
}

#[tokio::test]
async fn an_open_client_connection_sees_the_next_configuration() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&marked(app.addr, "one")).await;
    let mut http1 = Client::http1(gateway.addr("http")).await;
    let mut http2 = Client::http2(gateway.addr("http")).await;
    for mark in ["one", "two", "three"] {
        gateway.reload(&marked(app.addr, mark)).await.unwrap();
        assert_eq!(http1.get("a.test", "/").await.header("x-config"), mark);
        assert_eq!(http2.get("a.test", "/").await.header("x-config"), mark);
    }
}

#[tokio::test]
async fn an_unchanged_upstream_keeps_its_connections() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&marked(app.addr, "one")).await;
    let addr = gateway.addr("http");
    client::get(addr, "a.test", "/").await;
    for mark in ["two", "three"] {
        gateway.reload(&marked(app.addr, mark)).await.unwrap();
        assert_eq!(
            client::get(addr, "a.test", "/").await.header("x-config"),
            mark
        );
    }
    assert_eq!(app.connections(), 1);

    // With other settings it is another upstream.
    let changed = marked(app.addr, "four")
        .replace("[[routes]]", "timeouts = { connect = \"1s\" }\n[[routes]]");
    gateway.reload(&changed).await.unwrap();
    client::get(addr, "a.test", "/").await;
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn a_websocket_stays_open_while_its_route_goes() {
    let app = Upstream::websocket().await;
    let gateway = SetUp::new().start(&plain(app.addr)).await;
    let mut stream = TcpStream::connect(gateway.addr("http")).await.unwrap();
    let handshake = websocket::handshake("a.test", "/");
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let other = Upstream::echo("other").await;
    for upstream in [other.addr, app.addr, other.addr] {
        gateway.reload(&plain(upstream)).await.unwrap();
        // Both sides of the worker have taken the new configuration up.
        client::get(gateway.addr("http"), "a.test", "/").await;
        websocket::send(&mut stream, "still here").await.unwrap();
        assert_eq!(websocket::receive(&mut stream).await.unwrap(), "still here");
    }
}

#[tokio::test]
async fn listeners_come_move_and_go() {
    let app = Upstream::echo("app").await;
    let rest = format!(
        "{}[[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app.addr)
    );
    let listener = |name: &str| format!("listeners.{name}.bind = \"127.0.0.1:0\"\n");
    let gateway = SetUp::new()
        .start(&format!("{}{rest}", listener("one")))
        .await;
    let one = gateway.addr("one");
    let mut open = Client::http1(one).await;
    assert_eq!(open.get("a.test", "/").await.status, 200);

    let both = format!("{}{}{rest}", listener("one"), listener("two"));
    gateway.reload(&both).await.unwrap();
    let two = gateway.addr("two");
    assert_eq!(
        gateway.addr("one"),
        one,
        "an unchanged listener stays where it is"
    );
    assert_eq!(client::get(two, "a.test", "/").await.status, 200);

    let moved = both.replacen("127.0.0.1:0", "127.0.0.2:0", 1);
    gateway.reload(&moved).await.unwrap();
    let moved = gateway.addr("one");
    assert_eq!(moved.ip().to_string(), "127.0.0.2");
    assert_eq!(client::get(moved, "a.test", "/").await.status, 200);
    // The request on another listener has shown that the worker took the change up.
    assert!(
        TcpStream::connect(one).await.is_err(),
        "nobody listens there any more"
    );
    // A connection that was accepted there goes on.
    assert_eq!(open.get("a.test", "/").await.status, 200);

    gateway
        .reload(&format!("{}{rest}", listener("two")))
        .await
        .unwrap();
    assert_eq!(client::get(two, "a.test", "/").await.status, 200);
    assert!(TcpStream::connect(moved).await.is_err());
}

#[tokio::test]
async fn a_configuration_with_problems_changes_nothing() {
    let app = Upstream::echo("app").await;
    let good = marked(app.addr, "good");
    let gateway = SetUp::new().start(&good).await;
    let generation = gateway.generation();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let cases = [
        (
            good.replace("[[routes]]", "[[routes"),
            "postern.toml:",
            "syntax",
        ),
        (good.replace("rules", "rulez"), "rulez", "an unknown key"),
        (
            good.replace("upstream = \"app\",", "upstream = \"ap\","),
            "did you mean",
            "a reference",
        ),
        (
            good.replace("127.0.0.1:0", &taken.to_string()),
            "cannot listen",
            "a port in use",
        ),
        (
            format!("{good}[plugins.p]\nsource = \"none.wasm\"\n"),
            "cannot read",
            "a missing component",
        ),
    ];
    for (config, want, what) in cases {
        let problems = gateway.reload(&config).await.unwrap_err();
        assert!(problems.contains(want), "{what}: {problems}");
        assert!(problems.contains("postern.toml:"), "{what}: {problems}");
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.header("x-config"), "good", "{what}");
        assert_eq!(gateway.generation(), generation, "{what}");
    }
}
