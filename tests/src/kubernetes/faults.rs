//! The API server away, a gateway killed, the writing gateway killed: under load.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Site;
use super::load::Load;
use super::objects;
use super::site::Node;
use crate::client::Client;

const NAMESPACE: &str = "faults";
const HOST: &str = "faults.test";
/// How soon what was missed has to show when the API server is back.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How soon a gateway that started without the API server has to be ready when it is back.
const LATE: Duration = Duration::from_secs(10);
/// What a gateway has that started so.
const FILES: &str = "\n[[routes]]\nhosts = [\"files.test\"]\n\
                     rules = [{ respond = { status = 200, body = \"from a file\" } }]\n";
/// The Lease runs out, somebody looks, and writes.
const NEXT_LEADER: Duration = Duration::from_secs(30);

/// The API server is killed under load and comes back after a while: nobody's request notices, and
/// what changes afterwards shows.
pub async fn outage(site: &mut Site, length: Duration) -> Result<String, String> {
    prepare(site).await?;
    let gateways: Vec<_> = site.gateways.iter().map(|node| node.http).collect();
    let mut late = site.node_with(9, FILES).await?;
    let load = Load::start(&gateways, HOST, "/");
    sleep(Duration::from_secs(1)).await;
    site.server.kill().await;
    let killed = Instant::now();
    started_without_server(&mut late).await?;
    sleep((length / 2).saturating_sub(killed.elapsed())).await;
    for node in &site.gateways {
        if node.metric("postern_kubernetes_connected").await? != 0.0 {
            return Err(format!(
                "{} believes that the API server is there",
                node.name
            ));
        }
        let ready = node.ask("/ready").await?;
        if ready != "ready\n" {
            return Err(format!(
                "{} is not ready without the API server: {ready}",
                node.name
            ));
        }
    }
    sleep(length.saturating_sub(killed.elapsed())).await;
    site.server.resume().await?;
    site.api = site.server.api(super::server::ADMIN).await?;
    let back = Instant::now();
    let after = objects::ingress("after", &[("after.test", &[("Prefix", "/", "web")])]);
    site.create(NAMESPACE, "ingresses", &after).await?;
    site.see("what changed after an outage", "after.test", "/", |reply| {
        reply.status == 200
    })
    .await?;
    let caught_up = back.elapsed();
    late.ready().await?;
    let late_ready = back.elapsed();
    let (status, _) = ask(&late, HOST).await?;
    late.kill().await;
    if status != 200 || late_ready > LATE {
        return Err(format!(
            "a gateway that started without it: {status} after {late_ready:?}"
        ));
    }
    let outcome = load.end().await;
    outcome.check("while the API server was away")?;
    if caught_up > CATCH_UP {
        return Err(format!(
            "what changed after the outage took {caught_up:?} to show"
        ));
    }
    Ok(format!(
        "API server away for {:.0?}: {} requests, {} failed; a change after it seen in \
         {caught_up:.0?}; a gateway that started meanwhile ready in {late_ready:.1?}",
        back.duration_since(killed),
        outcome.requests,
        outcome.failed
    ))
}

/// What files declare is served; what may be the cluster's is not said to be missing; and the
/// gateway is not ready, and says why.
async fn started_without_server(late: &mut Node) -> Result<(), String> {
    late.start()?;
    let start = Instant::now();
    while ask(late, "files.test").await.is_err() {
        if start.elapsed() > LATE * 3 {
            let output = late.program.as_ref().map(crate::process::Program::output);
            return Err(format!(
                "files are not served without the API server: {output:?}"
            ));
        }
        sleep(Duration::from_millis(100)).await;
    }
    let (status, text) = ask(late, "files.test").await?;
    if status != 200 || text != "from a file" {
        return Err(format!(
            "a route of a file without the API server: {status} {text}"
        ));
    }
    let (status, text) = ask(late, HOST).await?;
    if status != 503 {
        return Err(format!("a host that may be the cluster's: {status} {text}"));
    }
    let ready = late.ask("/ready").await?;
    if !ready.contains("Ingress") || !ready.contains("cannot be reached") {
        return Err(format!(
            "a gateway without the API server says of itself: {ready}"
        ));
    }
    Ok(())
}

async fn ask(node: &Node, host: &str) -> Result<(u16, String), String> {
    let stream = tokio::net::TcpStream::connect(node.http).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let mut client = Client::over_http1(stream)
        .await
        .map_err(|error| error.to_string())?;
    let request = client.request("GET", host, "/");
    let reply = client
        .send(request)
        .await
        .map_err(|error| error.to_string())?;
    Ok((reply.status.as_u16(), reply.text()))
}

