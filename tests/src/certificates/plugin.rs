//! DNS-01 by a plugin: `plugins/dns-http`, which writes through the HTTP API of Pebble's DNS server.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::Outcome;
use super::issue::Site;
use super::pebble::Plan;
use super::python::SERVERS;
use super::python::answering;
use crate::process::free_addr;

/// What the plugin writes to, and what is somebody else's.
const OWN: &str = "plug.test";
const FOREIGN: &str = "other.test";
const HOST: &str = "app1.other.test";
/// Long enough for an order that should not be placed.
const QUIET: Duration = Duration::from_secs(2);

/// A wildcard beside its domain in the plugin's zone, and a name of others once they delegate its
/// challenge. The gateway follows the alias, finds the zone and waits; the plugin tells an API.
pub async fn solver() -> Outcome {
    let component = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dev/dns-http.wasm");
    if !component.is_file() {
        let path = component.display();
        return Err(format!("there is no {path}; build it with: make guests"));
    }
    let mut site = Site::new(Plan::default(), "challenges = [\"dns-01\"]", "").await?;
    let dns = free_addr();
    let (port, pebble) = (dns.port().to_string(), site.pebble.dns.to_string());
    let _zones = answering(SERVERS, "zones.py", &[&port, &pebble, OWN, FOREIGN]).await?;
    site.config = format!(
        "[dns]\nresolvers = [\"{dns}\"]\nauthority-port = {port}\n\
         [upstreams.api]\nendpoints = [\"{}\"]\n\
         [plugins.dns-http]\nsource = \"{}\"\ngrants.dns = true\n\
         grants.upstreams = [\"api\"]\ngrants.secrets.key = {{ file = \"api.key\" }}\n\
         config = {{ upstream = \"api\", authorization = \"key\", present = \"/set-txt\", cleanup = \"/clear-txt\", \
         name-field = \"host\", zones = [\"{OWN}\"] }}\n\
         [dns-solvers.plugin]\nkind = \"plugin\"\nplugin = \"dns-http\"\ndelegation = \"{OWN}\"\n\
         [certificates.own]\nissuer = \"pebble\"\nas-one = true\n\
         hosts = [\"{OWN}\", \"*.{OWN}\"]\n\
         [certificates.foreign]\nissuer = \"pebble\"\nhosts = [\"{HOST}\"]\n",
        site.pebble.dns_management,
        component.display(),
    );
    site.pebble.dir.write("api.key", "Bearer of good news\n");
    site.start().await?;
    for host in [OWN, "foo.plug.test"] {
        site.served(host).await?;
    }

    let record = format!("_acme-challenge.{HOST}. 3600 IN CNAME {HOST}.{OWN}.");
    let said = site.says(HOST, &record).await?;
    if !said.contains("SolverFailed") || !said.contains("does not write to the zone other.test") {
        return Err(format!("not the plugin's own words:\n{said}"));
    }
    sleep(QUIET).await;
    if site.orders() != 1 {
        return Err(format!("{} orders before the alias", site.orders()));
    }
    let alias =
        json!({ "host": format!("_acme-challenge.{HOST}"), "target": format!("{HOST}.{OWN}") });
    site.pebble.tell_dns("set-cname", alias).await?;
    site.served(HOST).await?;
    if site.orders() != 2 {
        return Err(format!("{} orders for two certificates", site.orders()));
    }
    site.stop().await?;
    Ok(
        "wildcard and domain by a plugin; a name of others, refused in the plugin's words, issued \
        once its challenge was delegated"
            .to_owned(),
    )
}
