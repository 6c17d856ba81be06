//! Three gateways of one cluster behind a balancer: each name leads to one of them, and another may
//! be the one that orders.
//!
//! The API server is a real one, and each gateway hears of Secrets late. Everything is in a network
//! namespace of its own, where pods may have addresses.

mod balancer;
mod between;
pub mod others;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use self::balancer::Balancer;
use self::between::Between;
use self::between::Trap;
use self::between::Traps;
use self::between::Write;
use super::Outcome;
use super::failed;
use super::issue::handshake;
use super::pebble::Pebble;
use super::pebble::Plan;
use crate::kubernetes::Site;
use crate::kubernetes::objects;
use crate::kubernetes::server::GATEWAY;
use crate::kubernetes::site::root;
use crate::process;
use crate::process::Program;

const GATEWAYS: usize = 3;
const NAMES: usize = 30;
const NAMESPACE: &str = "shop";
/// Of the issuer.
const KEY_ID: &str = "kid-1";
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
/// Where gateways are asked by one another, past the balancer.
const PEERS_PORT: u16 = 8081;
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/postern/leases/postern-acme";
/// How long a gateway may take to be ready; it is a debug build on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// How long all names may take.
const ISSUE: Duration = Duration::from_secs(120);
/// How long one step of an order may take, the choice of who orders included.
const STEP: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// What an order may have come to when the gateway that works on it is killed, as its writes tell.
const STATES: [(&str, fn(&Write) -> bool); 11] = [
    ("account key kept", |write| {
        write.role == "acme-account" && write.document["was_asked"] == false
    }),
    ("account asked for", |write| {
        let document = &write.document;
        write.role == "acme-account" && document["was_asked"] == true && document["url"].is_null()
    }),
    ("account made", |write| {
        write.role == "acme-account" && write.document["url"].is_string()
    }),
    ("key kept", |write| is_order(write, false, false)),
    ("ordered", |write| is_order(write, true, false)),
    ("challenge noted", |write| is_order(write, true, true)),
    ("challenge shown", |write| write.role == "acme-challenge"),
    ("validating", |write| {
        write.role == "acme-order" && write.document["validating_since"].is_u64()
    }),
    ("certificate kept", |write| {
        write.path.contains("/namespaces/shop/")
    }),
    ("challenge taken back", |write| {
        write.method == Method::DELETE && write.path.contains("acme-challenge")
    }),
    ("order forgotten", |write| {
        write.method == Method::DELETE && write.path.contains("acme-order")
    }),
];

/// Those of them in which nothing was ordered yet.
const ACCOUNT_STATES: [&str; 3] = ["account key kept", "account asked for", "account made"];
/// Names that are wanted in each of those: the same gateway may order in all other states, and each
/// other one has a name left for each of them.
const ACCOUNT_NAMES: usize = 2;

fn is_order(write: &Write, has_url: bool, has_published: bool) -> bool {
    let document = &write.document;
    let published = document["published"].as_array();
    write.role == "acme-order"
        && document["key"] != ""
        && document["url"].is_string() == has_url
        && published.is_some_and(|published| published.is_empty() != has_published)
        && document["validating_since"].is_null()
}

/// A gateway on what would be a node of its own.
struct Node {
    ip: IpAddr,
    arguments: Vec<String>,
    program: Option<Program>,
    _between: Between,
}

impl Node {
    fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 9180)
    }

    async fn start(&mut self) -> Result<(), String> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let program = Program::start(Path::new("/usr/bin/env"), &arguments, false);
        let mut program = program.map_err(failed("a gateway"))?;
        program.ready(self.admin(), READY).await?;
        self.program = Some(program);
        Ok(())
    }

    fn log(&self) -> String {
        let program = self.program.as_ref();
        program.map(Program::output).unwrap_or_default()
    }
}

struct Cluster {
    site: Site,
    pebble: Pebble,
    nodes: Vec<Node>,
    traps: Traps,
    _balancer: Balancer,
}

fn name(number: usize) -> String {
    format!("n{number:02}.replicas.test")
}

/// Where clients find a name: its own address, which leads to one gateway.
fn public(number: usize) -> IpAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 244, 100, last).into()
}

fn gateway(number: usize) -> IpAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 244, 200, last).into()
}

