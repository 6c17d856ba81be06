//! A cluster of ten thousand applications, and what one gateway makes of it: what
//! `kubernetes-scale` runs.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Api;
use super::Site;
use super::objects;
use crate::client::Client;
use crate::process::Program;

/// Writes to the API server that are under way at once.
const AT_ONCE: usize = 64;
/// The processor time that is called idle is taken over this long.
const IDLE: Duration = Duration::from_secs(20);
/// Pods of one Service; one of them serves.
const PODS: u16 = 3;

#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ingresses and Services.
    pub ingresses: u32,
    /// Slices of each Service.
    pub slices: u32,
    pub namespaces: u32,
    /// Changes that are timed.
    pub changes: u32,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    pub size: Size,
    pub created: Duration,
    pub ready: Duration,
    pub resident_mib: u64,
    pub peak_mib: u64,
    /// Sorted.
    pub changes: Vec<Duration>,
    pub idle_percent: f64,
    pub translation: Duration,
    pub server_mib: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size {
            ingresses, slices, ..
        } = self.size;
        let rows = [
            (
                "objects",
                format!(
                    "{ingresses} Ingresses, {ingresses} Services, {} slices",
                    ingresses * slices
                ),
            ),
            ("created in", format!("{:.1?}", self.created)),
            ("first sync to ready", format!("{:.1?}", self.ready)),
            (
                "resident memory",
                format!("{} MiB, at most {}", self.resident_mib, self.peak_mib),
            ),
            (
                "a change live, p50 and p99",
                format!("{:.0?}, {:.0?}", self.at(50), self.at(99)),
            ),
            ("one translation", format!("{:.1?}", self.translation)),
            (
                "processor while idle",
                format!("{:.1} %", self.idle_percent),
            ),
            (
                "the API server's memory",
                format!("{} MiB", self.server_mib),
            ),
        ];
        for (what, value) in rows {
            writeln!(f, "{what:<28}{value}")?;
        }
        Ok(())
    }
}

impl Report {
    fn at(&self, percent: usize) -> Duration {
        let last = self.changes.len().saturating_sub(1);
        let index = (self.changes.len() * percent / 100).min(last);
        self.changes.get(index).copied().unwrap_or_default()
    }

    /// Whether it is as good as was promised.
    pub fn holds(&self) -> bool {
        self.ready <= Duration::from_secs(15)
            && self.at(99) <= Duration::from_secs(1)
            && self.resident_mib <= 350
            && self.idle_percent <= 2.0
    }
}

/// Fills a cluster, starts a gateway and times changes. The gateway is the one that was built beside
/// this program unless another is named.
pub async fn run(size: Size, gateway: Option<PathBuf>) -> Result<Report, String> {
    let mut site = Site::new().await?;
    if let Some(gateway) = gateway {
        site.postern = gateway;
    }
    let start = Instant::now();
    fill(&site.api, size).await?;
    let created = start.elapsed();
    let start = Instant::now();
    site.start_gateways(1).await?;
    let ready = start.elapsed();
    let node = site.gateways.first().ok_or("there is no gateway")?;
    let program = node.program.as_ref().ok_or("the gateway does not run")?;

    // What a start leaves behind settles.
    sleep(Duration::from_secs(5)).await;
    let before = ticks(program)?;
    sleep(IDLE).await;
    // A tick is a hundredth of a second.
    let idle_percent = (ticks(program)? - before) as f64 / IDLE.as_secs_f64();
    let resident_mib = program.resident_mib().unwrap_or_default();

    let mut changes = Vec::new();
    for number in 0..size.changes {
        changes.push(change(&site, size, number).await?);
    }
    changes.sort();
    let seconds = node
        .metric("postern_kubernetes_translation_seconds")
        .await?;
    Ok(Report {
        size,
        created,
        ready,
        resident_mib,
        peak_mib: program.peak_mib().unwrap_or_default(),
        changes,
        idle_percent,
        translation: Duration::from_secs_f64(seconds),
        server_mib: site.server.resident_mib().unwrap_or_default(),
    })
}

