//! Certificates that the gateway gets for itself, from an authority that does as it is told.

mod days;
mod faults;
mod held;
mod killed;
mod life;
mod private;

use std::net::SocketAddr;
use std::time::Duration;

use postern_tests::certificates::issue::handshake;
use postern_tests::certificates::scripted::Fault;
use postern_tests::certificates::scripted::Script;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::client;
use postern_tests::process;
use postern_tests::process::Program;
use postern_tests::process::free_addr;
use postern_tests::scratch::Scratch;
use serde_json::Value;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::support;

/// How long something that has to happen may take.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// A gateway whose only issuer is a scripted authority.
struct Site {
    ca: ScriptedCa,
    dir: Scratch,
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    program: Option<Program>,
}

impl Site {
    async fn start(script: Script, issuer: &str) -> Self {
        Self::start_for(script, issuer, &["shop.test"]).await
    }

    async fn start_for(script: Script, issuer: &str, hosts: &[&str]) -> Self {
        let mut site = Self::prepare(script, issuer, hosts).await;
        site.run().await;
        site
    }

    /// All but the gateway.
    async fn prepare(script: Script, issuer: &str, hosts: &[&str]) -> Self {
        let ca = ScriptedCa::start(script).await;
        let site = Self {
            dir: Scratch::new(),
            http: free_addr(),
            https: free_addr(),
            admin: free_addr(),
            program: None,
            ca,
        };
        site.dir.write("ca.pem", site.ca.ca_pem());
        site.dir.write("eab.key", KEY);
        let text = format!(
            "runtime = {{ workers = 1, state-dir = \"state\" }}\naccess-log.format = \"off\"\n\
             admin.bind = \"{}\"\nlisteners.http.bind = \"{}\"\n\
             listeners.https = {{ bind = \"{}\", tls = {{}} }}\n\
             [issuers.ca]\ndirectory = \"{}\"\nca-file = \"ca.pem\"\n{issuer}\n\
             [certificates.shop]\nissuer = \"ca\"\nhosts = {hosts:?}\n\
             [[routes]]\nrules = [{{ redirect = {{ scheme = \"https\" }} }}]\n",
            site.admin,
            site.http,
            site.https,
            site.ca.directory(),
        );
        site.dir.write("postern.toml", text);
        site
    }

    async fn run(&mut self) {
        self.run_at("info").await;
    }

    async fn run_at(&mut self, level: &str) {
        let path = self.dir.path().join("postern.toml").display().to_string();
        let arguments = ["run", "--config", &path, "--accept-for", "0s"];
        let arguments = [&arguments[..], &["--log-level", level]].concat();
        let mut program = Program::start(&process::postern().unwrap(), &arguments, false).unwrap();
        program.ready(self.admin, LIMIT).await.unwrap();
        self.program = Some(program);
    }

    async fn kill(&mut self) {
        self.program.take().unwrap().kill().await;
    }

    fn log(&self) -> String {
        self.program
            .as_ref()
            .map(Program::output)
            .unwrap_or_default()
    }

    /// What the admin listener says.
    async fn asked(&self, path: &str) -> String {
        let reply = client::get(self.admin, &self.admin.to_string(), path).await;
        reply.text()
    }

    /// What `/certs` says.
    async fn certificates(&self) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.asked("/certs").await).unwrap();
        all["certificates"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until it is so.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_all(what, wanted).await.swap_remove(0)
    }

    /// Waits until it is so of every certificate.
    async fn until_all(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let end = Instant::now() + LIMIT;
        loop {
            let certificates = self.certificates().await;
            if !certificates.is_empty() && certificates.iter().all(&wanted) {
                return certificates;
            }
            assert!(
                Instant::now() < end,
                "{what}: {certificates:#?}\n{}",
                self.log()
            );
            sleep(POLL).await;
        }
    }

    async fn has_reason(&self, reason: &str) -> Value {
        self.until(reason, |certificate| certificate["reason"] == reason)
            .await
    }

    async fn is_served(&self) -> Result<(), String> {
        let shaken = handshake(self.https, self.ca.root(), "shop.test").await;
        shaken.map(|_| ())
    }

    /// Waits for that: what was issued is told a moment before the workers have it.
    async fn until_served(&self) {
        let end = Instant::now() + LIMIT;
        while let Err(error) = self.is_served().await {
            assert!(Instant::now() < end, "not served: {error}");
            sleep(POLL).await;
        }
    }
}