impl Cluster {
    async fn start() -> Result<Self, String> {
        let plan = Plan {
            http_port: 80,
            tls_port: 443,
            bindings: vec![(KEY_ID.to_owned(), KEY.to_owned())],
            ..Plan::default()
        };
        let pebble = Pebble::start(plan).await?;
        pebble.dir.write("eab.key", KEY);
        for number in 0..NAMES {
            let addresses = json!({
                "host": format!("{}.", name(number)), "addresses": [public(number)],
            });
            pebble.tell_dns("add-a", addresses).await?;
        }
        let mut site = Site::new().await?;
        let overlay = root().join("config/kubernetes/overlays/issuers");
        let overlay = overlay.display().to_string();
        let apply = ["apply", "--server-side", "--force-conflicts", "-k"];
        site.server
            .kubectl(&[&apply[..], &[&*overlay]].concat())
            .await?;
        site.namespace(NAMESPACE).await?;
        let pod = site.pod(7).await?;
        site.service(NAMESPACE, "web", &[pod]).await?;
        peers(&site).await?;
        let traps = Traps::default();
        let mut nodes = Vec::new();
        for number in 0..GATEWAYS {
            nodes.push(node(&site, &pebble, number, Arc::clone(&traps)).await?);
        }
        let leads: Vec<(Vec<IpAddr>, IpAddr)> = (0..GATEWAYS)
            .map(|number| {
                let names = (0..NAMES).filter(|name| name % GATEWAYS == number);
                (names.map(public).collect(), gateway(number))
            })
            .collect();
        let balancer = Balancer::start(pebble.dir.path(), &leads).await?;
        for node in &mut nodes {
            node.start().await?;
        }
        Ok(Self {
            site,
            pebble,
            nodes,
            traps,
            _balancer: balancer,
        })
    }

    /// Wants a certificate for each of these names, in a Secret of its own.
    async fn want(&self, numbers: impl Iterator<Item = usize>) -> Result<(), String> {
        for number in numbers {
            let object = ingress(number);
            self.site.create(NAMESPACE, "ingresses", &object).await?;
        }
        Ok(())
    }

