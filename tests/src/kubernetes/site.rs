//! A cluster with three gateways, as three nodes have them: the manifests of `config/kubernetes`,
//! the built program with their arguments, their configuration and their rights.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Api;
use super::ApiServer;
use super::objects;
use super::server::ADMIN;
use super::server::GATEWAY;
use crate::client::Client;
use crate::client::Reply;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use crate::upstream;
use crate::upstream::Upstream;

/// How long a gateway may take to be ready; it is a debug build on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// The port that pods listen on.
const PORT: u16 = 8080;

pub struct Site {
    pub server: ApiServer,
    pub api: Api,
    pub gateways: Vec<Node>,
    pods: Vec<Upstream>,
    dir: Scratch,
    /// The program that runs on every node.
    pub postern: PathBuf,
}

/// One gateway, on what would be a node of its own.
pub struct Node {
    pub name: String,
    pub ip: IpAddr,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    arguments: Vec<String>,
    ready_file: PathBuf,
    pub program: Option<Program>,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Site {
    /// Starts an API server and applies the manifests.
    pub async fn new() -> Result<Self, String> {
        let server = ApiServer::start().await?;
        let base = root().join("config/kubernetes/base").display().to_string();
        server
            .kubectl(&["apply", "--server-side", "-k", &base])
            .await?;
        let api = server.api(ADMIN).await?;
        Ok(Self {
            server,
            api,
            gateways: Vec::new(),
            pods: Vec::new(),
            dir: Scratch::new(),
            postern: process::postern()?,
        })
    }

    /// Starts so many gateways with what the manifests say. Waits until all are ready.
    pub async fn start_gateways(&mut self, count: u8) -> Result<(), String> {
        for number in 0..count {
            let node = self.node(number).await?;
            self.gateways.push(node);
        }
        for node in &mut self.gateways {
            node.start()?;
        }
        for node in &mut self.gateways {
            node.ready().await?;
        }
        Ok(())
    }

    /// A node whose gateway has this in its files as well; it does not run yet.
    pub async fn node_with(&self, number: u8, files: &str) -> Result<Node, String> {
        let node = self.node(number).await?;
        let file = self.dir.path().join(&node.name).join("postern.toml");
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        std::fs::write(&file, text + files).map_err(|error| error.to_string())?;
        Ok(node)
    }

    async fn node(&self, number: u8) -> Result<Node, String> {
        let name = format!("node-{number}");
        let ip = Ipv4Addr::new(127, 1, 0, number + 1);
        let dir = self.dir.path().join(&name);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let config = self
            .api
            .read(&objects::object("postern", "configmaps", "postern"))
            .await?;
        let config = text(&config["data"]["postern.toml"])?;
        // Three nodes have three networks; here they have three addresses of one.
        let replacements = [
            ("[::]:", format!("{ip}:")),
            ("127.0.0.1:9180", format!("{ip}:9180")),
            (
                "/var/cache/postern",
                dir.join("cache").display().to_string(),
            ),
        ];
        let mut here = config;
        for (from, to) in replacements {
            if !here.contains(from) {
                return Err(format!("the ConfigMap says nothing of {from}:\n{here}"));
            }
            here = here.replace(from, &to);
        }
        here.push_str("\n[access-log]\nformat = \"off\"\n");
        let file = dir.join("postern.toml");
        std::fs::write(&file, here).map_err(|error| error.to_string())?;

        let daemon_set = "/apis/apps/v1/namespaces/postern/daemonsets/postern";
        let daemon_set = self.api.read(daemon_set).await?;
        let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
        let mut arguments = vec![
            format!("POSTERN_POD=postern-{number}"),
            format!("POSTERN_NODE={name}"),
            "POSTERN_NAMESPACE=postern".to_owned(),
            self.postern.display().to_string(),
        ];
        for argument in container["args"].as_array().into_iter().flatten() {
            let argument = text(argument)?;
            arguments.push(match argument.split_once('=') {
                Some(("--config", _)) => format!("--config={}", file.display()),
                // Said by the start: each process has one of its own.
                Some(("--ready-file", _)) => continue,
                Some(("--log-format", _)) => "--log-format=text".to_owned(),
                _ => argument,
            });
        }
        let kubeconfig = self.server.kubeconfig(GATEWAY).display().to_string();
        arguments.push(format!("--kubeconfig={kubeconfig}"));
        let addr = |port: u16| SocketAddr::new(ip.into(), port);
        Ok(Node {
            name,
            ip: ip.into(),
            http: addr(80),
            https: addr(443),
            admin: addr(9180),
            arguments,
            ready_file: dir.join("ready"),
            program: None,
        })
    }

    /// Starts a pod that answers with its name, which is its own address.
    pub async fn pod(&mut self, number: u8) -> Result<Ipv4Addr, String> {
        let ip = Ipv4Addr::new(10, 244, 1, number);
        let name: &'static str = ip.to_string().leak();
        let pod = Upstream::http1_at((ip, PORT).into(), move |request| {
            upstream::echo(name, request)
        });
        self.pods
            .push(pod.await.map_err(|error| error.to_string())?);
        Ok(ip)
    }

    /// A Service with these pods.
    pub async fn service(
        &self,
        namespace: &str,
        name: &str,
        pods: &[Ipv4Addr],
    ) -> Result<(), String> {
        let service = objects::service(name);
        self.create(namespace, "services", &service).await?;
        let slice = objects::slice(name, pods);
        self.create(namespace, "endpointslices", &slice).await
    }

    pub async fn create(
        &self,
        namespace: &str,
        plural: &str,
        object: &Value,
    ) -> Result<(), String> {
        self.api
            .create(&objects::collection(namespace, plural), object)
            .await
    }

    pub async fn patch(
        &self,
        namespace: &str,
        plural: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), String> {
        self.api
            .patch(&objects::object(namespace, plural, name), patch)
            .await
    }

    pub async fn delete(&self, namespace: &str, plural: &str, name: &str) -> Result<(), String> {
        self.api
            .delete(&objects::object(namespace, plural, name))
            .await
    }

    pub async fn namespace(&self, name: &str) -> Result<(), String> {
        self.api
            .create("/api/v1/namespaces", &objects::namespace(name))
            .await
    }

    /// Lets the gateways read a `secret` or `config-map`, as `postern rbac` says. Waits until the API
    /// server knows.
    pub async fn grant(&self, kind: &str, namespace: &str, name: &str) -> Result<(), String> {
        let (flag, object) = (format!("--{kind}"), format!("{namespace}/{name}"));
        let output = std::process::Command::new(&self.postern)
            .args(["rbac", &flag, &object])
            .output();
        let output = output.map_err(|error| error.to_string())?;
        let manifests = String::from_utf8_lossy(&output.stdout).into_owned();
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.server.kubectl_with(&arguments, &manifests).await?;
        let gateway = self.server.api(GATEWAY).await?;
        let plural = format!("{}s", kind.replace('-', ""));
        let list = objects::collection(namespace, &plural);
        let start = Instant::now();
        while let Err(error) = gateway
            .get(&format!("{list}?fieldSelector=metadata.name={name}"))
            .await
        {
            if start.elapsed() > PATIENCE {
                return Err(format!("the gateway may not read {object}: {error}"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// How long it takes until every running gateway answers so.
    pub async fn see(
        &self,
        what: &str,
        host: &str,
        path: &str,
        wanted: impl Fn(&Reply) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        for node in self.gateways.iter().filter(|node| node.program.is_some()) {
            let mut client = Client::http1(node.http).await;
            loop {
                let request = client.request("GET", host, path);
                let reply = client.send(request).await;
                let reply = reply.map_err(|error| format!("{what}: {}: {error}", node.name))?;
                if wanted(&reply) {
                    break;
                }
                if start.elapsed() > PATIENCE {
                    let log = node
                        .program
                        .as_ref()
                        .map(Program::output)
                        .unwrap_or_default();
                    let tail = log.len().saturating_sub(4000);
                    let tail = log.get(tail..).unwrap_or(&log);
                    return Err(format!(
                        "{what}: not so at {} in {PATIENCE:?}: {} {}\n{tail}",
                        node.name,
                        reply.status,
                        reply.text()
                    ));
                }
                sleep(POLL).await;
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until the API server says so of an object.
    pub async fn wait_for(
        &self,
        what: &str,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let found = self.api.read(path).await;
            if found.as_ref().is_ok_and(&wanted) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{what}: not so in {PATIENCE:?}: {found:?}"));
            }
            sleep(POLL * 5).await;
        }
    }

    /// Lets the nodes have ready pods, as a kubelet would.
    pub async fn pretend_pods(&self) -> Result<(), String> {
        for (number, node) in self.gateways.iter().enumerate() {
            let name = format!("postern-{number}");
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "postern" } },
                "spec": {
                    "nodeName": node.name,
                    "containers": [{ "name": "postern", "image": "postern" }],
                },
            });
            self.create("postern", "pods", &pod).await?;
            let status = json!({ "status": {
                "hostIP": node_address(number),
                "hostIPs": [{ "ip": node_address(number) }],
                "podIP": node_address(number),
                "podIPs": [{ "ip": node_address(number) }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            }});
            let path = format!("{}/status", objects::object("postern", "pods", &name));
            self.api.patch(&path, &status).await?;
        }
        Ok(())
    }

    /// The node whose gateway writes, as soon as it is one of those that run.
    pub async fn leader(&self) -> Result<usize, String> {
        let path = "/apis/coordination.k8s.io/v1/namespaces/postern/leases/postern";
        let start = Instant::now();
        loop {
            let found = holder(&self.api.read(path).await?);
            let node = found
                .as_ref()
                .ok()
                .and_then(|number| self.gateways.get(*number));
            if let Ok(number) = &found
                && node.is_some_and(|node| node.program.is_some())
            {
                return Ok(*number);
            }
            if start.elapsed() > PATIENCE * 2 {
                return Err(format!("no gateway that runs holds the Lease: {found:?}"));
            }
            sleep(POLL * 20).await;
        }
    }
}

/// The number in the name of who holds a Lease.
fn holder(lease: &Value) -> Result<usize, String> {
    let holder = text(&lease["spec"]["holderIdentity"])?;
    let number = holder.strip_prefix("postern-");
    let number = number.and_then(|rest| rest.split('_').next());
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("the Lease is held by '{holder}'"))
}

/// What Ingresses are told that node `number` is reached at.
pub fn node_address(number: usize) -> String {
    format!("192.0.2.{}", number + 1)
}

fn text(value: &Value) -> Result<String, String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("{value} is no text"))
}

impl Node {
    pub fn start(&mut self) -> Result<(), String> {
        let ready_file = format!("--ready-file={}", self.ready_file.display());
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.push(&ready_file);
        let program = Program::start(Path::new("/usr/bin/env"), &arguments, false);
        self.program = Some(program.map_err(|error| error.to_string())?);
        Ok(())
    }

