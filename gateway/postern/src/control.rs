//! The control loop: how a change of files becomes a change of what is served.
//!
//! Wait for a change, read everything, parse, compile on top of what runs, publish in one atomic
//! store. One task does this, so that generations never go backwards, and it is the only one that
//! publishes. What is equal to what runs stops halfway; what is wrong leaves what runs in place.
//!
//! A problem is logged when it appears, and its end is logged too; in between it is in
//! [`Status`], in the metrics and on the admin listener.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use postern_core::config::Config;
use postern_core::config::Origins;
use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_core::config::problem::Origin;
use postern_proxy::Builds;
use postern_proxy::Compiler;
use postern_proxy::Gateway;
use postern_proxy::Materials;
use postern_proxy::Snapshot;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::fetch::Fetcher;
use crate::fetch::Fetches;
use crate::fetch::PATIENCE;
use crate::source::FileSource;
use crate::source::Good;
use crate::source::Settling;
use crate::source::key_warnings;

/// How often in a row a look is put off because files were changing under it. In a storm of
/// changes every look finds that, and something has to be published all the same.
const MAX_PUT_OFF: u32 = 2;
/// How long an event may take from the file system to us.
const HEARSAY: Duration = Duration::from_millis(20);
/// How often a look is taken without a change, while a plugin is not as it was declared.
const RECHECK: Duration = Duration::from_secs(70);

/// What the control loop knows, for the admin listener.
#[derive(Clone, Debug)]
pub struct Status {
    pub generation: u64,
    /// Where the parts of the running configuration were declared.
    pub origins: Arc<Origins>,
    /// Of the files as they are.
    pub problems: Vec<Problem>,
    /// Looks at the files that found something new, and nothing wrong.
    pub succeeded: u64,
    /// Looks at the files that found something wrong.
    pub failed: u64,
    /// When the files were last found good.
    pub last_success: SystemTime,
    /// Since when something has been wrong.
    pub stale_since: Option<SystemTime>,
    /// How plugins came to be ready.
    pub builds: Builds,
    /// Attempts to fetch plugins that are no files.
    pub fetches: Fetches,
}

/// A configuration that was read at start, before it is compiled.
pub struct Start {
    source: FileSource,
    fetcher: Fetcher,
    main: PathBuf,
    good: Good,
    loaded: Arc<Loaded>,
    materials: Materials,
    warnings: Vec<Problem>,
}

pub struct Control {
    start: Start,
    compiler: Arc<Compiler>,
    gateway: Arc<Gateway>,
    /// What cannot change while the process lives.
    fixed: Arc<Config>,
    status: watch::Sender<Arc<Status>>,
}

/// What one look at the files led to.
struct Look {
    /// What to serve from now on.
    next: Option<Next>,
    problems: Vec<Problem>,
}

struct Next {
    good: Good,
    loaded: Arc<Loaded>,
    materials: Materials,
    /// `None` if only places have changed, not what they say.
    snapshot: Option<Snapshot>,
}

impl Start {
    /// Reads the configuration. Every problem is fatal here: there is nothing to fall back on.
    /// Blocks.
    pub fn read(main: PathBuf) -> Result<Self, Vec<Problem>> {
        let mut source = FileSource::new(main.clone());
        let nothing = Good::new();
        let mut settling = Settling::new(source.read(), &main, &nothing);
        let loaded = settling.load();
        let (good, problems) = settling.finish();
        let Some(loaded) = loaded.filter(|_| !problems.iter().any(Problem::is_error)) else {
            return Err(problems);
        };
        source.cover_materials(Materials::paths(&loaded.config));
        let materials = Materials::read(&loaded.config);
        let mut warnings = loaded.warnings.clone();
        warnings.extend(key_warnings(&loaded));
        let cache_dir = loaded.config.runtime.cache_dir.clone();
        Ok(Self {
            fetcher: Fetcher::new(cache_dir, Some(source.poke())),
            source,
            main,
            good,
            loaded: Arc::new(loaded),
            materials,
            warnings,
        })
    }

    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    pub fn origins(&self) -> &Origins {
        &self.loaded.origins
    }

