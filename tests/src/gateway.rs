//! The real gateway in process: the very steps that the program takes, without its command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_proxy::Compiler;
use postern_proxy::Gateway;
use postern_proxy::Materials;
use postern_wasm::PluginEngine;

use crate::certs::Authority;
use crate::scratch::Scratch;

/// How long the requests of a test may take to finish when its gateway ends.
const DRAIN: Duration = Duration::from_secs(10);

/// What a gateway is started from: a folder with a configuration and the files that it names.
pub struct SetUp {
    dir: Scratch,
    pub authority: Authority,
}

impl SetUp {
    #[expect(clippy::new_without_default, reason = "making a folder is no default")]
    pub fn new() -> Self {
        Self {
            dir: Scratch::new(),
            authority: Authority::new("Postern test authority"),
        }
    }

    /// Puts a file beside the configuration, which may name it.
    #[must_use]
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.dir.write(name, bytes);
        self
    }

    /// Puts `NAME.pem` and `NAME.key` there, for these host names.
    #[must_use]
    pub fn certificate(self, name: &str, hosts: &[&str]) -> Self {
        let leaf = self.authority.leaf(hosts);
        self.dir.write(&format!("{name}.pem"), leaf.chain);
        self.dir.write(&format!("{name}.key"), leaf.key);
        self
    }

    /// Where a file beside the configuration is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts one worker with this configuration.
    pub async fn start(self, config: &str) -> Running {
        self.start_with(config, 1).await
    }

    pub async fn start_with(self, config: &str, workers: usize) -> Running {
        let compiler = Compiler::new(engine(), workers, true);
        let loaded = self
            .load(config)
            .unwrap_or_else(|p| panic!("{}", shown(&p)));
        let materials = Materials::read(&loaded.config);
        let snapshot = compiler.compile(&loaded, &materials, None).await;
        let snapshot = snapshot.unwrap_or_else(|p| panic!("{}", shown(&p)));
        let gateway = Gateway::start(snapshot, workers).unwrap();
        Running {
            gateway,
            compiler,
            set_up: self,
        }
    }

    fn load(&self, config: &str) -> Result<Loaded, Vec<Problem>> {
        // Before the tables that the test declares, so that its own keys may come first too.
        let text = format!("{config}\n[access-log]\npath = \"access.log\"\n");
        parse(&[ConfigText {
            path: self.path("postern.toml"),
            text,
        }])
    }
}

/// A gateway that serves.
pub struct Running {
    gateway: Gateway,
    compiler: Compiler,
    pub set_up: SetUp,
}

impl Running {
    /// Where the listener of this name is.
    pub fn addr(&self, listener: &str) -> SocketAddr {
        let addrs = self.gateway.listener_addrs();
        let found = addrs.iter().find(|(name, _)| name.as_str() == listener);
        found.expect("the listener is configured").1
    }

    /// Does what the control loop does with a changed file: all of it or, with problems, nothing.
    pub async fn reload(&self, config: &str) -> Result<(), String> {
        let loaded = self.set_up.load(config).map_err(|p| shown(&p))?;
        let materials = Materials::read(&loaded.config);
        let previous = self.gateway.published().load();
        let next = self
            .compiler
            .compile(&loaded, &materials, Some(&previous))
            .await
            .map_err(|p| shown(&p))?;
        self.gateway.publish(next);
        Ok(())
    }

    pub fn generation(&self) -> u64 {
        self.gateway.published().load().generation
    }

    pub fn metrics(&self) -> String {
        self.gateway.metrics()
    }

    /// Lets what is in flight finish, within `deadline`; `false` if something had to be cut.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.gateway.drain(Duration::ZERO, deadline).await
    }

    /// Ends the gateway and gives the lines of its access log.
    pub async fn finish(self) -> Vec<serde_json::Value> {
        self.drain(DRAIN).await;
        let text = std::fs::read_to_string(self.set_up.path("access.log")).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }
}

/// One for all tests of the process, as in the program: it reserves terabytes of address space.
fn engine() -> Arc<PluginEngine> {
    static ENGINE: OnceLock<Arc<PluginEngine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| PluginEngine::new(None).unwrap());
    Arc::clone(engine)
}

fn shown(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
