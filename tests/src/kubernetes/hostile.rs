//! Manifests that are wrong, by mistake or on purpose, given to the real API server: what it takes all
//! the same, the gateways refuse, and say why. A namespace beside them does not notice.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_kube::Cluster;
use postern_kube::Kind;
use postern_kube::Settings;
use postern_kube::manifest;
use postern_kube::test_util::hostile;
use postern_kube::translate;
use rcgen::generate_simple_self_signed;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Site;
use super::load::Load;
use super::objects;
use crate::client::Client;
use crate::process::Program;

/// How long a gateway may take to say what is wrong, and to forget it.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// As many are promised.
const AT_LEAST: usize = 60;
/// An address of the gateways that the case means is not one of theirs here.
const ELSEWHERE: &str = "10.0.0.9";

/// Objects in the order in which they are given, and where each is.
type Objects = Vec<(String, String, Value)>;

pub async fn check(site: &mut Site) -> Result<String, String> {
    prepare(site).await?;
    let usual = problems(site).await?;
    let beside = beside(site).await?;
    let gateways: Vec<_> = site.gateways.iter().map(|node| node.http).collect();
    let load = Load::start(&gateways, "victim.test", "/");
    let mut by_server = 0;
    let mut by_us = 0;
    let mut harmless = 0;
    for (yaml, said, answered) in hostile::cases(&pair) {
        if said.contains(ELSEWHERE) {
            continue;
        }
        let outcome = case(site, (usual, &beside), &yaml, &said, answered).await;
        match outcome.map_err(|error| format!("{yaml}\n{said}: {error}"))? {
            By::Server => by_server += 1,
            By::Us => by_us += 1,
            By::Nobody => harmless += 1,
        }
    }
    let outcome = load.end().await;
    outcome.check("in the namespace beside hostile manifests")?;
    if by_server + by_us < AT_LEAST {
        return Err(format!("{by_server} and {by_us} are less than {AT_LEAST}"));
    }
    let told = site
        .api
        .read("/apis/events.k8s.io/v1/namespaces/evil/events")
        .await?;
    let told = told["items"].as_array().map_or(0, Vec::len);
    Ok(format!(
        "{} hostile manifests: {by_server} refused by the API server, {by_us} by the gateways, each \
         with its reason, and {harmless} of which the API server kept nothing that is wrong; {told} \
         Events; the namespace beside them: {} requests, {} failed",
        by_server + by_us,
        outcome.requests,
        outcome.failed
    ))
}

#[derive(Clone, Copy, Debug)]
enum By {
    Server,
    Us,
    /// What was wrong is not in the object that the API server has made of it.
    Nobody,
}

async fn case(
    site: &Site,
    (usual, beside): (f64, &[Value]),
    yaml: &str,
    said: &str,
    answered: &str,
) -> Result<By, String> {
    let node = site.gateways.first().ok_or("there is no gateway")?;
    let log = || {
        node.program
            .as_ref()
            .map(Program::output)
            .unwrap_or_default()
    };
    let start = log().len();
    let mut created = Vec::new();
    let mut by = By::Us;
    for (collection, name, object) in objects(yaml)? {
        match site.api.create(&collection, &object).await {
            Ok(()) => created.push(format!("{collection}/{name}")),
            Err(error) if error.contains(": 4") => by = By::Server,
            Err(error) => return Err(error),
        }
    }
    if matches!(by, By::Us) {
        let mut cluster = Cluster::default();
        let mut stored = beside.to_vec();
        for path in &created {
            stored.push(site.api.read(path).await?);
        }
        for object in &stored {
            let text = |key: &str| object[key].as_str().unwrap_or_default();
            if let Some(kind) = Kind::parse(text("apiVersion"), text("kind")) {
                cluster.apply(kind, object);
            }
        }
        let found = translate(&cluster, &Settings::default()).problems;
        if !found
            .iter()
            .any(|problem| problem.to_string().contains(said))
        {
            by = By::Nobody;
        }
    }
    if matches!(by, By::Us) {
        let wanted = message(said);
        wait("what is wrong is not said", async || {
            let log = log().replace("\\\\", "\\");
            log.get(start..).is_some_and(|log| log.contains(wanted))
        })
        .await?;
    }
    // What has an upstream leads to a pod that is not there.
    let status = match answered {
        "nothing" | "no-route" => 404,
        "backend-missing" | "policy-missing" => 503,
        _ => 0,
    };
    if status != 0 && (!matches!(by, By::Server) || created.is_empty()) {
        for node in &site.gateways {
            wait(
                &format!("{} does not answer {status}", node.name),
                async || {
                    let mut client = Client::http1(node.http).await;
                    let request = client.request("GET", "evil.test", "/");
                    let reply = client.send(request).await;
                    reply.is_ok_and(|reply| reply.status == status)
                },
            )
            .await?;
        }
    }
    for path in created.iter().rev() {
        site.api.delete(path).await?;
    }
    // The next says the same and would not be heard.
    wait("what was wrong is still said", async || {
        problems(site).await.is_ok_and(|now| now <= usual)
    })
    .await?;
    Ok(by)
}