    /// Asks for another look at the files, once the control loop runs.
    pub fn poke(&self) -> Arc<dyn crate::source::watch::Poke> {
        self.source.poke()
    }

    /// For who wants it to hurry.
    pub fn fetcher(&self) -> Fetcher {
        self.fetcher.clone()
    }

    /// Fetches what is no file. What cannot be had now is tried again while the gateway serves.
    pub async fn fetch(&mut self) {
        let wanted = Materials::remotes(&self.loaded.config);
        let fetched = self.fetcher.fetch(&wanted, PATIENCE).await;
        self.materials = std::mem::take(&mut self.materials).with_fetched(fetched);
    }

    pub async fn compile(&self, compiler: &Compiler) -> Result<Snapshot, Vec<Problem>> {
        compiler.compile(&self.loaded, &self.materials, None).await
    }
}

impl Control {
    /// Takes over from a start that is served.
    pub fn new(
        start: Start,
        compiler: Compiler,
        gateway: Arc<Gateway>,
    ) -> (Self, watch::Receiver<Arc<Status>>) {
        let published = gateway.published().load();
        let mut problems = impairments(&published, &start.loaded.origins);
        let now = SystemTime::now();
        let is_impaired = !problems.is_empty();
        problems.extend(start.warnings.iter().cloned());
        let status = Arc::new(Status {
            generation: published.generation,
            origins: Arc::new(start.loaded.origins.clone()),
            problems,
            succeeded: u64::from(!is_impaired),
            failed: u64::from(is_impaired),
            last_success: now,
            stale_since: is_impaired.then_some(now),
            builds: compiler.builds(),
            fetches: start.fetcher.fetches(),
        });
        log_changes(&[], &status.problems);
        let (status, receiver) = watch::channel(status);
        let control = Self {
            fixed: Arc::new(start.loaded.config.clone()),
            start,
            compiler: Arc::new(compiler),
            gateway,
            status,
        };
        (control, receiver)
    }

    pub async fn run(mut self) {
        let mut put_off = 0;
        loop {
            let changed = self.start.source.changed();
            let published = self.gateway.published().load();
            if published.impairments().is_empty() {
                changed.await;
            } else {
                // A refusal may have had a passing cause.
                let _ = timeout(RECHECK, changed).await;
            }
            drop(published);
            match self.look(put_off < MAX_PUT_OFF).await {
                Some(look) => {
                    put_off = 0;
                    self.apply(look);
                }
                None => put_off += 1,
            }
        }
    }

    /// `None` if the files are being changed at this moment, so that there will be another look:
    /// what is seen now may be half a change. Not if that was so too often already.
    async fn look(&mut self, may_put_off: bool) -> Option<Look> {
        let reading = block_in_place(|| self.start.source.read());
        if may_put_off && (reading.is_torn || self.start.source.is_being_written()) {
            return None;
        }
        let good = self.start.good.clone();
        let mut settling = Settling::new(reading, &self.start.main, &good);
        let mut next = None;
        let mut warnings = Vec::new();
        // Each round takes back at least one file, so this ends.
        while let Some(loaded) = load(&mut settling) {
            let loaded = Arc::new(loaded);
            let (materials, is_whole) = block_in_place(|| {
                let source = &mut self.start.source;
                source.cover_materials(Materials::paths(&loaded.config));
                let materials = Materials::read(&loaded.config);
                (materials, source.are_materials_whole())
            });
            if may_put_off && (!is_whole || self.start.source.is_being_written()) {
                return None;
            }
            let wanted = Materials::remotes(&loaded.config);
            let fetched = self.start.fetcher.fetch(&wanted, PATIENCE).await;
            let materials = materials.with_fetched(fetched);
            let current = &self.start;
            let is_equal = loaded.config == current.loaded.config && materials == current.materials;
            let published = self.gateway.published().load();
            let compiled = if is_equal && published.impairments().is_empty() {
                Ok(None)
            } else {
                let compiled = self.compile(&loaded, &materials).await;
                // What was tried again and failed again is no change.
                let is_same =
                    |next: &Snapshot| is_equal && next.impairments() == published.impairments();
                compiled.map(|next| (!is_same(&next)).then_some(next))
            };
            drop(published);
            match compiled {
                Ok(snapshot) => {
                    warnings.clone_from(&loaded.warnings);
                    warnings.extend(key_warnings(&loaded));
                    warnings.extend(self.needs_restart(&loaded));
                    let published = self.gateway.published().load();
                    let served = snapshot.as_ref().unwrap_or(&published);
                    warnings.extend(impairments(served, &loaded.origins));
                    next = Some((loaded, materials, snapshot));
                    break;
                }
                Err(problems) => {
                    if !settling.take_back(problems) {
                        break;
                    }
                }
            }
        }
        let (good, mut problems) = settling.finish();
        if may_put_off && problems.iter().any(Problem::is_error) {
            // A file that was just emptied to be written anew, a certificate without its new key:
            // that there is more to come is known as soon as the watch has heard of it.
            tokio::time::sleep(HEARSAY).await;
            if self.start.source.has_changed() {
                return None;
            }
        }
        problems.extend(warnings);
        Some(Look {
            problems,
            next: next.map(|(loaded, materials, snapshot)| Next {
                good,
                loaded,
                materials,
                snapshot,
            }),
        })
    }

