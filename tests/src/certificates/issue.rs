//! From an empty folder to a served certificate, and to the next one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::Outcome;
use super::failed;
use super::pebble;
use super::pebble::Pebble;
use super::pebble::Plan;
use crate::process;
use crate::process::Program;
use crate::process::free_addr;

/// How long a certificate may take; it is a debug build on a busy machine.
const ISSUE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Long enough for an order that should not be placed.
const QUIET: Duration = Duration::from_secs(3);
/// Seconds that a certificate is valid which is renewed while one looks.
const SHORT_LIFE: u64 = 40;
/// Handshakes that a renewal has to come under.
const LOAD: u64 = 1000;

/// A gateway beside an authority.
pub struct Site {
    pub pebble: Pebble,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    /// Behind addresses and issuer.
    pub config: String,
    /// Keys of the issuer.
    pub issuer: String,
    program: Option<Program>,
}

impl Site {
    /// Nothing runs but the authority.
    pub async fn new(plan: Plan, issuer: &str, config: &str) -> Result<Self, String> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (http, https) = (local(plan.http_port), local(plan.tls_port));
        Ok(Self {
            pebble: Pebble::start(plan).await?,
            http,
            https,
            admin: free_addr(),
            config: config.to_owned(),
            issuer: issuer.to_owned(),
            program: None,
        })
    }

    pub fn dir(&self) -> &Path {
        self.pebble.dir.path()
    }

    /// Writes the configuration; a gateway that runs takes it up.
    pub fn configure(&self) {
        let text = format!(
            "runtime = {{ workers = 2, state-dir = \"state\" }}\naccess-log.format = \"off\"\n\
             admin.bind = \"{}\"\nlisteners.http.bind = \"{}\"\n\
             listeners.https = {{ bind = \"{}\", tls = {{}} }}\n\
             [issuers.pebble]\ndirectory = \"{}\"\nca-file = \"ca.pem\"\n{}\n{}\n\
             [[routes]]\nrules = [{{ redirect = {{ scheme = \"https\" }} }}]\n",
            self.admin,
            self.http,
            self.https,
            self.pebble.directory(),
            self.issuer,
            self.config,
        );
        let next = self.pebble.dir.write("postern.toml.next", text);
        std::fs::rename(next, self.dir().join("postern.toml")).unwrap();
    }

    pub async fn start(&mut self) -> Result<(), String> {
        self.configure();
        let path = self.dir().join("postern.toml").display().to_string();
        let arguments = ["run", "--config", &path, "--accept-for", "0s"];
        let program = Program::start(&process::postern()?, &arguments, false);
        let mut program = program.map_err(failed("the gateway"))?;
        program.ready(self.admin, ISSUE).await?;
        self.program = Some(program);
        Ok(())
    }

    /// Lets another process take over from the one that runs, and ends that.
    pub async fn take_over(&mut self) -> Result<(), String> {
        let path = self.dir().join("postern.toml").display().to_string();
        let ready = self.dir().join("ready");
        let ready_text = ready.display().to_string();
        let arguments = [
            "run",
            "--takeover",
            "--config",
            &path,
            "--ready-file",
            &ready_text,
        ];
        let next = Program::start(&process::postern()?, &arguments, false);
        let next = next.map_err(failed("the successor"))?;
        let end = Instant::now() + ISSUE;
        while !ready.exists() {
            if Instant::now() > end {
                return Err(format!("the successor is not ready:\n{}", next.output()));
            }
            sleep(POLL).await;
        }
        let waits = "another process gets certificates until it ends";
        if !next.prints(ISSUE, |log| log.contains(waits)).await {
            return Err(format!("two processes order at once:\n{}", next.output()));
        }
        self.stop().await?;
        self.program = Some(next);
        Ok(())
    }

    /// Ends the gateway in order.
    pub async fn stop(&mut self) -> Result<(), String> {
        let Some(mut program) = self.program.take() else {
            return Ok(());
        };
        let status = program.terminate().await.map_err(failed("the end"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("it ended with {status}:\n{}", program.output())),
        }
    }

    /// Ends it as a power failure does.
    pub async fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().await;
        }
    }

    pub fn log(&self) -> String {
        self.program
            .as_ref()
            .map(Program::output)
            .unwrap_or_default()
    }

    /// Waits for a certificate that a client accepts, and that openssl accepts; the chain.
    pub async fn served(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
        let root = self.pebble.root().await?;
        let end = Instant::now() + ISSUE;
        loop {
            match handshake(self.https, &root, name).await {
                Ok(chain) => {
                    pebble::verify(self.dir(), &root, &pem(&chain), name).await?;
                    return Ok(chain);
                }
                Err(error) if Instant::now() > end => {
                    return Err(format!(
                        "no certificate for {name}: {error}\n{}\n{}",
                        self.log(),
                        self.pebble.log()
                    ));
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }

    /// Orders that the authority has got.
    pub fn orders(&self) -> usize {
        self.pebble.orders()
    }

    /// What `postern certs explain` says, and whether it went well.
    pub async fn explain(&self, host: &str) -> Result<(bool, String), String> {
        let output = Command::new(process::postern()?)
            .args(["certs", "explain", host, "--admin", &self.admin.to_string()])
            .output()
            .await
            .map_err(failed("postern certs"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text + &errors))
    }

    /// Waits until `postern certs explain` says something.
    pub async fn says(&self, host: &str, wanted: &str) -> Result<String, String> {
        let end = Instant::now() + ISSUE;
        loop {
            let (_, text) = self.explain(host).await?;
            if text.contains(wanted) {
                return Ok(text);
            }
            if Instant::now() > end {
                return Err(format!("no '{wanted}' for {host}:\n{text}\n{}", self.log()));
            }
            sleep(POLL).await;
        }
    }
}

/// A handshake with a client that trusts this root alone; the chain that it was shown.
pub async fn handshake(
    addr: SocketAddr,
    root: &str,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(root.as_bytes()).flatten());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed("TLS"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr)
        .await
        .map_err(failed("no connection"))?;
    let server = ServerName::try_from(name.to_owned()).map_err(failed("the name"))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await;
    let stream = stream.map_err(failed("no handshake"))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|der| der.clone().into_owned()).collect())
}

