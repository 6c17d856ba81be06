//! `postern webhook`, asked by the real API server before it takes an object.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Site;
use super::objects;
use super::site::root;
use crate::certs::Authority;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;

const NAMESPACE: &str = "admission";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
/// How long the API server may take to heed a configuration.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Registers a webhook as the manifests do, but by its address, and sees what is refused.
pub async fn check(site: &Site) -> Result<String, String> {
    let dir = Scratch::new();
    let authority = Authority::new("webhook");
    let pair = authority.leaf(&["localhost"]);
    let (cert, key) = (
        dir.write("tls.crt", &pair.chain),
        dir.write("tls.key", &pair.key),
    );
    let cert = format!("--cert={}", cert.display());
    let key = format!("--key={}", key.display());
    let arguments = ["webhook", "--bind=127.0.0.1:0", &cert, &key];
    let mut program = Program::start(&process::postern()?, &arguments, false)
        .map_err(|error| error.to_string())?;
    let port = port(&mut program).await?;
    site.namespace(NAMESPACE).await?;
    let mut configuration = configuration(site).await?;
    for webhook in configuration["webhooks"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        webhook["clientConfig"] = json!({
            "url": format!("https://localhost:{port}/validate"),
            "caBundle": STANDARD.encode(authority.pem()),
        });
    }
    site.api.create(CONFIGURATION, &configuration).await?;

    let bad = objects::ingress(
        "bad",
        &[("a.test", &[("ImplementationSpecific", "/api/*", "web")])],
    );
    let start = Instant::now();
    let refusal = loop {
        match site.create(NAMESPACE, "ingresses", &bad).await {
            Err(error) => break error,
            // The API server has not read it yet.
            Ok(()) => site.delete(NAMESPACE, "ingresses", "bad").await?,
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("nothing is refused: {}", program.output()));
        }
        sleep(POLL).await;
    };
    if !refusal.contains("write path: /api, pathType: Prefix") {
        return Err(format!("refused for another reason: {refusal}"));
    }
    let cases = [
        (
            "ingresses",
            objects::ingress("good", &[("a.test", &[("Prefix", "/api", "web")])]),
            "",
        ),
        ("ingresses", foreign(&bad), ""),
        (
            "policies",
            policy(json!({ "kind": "body-size", "limit": "1MiB" })),
            "",
        ),
        (
            "policies",
            policy(json!({ "kind": "body-size", "limit": "much" })),
            "'much' is no size",
        ),
    ];
    for (plural, object, wanted) in cases {
        let created = site.create(NAMESPACE, plural, &object).await;
        match (created, wanted) {
            (Ok(()), "") => {}
            (Err(error), wanted) if !wanted.is_empty() && error.contains(wanted) => {}
            (created, wanted) => {
                return Err(format!("{object}: wanted '{wanted}', got {created:?}"));
            }
        }
    }
    // What was fine is made wrong.
    let patch = json!({ "spec": { "rules": bad["spec"]["rules"] } });
    let patched = site.patch(NAMESPACE, "ingresses", "good", &patch).await;
    if !patched.is_err_and(|error| error.contains("write path: /api")) {
        return Err("a change for the worse is taken".to_owned());
    }
    // Without the webhook, the API server goes on without it.
    program.kill().await;
    site.create(NAMESPACE, "ingresses", &bad)
        .await
        .map_err(|error| format!("a webhook that is gone stops everybody: {error}"))?;
    let name = configuration["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    site.api.delete(&format!("{CONFIGURATION}/{name}")).await?;
    site.delete(NAMESPACE, "ingresses", "bad").await?;
    Ok(
        "the webhook refuses what is wrong, takes what is right, and is missed by nobody"
            .to_owned(),
    )
}

/// As the manifests have it.
async fn configuration(site: &Site) -> Result<Value, String> {
    let file = root().join("config/kubernetes/components/webhook/configuration.yaml");
    let arguments = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "-o",
        "json",
        "-f",
        &file.display().to_string(),
    ];
    let json = site.server.kubectl(&arguments).await?;
    serde_json::from_str(&json).map_err(|error| error.to_string())
}

async fn port(program: &mut Program) -> Result<u16, String> {
    let start = Instant::now();
    loop {
        let output = program.output();
        let port = output.lines().find_map(|line| {
            let addr = line.strip_prefix("listening on ")?;
            addr.rsplit(':').next()?.parse().ok()
        });
        if let Some(port) = port {
            return Ok(port);
        }
        if start.elapsed() > PATIENCE || !program.is_running() {
            return Err(format!("the webhook does not listen: {output}"));
        }
        sleep(POLL).await;
    }
}

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "Policy",
        "metadata": { "name": "limit" },
        "spec": spec,
    })
}

/// Of a class that is somebody else's.
fn foreign(ingress: &Value) -> Value {
    let mut ingress = ingress.clone();
    ingress["metadata"]["name"] = "foreign".into();
    ingress["spec"]["ingressClassName"] = "nginx".into();
    ingress
}