#[tokio::test]
async fn a_slow_authority_with_a_binding_for_one_account_is_waited_for_over_a_kill() {
    let script = Script {
        binding: Some(("kid-1".to_owned(), KEY.to_owned())),
        knows_names: true,
        is_slow: true,
        retry_after: Some(1),
        ..Script::default()
    };
    let issuer = "external-account = { key-id = \"kid-1\", key-file = \"eab.key\" }";
    let mut site = Site::start(script, issuer).await;
    support::until("finalized", || {
        site.ca.counts().requests.contains_key("finalize")
    })
    .await;
    site.kill().await;
    std::fs::remove_file(site.dir.path().join("eab.key")).unwrap();
    site.run().await;
    support::until("looked at again", || site.ca.counts().requests["order"] > 2).await;
    assert!(site.is_served().await.is_err());
    site.ca.direct(|script| script.is_slow = false);
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    site.until_served().await;
    let counts = site.ca.counts();
    let seen = (
        counts.accounts,
        counts.bindings,
        counts.orders,
        counts.issued,
    );
    assert_eq!(seen, (1, 1, 1, 1), "{counts:?}");
    assert!(!counts.requests.contains_key("challenge"), "{counts:?}");
}

#[tokio::test]
async fn a_binding_that_is_used_up_is_a_reason_of_its_own() {
    let script = Script {
        binding: Some((
            "kid-1".to_owned(),
            "c29tZSBvdGhlciBrZXkgYWx0b2dldGhlcg".to_owned(),
        )),
        ..Script::default()
    };
    let issuer = "external-account = { key-id = \"kid-1\", key-file = \"eab.key\" }";
    let site = Site::start(script, issuer).await;
    let certificate = site.has_reason("EabRefused").await;
    let words = certificate["problem"].as_str().unwrap();
    assert!(words.contains("wrong key"), "{certificate:#}");
    let (is_served, text) = support::postern(&[
        "certs",
        "explain",
        "shop.test",
        "--admin",
        &site.admin.to_string(),
    ])
    .await;
    assert!(
        !is_served && text.contains("unknown key identifier or wrong key"),
        "{text}"
    );
    assert_eq!(site.ca.counts().orders, 0);
    assert!(!site.log().contains(KEY) && !text.contains(KEY));
}

#[tokio::test]
async fn a_pause_that_the_authority_asks_for_is_kept_over_a_restart() {
    let script = Script {
        faults: vec![Fault {
            path: "/order",
            status: 429,
            retry_after: Some(7200),
            body: r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#,
        }],
        ..Script::default()
    };
    let mut site = Site::start(script, "").await;
    let before = site.has_reason("RateLimited").await;
    assert_eq!(before["problem"], "rateLimited: too many orders");
    site.kill().await;
    let asked = site.ca.counts().requests;
    site.run().await;
    let after = site.has_reason("RateLimited").await;
    assert_eq!(after["next_at"], before["next_at"]);
    // Nothing was asked, and there is no fault left that would have refused it.
    assert_eq!(site.ca.counts().requests, asked);
}

#[tokio::test]
async fn a_page_of_a_proxy_is_not_the_word_of_the_authority() {
    let fault = |status| Fault {
        path: "/directory",
        status,
        retry_after: None,
        body: "<html>down for maintenance</html>",
    };
    // A request is sent three times before it counts as failed.
    let script = Script {
        faults: vec![fault(503), fault(502), fault(503)],
        ..Script::default()
    };
    let site = Site::start(script, "").await;
    let certificate = site.has_reason("IssuerUnreachable").await;
    let message = certificate["message"].as_str().unwrap();
    assert!(
        message.contains("status 503") && message.contains("maintenance"),
        "{message}"
    );
}

