//! BIND as a child process: a hostmaster's zone, which is a file, and two that take updates.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use postern_acme::dns::DnsClient;
use postern_acme::dns::DnsSpec;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;

use super::failed;
use crate::process::free_addr;
use crate::scratch::Scratch;

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// The hostmaster's zone, which takes no updates.
pub const STATIC: &str = "vt.test";
/// The gateway's, with the cluster and its wildcard.
pub const CLUSTER_ZONE: &str = "aws.vt.test";
pub const CLUSTER: &str = "k8s-1.aws.vt.test";
/// Into which others delegate their challenges.
pub const DELEGATION: &str = "acme.vt.test";
/// A key for both of the gateway's zones, and one for a single name.
pub const KEY: &str = "postern";
pub const NARROW_KEY: &str = "narrow";
/// As `tsig-keygen` prints it.
pub const SECRET: &str = "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcyB5ZXM=";

/// Ends when dropped.
pub struct Bind {
    pub addr: SocketAddr,
    pub dir: Scratch,
    child: Child,
    lines: String,
    serial: u32,
}

impl Bind {
    pub async fn start() -> Result<Self, String> {
        let (dir, addr) = (Scratch::new(), free_addr());
        dir.write("secret", SECRET);
        dir.write("named.conf", config(dir.path(), addr));
        dir.write(
            "root.zone",
            zone(".", 1, "vt.test. NS ns.vt.test.\nns.vt.test. A 127.0.0.1\n"),
        );
        let cluster = "k8s-1 A 127.0.0.1\n*.k8s-1 CNAME k8s-1\nk8s-2 A 127.0.0.2\n";
        dir.write("cluster.zone", zone("aws.vt.test.", 1, cluster));
        dir.write("delegation.zone", zone("acme.vt.test.", 1, ""));
        let log = std::fs::File::create(dir.path().join("log")).map_err(failed("named's log"))?;
        let mut bind = Self {
            addr,
            child: named(&dir, log)?,
            dir,
            lines: String::new(),
            serial: 0,
        };
        bind.write_zone();
        bind.await_start().await?;
        Ok(bind)
    }

    async fn await_start(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        while !self.log().contains("all zones loaded") {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("named ended with {status}:\n{}", self.log()));
            }
            if Instant::now() > end {
                return Err(format!("named does not start:\n{}", self.log()));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The hostmaster adds a line to the zone and has it loaded.
    pub async fn add(&mut self, line: &str) -> Result<(), String> {
        self.replace("", line).await
    }

    /// The hostmaster puts a line in the place of one that was added before.
    pub async fn replace(&mut self, old: &str, new: &str) -> Result<(), String> {
        let kept = self.lines.lines().filter(|line| *line != old);
        self.lines = kept.chain([new]).map(|line| format!("{line}\n")).collect();
        self.write_zone();
        let loaded = format!("zone {STATIC}/IN: loaded serial {}", self.serial);
        let id = self.child.id().ok_or("named has ended")?;
        let signal = Command::new("kill")
            .args(["-HUP", &id.to_string()])
            .status();
        signal.await.map_err(failed("kill"))?;
        let end = Instant::now() + START;
        while !self.log().contains(&loaded) {
            if Instant::now() > end {
                return Err(format!("named does not load its zone:\n{}", self.log()));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn write_zone(&mut self) {
        self.serial += 1;
        let fixed = "\
ns A 127.0.0.1
aws NS ns
acme NS ns
app1 CNAME k8s-1.aws.vt.test.
_acme-challenge.app1 CNAME app1.acme.vt.test.
hop CNAME app1
flat A 127.0.0.1
onprem A 198.51.100.7
other CNAME k8s-2.aws.vt.test.
dangling CNAME gone
locked A 127.0.0.1
locked CAA 0 issue incommon.org
stray A 127.0.0.1
stray AAAA 2001:db8::2
loop CNAME loop
app2.app1 A 198.51.100.8
";
        let text = zone("vt.test.", self.serial, &format!("{fixed}{}", self.lines));
        // Renamed: it may be read at any moment.
        let part = self.dir.write("static.part", text);
        std::fs::rename(part, self.dir.path().join("static.zone")).unwrap_or_default();
    }

    pub fn client(&self) -> DnsClient {
        DnsClient::new(DnsSpec {
            resolvers: vec![self.addr],
            authority_port: self.addr.port(),
        })
    }
}

fn named(dir: &Scratch, log: std::fs::File) -> Result<Child, String> {
    let path = ["/usr/sbin/named", "/usr/bin/named", "/usr/local/sbin/named"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
        .ok_or("there is no named; install it with: tests/certificates/setup.sh")?;
    let output = log.try_clone().map_err(failed("named's log"))?;
    Command::new(path)
        .args(["-g", "-n", "1", "-c"])
        .arg(dir.path().join("named.conf"))
        .stdout(output)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("named"))
}

fn zone(origin: &str, serial: u32, records: &str) -> String {
    let server = "ns.vt.test.";
    format!(
        "$ORIGIN {origin}\n$TTL 60\n@ SOA {server} hostmaster.vt.test. {serial} 60 60 600 600\n\
         @ NS {server}\n{records}"
    )
}

fn config(dir: &Path, addr: SocketAddr) -> String {
    let dir = dir.display();
    let key =
        |name: &str| format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n");
    let dynamic = |name: &str, file: &str| {
        format!(
            "zone \"{name}\" {{ type primary; file \"{dir}/{file}.zone\";\n\
             update-policy {{ grant {KEY} zonesub TXT;\n\
             grant {NARROW_KEY} name _acme-challenge.k8s-1.aws.vt.test. TXT; }}; }};\n"
        )
    };
    // A root of its own: nothing leaves the machine.
    format!(
        "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }};\n\
         listen-on-v6 {{ none; }}; pid-file \"{dir}/named.pid\";\n\
         session-keyfile \"{dir}/session.key\"; recursion yes; allow-query {{ any; }};\n\
         dnssec-validation no; notify no; empty-zones-enable no; max-ncache-ttl 600; }};\n\
         controls {{ }};\n{}{}\
         zone \".\" {{ type primary; file \"{dir}/root.zone\"; }};\n\
         zone \"{STATIC}\" {{ type primary; file \"{dir}/static.zone\"; }};\n{}{}",
        key(KEY),
        key(NARROW_KEY),
        dynamic(CLUSTER_ZONE, "cluster"),
        dynamic(DELEGATION, "delegation"),
        port = addr.port(),
    )
}