    /// Waits until this gateway shows a certificate for the name that this root has signed.
    async fn shows(&self, node: usize, number: usize, root: &str) -> Result<(), String> {
        // Any address that leads there will do.
        let addr = SocketAddr::new(public(node), 443);
        let host = name(number);
        let end = Instant::now() + ISSUE;
        while let Err(error) = handshake(addr, root, &host).await {
            if Instant::now() > end {
                return Err(format!(
                    "gateway {node} does not serve {host}: {error}\n{}\n{}",
                    self.explained(&host).await,
                    self.logs()
                ));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The number of the gateway that orders.
    async fn leader(&self) -> Result<usize, String> {
        let end = Instant::now() + STEP;
        loop {
            let lease = self.site.api.read(LEASE).await.unwrap_or_default();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            let number = holder.strip_prefix("postern-");
            let number = number.and_then(|rest| rest.split('_').next()?.parse().ok());
            match number {
                Some(number) => return Ok(number),
                None if Instant::now() > end => return Err(format!("nobody orders: {lease}")),
                None => sleep(POLL).await,
            }
        }
    }

    /// What a gateway says of a name, once it says this.
    async fn says(&self, node: usize, host: &str, wanted: &str) -> Result<String, String> {
        let end = Instant::now() + STEP;
        loop {
            let text = self.explained_by(node, host).await;
            if text.contains(wanted) {
                return Ok(text);
            }
            if Instant::now() > end {
                let logs = self.logs();
                return Err(format!(
                    "gateway {node} does not say '{wanted}':\n{text}\n{logs}"
                ));
            }
            sleep(POLL).await;
        }
    }

    fn trap(&self, wanted: fn(&Write) -> bool) -> oneshot::Receiver<usize> {
        let (sprung, receiver) = oneshot::channel();
        *self.traps.lock().unwrap() = Some(Trap { wanted, sprung });
        receiver
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let log = node.log();
            let from = log.floor_char_boundary(log.len().saturating_sub(6000));
            text.push_str(&format!("--- gateway {number}\n{}\n", &log[from..]));
        }
        text
    }

    /// Wants these, and kills the gateway that comes to this state with them.
    async fn kill(
        &mut self,
        state: &str,
        is_there: fn(&Write) -> bool,
        names: impl Iterator<Item = usize>,
    ) -> Result<(), String> {
        let sprung = self.trap(is_there);
        self.want(names).await?;
        let sprung = timeout(STEP, sprung).await;
        let Ok(Ok(number)) = sprung else {
            return Err(format!("nobody came to: {state}\n{}", self.logs()));
        };
        if let Some(mut program) = self.nodes[number].program.take() {
            program.kill().await;
        }
        // That a Lease runs out by itself is shown elsewhere, and takes its time.
        self.site.api.delete(LEASE).await?;
        self.nodes[number].start().await
    }

    /// Waits until everything is served and swept: what the authority has counted then.
    async fn ended(&self) -> Result<(usize, usize, usize), String> {
        self.served(&Vec::from_iter(0..NAMES)).await?;
        self.swept().await?;
        Ok(self.counted())
    }

    /// Waits until every gateway serves these names, by their own certificates.
    async fn served(&self, numbers: &[usize]) -> Result<(), String> {
        let root = self.pebble.root().await?;
        for number in numbers {
            for node in 0..GATEWAYS {
                self.shows(node, *number, &root).await?;
            }
        }
        Ok(())
    }

    /// What each gateway says of a name.
    async fn explained(&self, host: &str) -> String {
        let mut text = String::new();
        for node in 0..GATEWAYS {
            text.push_str(&self.explained_by(node, host).await);
        }
        text
    }

    async fn explained_by(&self, node: usize, host: &str) -> String {
        let admin = self.nodes[node].admin().to_string();
        let postern = process::postern().unwrap_or_default();
        let arguments = ["certs", "explain", host, "--admin", &admin];
        let output = tokio::process::Command::new(postern)
            .args(arguments)
            .output();
        let output = output.await.map(|output| output.stdout);
        String::from_utf8_lossy(&output.unwrap_or_default()).into_owned()
    }

    /// What the authority has counted: orders, accounts, and bindings of an account.
    fn counted(&self) -> (usize, usize, usize) {
        let log = self.pebble.log();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        (
            count("Added order"),
            count("accounts in memory"),
            count("Successful newAccount Binding"),
        )
    }

    /// What to look at when these are not the numbers that were wanted.
    fn miscounted(&self, counted: (usize, usize, usize)) -> String {
        let log = self.pebble.log();
        let is_told = |line: &&str| line.contains("order") || line.contains("authorization");
        let told: Vec<&str> = log.lines().filter(is_told).collect();
        format!(
            "orders, accounts, bindings: {counted:?}\n{}\n{}",
            self.logs(),
            told.join("\n")
        )
    }

    /// Nothing is left of an order, and each Secret is labelled as ours.
    async fn swept(&self) -> Result<(), String> {
        let list = objects::collection("postern", "secrets");
        let end = Instant::now() + STEP;
        loop {
            let all = self.site.api.read(&list).await?;
            let left: BTreeSet<&str> = items(&all)
                .filter_map(|secret| secret["metadata"]["labels"]["postern.dev/role"].as_str())
                .filter(|role| matches!(*role, "acme-order" | "acme-challenge"))
                .collect();
            if left.is_empty() {
                break;
            }
            if Instant::now() > end {
                return Err(format!("left in the cluster: {left:?}\n{}", self.logs()));
            }
            sleep(POLL).await;
        }
        let list = objects::collection(NAMESPACE, "secrets");
        let all = self.site.api.read(&list).await?;
        let is_ours = |secret: &&Value| {
            secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "postern"
                && secret["type"] == "kubernetes.io/tls"
        };
        let ours = items(&all).filter(is_ours).count();
        match ours {
            NAMES => Ok(()),
            ours => Err(format!("{ours} Secrets are labelled as the gateway's")),
        }
    }
}

/// Wants a certificate for a name in a Secret of its own.
fn ingress(number: usize) -> Value {
    let host = name(number);
    let rules: &[(&str, &[_])] = &[(&host, &[("Prefix", "/", "web")])];
    let mut object = objects::ingress(&format!("n{number}"), rules);
    object["spec"]["tls"] = json!([{ "hosts": [host], "secretName": format!("n{number}-tls") }]);
    object
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// The endpoints of the Service by which gateways find one another: no controller runs here that would
/// make them.
async fn peers(site: &Site) -> Result<(), String> {
    let endpoints: Vec<Value> = (0..GATEWAYS)
        .map(|number| json!({ "addresses": [gateway(number)], "conditions": { "ready": true } }))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "postern-peers-1",
            "labels": { "kubernetes.io/service-name": "postern-peers" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "peers", "port": PEERS_PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    });
    site.create("postern", "endpointslices", &slice).await
}

async fn node(site: &Site, pebble: &Pebble, number: usize, traps: Traps) -> Result<Node, String> {
    let api = site.server.api(GATEWAY).await?;
    let between = Between::start(api, number, traps).await;
    let kubeconfig = format!("gateway-{number}.kubeconfig");
    let kubeconfig = pebble.dir.write(&kubeconfig, between.kubeconfig());
    let ip = gateway(number);
    let balanced = "proxy-protocol = \"required\", proxy-protocol-from = [\"10.244.0.0/16\"]";
    let config = format!(
        "runtime = {{ workers = 1 }}\naccess-log.format = \"off\"\nadmin.bind = \"{ip}:9180\"\n\
         kubernetes = {{ issuer = \"pebble\", secrets = \"cluster\" }}\n\
         listeners.http = {{ bind = \"{ip}:80\", {balanced} }}\n\
         listeners.https = {{ bind = \"{ip}:443\", tls = {{}}, {balanced} }}\n\
         listeners.peers.bind = \"{ip}:{PEERS_PORT}\"\n\
         [issuers.pebble]\ndirectory = \"{}\"\nca-file = \"ca.pem\"\n\
         external-account = {{ key-id = \"{KEY_ID}\", key-file = \"eab.key\" }}\n\
         [issuers.closed]\ndirectory = \"{}\"\nnamespaces = [\"elsewhere\"]\n",
        pebble.directory(),
        pebble.directory(),
    );
    let config = pebble.dir.write(&format!("gateway-{number}.toml"), config);
    let arguments = vec![
        format!("POSTERN_POD=postern-{number}"),
        "POSTERN_NAMESPACE=postern".to_owned(),
        process::postern()?.display().to_string(),
        "run".to_owned(),
        "--kubernetes".to_owned(),
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--accept-for=0s".to_owned(),
    ];
    Ok(Node {
        ip,
        arguments,
        program: None,
        _between: between,
    })
}

/// Every name leads to one gateway, and one of them orders for all.
pub async fn issued() -> Outcome {
    let cluster = Cluster::start().await?;
    let start = Instant::now();
    cluster.want(0..NAMES).await?;
    cluster.served(&Vec::from_iter(0..NAMES)).await?;
    let took = start.elapsed();
    cluster.swept().await?;
    match cluster.counted() {
        (NAMES, 1, 1) => Ok(format!(
            "{NAMES} of {NAMES} issued in {:.1} s, {NAMES} orders, one account, bound once; served by {GATEWAYS} gateways",
            took.as_secs_f32()
        )),
        counted => Err(cluster.miscounted(counted)),
    }
}

/// The same while whoever orders is killed, again and again. No name that is on its way leads to the
/// gateway that is killed: the authority may be looking there, and an order of which it finds nothing
/// is of no use to anybody.
pub async fn killed() -> Outcome {
    let mut cluster = Cluster::start().await?;
    let mut left: Vec<usize> = (0..NAMES).collect();
    let mut wanted = Vec::new();
    for (state, is_there) in &STATES {
        let names: Vec<usize> = if ACCOUNT_STATES.contains(state) {
            // There are no orders before there is an account.
            left.iter().take(ACCOUNT_NAMES).copied().collect()
        } else {
            cluster.served(&wanted).await?;
            let leader = cluster.leader().await?;
            let leads = (0..GATEWAYS).filter(|node| *node != leader);
            let names = leads.filter_map(|node| left.iter().find(|name| *name % GATEWAYS == node));
            names.copied().collect()
        };
        left.retain(|name| !names.contains(name));
        wanted.extend_from_slice(&names);
        cluster.kill(state, *is_there, names.into_iter()).await?;
    }
    cluster.want(left.into_iter()).await?;
    match cluster.ended().await? {
        (NAMES, 1, 1) => Ok(format!(
            "killed at {} states: {NAMES} of {NAMES} issued, {NAMES} orders, one account, bound once",
            STATES.len()
        )),
        counted => Err(cluster.miscounted(counted)),
    }
}

/// The same with names that lead anywhere: an order more for each that the authority has found
/// invalid, and for nothing else.
pub async fn killed_anywhere() -> Outcome {
    let mut cluster = Cluster::start().await?;
    let mut next = 0;
    for (round, (state, is_there)) in STATES.iter().enumerate() {
        let end = NAMES * (round + 1) / STATES.len();
        cluster.kill(state, *is_there, next..end).await?;
        next = end;
    }
    let counted = cluster.ended().await?;
    let log = cluster.pebble.log();
    let invalid = log.matches(" set INVALID by invalid authz").count();
    match counted {
        (orders, 1, 1) if orders == NAMES + invalid => Ok(format!(
            "killed at {} states: {NAMES} of {NAMES} issued, {orders} orders, of which {invalid} \
             asked for a name at a gateway that was killed; one account, bound once",
            STATES.len()
        )),
        counted => Err(cluster.miscounted(counted)),
    }
}