    pub async fn ready(&mut self) -> Result<(), String> {
        let Some(program) = &mut self.program else {
            return Err(format!("{} does not run", self.name));
        };
        let ready = program.ready(self.admin, READY).await;
        ready.map_err(|error| format!("{}: {error}", self.name))
    }

    /// Starts a second process beside the one that runs, which it gives, and waits until the new one
    /// is ready: as an update of the DaemonSet does.
    pub async fn replace(&mut self) -> Result<Program, String> {
        let old = self.program.take().ok_or("the gateway does not run")?;
        self.ready_file.set_extension("next");
        self.start()?;
        let start = Instant::now();
        while !self.ready_file.is_file() {
            if start.elapsed() > READY {
                let output = self.program.as_ref().map(Program::output);
                return Err(format!("the next gateway is not ready: {output:?}"));
            }
            sleep(POLL).await;
        }
        Ok(old)
    }

    /// Ends it at once, as a node that loses power does.
    pub async fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().await;
        }
    }

    /// What an admin listener says.
    pub async fn ask(&self, path: &str) -> Result<String, String> {
        let stream = tokio::net::TcpStream::connect(self.admin).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let mut client = Client::over_http1(stream)
            .await
            .map_err(|error| error.to_string())?;
        let request = client.request("GET", &self.admin.to_string(), path);
        let reply = client
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        Ok(reply.text())
    }

    /// A number of the metrics.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let metrics = self.ask("/metrics").await?;
        let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
        let value = lines
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value);
        value
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| format!("there is no {name} at {}", self.name))
    }
}