pub fn pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for der in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::prelude::BASE64_STANDARD.encode(der);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

const TWO: &str =
    "[certificates.shop]\nissuer = \"pebble\"\nhosts = [\"shop.test\", \"www.shop.test\"]\n";

/// Challenges before redirects; a restart without an order; nothing that others may read.
pub async fn http_01() -> Outcome {
    let issuer = "challenges = [\"http-01\"]";
    let plan = Plan {
        refused_nonces: 20,
        ..Plan::default()
    };
    let mut site = Site::new(plan, issuer, TWO).await?;
    site.start().await?;
    let first = site.served("shop.test").await?;
    site.served("www.shop.test").await?;
    let (is_served, text) = site.explain("shop.test").await?;
    if !is_served || !text.contains("all is well") {
        return Err(format!("postern certs explain says:\n{text}"));
    }
    is_private(&site.dir().join("state"))?;
    site.stop().await?;
    let orders = site.orders();
    site.start().await?;
    let root = site.pebble.root().await?;
    // At once, not when an order is through.
    let again = handshake(site.https, &root, "shop.test").await?;
    sleep(QUIET).await;
    if again != first || site.orders() != orders || orders != 2 {
        return Err(format!(
            "{orders} orders, {} after a restart",
            site.orders()
        ));
    }
    site.stop().await?;
    Ok(format!(
        "2 names, {orders} orders, 20 % of nonces refused; a restart served at once and ordered nothing"
    ))
}