    /// In a task of its own: a panic in there is a failed look, not the end of the loop.
    async fn compile(
        &self,
        loaded: &Arc<Loaded>,
        materials: &Materials,
    ) -> Result<Snapshot, Vec<Problem>> {
        let compiler = Arc::clone(&self.compiler);
        let previous = self.gateway.published().load();
        let (loaded, materials) = (Arc::clone(loaded), materials.clone());
        let task =
            tokio::spawn(
                async move { compiler.compile(&loaded, &materials, Some(&previous)).await },
            );
        task.await.unwrap_or_else(|_| {
            let message = "the configuration cannot be compiled: the gateway has a fault";
            Err(vec![Problem::error(
                Origin::file(&self.start.main),
                message,
            )])
        })
    }

    fn apply(&mut self, look: Look) {
        let status = Arc::clone(&self.status.borrow());
        let mut status = Status::clone(&status);
        status.builds = self.compiler.builds();
        status.fetches = self.start.fetcher.fetches();
        let has_errors = look.problems.iter().any(Problem::is_error);
        let mut is_published = false;
        if let Some(next) = look.next {
            if let Some(snapshot) = next.snapshot {
                status.generation = snapshot.generation;
                self.gateway.publish(snapshot);
                is_published = true;
            }
            status.origins = Arc::new(next.loaded.origins.clone());
            self.start.good = next.good;
            self.start.loaded = next.loaded;
            self.start.materials = next.materials;
        }
        let wanted = Materials::remotes(&self.start.loaded.config);
        self.start.fetcher.retain(&wanted);
        let now = SystemTime::now();
        if has_errors {
            status.failed += 1;
            status.stale_since = status.stale_since.or(Some(now));
        } else {
            status.succeeded += u64::from(is_published);
            status.last_success = now;
            status.stale_since = None;
        }
        log_changes(&status.problems, &look.problems);
        status.problems = look.problems;
        self.status.send_replace(Arc::new(status));
    }

    /// Settings that are fixed for the life of the process and were changed all the same.
    fn needs_restart(&self, loaded: &Loaded) -> Vec<Problem> {
        let config = &loaded.config;
        let changed = [
            (config.runtime != self.fixed.runtime, "runtime"),
            (config.admin != self.fixed.admin, "admin"),
        ];
        let changed = changed.into_iter().filter(|(is_changed, _)| *is_changed);
        let problems = changed.map(|(_, section)| {
            let message = format!("the change of [{section}] takes effect at the next start");
            // A section that was removed has no place but the file.
            let origin = match loaded.origins.find(section) {
                origin if *origin.file == *self.start.main => origin,
                _ => Origin::file(&self.start.main),
            };
            Problem::warning(origin, message)
        });
        problems.collect()
    }
}

