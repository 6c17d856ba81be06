//! Certificates that clients show, by host, and sessions that stay within their host.

use std::sync::Arc;

use postern_tests::certs::Authority;
use postern_tests::certs::Leaf;
use postern_tests::client::Client;
use postern_tests::client::Tls;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use rustls::ClientConfig;
use rustls::HandshakeKind;
use rustls::NamedGroup;
use rustls::client::ClientSessionMemoryCache;
use rustls::client::ClientSessionStore;
use rustls::client::Resumption;
use rustls::client::Tls12ClientSessionValue;
use rustls::client::Tls13ClientSessionValue;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::upstream_table;

const ONLY_12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Hosts: `open.test` asks for nothing, `must.test` for staff, `may.test` lets them choose,
/// `other.test` wants somebody else. All are on one certificate, so only that keeps them apart.
struct Scene {
    gateway: Running,
    staff: Authority,
    _app: Upstream,
}

async fn scene() -> Scene {
    let app = Upstream::echo("app").await;
    let staff = Authority::new("staff");
    let others = Authority::new("others");
    let set_up = SetUp::new()
        .certificate(
            "all",
            &[
                "open.test",
                "must.test",
                "may.test",
                "other.test",
                "127.0.0.1",
            ],
        )
        .file("staff.pem", staff.pem())
        .file("others.pem", others.pem());
    let config = format!(
        r#"
        [listeners.https]
        bind = "127.0.0.1:0"
        [listeners.https.tls]
        client-auth = [
          {{ hosts = ["must.test"], ca-file = "staff.pem" }},
          {{ hosts = ["may.test"], ca-file = "staff.pem", mode = "optional" }},
          {{ hosts = ["other.test"], ca-file = "others.pem" }},
        ]
        [certificates.all]
        cert-file = "all.pem"
        key-file = "all.key"
        {}
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    Scene {
        gateway: set_up.start(&config).await,
        staff,
        _app: app,
    }
}

impl Scene {
    fn tls<'t>(&'t self, host: &'t str, identity: Option<&'t Leaf>) -> Tls<'t> {
        Tls {
            identity,
            ..Tls::to(&self.gateway.set_up.authority, host)
        }
    }

    /// Whether a request is answered with 200.
    async fn is_served(&self, tls: &Tls<'_>) -> bool {
        let Ok(stream) = tls.connect(self.gateway.addr("https")).await else {
            return false;
        };
        let Ok(mut client) = Client::over_http2(stream).await else {
            return false;
        };
        let request = client.request("GET", tls.name, "/");
        // In TLS 1.3 a client learns only now that it was refused.
        client
            .send(request)
            .await
            .is_ok_and(|reply| reply.status == 200)
    }
}

