//! TLS connections that are passed on by the server name that their client asks for.

use postern_tests::client::Client;
use postern_tests::client::Tls;
use postern_tests::client::raw;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::upstream_table;

/// `a.test` is served by a gateway in front, `p.test` and below by one behind it.
struct Scene {
    front: Running,
    behind: Running,
    _app: Upstream,
}

async fn scene(of_upstream: &str, of_listener: &str) -> Scene {
    let app = Upstream::echo("app").await;
    let behind = SetUp::new()
        .certificate("p", &["p.test", "x.p.test"])
        .start(&format!(
            "[listeners.https]\nbind = \"127.0.0.1:0\"\ntls = {{}}\n{of_listener}\n\
             [certificates.p]\ncert-file = \"p.pem\"\nkey-file = \"p.key\"\n{}\
             [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
            upstream_table("app", app.addr)
        ))
        .await;
    let front = SetUp::new()
        .certificate("a", &["a.test"])
        .start(&format!(
            "[listeners.https]\nbind = \"127.0.0.1:0\"\n\
             tls = {{ passthrough = [{{ hosts = [\"p.test\", \"*.p.test\"], upstream = \"behind\" }}] }}\n\
             timeouts = {{ handshake = \"1s\" }}\n\
             [certificates.a]\ncert-file = \"a.pem\"\nkey-file = \"a.key\"\n{}{of_upstream}\n\
             [[routes]]\nrules = [{{ respond = {{ status = 418 }} }}]\n",
            upstream_table("behind", behind.addr("https"))
        ))
        .await;
    Scene {
        front,
        behind,
        _app: app,
    }
}

#[tokio::test]
async fn the_name_decides_who_answers_and_with_which_certificate() {
    let scene = scene("", "").await;
    let addr = scene.front.addr("https");
    for name in ["p.test", "x.p.test"] {
        // Verified against the authority of the one behind.
        let tls = Tls::to(&scene.behind.set_up.authority, name);
        let mut client = Client::tls(addr, &tls).await;
        assert!(client.is_http2());
        for _ in 0..3 {
            let reply = client.get(name, "/").await;
            assert_eq!(reply.status, 200, "{name}");
            assert!(reply.text().starts_with("app\n"), "{}", reply.text());
        }
    }
    let tls = Tls::to(&scene.front.set_up.authority, "a.test");
    let reply = Client::tls(addr, &tls).await.get("a.test", "/").await;
    assert_eq!(reply.status, 418);
    let metrics = scene.front.metrics();
    assert!(
        metrics.contains("postern_passed_through_total 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_one_behind_is_told_who_the_client_is() {
    let scene = scene(
        "proxy-protocol = \"v2\"",
        "proxy-protocol = \"required\"\nproxy-protocol-from = [\"127.0.0.1/32\"]",
    )
    .await;
    let stream = TcpStream::connect(scene.front.addr("https")).await.unwrap();
    let local = stream.local_addr().unwrap();
    let tls = Tls {
        alpn: &["http/1.1"],
        ..Tls::to(&scene.behind.set_up.authority, "p.test")
    };
    let stream = tls.over(stream).await.unwrap();
    let mut client = Client::over_http1(stream).await.unwrap();
    let reply = client.get("p.test", "/").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.echoed("x-forwarded-for"), [local.ip().to_string()]);
}

#[tokio::test]
async fn what_is_no_hello_is_not_waited_for_longer_than_a_handshake() {
    let scene = scene("", "").await;
    let addr = scene.front.addr("https");
    // Half a hello, nothing at all, and another protocol.
    for bytes in [
        &b"\x16\x03\x01\x00\xbb\x01\x00"[..],
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut got = Vec::new();
        let closed = tokio::time::timeout(
            std::time::Duration::from_secs(10),
            stream.read_to_end(&mut got),
        );
        assert!(closed.await.is_ok(), "{bytes:?}");
        assert!(raw::answers(&got).iter().all(|answer| answer.status == 0));
    }
    let tls = Tls::to(&scene.behind.set_up.authority, "p.test");
    let reply = Client::tls(addr, &tls).await.get("p.test", "/").await;
    assert_eq!(reply.status, 200, "and the others go on");
}

#[tokio::test]
async fn a_hello_in_pieces_is_passed_on_whole() {
    let scene = scene("", "").await;
    let addr = scene.front.addr("https");
    // A proxy that sends what the client says byte by byte.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let gateway = TcpStream::connect(addr).await.unwrap();
        gateway.set_nodelay(true).unwrap();
        let (mut from, mut to) = client.into_split();
        let (mut back, mut forth) = gateway.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut back, &mut to).await });
        let mut byte = [0];
        while from.read_exact(&mut byte).await.is_ok() {
            forth.write_all(&byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let tls = Tls::to(&scene.behind.set_up.authority, "p.test");
    let reply = Client::tls(slow, &tls).await.get("p.test", "/").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_closes_the_connection() {
    let scene = scene("", "").await;
    let nobody = crate::support::nobody().await;
    let config = format!(
        "[listeners.https]\nbind = \"127.0.0.1:0\"\n\
         tls = {{ passthrough = [{{ hosts = [\"p.test\"], upstream = \"gone\" }}] }}\n\
         [certificates.a]\ncert-file = \"a.pem\"\nkey-file = \"a.key\"\n{}",
        upstream_table("gone", nobody)
    );
    let gateway = SetUp::new()
        .certificate("a", &["a.test"])
        .start(&config)
        .await;
    let tls = Tls::to(&scene.behind.set_up.authority, "p.test");
    assert!(tls.connect(gateway.addr("https")).await.is_err());
    let metrics = gateway.metrics();
    assert!(metrics.contains("connect"), "{metrics}");
}
