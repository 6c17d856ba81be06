//! Every kind created, changed and deleted under load, and how soon each shows in traffic.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Site;
use super::load::Load;
use super::objects;
use super::site::node_address;
use crate::certs::Authority;
use crate::certs::Leaf;
use crate::client::Tls;

/// How soon a change has to show.
const SOON: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "changes";
const HOST: &str = "changes.test";
/// The host that the load asks for.
const STEADY: &str = "steady.test";

/// What was measured, for people.
pub type Times = Vec<(&'static str, Duration)>;

/// Takes every kind through its life. `Err` if something shows late, wrongly, or not at all, or if a
/// request of the load fails.
pub async fn check(site: &mut Site) -> Result<(Times, u64), String> {
    site.namespace(NAMESPACE).await?;
    let one = site.pod(101).await?;
    let two = site.pod(102).await?;
    site.service(NAMESPACE, "web", &[one]).await?;
    site.service(NAMESPACE, "steady", &[one, two]).await?;
    let steady = objects::ingress("steady", &[(STEADY, &[("Prefix", "/", "steady")])]);
    site.create(NAMESPACE, "ingresses", &steady).await?;
    site.see("steady", STEADY, "/", |reply| reply.status == 200)
        .await?;

    let gateways: Vec<_> = site.gateways.iter().map(|node| node.http).collect();
    let load = Load::start(&gateways, STEADY, "/");
    let mut times = Times::new();
    let done = async {
        ingress(site, &mut times).await?;
        slices(site, one, two, &mut times).await?;
        secret(site, &mut times).await?;
        policy(site, &mut times).await?;
        plugin(site, &mut times).await?;
        status(site, &mut times).await?;
        site.delete(NAMESPACE, "ingresses", "web").await?;
        let gone = site.see("Ingress deleted", HOST, "/", |reply| reply.status == 404);
        times.push(("Ingress deleted", gone.await?));
        Ok::<(), String>(())
    };
    let done = done.await;
    let outcome = load.end().await;
    done?;
    outcome.check("under changes")?;
    let late: Vec<_> = times.iter().filter(|(_, time)| *time > SOON).collect();
    if !late.is_empty() {
        return Err(format!("these were not seen within {SOON:?}: {late:?}"));
    }
    Ok((times, outcome.requests))
}

async fn ingress(site: &Site, times: &mut Times) -> Result<(), String> {
    let web = objects::ingress("web", &[(HOST, &[("Prefix", "/", "web")])]);
    site.create(NAMESPACE, "ingresses", &web).await?;
    let seen = site.see("Ingress created", HOST, "/", |reply| reply.status == 200);
    times.push(("Ingress created", seen.await?));
    let narrower = json!({ "spec": { "rules": [{ "host": HOST, "http": { "paths": [
        { "pathType": "Prefix", "path": "/", "backend": objects::backend("web") },
        { "pathType": "Exact", "path": "/missing", "backend": objects::backend("nowhere") },
    ]}}]}});
    site.patch(NAMESPACE, "ingresses", "web", &narrower).await?;
    let seen = site.see("Ingress changed", HOST, "/missing", |reply| {
        reply.status == 503
    });
    times.push(("Ingress changed", seen.await?));
    Ok(())
}

async fn slices(
    site: &Site,
    one: Ipv4Addr,
    two: Ipv4Addr,
    times: &mut Times,
) -> Result<(), String> {
    let is_from = |pod: Ipv4Addr| {
        move |reply: &crate::client::Reply| reply.header("x-upstream") == pod.to_string()
    };
    let moved = json!({ "endpoints": objects::endpoints(&[two]) });
    site.patch(NAMESPACE, "endpointslices", "web-1", &moved)
        .await?;
    let seen = site.see("EndpointSlice changed", HOST, "/", is_from(two));
    times.push(("EndpointSlice changed", seen.await?));
    site.delete(NAMESPACE, "endpointslices", "web-1").await?;
    let seen = site.see("EndpointSlice deleted", HOST, "/", |reply| {
        reply.status == 503
    });
    times.push(("EndpointSlice deleted", seen.await?));
    site.create(NAMESPACE, "endpointslices", &objects::slice("web", &[one]))
        .await?;
    let seen = site.see("EndpointSlice created", HOST, "/", is_from(one));
    times.push(("EndpointSlice created", seen.await?));
    Ok(())
}

fn tls_secret(leaf: &Leaf) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "web-tls" },
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": STANDARD.encode(&leaf.chain),
            "tls.key": STANDARD.encode(&leaf.key),
        },
    })
}

