//! Names that are proved by the DNS, or wait for it: the built gateway beside a CA and DNS servers
//! that are not ours.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;

use super::Outcome;
use super::bind;
use super::bind::Bind;
use super::issue::Site;
use super::issue::handshake;
use super::pebble::Plan;
use super::route53::Route53;

/// From the hostmaster's change to a certificate.
const PROMISED: Duration = Duration::from_secs(60);
/// Long enough for an order that should not be placed.
const QUIET: Duration = Duration::from_secs(3);

/// A wildcard beside its domain, and a name of others whose challenge is delegated.
pub async fn bind() -> Outcome {
    let server = Bind::start().await?;
    let plan = Plan {
        dns: Some(server.addr),
        ..Plan::default()
    };
    let secret = server.dir.path().join("secret");
    let config = format!(
        "[dns]\nresolvers = [\"{addr}\"]\nauthority-port = {}\n\
         [dns-solvers.bind]\nkind = \"rfc2136\"\nserver = \"{addr}\"\nkey-name = \"{}\"\n\
         secret-file = \"{}\"\n\
         [certificates.cluster]\nissuer = \"pebble\"\nas-one = true\n\
         hosts = [\"{cluster}\", \"*.{cluster}\"]\n\
         [certificates.app1]\nissuer = \"pebble\"\nhosts = [\"app1.{}\"]\n",
        server.addr.port(),
        bind::KEY,
        secret.display(),
        bind::STATIC,
        addr = server.addr,
        cluster = bind::CLUSTER,
    );
    let mut site = Site::new(plan, "challenges = [\"dns-01\"]", &config).await?;
    site.start().await?;
    let app1 = format!("app1.{}", bind::STATIC);
    let sub = format!("foo.{}", bind::CLUSTER);
    for host in [bind::CLUSTER, &sub, &app1] {
        let served = site.served(host).await;
        served.map_err(|error| format!("{error}\n{}", server.log()))?;
    }
    let orders = site.orders();
    if orders != 2 {
        return Err(format!("{orders} orders for two certificates"));
    }
    // A wildcard stands for one label.
    let deep = format!("x.{sub}");
    let root = site.pebble.root().await?;
    if handshake(site.https, &root, &deep).await.is_ok() {
        return Err(format!("{deep} is served by a wildcard"));
    }
    let (is_served, said) = site.explain(&deep).await?;
    if is_served || !said.contains("stands for one label") {
        return Err(format!("{deep}: {said}"));
    }
    let log = server.log();
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let (added, deleted) = (count("adding an RR at"), count("deleting an RR at"));
    if added != 3 || count("app1.acme.vt.test' TXT") == 0 {
        return Err(format!("{added} records added:\n{log}"));
    }
    // A look at what may be written deletes a value that nobody has.
    if deleted < added {
        return Err(format!(
            "{added} records added, {deleted} taken back:\n{log}"
        ));
    }
    site.stop().await?;
    Ok(
        "wildcard and domain in one certificate, a delegated name in another; 3 records written \
        and taken back"
            .to_owned(),
    )
}

/// The same by the API of Route 53.
pub async fn route53() -> Outcome {
    let aws = Route53::start(&[bind::CLUSTER_ZONE]).await?;
    let plan = Plan {
        dns: Some(aws.dns),
        ..Plan::default()
    };
    let config = format!(
        "[dns]\nresolvers = [\"{}\"]\nauthority-port = {}\n\
         [dns-solvers.aws]\nkind = \"route53\"\nendpoint = \"http://{}\"\n\
         access-key-id = \"AKIDEXAMPLE\"\nsecret-key-file = \"aws.key\"\n\
         [certificates.cluster]\nissuer = \"pebble\"\nas-one = true\n\
         hosts = [\"{cluster}\", \"*.{cluster}\"]\n",
        aws.dns,
        aws.dns.port(),
        aws.service,
        cluster = bind::CLUSTER,
    );
    let mut site = Site::new(plan, "challenges = [\"dns-01\"]", &config).await?;
    site.pebble.dir.write("aws.key", "secret\n");
    site.start().await?;
    let sub = format!("foo.{}", bind::CLUSTER);
    for host in [bind::CLUSTER, &sub] {
        site.served(host).await?;
    }
    site.stop().await?;
    Ok("wildcard and domain in one certificate, both values in one set".to_owned())
}

