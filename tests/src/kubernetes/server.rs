//! etcd and kube-apiserver as child processes.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rcgen::KeyPair;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;

use super::Api;
use crate::certs::Authority;
use crate::process::Program;
use crate::process::free_addr;
use crate::scratch::Scratch;

/// How long the API server may take to be ready; three to five seconds on a quiet machine.
const START: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Somebody whom the API server knows by a token.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    token: &'static str,
    name: &'static str,
    groups: &'static str,
}

/// May do everything.
pub const ADMIN: Identity = Identity {
    token: "admin-token",
    name: "admin",
    groups: "system:masters",
};
/// The ServiceAccount of the manifests, with what their RBAC gives it and no more.
pub const GATEWAY: Identity = Identity {
    token: "gateway-token",
    name: "system:serviceaccount:postern:postern",
    groups: "system:serviceaccounts,system:serviceaccounts:postern,system:authenticated",
};
/// Known, and allowed nothing.
pub const NOBODY: Identity = Identity {
    token: "nobody-token",
    name: "system:serviceaccount:elsewhere:nobody",
    groups: "system:serviceaccounts,system:serviceaccounts:elsewhere,system:authenticated",
};

/// A running API server. Ended, and its data gone, when it is dropped.
pub struct ApiServer {
    pub addr: SocketAddr,
    bin: PathBuf,
    dir: Scratch,
    authority: Authority,
    etcd_url: String,
    // In this order: the server ends before what it stores in.
    server: Option<Program>,
    etcd: Program,
}

impl ApiServer {
    /// Starts an empty cluster and waits until it answers.
    pub async fn start() -> Result<Self, String> {
        let bin = programs()?;
        let dir = Scratch::new();
        let authority = Authority::new("Test cluster");
        let leaf = authority.leaf(&["127.0.0.1", "localhost"]);
        dir.write("ca.pem", authority.pem());
        dir.write("server.pem", &leaf.chain);
        dir.write("server.key", &leaf.key);
        let accounts = KeyPair::generate().map_err(|error| error.to_string())?;
        dir.write("accounts.key", accounts.serialize_pem());
        dir.write("accounts.pub", accounts.public_key_pem());
        let tokens = [ADMIN, GATEWAY, NOBODY].map(|who| {
            let Identity {
                token,
                name,
                groups,
            } = who;
            format!("{token},{name},{name},\"{groups}\"\n")
        });
        dir.write("tokens.csv", tokens.concat());

        let etcd_url = format!("http://{}", free_addr());
        let peer_url = format!("http://{}", free_addr());
        let data = dir.path().join("etcd").display().to_string();
        let cluster = format!("default={peer_url}");
        let arguments = [
            "--data-dir",
            &data,
            "--listen-client-urls",
            &etcd_url,
            "--advertise-client-urls",
            &etcd_url,
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
            "--initial-cluster",
            &cluster,
            // Its data lives as long as the test.
            "--unsafe-no-fsync",
            "--log-level",
            "error",
        ];
        let etcd = Program::start(&bin.join("etcd"), &arguments, false)
            .map_err(|error| format!("etcd cannot be started: {error}"))?;
        let mut cluster = Self {
            addr: free_addr(),
            bin,
            dir,
            authority,
            etcd_url,
            server: None,
            etcd,
        };
        cluster.resume().await?;
        Ok(cluster)
    }

