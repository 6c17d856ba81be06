//! PROXY protocol in front of connections: who the client is then, and who may say so.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use postern_tests::client::Client;
use postern_tests::client::Tls;
use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x0f\xa0\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn config(app: SocketAddr, mode: &str, from: &str) -> String {
    format!(
        "listeners.http.proxy-protocol = \"{mode}\"\nlisteners.http.proxy-protocol-from = [\"{from}\"]\nlisteners.http.timeouts.proxy-header = \"1s\"\n{}",
        support::plain(app).replacen("[listeners.http]\nbind", "listeners.http.bind", 1)
    )
}

/// Status and body of the one answer, or 0 if the connection was closed without.
async fn ask(addr: SocketAddr, pieces: &[&[u8]]) -> (u16, String) {
    let answer = raw::exchange(addr, &pieces.concat()).await;
    let answers = raw::answers(&answer);
    match answers.as_slice() {
        [] => (0, String::new()),
        [one] => (one.status, String::from_utf8_lossy(&one.body).into_owned()),
        more => panic!("{} answers", more.len()),
    }
}

#[tokio::test]
async fn the_client_is_the_one_that_the_header_names() {
    let app = Upstream::echo("app").await;
    for mode in ["optional", "required"] {
        let gateway = SetUp::new()
            .start(&config(app.addr, mode, "127.0.0.0/8"))
            .await;
        let addr = gateway.addr("http");
        for header in [V1, V2] {
            let (status, body) = ask(addr, &[header, GET]).await;
            assert_eq!(status, 200, "{mode}");
            assert!(body.contains("\nx-forwarded-for: 192.0.2.7\n"), "{body}");
            assert!(body.contains("\nx-real-ip: 192.0.2.7\n"), "{body}");
            assert!(body.contains("\nx-forwarded-port: 443\n"), "{body}");
        }
        let (status, body) = ask(addr, &[LOCAL, GET]).await;
        assert_eq!(status, 200, "{mode}");
        assert!(body.contains("\nx-forwarded-for: 127.0.0.1\n"), "{body}");
        let lines = gateway.finish().await;
        assert_eq!(lines[0]["client.addr"], "192.0.2.7");
        assert_eq!(lines[0]["balancer.addr"], "127.0.0.1");
        assert_eq!(lines[2]["client.addr"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_header_may_arrive_in_any_pieces() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new()
        .start(&config(app.addr, "optional", "127.0.0.0/8"))
        .await;
    let addr = gateway.addr("http");
    for header in [V1, V2] {
        let whole = [header, GET].concat();
        let mut tasks = tokio::task::JoinSet::new();
        for cut in 1..header.len() + 5 {
            let whole = whole.clone();
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.write_all(&whole[..cut]).await.unwrap();
                // Not to wait for anything: two segments rather than one is all that is wanted.
                tokio::time::sleep(Duration::from_millis(30)).await;
                stream.write_all(&whole[cut..]).await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                (cut, answer)
            });
        }
        for (cut, answer) in tasks.join_all().await {
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("HTTP/1.1 200"), "cut at {cut}: {text}");
            assert!(
                text.contains("x-forwarded-for: 192.0.2.7\n"),
                "{cut}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_late_header_takes_no_time_from_the_request() {
    let app = Upstream::echo("app").await;
    let times = "proxy-header = \"3s\"\nlisteners.http.timeouts.request-head = \"3s\"";
    let text = config(app.addr, "required", "127.0.0.0/8");
    let gateway = SetUp::new()
        .start(&text.replacen("proxy-header = \"1s\"", times, 1))
        .await;
    // Each in its time, and both together longer than either's.
    let pause = Duration::from_secs(2);
    let mut stream = TcpStream::connect(gateway.addr("http")).await.unwrap();
    for piece in [V1, GET] {
        tokio::time::sleep(pause).await;
        stream.write_all(piece).await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn a_malformed_header_ends_the_connection() {
    let app = Upstream::echo("app").await;
    let (head, addresses) = V2.split_at(16);
    let v2 = |command: u8, family: u8, length: u16, body: &[u8]| {
        let mut bytes = head[..12].to_vec();
        bytes.extend([command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let mut cases: Vec<Vec<u8>> = [
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04000 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 4000 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 4000 443\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\r\n",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    cases.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes());
    cases.extend([
        v2(0x11, 0x11, 12, addresses),
        v2(0x22, 0x11, 12, addresses),
        v2(0x21, 0x00, 0, b""),
        v2(0x21, 0x12, 12, addresses),
        v2(0x21, 0x31, 216, &[0; 216]),
        v2(0x21, 0x11, 11, &addresses[..11]),
        v2(0x21, 0x21, 12, addresses),
        v2(0x21, 0x11, 15, &[addresses, &[1, 0, 9]].concat()),
        v2(0x21, 0x11, 5000, &[0; 5000]),
        // Longer than what follows: it takes the request with it, and waits for more.
        v2(0x21, 0x11, 4000, addresses),
        // Twice.
        [V1, V1].concat(),
        [V2, V2].concat(),
        [V1, V2].concat(),
    ]);
    for mode in ["optional", "required"] {
        let gateway = SetUp::new()
            .start(&config(app.addr, mode, "127.0.0.0/8"))
            .await;
        let addr = gateway.addr("http");
        for case in &cases {
            let (status, _) = ask(addr, &[case, GET]).await;
            assert!(
                matches!(status, 0 | 400),
                "{mode} {}: {status}",
                case.escape_ascii()
            );
        }
        let (status, _) = ask(addr, &[V1, GET]).await;
        assert_eq!(status, 200);
        let lines = gateway.finish().await;
        let passed = lines.iter().filter(|line| line["status"] == 200).count();
        assert_eq!(passed, 1, "{lines:#?}");
    }
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn only_those_who_are_listed_may_say_who_the_client_is() {
    let app = Upstream::echo("app").await;
    // From elsewhere: a header is no request, and a request is served as it came or not at all.
    for (mode, bare) in [("optional", 200), ("required", 0)] {
        let gateway = SetUp::new()
            .start(&config(app.addr, mode, "10.0.0.0/8"))
            .await;
        let addr = gateway.addr("http");
        for header in [V1, V2] {
            let (status, _) = ask(addr, &[header, GET]).await;
            assert!(matches!(status, 0 | 400), "{mode}: {status}");
        }
        assert_eq!(ask(addr, &[GET]).await.0, bare, "{mode}");
    }
    // From a balancer without a header.
    for (mode, bare) in [("optional", 200), ("required", 0)] {
        let gateway = SetUp::new()
            .start(&config(app.addr, mode, "127.0.0.1"))
            .await;
        let addr = gateway.addr("http");
        assert_eq!(ask(addr, &[GET]).await.0, bare, "{mode}");
    }
}

#[tokio::test]
async fn a_health_check_without_a_word_is_no_failure_and_half_a_header_is_not_waited_for() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new()
        .start(&config(app.addr, "required", "127.0.0.1"))
        .await;
    let addr = gateway.addr("http");
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
    let failed = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("postern_handshakes_failed_total"));
        line.unwrap().to_owned()
    };
    assert_eq!(
        failed(&gateway.metrics()),
        "postern_handshakes_failed_total 0"
    );
    for half in [&V1[..9], &V2[..20], &V1[..3]] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(half).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        // Bytes that were not read make it a reset.
        match ended.await.unwrap() {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // The worker counts right after it has closed.
    let counted = async {
        while failed(&gateway.metrics()) != "postern_handshakes_failed_total 3" {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(5), counted).await;
    assert!(counted.is_ok(), "{}", failed(&gateway.metrics()));
}

#[tokio::test]
async fn tls_follows_the_header() {
    let app = Upstream::echo("app").await;
    let config = format!(
        "[listeners.https]\nbind = \"127.0.0.1:0\"\ntls = {{}}\nproxy-protocol = \"required\"\nproxy-protocol-from = [\"127.0.0.1\"]\n[certificates.a]\ncert-file = \"a.pem\"\nkey-file = \"a.key\"\n{}[[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        support::upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().certificate("a", &["a.test"]);
    let gateway = set_up.start(&config).await;
    for header in [V1, V2] {
        let mut stream = TcpStream::connect(gateway.addr("https")).await.unwrap();
        stream.write_all(header).await.unwrap();
        let tls = Tls::to(&gateway.set_up.authority, "a.test");
        let stream = tls.over(stream).await.unwrap();
        let mut client = Client::over_http2(stream).await.unwrap();
        let reply = client.get("a.test", "/").await;
        assert_eq!(reply.echoed("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(reply.echoed("x-forwarded-port"), ["443"]);
    }
}