#[tokio::test]
async fn each_host_asks_for_its_own_certificates() {
    let scene = scene().await;
    let ann = scene.staff.leaf(&["ann"]);
    let stranger = Authority::new("staff").leaf(&["ann"]);
    for (host, identity, want) in [
        ("open.test", None, true),
        ("open.test", Some(&ann), true),
        ("must.test", None, false),
        ("must.test", Some(&ann), true),
        ("must.test", Some(&stranger), false),
        ("may.test", None, true),
        ("may.test", Some(&ann), true),
        ("may.test", Some(&stranger), false),
        ("other.test", Some(&ann), false),
        ("other.test", None, false),
    ] {
        for versions in [ONLY_12, ONLY_13] {
            let tls = Tls {
                versions,
                ..scene.tls(host, identity)
            };
            let who = identity.map(|leaf| leaf.chain.len());
            assert_eq!(
                scene.is_served(&tls).await,
                want,
                "{host} {who:?} {versions:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_upstream_is_told_who_it_was_by_the_gateway_alone() {
    let scene = scene().await;
    let ann = scene.staff.leaf(&["ann"]);
    let addr = scene.gateway.addr("https");
    for (host, identity, verify) in [
        ("must.test", Some(&ann), &["SUCCESS"][..]),
        ("may.test", Some(&ann), &["SUCCESS"]),
        ("may.test", None, &["NONE"]),
        ("open.test", None, &[]),
    ] {
        let mut client = Client::tls(addr, &scene.tls(host, identity)).await;
        let mut request = client.request("GET", host, "/");
        for name in [
            "ssl-client-verify",
            "ssl-client-subject-dn",
            "ssl-client-cert",
        ] {
            let value = "FORGED".parse().unwrap();
            request.headers_mut().insert(name, value);
        }
        let reply = client.send(request).await.unwrap();
        assert!(!reply.text().contains("FORGED"), "{host}");
        assert_eq!(reply.echoed("ssl-client-verify"), verify, "{host}");
        if identity.is_some() {
            assert_eq!(reply.echoed("ssl-client-subject-dn"), ["CN=ann"]);
            assert_eq!(reply.echoed("ssl-client-issuer-dn"), ["CN=staff"]);
            assert_eq!(reply.echoed("ssl-client-fingerprint")[0].len(), 64);
            let pem = reply.echoed("ssl-client-cert").remove(0);
            assert!(pem.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{pem}");
        }
    }
}

#[tokio::test]
async fn a_connection_to_one_host_carries_no_requests_for_another() {
    let scene = scene().await;
    let ann = scene.staff.leaf(&["ann"]);
    let addr = scene.gateway.addr("https");
    for (connected, identity, host, want) in [
        ("open.test", None, "open.test", 200),
        ("open.test", None, "must.test", 421),
        ("open.test", None, "may.test", 421),
        ("must.test", Some(&ann), "must.test", 200),
        ("must.test", Some(&ann), "other.test", 421),
        ("must.test", Some(&ann), "open.test", 421),
        ("may.test", None, "must.test", 421),
    ] {
        let mut client = Client::tls(addr, &scene.tls(connected, identity)).await;
        let reply = client.get(host, "/").await;
        assert_eq!(reply.status, want, "{connected} then {host}");
    }
    // Without a server name, a client is asked for nothing and may have nothing that asks.
    let mut client = Client::tls(addr, &scene.tls("127.0.0.1", None)).await;
    assert_eq!(client.get("must.test", "/").await.status, 421);
}

/// Sessions of every host under one name: a client that wants to cross.
#[derive(Debug)]
struct OneForAll(ClientSessionMemoryCache);

impl OneForAll {
    fn name() -> ServerName<'static> {
        ServerName::try_from("all.test").unwrap()
    }
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

/// Connects, asks for something so that tickets arrive, and says how the handshake went.
async fn visit(scene: &Scene, config: &Arc<ClientConfig>, host: &str) -> Option<HandshakeKind> {
    let stream = TcpStream::connect(scene.gateway.addr("https")).await.ok()?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, stream).await.ok()?;
    let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_session_of_one_host_is_not_resumed_with_another() {
    let scene = scene().await;
    let ann = scene.staff.leaf(&["ann"]);
    for versions in [ONLY_12, ONLY_13] {
        for (first, then, is_served) in [
            ("open.test", "must.test", false),
            ("open.test", "may.test", true),
            ("may.test", "must.test", false),
            ("must.test", "may.test", true),
            ("must.test", "other.test", false),
            ("must.test", "open.test", true),
        ] {
            let identity = (first == "must.test").then_some(&ann);
            let tls = Tls {
                versions,
                alpn: &["http/1.1"],
                ..scene.tls(first, identity)
            };
            let mut config = tls.config();
            let store = OneForAll(ClientSessionMemoryCache::new(32));
            config.resumption = Resumption::store(Arc::new(store));
            let config = Arc::new(config);
            let kind = visit(&scene, &config, first).await;
            assert_eq!(kind, Some(HandshakeKind::Full), "{first}");
            // It would be, with the same host.
            let again = visit(&scene, &config, first).await;
            assert_eq!(again, Some(HandshakeKind::Resumed), "{first} {versions:?}");
            let crossed = visit(&scene, &config, then).await;
            let want = is_served.then_some(HandshakeKind::Full);
            assert_eq!(crossed, want, "{first} to {then} {versions:?}");
        }
    }
}

#[tokio::test]
async fn a_file_without_authorities_is_a_problem_at_its_place() {
    let scene = scene().await;
    let config = "\
[listeners.https]
bind = \"127.0.0.1:0\"
tls = { client-auth = [{ ca-file = \"all.key\" }, { hosts = [\"a.test\"], ca-file = \"none.pem\" }] }
[certificates.all]
cert-file = \"all.pem\"
key-file = \"all.key\"
";
    let problems = scene.gateway.reload(config).await.unwrap_err();
    assert!(problems.contains("postern.toml:3:"), "{problems}");
    assert!(problems.contains("none.pem"), "{problems}");
    let bare = config.replace("none.pem", "staff.pem");
    let problems = scene.gateway.reload(&bare).await.unwrap_err();
    assert!(problems.contains("no PEM certificate"), "{problems}");
}

/// A gateway with these files of ticket keys, in this order.
async fn replica(keys: &[(&str, u8)], authority: &Authority) -> Running {
    let leaf = authority.leaf(&["a.test"]);
    let names: Vec<String> = keys.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut set_up = SetUp::new()
        .file("a.pem", &leaf.chain)
        .file("a.key", &leaf.key)
        .file("staff.pem", authority.pem());
    for (name, byte) in keys {
        set_up = set_up.file(name, vec![*byte; 64]);
    }
    let config = format!(
        "[listeners.https]\nbind = \"127.0.0.1:0\"\n\
         tls = {{ ticket-keys = [{}], client-auth = [{{ hosts = [\"must.test\"], ca-file = \"staff.pem\" }}] }}\n\
         [certificates.all]\ncert-file = \"a.pem\"\nkey-file = \"a.key\"\n\
         [[routes]]\nrules = [{{ respond.status = 204 }}]\n",
        names.join(", ")
    );
    set_up.start(&config).await
}

#[tokio::test]
async fn replicas_with_the_same_secrets_resume_each_others_sessions() {
    let authority = Authority::new("all");
    for versions in [ONLY_12, ONLY_13] {
        let tls = Tls {
            versions,
            alpn: &["http/1.1"],
            ..Tls::to(&authority, "a.test")
        };
        let config = Arc::new(tls.config());
        let visit = async |gateway: &Running| {
            let stream = TcpStream::connect(gateway.addr("https")).await.unwrap();
            let name = ServerName::try_from("a.test").unwrap();
            let connector = TlsConnector::from(Arc::clone(&config));
            let mut stream = connector.connect(name, stream).await.unwrap();
            let get = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
            stream.write_all(get).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 204"));
            stream.get_ref().1.handshake_kind().unwrap()
        };
        let one = replica(&[("old", 1)], &authority).await;
        assert_eq!(visit(&one).await, HandshakeKind::Full);
        let two = replica(&[("old", 1)], &authority).await;
        assert_eq!(visit(&two).await, HandshakeKind::Resumed, "{versions:?}");
        let both = replica(&[("new", 2), ("old", 1)], &authority).await;
        assert_eq!(visit(&both).await, HandshakeKind::Resumed, "{versions:?}");
        // That one gave a ticket under the new secret.
        let new = replica(&[("new", 2)], &authority).await;
        assert_eq!(visit(&new).await, HandshakeKind::Resumed, "{versions:?}");
        let other = replica(&[("other", 3)], &authority).await;
        assert_eq!(visit(&other).await, HandshakeKind::Full, "{versions:?}");
    }
}

#[tokio::test]
async fn a_ticket_secret_that_is_too_short_is_a_problem_at_its_place() {
    let set_up = SetUp::new()
        .certificate("a", &["a.test"])
        .file("short", [7; 31]);
    let gateway = set_up
        .start("[[routes]]\nrules = [{ respond.status = 204 }]\n")
        .await;
    let config = "\
[listeners.https]
bind = \"127.0.0.1:0\"
tls = { ticket-keys = [\"short\"] }
[certificates.a]
cert-file = \"a.pem\"
key-file = \"a.key\"
";
    let problems = gateway.reload(config).await.unwrap_err();
    assert!(problems.contains("postern.toml:3:"), "{problems}");
    assert!(problems.contains("fewer than 32 bytes"), "{problems}");
}