async fn secret(site: &Site, times: &mut Times) -> Result<(), String> {
    site.grant("secret", NAMESPACE, "web-tls").await?;
    let named = json!({ "spec": { "tls": [{ "hosts": [HOST], "secretName": "web-tls" }] } });
    site.patch(NAMESPACE, "ingresses", "web", &named).await?;
    let [first, second] = ["first", "second"].map(Authority::new);
    site.create(NAMESPACE, "secrets", &tls_secret(&first.leaf(&[HOST])))
        .await?;
    times.push(("Secret created", shows(site, &first).await?));
    let renewed = tls_secret(&second.leaf(&[HOST]));
    site.patch(
        NAMESPACE,
        "secrets",
        "web-tls",
        &json!({ "data": renewed["data"] }),
    )
    .await?;
    times.push(("Secret changed", shows(site, &second).await?));
    // A pair that does not fit leaves the one before it in use.
    let (a, b) = (first.leaf(&[HOST]), second.leaf(&[HOST]));
    let mixed = Leaf {
        chain: a.chain,
        key: b.key,
    };
    let mixed = json!({ "data": tls_secret(&mixed)["data"] });
    site.patch(NAMESPACE, "secrets", "web-tls", &mixed).await?;
    sleep(SOON).await;
    shows(site, &second).await?;
    site.patch(
        NAMESPACE,
        "secrets",
        "web-tls",
        &json!({ "data": renewed["data"] }),
    )
    .await
}

/// How long it takes until every gateway shows a certificate of this authority.
async fn shows(site: &Site, authority: &Authority) -> Result<Duration, String> {
    let start = Instant::now();
    for node in &site.gateways {
        let tls = Tls::to(authority, HOST);
        while let Err(error) = tls.connect(node.https).await {
            if start.elapsed() > SOON * 10 {
                return Err(format!(
                    "{} does not show the certificate: {error}",
                    node.name
                ));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(start.elapsed())
}

async fn policy(site: &Site, times: &mut Times) -> Result<(), String> {
    let spec = |mark: &str| json!({ "kind": "headers", "response-headers": { "set": { "x-mark": mark } } });
    let policy = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "Policy",
        "metadata": { "name": "mark" },
        "spec": spec("one"),
    });
    let named = json!({ "metadata": { "annotations": { "postern.dev/policies": "mark" } } });
    site.patch(NAMESPACE, "ingresses", "web", &named).await?;
    let seen = site.see("Policy missing", HOST, "/", |reply| reply.status == 503);
    times.push(("Policy named and missing", seen.await?));
    site.create(NAMESPACE, "policies", &policy).await?;
    let seen = site.see("Policy created", HOST, "/", |reply| {
        reply.header("x-mark") == "one"
    });
    times.push(("Policy created", seen.await?));
    let changed = json!({ "spec": spec("two") });
    site.patch(NAMESPACE, "policies", "mark", &changed).await?;
    let seen = site.see("Policy changed", HOST, "/", |reply| {
        reply.header("x-mark") == "two"
    });
    times.push(("Policy changed", seen.await?));
    site.delete(NAMESPACE, "policies", "mark").await?;
    let seen = site.see("Policy deleted", HOST, "/", |reply| reply.status == 503);
    times.push(("Policy deleted", seen.await?));
    Ok(())
}

/// A component that answers with its own mark in `x-plugin`.
fn plugin_component(mark: &str) -> Vec<u8> {
    let imports = r#"(import "postern:plugin/request@0.1.0" "set"
        (func $set (param i32 i32 i32 i32 i32)))"#;
    component(&guest(
        imports,
        &format!(
            r#"(data (i32.const 0) "x-plugin{mark}")
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))
              (i32.const 512))"#
        ),
    ))
}

