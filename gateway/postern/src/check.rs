//! A configuration looked at once, for commands: read, parsed and compiled as a start would, with
//! nothing bound and nothing served.

use std::path::Path;

use anyhow::Context as _;
use postern_core::config::Config;
use postern_core::config::Origins;
use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_proxy::Compiler;
use postern_proxy::Materials;
use postern_proxy::Snapshot;
use postern_wasm::PluginEngine;

use crate::fetch::Fetcher;
use crate::fetch::PATIENCE;
use crate::source::Good;
use crate::source::Settling;
use crate::source::file;
use crate::source::key_warnings;

pub struct Checked {
    /// `None` if there is an error among the problems.
    pub loaded: Option<Loaded>,
    pub problems: Vec<Problem>,
}

/// What the files say, without anything that they refer to.
pub fn load(main: &Path) -> Checked {
    let nothing = Good::new();
    let mut settling = Settling::new(file::read(main), main, &nothing);
    let mut loaded = settling.load();
    let (_, mut problems) = settling.finish();
    if problems.iter().any(Problem::is_error) {
        loaded = None;
    }
    problems.extend(loaded.iter().flat_map(|loaded| loaded.warnings.clone()));
    Checked { loaded, problems }
}

/// The same with certificates, keys and plugins.
pub struct Checker {
    compiler: Compiler,
    runtime: tokio::runtime::Runtime,
}

impl Checker {
    pub fn new() -> anyhow::Result<Self> {
        // No cache: checking leaves nothing behind.
        let engine = PluginEngine::new(None).context("cannot check plugins")?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Ok(Self {
            compiler: Compiler::new(engine, 1, false),
            runtime: runtime.enable_all().build().context("cannot start")?,
        })
    }

    /// What the files come to after `edit`, and a runtime to use it on.
    pub fn snapshot(
        self,
        main: &Path,
        edit: impl FnOnce(&mut Config),
    ) -> Result<(Snapshot, tokio::runtime::Runtime), Vec<Problem>> {
        let checked = load(main);
        let mut loaded = checked.loaded.ok_or(checked.problems)?;
        edit(&mut loaded.config);
        let snapshot = self.runtime.block_on(self.compile(&loaded))?;
        Ok((snapshot, self.runtime))
    }

    async fn compile(&self, loaded: &Loaded) -> Result<Snapshot, Vec<Problem>> {
        // Nothing is kept here either.
        let fetcher = Fetcher::new(None, None);
        let wanted = Materials::remotes(&loaded.config);
        let fetched = fetcher.fetch(&wanted, PATIENCE).await;
        let materials = Materials::read(&loaded.config).with_fetched(fetched);
        self.compiler.compile(loaded, &materials, None).await
    }

    pub fn check(&self, main: &Path) -> Checked {
        let mut checked = load(main);
        let Some(loaded) = &checked.loaded else {
            return checked;
        };
        checked.problems.extend(key_warnings(loaded));
        let problems = match self.runtime.block_on(self.compile(loaded)) {
            Ok(snapshot) => not_fetched(&snapshot, &loaded.origins),
            Err(problems) => problems,
        };
        if problems.iter().any(Problem::is_error) {
            checked.loaded = None;
        }
        checked.problems.extend(problems);
        checked.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        checked
    }
}

/// A server that says no is wrong here and everywhere. One that cannot be reached may be within
/// reach where the configuration is to run, so that is no reason to refuse it.
fn not_fetched(snapshot: &Snapshot, origins: &Origins) -> Vec<Problem> {
    let impairments = snapshot.impairments().iter();
    let problems = impairments.map(|impairment| {
        let origin = origins.find(&impairment.at);
        let message = impairment.message.clone();
        match impairment.is_lasting {
            true => Problem::error(origin, message),
            false => Problem::warning(origin, message).with_help(
                "the plugin was not checked; requests that need it get 503 until it is there",
            ),
        }
    });
    problems.collect()
}