/// A gateway that does not write is killed; the others do not notice.
pub async fn gateway_killed(site: &mut Site) -> Result<String, String> {
    prepare(site).await?;
    let leader = site.leader().await?;
    let victim = (leader + 1) % site.gateways.len();
    let (requests, failed) = kill(site, victim, Duration::from_secs(3)).await?;
    let start = Instant::now();
    let node = &mut site.gateways[victim];
    node.start()?;
    node.ready().await?;
    let ready = start.elapsed();
    site.see("a gateway that was started again", HOST, "/", |reply| {
        reply.status == 200
    })
    .await?;
    Ok(format!(
        "gateway killed: {requests} requests at the others, {failed} failed; ready again in {ready:.1?}"
    ))
}

/// A gateway is replaced as an update of the DaemonSet does it: the next one starts on the same ports,
/// and the old one ends when that is ready.
pub async fn replaced(site: &mut Site) -> Result<String, String> {
    prepare(site).await?;
    let node = site.gateways.first_mut().ok_or("there is no gateway")?;
    let load = Load::start(&[node.http], HOST, "/");
    sleep(Duration::from_millis(500)).await;
    let mut old = node.replace().await?;
    let status = old.terminate().await.map_err(|error| error.to_string())?;
    sleep(Duration::from_millis(500)).await;
    let outcome = load.end().await;
    outcome.check("while a gateway was replaced")?;
    if !status.success() {
        return Err(format!(
            "the gateway that was replaced ended with {status}: {}",
            old.output()
        ));
    }
    Ok(format!(
        "gateway replaced on its ports: {} requests, {} failed",
        outcome.requests, outcome.failed
    ))
}

/// The gateway that writes is killed; another writes after it.
pub async fn leader_killed(site: &mut Site) -> Result<String, String> {
    prepare(site).await?;
    let leader = site.leader().await?;
    let (requests, failed) = kill(site, leader, Duration::from_secs(1)).await?;
    let start = Instant::now();
    let name = format!("led-{leader}");
    let host = format!("{name}.test");
    let ingress = objects::ingress(&name, &[(&host, &[("Prefix", "/", "web")])]);
    site.create(NAMESPACE, "ingresses", &ingress).await?;
    site.see("a change without a leader", &host, "/", |reply| {
        reply.status == 200
    })
    .await?;
    let served = start.elapsed();
    let path = objects::object(NAMESPACE, "ingresses", &name);
    let has_address = |object: &Value| object["status"]["loadBalancer"]["ingress"].is_array();
    site.wait_for("a status by the next leader", &path, has_address)
        .await?;
    let written = start.elapsed();
    let next = site.leader().await?;
    if next == leader {
        return Err("the Lease is still held by the gateway that was killed".to_owned());
    }
    if written > NEXT_LEADER {
        return Err(format!("the next leader took {written:?} to write"));
    }
    let node = &mut site.gateways[leader];
    node.start()?;
    node.ready().await?;
    Ok(format!(
        "leader killed: {requests} requests at the others, {failed} failed; a change seen in \
         {served:.0?}, its status written by the next leader in {written:.1?}"
    ))
}

async fn kill(site: &mut Site, victim: usize, lasts: Duration) -> Result<(u64, u64), String> {
    let others = site
        .gateways
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != victim);
    let others: Vec<_> = others.map(|(_, node)| node.http).collect();
    let load = Load::start(&others, HOST, "/");
    sleep(Duration::from_millis(500)).await;
    site.gateways[victim].kill().await;
    sleep(lasts).await;
    let outcome = load.end().await;
    outcome.check("at the gateways that were left")?;
    Ok((outcome.requests, outcome.failed))
}

async fn prepare(site: &mut Site) -> Result<(), String> {
    if site
        .api
        .get(&format!("/api/v1/namespaces/{NAMESPACE}"))
        .await
        .is_ok()
    {
        return Ok(());
    }
    site.namespace(NAMESPACE).await?;
    let pods = [site.pod(111).await?, site.pod(112).await?];
    site.service(NAMESPACE, "web", &pods).await?;
    let web = objects::ingress("web", &[(HOST, &[("Prefix", "/", "web")])]);
    site.create(NAMESPACE, "ingresses", &web).await?;
    site.see("the Ingress of the faults", HOST, "/", |reply| {
        reply.status == 200
    })
    .await
    .map(|_| ())
}