#[tokio::test]
async fn a_name_that_is_not_found_here_is_not_asked_for_again_at_once() {
    let script = Script {
        refuses_challenges: Some(("connection", "192.0.2.1: Connection refused")),
        ..Script::default()
    };
    let site = Site::start(script, "").await;
    let certificate = site.has_reason("ValidationFailed").await;
    assert_eq!(
        certificate["problem"],
        "connection: 192.0.2.1: Connection refused"
    );
    assert_eq!(certificate["failures"], 1);
    let challenges = site.ca.counts().requests["challenge"];
    sleep(Duration::from_secs(3)).await;
    assert_eq!(site.ca.counts().requests["challenge"], challenges);
    // And nothing of it is shown any more.
    let left = std::fs::read_dir(site.dir.path().join("state/challenge")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn the_authority_is_answered_before_routes_and_strangers_are_not() {
    let site = Site::start(
        Script {
            is_slow: true,
            ..Script::default()
        },
        "",
    )
    .await;
    site.ca.direct(|script| script.is_slow = false);
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    let path = "/.well-known/acme-challenge/unknown";
    let reply = client::get(site.http, "shop.test", path).await;
    assert_eq!(reply.status, 308, "an unknown token is for the routes");
}

#[tokio::test]
async fn what_the_authority_fetches_is_what_is_shown() {
    let ca_looks = |http| Script {
        looks_at: Some(http),
        ..Script::default()
    };
    // The address is known only when the site is there.
    let script = Script {
        refuses_orders: Some(("rejectedIdentifier", "not yet")),
        ..Script::default()
    };
    let mut site = Site::start(script, "challenges = [\"http-01\"]").await;
    site.has_reason("OrderRefused").await;
    site.kill().await;
    // As if the pause after the failure were over.
    let order = site.dir.path().join("state/order/shop.test.json");
    std::fs::remove_file(order).unwrap();
    let http = site.http;
    site.ca.direct(|script| *script = ca_looks(http));
    site.run().await;
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    assert_eq!(site.ca.counts().requests["challenge"], 1);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_replaced_is_renewed_all_the_same() {
    let script = Script {
        life: 20,
        window: Some((
            "2020-01-01T00:00:00Z".to_owned(),
            "2020-01-02T00:00:00Z".to_owned(),
        )),
        refuses_replacement: Some("alreadyReplaced"),
        ..Script::default()
    };
    let site = Site::start(script, "").await;
    support::until("renewed", || site.ca.counts().issued >= 2).await;
    let counts = site.ca.counts();
    assert_eq!(counts.replacements, 0, "{counts:?}");
    assert!(counts.requests["renewal"] >= 1, "{counts:?}");
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_served() {
    let script = Script {
        life: 24,
        ..Script::default()
    };
    let site = Site::start(script, "").await;
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    site.ca.direct(|script| script.mistakes_names = true);
    let certificate = site.has_reason("CertificateRefused").await;
    assert_eq!(certificate["served_from"], "ca", "the old one is served on");
    assert!(
        certificate["message"]
            .as_str()
            .unwrap()
            .contains("does not name shop.test")
    );
    site.until_served().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_stops_orders_and_no_handshake() {
    let script = Script {
        life: 24,
        ..Script::default()
    };
    let site = Site::start(script, "").await;
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    let orders = site.ca.counts().orders;
    let folder = site.dir.path().join("state/order");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    let certificate = site.has_reason("StorageFailed").await;
    assert_eq!(certificate["served_from"], "ca", "{certificate:#}");
    let message = certificate["message"].as_str().unwrap();
    assert!(message.contains("state/order/shop.test.json"), "{message}");
    site.until_served().await;
    assert_eq!(site.ca.counts().orders, orders);
}
