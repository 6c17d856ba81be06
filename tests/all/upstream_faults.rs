//! Each fault of an upstream has one status and one reason.

use postern_tests::client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use tokio::io::AsyncWriteExt as _;

use crate::support::nobody;
use crate::support::several;

#[tokio::test]
async fn every_fault_has_its_status_and_its_reason() {
    let silent = Upstream::silent().await;
    let closes = Upstream::bytes("").await;
    let half = Upstream::bytes("HTTP/1.1 20").await;
    let garbage = Upstream::bytes("garbage\r\n\r\n").await;
    let lengths =
        Upstream::bytes("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
            .await;
    let switches = Upstream::bytes(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    )
    .await;
    let no_tls = Upstream::accept(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.test ESMTP\r\n").await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let cases = [
        ("refuses", nobody().await, "", 502, "upstream-connect"),
        (
            "never answers",
            silent.addr,
            "timeouts.first-byte = \"50ms\"",
            504,
            "upstream-timeout",
        ),
        ("closes", closes.addr, "", 502, "upstream-reset"),
        (
            "closes within the head",
            half.addr,
            "",
            502,
            "upstream-reset",
        ),
        ("sends garbage", garbage.addr, "", 502, "upstream-protocol"),
        (
            "sends two lengths",
            lengths.addr,
            "",
            502,
            "upstream-protocol",
        ),
        (
            "switches unasked",
            switches.addr,
            "",
            502,
            "upstream-protocol",
        ),
        (
            "speaks no TLS",
            no_tls.addr,
            "tls = { insecure = true }",
            502,
            "upstream-tls",
        ),
        (
            "does not end its TLS handshake",
            silent.addr,
            "tls = { insecure = true }\ntimeouts.connect = \"50ms\"",
            504,
            "upstream-connect-timeout",
        ),
        (
            "speaks no HTTP/2",
            closes.addr,
            "protocol = \"http2\"",
            502,
            "upstream-reset",
        ),
    ];
    for (name, addr, keys, status, reason) in cases {
        let gateway = SetUp::new().start(&several(&[addr], keys)).await;
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.status, status, "{name}");
        // What the client is told says nothing of the upstream.
        assert!(
            !reply.text().contains("127.0.0.1"),
            "{name}: {}",
            reply.text()
        );
        let lines = gateway.finish().await;
        assert_eq!(lines[0]["outcome"], reason, "{name}: {lines:?}");
    }
}