/// What is there whatever a case adds to it.
async fn beside(site: &Site) -> Result<Vec<Value>, String> {
    let paths = [
        "/apis/networking.k8s.io/v1/ingressclasses/postern".to_owned(),
        objects::object("victim", "ingresses", "main"),
        objects::object("victim", "services", "web"),
        objects::object("victim", "policies", "guard"),
        objects::object("victim", "policies", "shared"),
    ];
    let mut objects = Vec::new();
    for path in paths {
        objects.push(site.api.read(&path).await?);
    }
    Ok(objects)
}

/// How many problems the first gateway knows of.
async fn problems(site: &Site) -> Result<f64, String> {
    let node = site.gateways.first().ok_or("there is no gateway")?;
    let mut problems = 0.0;
    for severity in ["error", "warning"] {
        let name = format!("postern_kubernetes_problems{{severity=\"{severity}\"}}");
        problems += node.metric(&name).await?;
    }
    Ok(problems)
}

/// Of what a test says, the part that stands in one field of a log line.
fn message(said: &str) -> &str {
    if said.starts_with("write ") {
        return said;
    }
    let message = said.rsplit(": ").next().unwrap_or(said);
    message.split(" (").next().unwrap_or(message)
}

async fn wait(what: &str, is_so: impl AsyncFn() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !is_so().await {
        if start.elapsed() > PATIENCE {
            return Err(format!("{what} after {PATIENCE:?}"));
        }
        sleep(POLL).await;
    }
    Ok(())
}

fn objects(yaml: &str) -> Result<Objects, String> {
    let (manifests, errors) = manifest::load(yaml);
    if let Some(error) = errors.first() {
        return Err(error.message.clone());
    }
    let objects = manifests.into_iter().map(|manifest| {
        let object = manifest.value;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let plural = match text(&object["kind"]).as_str() {
            "Ingress" => "ingresses",
            "Policy" => "policies",
            "EndpointSlice" => "endpointslices",
            other => &format!("{}s", other.to_lowercase()),
        };
        let collection = objects::collection(&text(&object["metadata"]["namespace"]), plural);
        (collection, text(&object["metadata"]["name"]), object)
    });
    // What is there twice is there as it is said last.
    let mut kept = Objects::new();
    for (collection, name, object) in objects {
        kept.retain(|(c, n, _)| (c, n) != (&collection, &name));
        kept.push((collection, name, object));
    }
    Ok(kept)
}

/// The namespace that must not notice, and leave to read what is named.
async fn prepare(site: &mut Site) -> Result<(), String> {
    site.namespace("victim").await?;
    site.namespace("evil").await?;
    let pod = site.pod(121).await?;
    site.service("victim", "web", &[pod]).await?;
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "postern.dev/v1alpha1",
            "kind": "Policy",
            "metadata": { "name": name },
            "spec": spec,
        })
    };
    let limit = json!({ "kind": "body-size", "limit": "1MiB" });
    let shared = json!({ "kind": "body-size", "limit": "1MiB", "namespaces": ["evil"] });
    site.create("victim", "policies", &policy("guard", limit))
        .await?;
    site.create("victim", "policies", &policy("shared", shared))
        .await?;
    let ingress = objects::ingress("main", &[("victim.test", &[("Prefix", "/", "web")])]);
    site.create("victim", "ingresses", &ingress).await?;
    site.grant("secret", "evil", "tls").await?;
    site.see("the namespace beside", "victim.test", "/", |reply| {
        reply.status == 200
    })
    .await?;
    // Ages have whole seconds, and the other one is to be the younger.
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// A certificate and its key, in base64.
fn pair(host: &str) -> (String, String) {
    let pair = generate_simple_self_signed(vec![host.to_owned()]);
    let pair = pair.expect("the host is a name");
    let encode = |text: String| STANDARD.encode(text);
    (
        encode(pair.cert.pem()),
        encode(pair.signing_key.serialize_pem()),
    )
}
