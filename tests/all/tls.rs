//! TLS towards clients: which certificate, which protocol, which version.

use postern_tests::client::Client;
use postern_tests::client::Tls;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use rustls::SupportedProtocolVersion;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::support::upstream_table;

const ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

async fn two_certificates(tls: &str, app: &Upstream) -> Running {
    let config = format!(
        r#"
        listeners.https = {{ bind = "127.0.0.1:0", tls = {tls} }}
        [certificates]
        one = {{ cert-file = "one.pem", key-file = "one.key" }}
        two = {{ cert-file = "two.pem", key-file = "two.key" }}
        {}
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    SetUp::new()
        .certificate("one", &["one.test", "shared.test"])
        .certificate("two", &["two.test", "*.two.test"])
        .start(&config)
        .await
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let app = Upstream::echo("app").await;
    let gateway = two_certificates("{ default-certificate = \"two\" }", &app).await;
    let addr = gateway.addr("https");
    // The client verifies the name that it asked for, so a handshake shows the choice.
    for (name, is_covered) in [
        ("one.test", true),
        ("shared.test", true),
        ("two.test", true),
        ("a.two.test", true),
        ("A.TWO.test", true),
        ("a.b.two.test", false),
        ("none.test", false),
    ] {
        let tls = Tls::to(&gateway.set_up.authority, name);
        let connected = tls.connect(addr).await;
        assert_eq!(connected.is_ok(), is_covered, "{name}: {connected:?}");
    }
    // Without a server name there is the default; it does not hold the address.
    let tls = Tls::to(&gateway.set_up.authority, "127.0.0.1");
    let error = tls.connect(addr).await.unwrap_err().to_string();
    assert!(error.contains("two.test"), "{error}");
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let app = Upstream::echo("app").await;
    let gateway = two_certificates("{}", &app).await;
    let tls = Tls::to(&gateway.set_up.authority, "one.test");
    for (host, want) in [
        ("one.test", 200),
        ("shared.test", 200),
        ("two.test", 421),
        ("none.test", 421),
    ] {
        let mut client = Client::tls(gateway.addr("https"), &tls).await;
        assert_eq!(client.get(host, "/").await.status, want, "{host}");
    }
}

#[tokio::test]
async fn the_protocol_is_the_best_that_the_client_offers() {
    let app = Upstream::echo("app").await;
    let gateway = two_certificates("{}", &app).await;
    for (alpn, is_http2) in [
        (&["h2", "http/1.1"][..], true),
        (&["http/1.1", "h2"], true),
        (&["h2"], true),
        (&["http/1.1"], false),
        (&[], false),
    ] {
        let tls = Tls {
            alpn,
            ..Tls::to(&gateway.set_up.authority, "one.test")
        };
        let mut client = Client::tls(gateway.addr("https"), &tls).await;
        assert_eq!(client.is_http2(), is_http2, "{alpn:?}");
        let reply = client.get("one.test", "/x").await;
        assert_eq!(reply.echoed_line(), "GET /x", "{alpn:?}");
        assert_eq!(reply.echoed("x-forwarded-proto"), ["https"], "{alpn:?}");
    }
    // Nothing in common: refused in the handshake.
    let tls = Tls {
        alpn: &["imap"],
        ..Tls::to(&gateway.set_up.authority, "one.test")
    };
    assert!(tls.connect(gateway.addr("https")).await.is_err());
}

#[tokio::test]
async fn versions_below_the_configured_one_are_refused() {
    let app = Upstream::echo("app").await;
    for (config, versions, is_served) in [
        ("{}", ONLY_12, true),
        ("{}", ONLY_13, true),
        ("{ min-version = \"1.3\" }", ONLY_12, false),
        ("{ min-version = \"1.3\" }", ONLY_13, true),
    ] {
        let gateway = two_certificates(config, &app).await;
        let tls = Tls {
            versions,
            ..Tls::to(&gateway.set_up.authority, "one.test")
        };
        let connected = tls.connect(gateway.addr("https")).await;
        assert_eq!(connected.is_ok(), is_served, "{config} {versions:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_after_a_reload() {
    let app = Upstream::echo("app").await;
    let config = format!(
        r#"
        listeners.https = {{ bind = "127.0.0.1:0", tls = {{}} }}
        certificates.one = {{ cert-file = "one.pem", key-file = "one.key" }}
        {}
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().certificate("one", &["old.test"]);
    let mut gateway = set_up.start(&config).await;
    let addr = gateway.addr("https");
    let open = Tls::to(&gateway.set_up.authority, "old.test");
    let mut open = Client::tls(addr, &open).await;

    gateway.set_up = gateway.set_up.certificate("one", &["new.test"]);
    gateway.reload(&config).await.unwrap();

    let renewed = Tls::to(&gateway.set_up.authority, "new.test");
    assert!(renewed.connect(addr).await.is_ok());
    // The connection that was open before goes on.
    assert_eq!(open.get("old.test", "/").await.status, 200);

    // A key that does not belong to the certificate is a problem, and changes nothing.
    let other = gateway.set_up.authority.leaf(&["new.test"]);
    gateway.set_up = gateway.set_up.file("one.key", other.key);
    let problems = gateway.reload(&config).await.unwrap_err();
    assert!(problems.contains("postern.toml:3:"), "{problems}");
    assert!(renewed_again(&gateway, addr).await);
}

async fn renewed_again(gateway: &Running, addr: std::net::SocketAddr) -> bool {
    let tls = Tls::to(&gateway.set_up.authority, "new.test");
    tls.connect(addr).await.is_ok()
}

#[tokio::test]
async fn a_client_that_can_agrees_on_a_key_that_outlasts_quantum_computers() {
    let app = Upstream::echo("app").await;
    let gateway = two_certificates("{}", &app).await;
    let tls = Tls::to(&gateway.set_up.authority, "one.test");
    let stream = tls.connect(gateway.addr("https")).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group();
    let group = group.map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
}