async fn plugin(site: &Site, times: &mut Times) -> Result<(), String> {
    site.grant("config-map", NAMESPACE, "code").await?;
    let data = |mark: &str| json!({ "plugin.wasm": STANDARD.encode(plugin_component(mark)) });
    let code = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "code" },
        "binaryData": data("0001"),
    });
    site.create(NAMESPACE, "configmaps", &code).await?;
    let plugin = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": { "name": "mark" },
        "spec": { "config-map": { "name": "code", "key": "plugin.wasm" } },
    });
    let named = json!({ "metadata": { "annotations": { "postern.dev/policies": "mark" } } });
    site.patch(NAMESPACE, "ingresses", "web", &named).await?;
    site.create(NAMESPACE, "plugins", &plugin).await?;
    let has =
        |mark: &'static str| move |reply: &crate::client::Reply| reply.echoed("x-plugin") == [mark];
    let seen = site.see("Plugin created", HOST, "/", has("0001"));
    times.push(("Plugin created", seen.await?));
    site.patch(
        NAMESPACE,
        "configmaps",
        "code",
        &json!({ "binaryData": data("0002") }),
    )
    .await?;
    let seen = site.see("Plugin changed", HOST, "/", has("0002"));
    times.push(("Plugin changed", seen.await?));
    site.delete(NAMESPACE, "plugins", "mark").await?;
    let seen = site.see("Plugin deleted", HOST, "/", |reply| reply.status == 503);
    times.push(("Plugin deleted", seen.await?));
    let unnamed = json!({ "metadata": { "annotations": { "postern.dev/policies": null } } });
    site.patch(NAMESPACE, "ingresses", "web", &unnamed).await?;
    site.see("without policies", HOST, "/", |reply| reply.status == 200)
        .await?;
    Ok(())
}

/// What the API server says of an Ingress: where it is reached, and what is wrong with it.
async fn status(site: &Site, times: &mut Times) -> Result<(), String> {
    let path = objects::object(NAMESPACE, "ingresses", "web");
    let wanted: Vec<Value> = (0..site.gateways.len())
        .map(|number| json!({ "ip": node_address(number) }))
        .collect();
    let wanted = Value::Array(wanted);
    site.wait_for("status of an Ingress", &path, |ingress| {
        ingress["status"]["loadBalancer"]["ingress"] == wanted
    })
    .await?;
    let shown = site
        .server
        .kubectl(&["get", "ingress", "-n", NAMESPACE, "web"])
        .await?;
    if !shown.contains(&node_address(0)) {
        return Err(format!("kubectl get ingress shows no address:\n{shown}"));
    }
    // The load made no write: what is written says the same from now on.
    let before = version(site, &path).await?;
    sleep(SOON * 2).await;
    if version(site, &path).await? != before {
        return Err("an Ingress that nobody changed was written to".to_owned());
    }
    let start = Instant::now();
    loop {
        let told = site
            .server
            .kubectl(&["describe", "ingress", "-n", NAMESPACE, "web"])
            .await?;
        if told.contains("BackendMissing") && told.contains("nowhere") {
            break;
        }
        if start.elapsed() > SOON * 20 {
            return Err(format!(
                "kubectl describe ingress tells of no missing backend:\n{told}"
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
    let _ = times;
    Ok(())
}

async fn version(site: &Site, path: &str) -> Result<String, String> {
    let object = site.api.read(path).await?;
    Ok(object["metadata"]["resourceVersion"].to_string())
}
