//! What others provide, own or solve is left to them; and who ends in order is followed at once.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use super::Cluster;
use super::GATEWAYS;
use super::NAMESPACE;
use super::PEERS_PORT;
use super::gateway;
use super::ingress;
use super::items;
use super::name;
use crate::certificates::Outcome;
use crate::certificates::failed;
use crate::certs::Authority;
use crate::client::Client;
use crate::kubernetes::objects;

/// How long a request for a token is held that nobody knows.
const HELD: Duration = Duration::from_secs(3);
/// How soon a gateway that ended in order is followed, on a busy machine.
const IN_ORDER: Duration = Duration::from_secs(9);

/// No order is placed for what is not the gateway's to get.
pub async fn foreign() -> Outcome {
    let mut cluster = Cluster::start().await?;
    let site = &cluster.site;
    // As cert-manager leaves it.
    let others = Authority::new("another authority");
    let leaf = others.leaf(&[&name(0)]);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "n0-tls", "labels": { "controller.cert-manager.io/fao": "true" } },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": leaf.chain, "tls.key": leaf.key },
    });
    site.create(NAMESPACE, "secrets", &secret).await?;
    cluster.want(0..1).await?;
    for node in 0..GATEWAYS {
        cluster.shows(node, 0, others.pem()).await?;
    }
    // A host of somebody else, and an issuer of somebody else. Of two that were made in one second,
    // the first by name owns the host.
    site.namespace("zoo").await?;
    site.create("zoo", "ingresses", &ingress(0)).await?;
    let mut refused = ingress(1);
    refused["metadata"]["annotations"] = json!({ "postern.dev/issuer": "closed" });
    site.create(NAMESPACE, "ingresses", &refused).await?;
    let leader = cluster.leader().await?;
    let said = "the issuer 'closed' is not for the namespace 'shop'";
    cluster.says(leader, &name(1), said).await?;
    let led = format!("the replica 'postern-{leader}_");
    cluster
        .says((leader + 1) % GATEWAYS, &name(1), &led)
        .await?;
    let events = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    let told = site.wait_for("an Event", &events, |events| {
        items(events).any(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            event["reason"] == "PolicyDenied"
                && event["regarding"]["name"] == "n1"
                && note.contains(said)
        })
    });
    told.await?;
    if cluster.counted() != (0, 0, 0) {
        return Err(format!("something was ordered\n{}", cluster.logs()));
    }
    let secret = objects::object(NAMESPACE, "secrets", "n0-tls");
    let kept = site.api.read(&secret).await?;
    if !kept["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_null() {
        return Err(format!("somebody else's Secret was written: {kept}"));
    }

    // Another program solves a challenge of its own for a name that a certificate is wanted for.
    let token = "/.well-known/acme-challenge/solved-by-another";
    let solver = objects::ingress("solver", &[(&name(2), &[("Exact", token, "web")])]);
    site.create(NAMESPACE, "ingresses", &solver).await?;
    cluster.want(2..3).await?;
    let root = cluster.pebble.root().await?;
    for node in 0..GATEWAYS {
        cluster.shows(node, 2, &root).await?;
    }
    let asked = Instant::now();
    let mut client = Client::http1(SocketAddr::new(gateway(1), PEERS_PORT)).await;
    let reply = client.send(client.request("GET", &name(2), token)).await;
    let reply = reply.map_err(failed("the solver"))?;
    let is_solved = reply.status == 200 && reply.text().contains(token);
    if !is_solved || asked.elapsed() > HELD {
        return Err(format!(
            "the solver is not asked: {} {}",
            reply.status,
            reply.text()
        ));
    }
    // A token that nobody knows is waited for, and answered by the routes then.
    let unknown = "/.well-known/acme-challenge/unknown";
    let reply = client.send(client.request("GET", &name(2), unknown)).await;
    let reply = reply.map_err(failed("an unknown token"))?;
    if asked.elapsed() < HELD || !reply.text().contains(unknown) {
        return Err(format!("an unknown token: {}", reply.text()));
    }

    // Whoever deletes a Secret wants another certificate.
    let secret = objects::object(NAMESPACE, "secrets", "n2-tls");
    let before = cluster.site.api.read(&secret).await?;
    cluster.site.api.delete(&secret).await?;
    let again = |found: &Value| {
        let uid = &found["metadata"]["uid"];
        uid.is_string() && *uid != before["metadata"]["uid"]
    };
    let made = cluster.site.wait_for("another Secret", &secret, again);
    made.await
        .map_err(|error| format!("{error}\n{}", cluster.logs()))?;

    let leader = cluster.leader().await?;
    if let Some(mut program) = cluster.nodes[leader].program.take() {
        program.terminate().await.map_err(failed("the end"))?;
    }
    let ended = Instant::now();
    let next = cluster.leader().await?;
    let took = ended.elapsed();
    if next == leader || took > IN_ORDER {
        return Err(format!("gateway {next} follows {leader} after {took:?}"));
    }
    cluster.nodes[leader].start().await?;
    cluster.want(3..4).await?;
    for node in 0..GATEWAYS {
        cluster.shows(node, 3, &root).await?;
    }
    match cluster.counted() {
        (3, 1, 1) => Ok(format!(
            "a foreign Secret, host and issuer cost no order; a solver answers; the next leader after {:.1} s",
            took.as_secs_f32()
        )),
        counted => Err(format!("orders, accounts, bindings: {counted:?}")),
    }
}
