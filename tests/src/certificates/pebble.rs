//! Pebble and its DNS server as child processes, on free ports, in a folder of their own.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;

use super::failed;
use super::tool;
use crate::certs::Authority;
use crate::client::Client;
use crate::client::Tls;
use crate::process::free_addr;
use crate::scratch::Scratch;

/// As in `tests/certificates/setup.sh`.
const VERSION: &str = "v2.10.1";
/// How long a server may take to answer for the first time.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// How Pebble is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it looks for HTTP-01 and TLS-ALPN-01 answers, at the address that its DNS server gives.
    pub http_port: u16,
    pub tls_port: u16,
    /// The DNS server that it asks; its own if absent.
    pub dns: Option<SocketAddr>,
    /// Key identifiers and base64url keys of which an account needs one.
    pub bindings: Vec<(String, String)>,
    /// Seconds that certificates are valid.
    pub validity: u64,
    /// Percent of good nonces that are refused.
    pub refused_nonces: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            http_port: free_addr().port(),
            tls_port: free_addr().port(),
            dns: None,
            bindings: Vec::new(),
            validity: 90 * 24 * 60 * 60,
            refused_nonces: 0,
        }
    }
}

/// A certificate authority that issues what it can validate. Ends when dropped.
pub struct Pebble {
    /// Where configurations and keys of it are; the caller may put its own there.
    pub dir: Scratch,
    pub plan: Plan,
    directory: SocketAddr,
    management: SocketAddr,
    /// The DNS server that it asks.
    pub dns: SocketAddr,
    /// Where that is told what to say, if it is its own.
    pub dns_management: SocketAddr,
    /// Of the servers of the CA, not of what it issues.
    authority: Authority,
    log: PathBuf,
    _pebble: Child,
    _dns: Option<Child>,
}

impl Pebble {
    pub async fn start(plan: Plan) -> Result<Self, String> {
        let dir = Scratch::new();
        let authority = Authority::new("servers of the test CA");
        let leaf = authority.leaf(&["localhost", "127.0.0.1"]);
        let certificate = dir.write("server.pem", &leaf.chain);
        let key = dir.write("server.key", &leaf.key);
        dir.write("ca.pem", authority.pem());
        let (directory, management, dns_management) = (free_addr(), free_addr(), free_addr());

        let (dns, dns_child) = match plan.dns {
            Some(dns) => (dns, None),
            None => {
                let dns = free_addr();
                (dns, Some(challtestsrv(dns, dns_management)?))
            }
        };
        let bindings: serde_json::Map<String, Value> = plan
            .bindings
            .iter()
            .map(|(id, key)| (id.clone(), json!(key)))
            .collect();
        let profile =
            |seconds: u64| json!({ "description": "of the test", "validityPeriod": seconds });
        let config = json!({ "pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": plan.http_port,
            "tlsPort": plan.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !plan.bindings.is_empty(),
            "externalAccountMACKeys": bindings,
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": {
                "default": profile(plan.validity),
                "short": profile(plan.validity.min(160 * 60 * 60)),
            },
        }});
        let config = dir.write("pebble.json", format!("{config:#}"));
        let log = dir.path().join("pebble.log");
        let output = std::fs::File::create(&log).map_err(failed("the log of Pebble"))?;
        let errors = output.try_clone().map_err(failed("the log of Pebble"))?;
        let pebble = Command::new(tool(&format!("pebble-{VERSION}"))?)
            .arg("-config")
            .arg(&config)
            .args(["-dnsserver", &dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", plan.refused_nonces.to_string())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("Pebble"))?;
        let pebble = Self {
            dir,
            plan,
            directory,
            management,
            dns,
            dns_management,
            authority,
            log,
            _pebble: pebble,
            _dns: dns_child,
        };
        pebble.await_start().await?;
        Ok(pebble)
    }

    async fn await_start(&self) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            let root = self.ask(self.management, "/roots/0").await;
            let asked = match root {
                Ok(_) => self.ask(self.directory, "/dir").await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    return Err(format!("no answer: {error}\n{}", self.log()));
                }
                Err(_) => {}
            }
            sleep(POLL).await;
        }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.port())
    }

    /// The file of the root that its servers are to be trusted by.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The root of what it issues, PEM.
    pub async fn root(&self) -> Result<String, String> {
        self.ask(self.management, "/roots/0").await
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Requests that it has got for a path that begins like this.
    pub fn requests(&self, path: &str) -> usize {
        let log = self.log();
        let lines = log.lines().filter(|line| {
            let called = line.split_once(" -> calling handler()");
            called.is_some_and(|(call, _)| {
                let path_of = call.rsplit_once(' ').map(|(_, path)| path);
                path_of.is_some_and(|called| called.starts_with(path))
            })
        });
        lines.count()
    }

    /// How many orders were placed. A request whose nonce is refused places none.
    pub fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// Changes what its DNS server says: `command` as in `set-txt`, with its arguments.
    pub async fn tell_dns(&self, command: &str, arguments: Value) -> Result<(), String> {
        let stream = TcpStream::connect(self.dns_management)
            .await
            .map_err(failed("the DNS server of the tests"))?;
        let request = Request::post(format!("/{command}"))
            .header("host", "localhost")
            .body(Full::new(Bytes::from(arguments.to_string())))
            .map_err(failed("a change of the DNS"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed("the DNS server of the tests"))?;
        // Ends with the sender.
        tokio::spawn(connection);
        let reply = sender.send_request(request).await;
        let reply = reply.map_err(failed("a change of the DNS"))?;
        let status = reply.status();
        let _ = reply.into_body().collect().await;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("a change of the DNS: {status}")),
        }
    }

    async fn ask(&self, addr: SocketAddr, path: &str) -> Result<String, String> {
        let tls = Tls {
            alpn: &["http/1.1"],
            ..Tls::to(&self.authority, "localhost")
        };
        let stream = tls.connect(addr).await.map_err(failed("Pebble"))?;
        let mut client = Client::over_http1(stream).await.map_err(failed("Pebble"))?;
        let mut request = client.request("GET", "localhost", path);
        // It answers nobody who does not say what he is (RFC 8555, 6.1).
        let agent = HeaderValue::from_static("postern-tests");
        request.headers_mut().insert(header::USER_AGENT, agent);
        let reply = client.send(request).await.map_err(failed("Pebble"))?;
        match reply.status.is_success() {
            true => Ok(reply.text()),
            false => Err(format!("Pebble: {} for {path}", reply.status)),
        }
    }
}

fn challtestsrv(dns: SocketAddr, management: SocketAddr) -> Result<Child, String> {
    let path = tool(&format!("pebble-challtestsrv-{VERSION}"))?;
    Command::new(path)
        .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
        .args(["-dnsserver", &dns.to_string()])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""])
        .args(["-management", &management.to_string()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("the DNS server of the tests"))
}

/// Whether openssl finds that the chain leads to the root, and is for the name.
pub async fn verify(dir: &Path, root: &str, chain: &str, name: &str) -> Result<(), String> {
    let root_file = dir.join("root.pem");
    let chain_file = dir.join("chain.pem");
    std::fs::write(&root_file, root).map_err(failed("root.pem"))?;
    std::fs::write(&chain_file, chain).map_err(failed("chain.pem"))?;
    let output = Command::new("openssl")
        .args(["verify", "-verify_hostname", name, "-CAfile"])
        .arg(&root_file)
        .arg("-untrusted")
        .arg(&chain_file)
        .arg(&chain_file)
        .output()
        .await
        .map_err(failed("openssl"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "openssl refuses the certificate of {name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
