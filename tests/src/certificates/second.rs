//! Another authority than Pebble: acme2certifier, which knows names already, has other profiles and
//! says when to renew, but not what an order replaces.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Outcome;
use super::failed;
use super::issue::handshake;
use super::issue::pem;
use super::pebble;
use super::python::SECOND_CA;
use super::python::answering;
use crate::certs::Authority;
use crate::process;
use crate::process::Program;
use crate::process::free_addr;
use crate::scratch::Scratch;

const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const HOST: &str = "shop.test";
/// How long a certificate may take.
const ISSUE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A binding, a profile, no challenge, a wish for the renewal; then another kind of key, by an order
/// that replaces the first.
pub async fn acme2certifier() -> Outcome {
    let dir = Scratch::new();
    let authority = Authority::new("servers of another test CA");
    let leaf = authority.leaf(&["localhost"]);
    dir.write("server.pem", &leaf.chain);
    dir.write("server.key", &leaf.key);
    dir.write("ca.pem", authority.pem());
    dir.write("eab.key", KEY);
    let ca_addr = free_addr();
    let (folder, port) = (dir.path().display().to_string(), ca_addr.port().to_string());
    let ca = answering(SECOND_CA, "second_ca.py", &[&folder, &port, "kid-1", KEY]).await?;
    let (https, admin) = (free_addr(), free_addr());
    let configure = |key_type: &str| {
        let text = format!(
            "runtime = {{ workers = 1, state-dir = \"state\" }}\naccess-log.format = \"off\"\n\
             admin.bind = \"{admin}\"\nlisteners.https = {{ bind = \"{https}\", tls = {{}} }}\n\
             [issuers.ca]\ndirectory = \"https://localhost:{port}/directory\"\n\
             ca-file = \"ca.pem\"\nprofile = \"short\"\nkey-type = \"{key_type}\"\n\
             contact = [\"mailto:platform@example.edu\"]\n\
             external-account = {{ key-id = \"kid-1\", key-file = \"eab.key\" }}\n\
             [certificates.shop]\nissuer = \"ca\"\nhosts = [\"{HOST}\"]\n\
             [[routes]]\nrules = [{{ respond = {{ status = 200 }} }}]\n"
        );
        let next = dir.write("postern.toml.next", text);
        std::fs::rename(next, dir.path().join("postern.toml")).map_err(failed("postern.toml"))
    };
    configure("ecdsa-p256")?;
    let path = dir.path().join("postern.toml").display().to_string();
    let arguments = ["run", "--config", &path, "--accept-for", "0s"];
    let gateway = Program::start(&process::postern()?, &arguments, false);
    let mut gateway = gateway.map_err(failed("the gateway"))?;
    gateway.ready(admin, ISSUE).await?;

    let first = served(&dir, https, &gateway, &ca, |_| true).await?;
    let kept = dir.path().join(format!("state/certificate/{HOST}.json"));
    let end = Instant::now() + ISSUE;
    loop {
        // Asked for once the certificate is served.
        let text = std::fs::read_to_string(&kept).map_err(failed("state"))?;
        let document: Value = serde_json::from_str(&text).map_err(failed("state"))?;
        if document["window"]["end"].is_u64() {
            break;
        }
        if Instant::now() > end {
            let log = gateway.output();
            return Err(format!("no word of when to renew:\n{log}\n{}", ca.output()));
        }
        sleep(POLL).await;
    }
    configure("rsa-2048")?;
    let second = served(&dir, https, &gateway, &ca, |chain| *chain != first).await?;
    if second[0].len() <= first[0].len() {
        return Err("the second certificate has no larger key".to_owned());
    }
    let log = ca.output();
    let asked = |path: &str| log.lines().filter(|line| line.contains(path)).count();
    let (accounts, orders) = (
        asked("POST /acme/newaccount"),
        asked("POST /acme/neworders"),
    );
    let challenges = asked("POST /acme/chall");
    if (accounts, orders, challenges) != (1, 2, 0) {
        return Err(format!(
            "{accounts} requests for accounts, {orders} for orders, {challenges} for challenges:\n{log}"
        ));
    }
    let status = gateway.terminate().await.map_err(failed("the end"))?;
    if !status.success() {
        return Err(format!("it ended with {status}:\n{}", gateway.output()));
    }
    Ok(
        "bound, by a profile, without a challenge; its wish for the renewal kept; a second order, \
        for another kind of key, and no third"
            .to_owned(),
    )
}

/// Waits for a certificate that a client and openssl accept.
async fn served(
    dir: &Scratch,
    https: SocketAddr,
    gateway: &Program,
    ca: &Program,
    wanted: impl Fn(&Vec<CertificateDer<'static>>) -> bool,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let root = dir.path().join("root.pem");
    let root = std::fs::read_to_string(root).map_err(failed("root.pem"))?;
    let end = Instant::now() + ISSUE;
    loop {
        let shaken = handshake(https, &root, HOST).await;
        match shaken {
            Ok(chain) if wanted(&chain) => {
                pebble::verify(dir.path(), &root, &pem(&chain), HOST).await?;
                return Ok(chain);
            }
            _ if Instant::now() > end => {
                let (own, log) = (gateway.output(), ca.output());
                return Err(format!("no certificate: {:?}\n{own}\n{log}", shaken.err()));
            }
            _ => sleep(POLL).await,
        }
    }
}