impl Status {
    /// In the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs()
        };
        let stale = self.stale_since.and_then(|since| since.elapsed().ok());
        let metrics = [
            (
                "postern_config_generation",
                "gauge",
                "Number of the configuration that is served, from 1.",
                vec![("", self.generation)],
            ),
            (
                "postern_config_reloads_total",
                "counter",
                "Looks at the configuration files, by whether they were good.",
                vec![
                    ("{result=\"success\"}", self.succeeded),
                    ("{result=\"failure\"}", self.failed),
                ],
            ),
            (
                "postern_config_last_success_timestamp_seconds",
                "gauge",
                "When the configuration files were last found good, in Unix time.",
                vec![("", seconds(self.last_success))],
            ),
            (
                "postern_config_stale_seconds",
                "gauge",
                "For how long the files have held errors, so that an older state is served.",
                vec![("", stale.map_or(0, |stale| stale.as_secs()))],
            ),
            (
                "postern_config_problems",
                "gauge",
                "Problems in the configuration files now, by severity.",
                vec![
                    ("{severity=\"error\"}", self.count(true)),
                    ("{severity=\"warning\"}", self.count(false)),
                ],
            ),
            (
                "postern_plugin_builds_total",
                "counter",
                "Components that were compiled, loaded from the cache, or refused.",
                vec![
                    ("{result=\"compiled\"}", self.builds.compiled),
                    ("{result=\"cached\"}", self.builds.cached),
                    ("{result=\"failed\"}", self.builds.failed),
                ],
            ),
            (
                "postern_plugin_fetches_total",
                "counter",
                "Attempts to fetch plugins from a server or registry.",
                vec![
                    ("{result=\"success\"}", self.fetches.succeeded),
                    ("{result=\"failure\"}", self.fetches.failed),
                ],
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, values) in metrics {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }

    fn count(&self, is_error: bool) -> u64 {
        let problems = self.problems.iter();
        problems
            .filter(|p| p.is_error() == is_error)
            .map(|_| 1)
            .sum()
    }
}

/// Parsing is not supposed to panic, and must not end reloading if it does.
fn load(settling: &mut Settling<'_>) -> Option<Loaded> {
    let loaded = catch_unwind(AssertUnwindSafe(|| block_in_place(|| settling.load())));
    loaded.unwrap_or_else(|_| {
        tracing::error!("the configuration cannot be parsed: the gateway has a fault");
        None
    })
}

/// What is served otherwise than it was declared, at the places where that was.
fn impairments(snapshot: &Snapshot, origins: &Origins) -> Vec<Problem> {
    let impairments = snapshot.impairments().iter();
    let problems = impairments.map(|impairment| {
        let origin = origins.find(&impairment.at);
        Problem::error(origin, impairment.message.clone()).with_help(impairment.help)
    });
    problems.collect()
}

/// Says what has become wrong and what is right again; nothing of what was known.
fn log_changes(before: &[Problem], now: &[Problem]) {
    let known: BTreeSet<String> = before.iter().map(ToString::to_string).collect();
    for problem in now {
        if known.contains(&problem.to_string()) {
            continue;
        }
        tracing::warn!(
            place = %problem.origin,
            problem = problem.message,
            help = problem.help,
            "configuration problem"
        );
    }
    let had_errors = before.iter().any(Problem::is_error);
    if had_errors && !now.iter().any(Problem::is_error) {
        tracing::info!("the configuration problems are solved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_text_format() {
        let origin = Origin::file(std::path::Path::new("a.toml"));
        let status = Status {
            generation: 3,
            origins: Arc::default(),
            problems: vec![
                Problem::error(origin.clone(), "x"),
                Problem::warning(origin, "y"),
            ],
            succeeded: 3,
            failed: 1,
            last_success: UNIX_EPOCH,
            stale_since: None,
            builds: Builds::default(),
            fetches: Fetches::default(),
        };
        let text = status.metrics();
        for line in [
            "# TYPE postern_config_generation gauge",
            "postern_config_generation 3",
            "postern_config_reloads_total{result=\"failure\"} 1",
            "postern_config_last_success_timestamp_seconds 0",
            "postern_config_stale_seconds 0",
            "postern_config_problems{severity=\"warning\"} 1",
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\n{text}");
        }
    }
}
