//! The manifests, the overlays and the chart, as a real API server judges them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ApiServer;
use super::site::root;

/// Every folder of manifests below `config/kubernetes`.
const FOLDERS: [&str; 6] = [
    "base",
    "overlays/all-secrets",
    "overlays/issuers",
    "overlays/load-balancer",
    "overlays/node-port",
    "overlays/webhook",
];

/// Values of the chart with which it makes something else than the base.
const VARIANTS: [&[&str]; 5] = [
    &[],
    &["--set", "network=service"],
    &[
        "--set",
        "network=service,service.type=NodePort,service.nodePorts.http=30080,service.nodePorts.https=30443",
    ],
    &[
        "--set",
        "allSecrets=true,issuers=true,ingressClass.isDefault=true,extraArgs={--log-level=debug}",
    ],
    &[
        "--set",
        "webhook.enabled=true,webhook.caBundle=AAAA,webhook.failurePolicy=Fail",
    ],
];

/// Lets the server say what it would do with each; it does none of it. The base has been applied.
pub async fn check(server: &ApiServer) -> Result<String, String> {
    let dry_run = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-f",
        "-",
    ];
    for folder in FOLDERS {
        let path = root().join("config/kubernetes").join(folder);
        let text = server
            .kubectl(&["kustomize", &path.display().to_string()])
            .await?;
        server
            .kubectl_with(&dry_run, &text)
            .await
            .map_err(|error| format!("{folder}: {error}"))?;
    }
    let chart = root().join("config/kubernetes/chart");
    for variant in VARIANTS {
        let arguments = [&["--namespace", "postern", "--include-crds"][..], variant].concat();
        let text = server.helm_template(&chart, &arguments).await?;
        let answer = server.kubectl_with(&dry_run, &text).await;
        answer.map_err(|error| format!("helm template {}: {error}", variant.join(" ")))?;
    }
    let base = root().join("config/kubernetes/base").display().to_string();
    let base = objects(server, &server.kubectl(&["kustomize", &base]).await?).await?;
    let defaults = ["--namespace", "postern", "--include-crds"];
    let chart = server.helm_template(&chart, &defaults).await?;
    let mut chart = objects(server, &chart).await?;
    // Helm is told the namespace and makes it itself.
    let namespace = base.iter().find(|(name, _)| name.starts_with("Namespace "));
    chart.extend(namespace.map(|(name, object)| (name.clone(), object.clone())));
    let different: Vec<String> = base
        .keys()
        .chain(chart.keys())
        .filter(|name| base.get(*name) != chart.get(*name))
        .map(|name| {
            format!(
                "{name}:\nbase  {:?}\nchart {:?}",
                base.get(name),
                chart.get(name)
            )
        })
        .collect();
    if !different.is_empty() {
        return Err(format!(
            "the chart is not the base:\n{}",
            different.join("\n")
        ));
    }
    Ok(format!(
        "{} folders and {} sets of values accepted; the chart makes the {} objects of the base",
        FOLDERS.len(),
        VARIANTS.len(),
        base.len()
    ))
}

/// The objects of a text, by kind and name.
async fn objects(server: &ApiServer, text: &str) -> Result<BTreeMap<String, Value>, String> {
    let arguments = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "-o",
        "json",
        "-f",
        "-",
    ];
    let json = server.kubectl_with(&arguments, text).await?;
    // One after another, in no list.
    let mut named = BTreeMap::new();
    for object in serde_json::Deserializer::from_str(&json).into_iter::<Value>() {
        let object = object.map_err(|error| error.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let name = format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        named.insert(name, object);
    }
    match named.is_empty() {
        true => Err("kubectl gives no objects".to_owned()),
        false => Ok(named),
    }
}