fn ticks(program: &Program) -> Result<u64, String> {
    program
        .processor_ticks()
        .ok_or_else(|| "the system tells no processor times".to_owned())
}

async fn fill(api: &Api, size: Size) -> Result<(), String> {
    for number in 0..size.namespaces {
        let name = format!("ns-{number}");
        api.create("/api/v1/namespaces", &objects::namespace(&name))
            .await?;
    }
    let mut writes: JoinSet<Result<(), String>> = JoinSet::new();
    for number in 0..size.ingresses {
        let namespace = namespace_of(size, number);
        let app = format!("app-{number}");
        let mut all = vec![("services", objects::service(&app))];
        for part in 0..size.slices {
            all.push(("endpointslices", slice(&app, number, part)));
        }
        let host = host_of(number);
        let ingress = objects::ingress(
            &app,
            &[(
                &host,
                &[
                    ("Prefix", "/", &app),
                    ("Prefix", "/api", &app),
                    ("Exact", "/health", &app),
                ],
            )],
        );
        all.push(("ingresses", ingress));
        while writes.len() >= AT_ONCE {
            joined(writes.join_next().await)?;
        }
        let api = api.clone();
        // Awaited below.
        writes.spawn(async move {
            for (plural, object) in all {
                api.create(&objects::collection(&namespace, plural), &object)
                    .await?;
            }
            Ok(())
        });
    }
    while !writes.is_empty() {
        joined(writes.join_next().await)?;
    }
    Ok(())
}

fn joined(
    written: Option<Result<Result<(), String>, tokio::task::JoinError>>,
) -> Result<(), String> {
    written.map_or(Ok(()), |written| {
        written.map_err(|error| error.to_string())?
    })
}

fn namespace_of(size: Size, number: u32) -> String {
    format!("ns-{}", number % size.namespaces.max(1))
}

fn host_of(number: u32) -> String {
    format!("app-{number}.apps.test")
}

/// Part of the pods of a Service; nobody listens there.
fn slice(app: &str, number: u32, part: u32) -> Value {
    let pods: Vec<Ipv4Addr> = (0..PODS)
        .map(|pod| {
            let [_, b, c, d] = (number * 16 + part * 4 + u32::from(pod)).to_be_bytes();
            Ipv4Addr::new(10, b | 0x80, c, d)
        })
        .collect();
    let mut slice = objects::slice(app, &pods);
    slice["metadata"]["name"] = json!(format!("{app}-{part}"));
    slice
}

/// How long it takes until a change of one Ingress is served: its path goes to a Service that is not
/// there, which is answered 503, or to nobody, which is answered 404.
async fn change(site: &Site, size: Size, number: u32) -> Result<Duration, String> {
    let target = number * 37 % size.ingresses;
    let app = format!("app-{target}");
    let path = format!("/changed-{number}");
    let rules = json!({ "spec": { "rules": [{ "host": host_of(target), "http": { "paths": [
        { "pathType": "Exact", "path": path, "backend": objects::backend("nowhere") },
    ]}}]}});
    let node = site.gateways.first().ok_or("there is no gateway")?;
    let mut client = Client::http1(node.http).await;
    site.patch(&namespace_of(size, target), "ingresses", &app, &rules)
        .await?;
    let start = Instant::now();
    loop {
        let request = client.request("GET", &host_of(target), &path);
        let reply = client
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        // Before, the path went to pods that do not answer, or to nobody.
        if reply.text().contains("backend-missing") || reply.status == 503 {
            return Ok(start.elapsed());
        }
        if start.elapsed() > Duration::from_secs(30) {
            return Err(format!("a change of {app} is not seen: {}", reply.status));
        }
        sleep(Duration::from_millis(5)).await;
    }
}
