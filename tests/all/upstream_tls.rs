//! Who an endpoint has to be, and what it is told before and beside the request.

use std::sync::Arc;

use postern_tests::certs::Authority;
use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use crate::support::several;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Answers over TLS; asks for a certificate of `clients` if there is an authority of them.
async fn over_tls(authority: &Authority, name: &str, clients: Option<&Authority>) -> Upstream {
    let leaf = authority.leaf(&[name]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap();
            roots.add(root).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let config = builder.with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::accept(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut bytes = [0; 4096];
            while let Ok(1..) = stream.read(&mut bytes).await {
                if stream.write_all(OK).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_is_who_it_should_be_unless_nobody_asks() {
    let ours = Authority::new("ours");
    let theirs = Authority::new("theirs");
    let app = over_tls(&ours, "app.test", None).await;
    let cases = [
        (
            "the right name and root",
            "{ ca-file = \"ours.pem\", server-name = \"app.test\" }",
            200,
        ),
        (
            "another name",
            "{ ca-file = \"ours.pem\", server-name = \"b.test\" }",
            502,
        ),
        (
            "the address, which it has no name for",
            "{ ca-file = \"ours.pem\" }",
            502,
        ),
        (
            "another root",
            "{ ca-file = \"theirs.pem\", server-name = \"app.test\" }",
            502,
        ),
        ("nobody asks", "{ insecure = true }", 200),
    ];
    let set_up = SetUp::new()
        .file("ours.pem", ours.pem())
        .file("theirs.pem", theirs.pem());
    let config = |tls: &str| several(&[app.addr], &format!("tls = {tls}"));
    let gateway = set_up.start(&config(cases[0].1)).await;
    for (name, tls, status) in cases.into_iter().chain(cases) {
        // One after another at the same endpoint: no connection of one is used by the next.
        gateway.reload(&config(tls)).await.unwrap();
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.status, status, "{name}");
    }
    let lines = gateway.finish().await;
    let failed = lines.iter().filter(|line| line["status"] == 502);
    for line in failed {
        assert_eq!(line["outcome"], "upstream-tls", "{line}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_an_endpoint_that_asks() {
    let servers = Authority::new("servers");
    let clients = Authority::new("clients");
    let app = over_tls(&servers, "app.test", Some(&clients)).await;
    let shown = clients.leaf(&["gateway.test"]);
    let foreign = servers.leaf(&["gateway.test"]);
    let set_up = SetUp::new()
        .file("ca.pem", servers.pem())
        .file("shown.pem", shown.chain)
        .file("shown.key", shown.key)
        .file("foreign.pem", foreign.chain)
        .file("foreign.key", foreign.key);
    let config = |pair: &str| {
        let tls = format!("tls = {{ ca-file = \"ca.pem\", server-name = \"app.test\"{pair} }}");
        several(&[app.addr], &tls)
    };
    let pair = |name: &str| format!(", cert-file = \"{name}.pem\", key-file = \"{name}.key\"");
    let gateway = set_up.start(&config(&pair("shown"))).await;
    let addr = gateway.addr("http");
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
    for wrong in [String::new(), pair("foreign")] {
        gateway.reload(&config(&wrong)).await.unwrap();
        assert_eq!(
            client::get(addr, "a.test", "/").await.status,
            502,
            "{wrong}"
        );
    }
    let mixed = ", cert-file = \"shown.pem\", key-file = \"foreign.key\"";
    let error = gateway.reload(&config(mixed)).await.unwrap_err();
    assert!(
        error.contains("certificate and key cannot be used"),
        "{error}"
    );
}

#[tokio::test]
async fn an_endpoint_is_told_the_host_that_is_configured() {
    let app = Upstream::echo("app").await;
    let config = several(&[app.addr], "host = \"inside.test:81\"");
    let gateway = SetUp::new().start(&config).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/").await;
    assert_eq!(reply.echoed("host"), ["inside.test:81"]);
    assert_eq!(reply.echoed("x-forwarded-host"), ["a.test"]);
}

#[tokio::test]
async fn a_proxy_header_speaks_of_the_client_of_its_connection() {
    // Answers with the header's line, and then as many requests as come.
    let app = Upstream::accept(|mut stream| async move {
        let mut bytes = Vec::new();
        let mut requests = 0;
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.matches("\r\n\r\n").count() > requests {
                requests += 1;
                let line = text.lines().next().unwrap_or_default();
                let body = format!("{requests} {line}");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let config = several(&[app.addr], "proxy-protocol = \"v1\"");
    let gateway = SetUp::new().start(&config).await;
    let addr = gateway.addr("http");
    let mut lines = Vec::new();
    for _ in 0..2 {
        let mut client = Client::http1(addr).await;
        for _ in 0..2 {
            let text = client.get("a.test", "/").await.text();
            let start = "1 PROXY TCP4 127.0.0.1 127.0.0.1 ";
            assert!(text.starts_with(start), "{text}");
            assert!(text.ends_with(&format!(" {}", addr.port())), "{text}");
            lines.push(text);
        }
    }
    assert_eq!(lines[0], lines[1], "one client");
    assert_ne!(lines[1], lines[2], "another client");
    assert_eq!(app.connections(), 4, "never shared");
}