    /// Ends the API server at once, as a machine that loses power does. Its data stays.
    pub async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await;
        }
    }

    /// Starts the API server where it was, and waits until it answers.
    pub async fn resume(&mut self) -> Result<(), String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let port = self.addr.port().to_string();
        let (accounts, accounts_public) = (path("accounts.key"), path("accounts.pub"));
        let (certificate, key, tokens) =
            (path("server.pem"), path("server.key"), path("tokens.csv"));
        let arguments = [
            ("etcd-servers", self.etcd_url.as_str()),
            ("bind-address", "127.0.0.1"),
            ("secure-port", &port),
            ("advertise-address", "127.0.0.1"),
            ("endpoint-reconciler-type", "none"),
            ("tls-cert-file", &certificate),
            ("tls-private-key-file", &key),
            ("authorization-mode", "RBAC"),
            ("token-auth-file", &tokens),
            ("anonymous-auth", "false"),
            ("service-cluster-ip-range", "10.96.0.0/12"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &accounts_public),
            ("service-account-signing-key-file", &accounts),
            ("disable-admission-plugins", "ServiceAccount"),
            ("v", "0"),
        ];
        let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut server = Program::start(&self.bin.join("kube-apiserver"), &arguments, false)
            .map_err(|error| format!("kube-apiserver cannot be started: {error}"))?;
        let end = Instant::now() + START;
        loop {
            if let Ok(api) = self.api(ADMIN).await
                && api.get("/readyz").await.is_ok()
                // RBAC has its own roles only after it was ready for a while.
                && api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.is_ok()
            {
                self.server = Some(server);
                return Ok(());
            }
            if !server.is_running() || Instant::now() > end {
                let output = server.output();
                let tail = output.len().saturating_sub(4000);
                let etcd = self.etcd.output();
                let tail = output.get(tail..).unwrap_or(&output);
                return Err(format!("the API server is not ready:\n{tail}\n{etcd}"));
            }
            sleep(POLL).await;
        }
    }

    /// A client that may do what this identity may.
    pub async fn api(&self, who: Identity) -> Result<Api, String> {
        Api::connect(self.addr, &self.authority, who.token).await
    }

    /// A file for clients that are not ours.
    pub fn kubeconfig(&self, who: Identity) -> PathBuf {
        self.kubeconfig_to(self.addr, who)
    }

    /// The same to somebody who stands before the API server.
    pub fn kubeconfig_to(&self, addr: SocketAddr, who: Identity) -> PathBuf {
        let ca = self.dir.path().join("ca.pem");
        let text = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: test\n\
             \x20 cluster: {{server: \"https://{addr}\", certificate-authority: \"{}\"}}\n\
             users:\n\
             - name: test\n\
             \x20 user: {{token: {}}}\n\
             contexts:\n\
             - name: test\n\
             \x20 context: {{cluster: test, user: test}}\n\
             current-context: test\n",
            ca.display(),
            who.token,
        );
        let name = format!("{}-{}.kubeconfig", who.token, addr.port());
        self.dir.write(&name, text)
    }

    /// What kubectl prints, as an administrator; its complaint if it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with(arguments, "").await
    }

    /// The same with a text on its standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let kubeconfig = self.kubeconfig(ADMIN);
        let mut command = Command::new(self.bin.join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl"))
            .args(arguments);
        let what = format!("kubectl {}", arguments.join(" "));
        run(command, input)
            .await
            .map_err(|error| format!("{what}: {error}"))
    }

    /// What `helm template` makes of a chart.
    pub async fn helm_template(&self, chart: &Path, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.bin.join("helm"));
        command
            .args(["template", "postern"])
            .arg(chart)
            .args(arguments);
        // Nothing of whoever runs the test.
        for (name, folder) in [
            ("HELM_CACHE_HOME", "helm-cache"),
            ("HELM_CONFIG_HOME", "helm-config"),
            ("HELM_DATA_HOME", "helm-data"),
        ] {
            command.env(name, self.dir.path().join(folder));
        }
        run(command, "")
            .await
            .map_err(|error| format!("helm template: {error}"))
    }

    /// Its resident memory in MiB.
    pub fn resident_mib(&self) -> Option<u64> {
        self.server.as_ref().and_then(Program::resident_mib)
    }

    /// What it has used of processors so far, in hundredths of a second.
    pub fn processor_ticks(&self) -> Option<u64> {
        self.server.as_ref().and_then(Program::processor_ticks)
    }
}

async fn run(mut command: Command, input: &str) -> Result<String, String> {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that does not read its input says so by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}: {}", output.status, text(&output.stderr)))
    }
}

/// Where `tests/kubernetes/setup.sh` puts what it builds.
fn programs() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = std::fs::read_to_string(here.join("kubernetes/go.mod"))
        .map_err(|error| format!("tests/kubernetes/go.mod: {error}"))?;
    let mut words = module.lines().map(str::split_whitespace);
    let version = words.find_map(|mut line| {
        let is_named = line.next() == Some("k8s.io/kubernetes");
        line.next().filter(|word| is_named && word.starts_with('v'))
    });
    let version = version.ok_or("tests/kubernetes/go.mod names no version of k8s.io/kubernetes")?;
    let bin = here.join("../.cache/kubernetes").join(version);
    let missing = ["etcd", "kube-apiserver", "kubectl", "helm"]
        .into_iter()
        .find(|name| !bin.join(name).is_file());
    match missing {
        Some(name) => Err(format!(
            "there is no {name}; run: tests/kubernetes/setup.sh"
        )),
        None => Ok(bin),
    }
}
