//! A configuration looked at once, for commands: read, parsed and compiled as a start would, with
//! nothing bound and nothing served.

use std::path::Path;

use anyhow::Context as _;
use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_proxy::Compiler;
use postern_proxy::Materials;
use postern_wasm::PluginEngine;

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

    pub fn check(&self, main: &Path) -> Checked {
        let mut checked = load(main);
        let Some(loaded) = &checked.loaded else {
            return checked;
        };
        checked.problems.extend(key_warnings(loaded));
        let materials = Materials::read(&loaded.config);
        let compiling = self.compiler.compile(loaded, &materials, None);
        if let Err(problems) = self.runtime.block_on(compiling) {
            checked.problems.extend(problems);
            checked.loaded = None;
        }
        checked.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        checked
    }
}