pub async fn tls_alpn_01() -> Outcome {
    let issuer = "challenges = [\"tls-alpn-01\"]\nkey-type = \"rsa-2048\"";
    let config = format!("{TWO}as-one = true\n");
    let mut site = Site::new(Plan::default(), issuer, &config).await?;
    site.start().await?;
    let one = site.served("shop.test").await?;
    let other = site.served("www.shop.test").await?;
    if one != other || site.orders() != 1 {
        return Err(format!(
            "not one certificate for both: {} orders",
            site.orders()
        ));
    }
    // Without a challenge, the protocol of challenges gets nothing.
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-alpn",
            "acme-tls/1",
            "-servername",
            "shop.test",
        ])
        .args(["-connect", &site.https.to_string()])
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(failed("openssl"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("BEGIN CERTIFICATE") {
        return Err(format!("a stranger was answered:\n{text}"));
    }
    site.stop().await?;
    Ok("one certificate for 2 names, RSA; a stranger that asks by acme-tls/1 gets none".to_owned())
}

/// One account, bound once; its secret is not needed again.
pub async fn bound() -> Outcome {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let plan = Plan {
        bindings: vec![("kid-1".to_owned(), KEY.to_owned())],
        ..Plan::default()
    };
    let mut site = Site::new(plan, "", TWO).await?;
    site.start().await?;
    let text = site.says("shop.test", "EabRequired").await?;
    if site.orders() != 0 {
        return Err(format!("ordered without an account:\n{text}"));
    }
    let secret = site.pebble.dir.write("eab.key", format!("{KEY}\n"));
    site.issuer = "external-account = { key-id = \"kid-1\", key-file = \"eab.key\" }".to_owned();
    site.configure();
    site.served("shop.test").await?;
    site.served("www.shop.test").await?;
    std::fs::remove_file(secret).map_err(failed("eab.key"))?;
    site.kill().await;
    site.config = TWO.replace("www.shop.test", "new.shop.test");
    site.start().await?;
    site.served("new.shop.test").await?;
    let accounts = site.pebble.requests("/sign-me-up");
    site.stop().await?;
    match accounts {
        1 => Ok("bound once; killed, its secret deleted, and another name was issued".to_owned()),
        accounts => Err(format!("{accounts} requests for an account")),
    }
}

/// Another process takes over, and what the first one has got.
pub async fn taken_over() -> Outcome {
    let mut site = Site::new(Plan::default(), "", TWO).await?;
    site.start().await?;
    let first = site.served("shop.test").await?;
    site.served("www.shop.test").await?;
    site.take_over().await?;
    let root = site.pebble.root().await?;
    let again = handshake(site.https, &root, "shop.test").await?;
    if again != first {
        return Err("the successor serves another certificate".to_owned());
    }
    site.config = TWO.replace("www.shop.test", "new.shop.test");
    site.configure();
    site.served("new.shop.test").await?;
    let (orders, accounts) = (site.orders(), site.pebble.requests("/sign-me-up"));
    site.stop().await?;
    match (orders, accounts) {
        (3, 1) => Ok("one process orders at a time; 3 names, 3 orders, 1 account".to_owned()),
        seen => Err(format!("orders and accounts: {seen:?}")),
    }
}

/// Certificates replaced under handshakes, none of which fails.
pub async fn renewed() -> Outcome {
    let plan = Plan {
        validity: SHORT_LIFE,
        ..Plan::default()
    };
    let config = "[certificates.shop]\nissuer = \"pebble\"\nhosts = [\"shop.test\"]\n";
    let mut site = Site::new(plan, "", config).await?;
    site.start().await?;
    let mut current = site.served("shop.test").await?;
    let root = site.pebble.root().await?;
    let (stop, failures, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, failures, count) = (stop.clone(), failures.clone(), count.clone());
            let (root, addr) = (root.clone(), site.https);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    count.fetch_add(1, Ordering::Relaxed);
                    if handshake(addr, &root, "shop.test").await.is_err() {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut renewals = 0;
    let end = Instant::now() + 3 * Duration::from_secs(SHORT_LIFE);
    while renewals < 2 && Instant::now() < end {
        sleep(POLL).await;
        if let Ok(chain) = handshake(site.https, &root, "shop.test").await
            && chain != current
        {
            renewals += 1;
            current = chain;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.map_err(failed("a client"))?;
    }
    let (failures, count) = (
        failures.load(Ordering::Relaxed),
        count.load(Ordering::Relaxed),
    );
    let log = site.log();
    site.stop().await?;
    let orders = site.orders();
    if renewals < 2 || orders < 3 || failures > 0 || count < LOAD {
        return Err(format!(
            "{renewals} renewals, {orders} orders, {failures} of {count} handshakes failed\n{log}"
        ));
    }
    Ok(format!(
        "{renewals} renewals under {count} handshakes, 0 failed"
    ))
}

/// Whether nobody but the owner may read anything in there.
pub fn is_private(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(failed("the state"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("{} has mode {mode:o}", path.display()));
    }
    if metadata.is_dir() {
        let entries = std::fs::read_dir(path).map_err(failed("the state"))?;
        for entry in entries.flatten() {
            is_private(&entry.path())?;
        }
    }
    Ok(())
}