/// Nothing at all is asked of the CA until the record that was asked for is there: for a name that
/// is not there yet, and for one that leads elsewhere.
pub async fn elsewhere() -> Outcome {
    let mut server = Bind::start().await?;
    let plan = Plan {
        dns: Some(server.addr),
        ..Plan::default()
    };
    let [new, moved] = ["new", "moved"].map(|name| format!("{name}.{}", bind::STATIC));
    let old = format!("{moved}. 3600 IN A 198.51.100.9");
    server.add(&old).await?;
    let issuer = format!(
        "challenges = [\"http-01\"]\nreach = {{ record = \"{}\" }}",
        bind::CLUSTER
    );
    let config = format!(
        "[dns]\nresolvers = [\"{}\"]\nauthority-port = {}\n\
         [certificates.two]\nissuer = \"pebble\"\nhosts = [\"{new}\", \"{moved}\"]\n",
        server.addr,
        server.addr.port(),
    );
    let mut site = Site::new(plan, &issuer, &config).await?;
    // What the test itself has asked for.
    let before = site.pebble.requests("/");
    site.start().await?;
    let record = |host: &str| format!("{host}. 3600 IN CNAME {}.", bind::CLUSTER);
    for (host, reason) in [(&new, "DnsNotFound"), (&moved, "DnsElsewhere")] {
        let said = site.says(host, &record(host)).await?;
        if !said.contains(reason) {
            return Err(format!("not {reason}:\n{said}"));
        }
    }
    sleep(QUIET).await;
    let asked = site.pebble.requests("/") - before;
    if asked != 0 {
        let log = site.pebble.log();
        return Err(format!("{asked} requests to the CA\n{log}"));
    }
    let start = Instant::now();
    server.add(&record(&new)).await?;
    server.replace(&old, &record(&moved)).await?;
    site.served(&new).await?;
    site.served(&moved).await?;
    let took = start.elapsed();
    if took > PROMISED {
        return Err(format!("the certificates came {took:?} after the records"));
    }
    let orders = site.orders();
    if orders != 2 {
        return Err(format!("{orders} orders for two certificates"));
    }
    site.stop().await?;
    Ok(format!(
        "no request to the CA of any kind, the records named; the certificates {:.0} s after them",
        took.as_secs_f32()
    ))
}

/// One record that the hostmaster adds for the account, and then nobody touches the DNS again.
pub async fn persist() -> Outcome {
    let mut server = Bind::start().await?;
    let plan = Plan {
        dns: Some(server.addr),
        ..Plan::default()
    };
    let host = format!("flat.{}", bind::STATIC);
    let config = format!(
        "[dns]\nresolvers = [\"{}\"]\nauthority-port = {}\n\
         [certificates.two]\nissuer = \"pebble\"\nas-one = true\nhosts = [\"{host}\", \"*.{host}\"]\n",
        server.addr,
        server.addr.port(),
    );
    let mut site = Site::new(plan, "challenges = [\"dns-persist-01\"]", &config).await?;
    site.start().await?;
    let said = site.says(&host, "policy=wildcard").await?;
    sleep(QUIET).await;
    if site.orders() != 0 {
        return Err(format!("{} orders before the record", site.orders()));
    }
    let line = said.lines().find_map(|line| line.strip_prefix("DNS needs"));
    let record = line.ok_or("no record is asked for")?.trim().to_owned();
    server.add(&record).await?;
    let first = site.served(&host).await?;
    site.served(&format!("foo.{host}")).await?;
    // And another kind of key by the same record.
    site.issuer.push_str("\nkey-type = \"rsa-2048\"");
    site.configure();
    let end = Instant::now() + PROMISED;
    while site.served(&host).await? == first {
        if Instant::now() > end {
            return Err(format!("no second certificate\n{}", site.log()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let orders = site.orders();
    let log = server.log();
    if orders != 2 || log.contains("updating zone") {
        return Err(format!("{orders} orders\n{log}"));
    }
    site.stop().await?;
    Ok(format!(
        "no order before the record; wildcard and domain by it, twice: {}",
        record.split(" TXT ").next().unwrap_or_default()
    ))
}
