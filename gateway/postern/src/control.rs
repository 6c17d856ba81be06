//! The control loop: how a change of files, or of a cluster, becomes a change of what is served.
//!
//! Wait for a change, read everything, parse, compile on top of what runs, publish in one atomic
//! store. One task does this, so that generations never go backwards, and it is the only one that
//! publishes. What is equal to what runs stops halfway; what is wrong leaves what runs in place.
//!
//! A problem is logged when it appears, and its end is logged too; in between it is in
//! [`Status`], in the metrics and on the admin listener.
//!
//! A look at files reads them all; a change of the cluster alone reads no file again. What is served
//! is one configuration of both, see [`crate::cluster`], and of what issuers delivered, see
//! [`crate::certificates`].

mod status;

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use postern_acme::engine::Issued;
use postern_core::config::Config;
use postern_core::config::Origins;
use postern_core::config::Problem;
use postern_core::config::parse::Loaded;
use postern_core::config::problem::Origin;
use postern_kube::ObjectProblem;
use postern_kube::source::State;
use postern_proxy::Compiler;
use postern_proxy::Gateway;
use postern_proxy::Materials;
use postern_proxy::Snapshot;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

use self::status::impairments;
use self::status::log_changes;
use crate::certificates;
use crate::certificates::Certificates;
use crate::cluster;
use crate::cluster::Cluster;
use crate::cluster::ClusterStatus;
use crate::fetch::Fetcher;
use crate::fetch::PATIENCE;
use crate::source::FileSource;
use crate::source::Good;
use crate::source::Settling;
use crate::source::key_warnings;

pub use self::status::Status;

/// How often in a row a look is put off because files were changing under it. In a storm of
/// changes every look finds that, and something has to be published all the same.
const MAX_PUT_OFF: u32 = 2;
/// How long an event may take from the file system to us.
const HEARSAY: Duration = Duration::from_millis(20);
/// How often a look is taken without a change, while a plugin is not as it was declared.
const RECHECK: Duration = Duration::from_secs(70);
/// How long a change of the cluster waits for plugins that it is the first to name. Short: one
/// tenant's registry must not hold up the others. What has come later is looked at again.
const CLUSTER_PATIENCE: Duration = Duration::from_millis(200);

/// A configuration that was read at start, before it is compiled.
pub struct Start {
    source: FileSource,
    fetcher: Fetcher,
    main: PathBuf,
    good: Good,
    /// What the files declare.
    files: Arc<Loaded>,
    /// The same with what the cluster declares.
    loaded: Arc<Loaded>,
    materials: Materials,
    warnings: Vec<Problem>,
    cluster: Option<Cluster>,
    certificates: Option<Certificates>,
    /// What of them is in `loaded`.
    issued: Arc<Issued>,
    /// As much of the cluster as is in `loaded`.
    state: Option<Arc<State>>,
    /// What is wrong with objects of the cluster.
    objects: Arc<[ObjectProblem]>,
}

pub struct Control {
    start: Start,
    compiler: Arc<Compiler>,
    gateway: Arc<Gateway>,
    /// What cannot change while the process lives.
    fixed: Arc<Config>,
    status: watch::Sender<Arc<Status>>,
    /// What is wrong with the files as they are, beside warnings.
    file_errors: Vec<Problem>,
}

/// What one look at the files led to.
struct Look {
    /// What to serve from now on.
    next: Option<Next>,
    problems: Vec<Problem>,
}

struct Next {
    good: Good,
    files: Arc<Loaded>,
    loaded: Arc<Loaded>,
    state: Option<Arc<State>>,
    issued: Arc<Issued>,
    objects: Arc<[ObjectProblem]>,
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
        let loaded = Arc::new(loaded);
        Ok(Self {
            fetcher: Fetcher::new(cache_dir, Some(source.poke())),
            source,
            main,
            good,
            files: Arc::clone(&loaded),
            loaded,
            materials,
            warnings,
            cluster: None,
            certificates: None,
            issued: Arc::default(),
            state: None,
            objects: Arc::default(),
        })
    }

    /// Takes a cluster as a second source. Waits for it, but for a while only if there is anything
    /// to serve without it.
    pub async fn follow(&mut self, mut cluster: Cluster) {
        let has_routes = !self.files.config.routes.is_empty();
        if !cluster.first(has_routes).await {
            tracing::warn!("the cluster is not known yet; what files declare is served alone");
        }
        self.state = cluster.state();
        self.cluster = Some(cluster);
        let state = self.state.as_deref();
        let (loaded, objects) = self.merge(&self.files, state, &self.issued);
        self.materials = block_in_place(|| self.materials.renewed(&loaded.config));
        self.loaded = loaded;
        self.objects = objects;
    }

    /// Takes what issuers deliver as another source.
    pub fn issue(&mut self, mut certificates: Certificates) {
        self.issued = certificates.issued();
        self.certificates = Some(certificates);
        let state = self.state.as_deref();
        let (loaded, objects) = self.merge(&self.files, state, &self.issued);
        self.materials = block_in_place(|| self.materials.renewed(&loaded.config));
        self.loaded = loaded;
        self.objects = objects;
    }

    /// What is served of these files, of this state of the cluster, and of what was issued.
    fn merge(
        &self,
        files: &Arc<Loaded>,
        state: Option<&State>,
        issued: &Issued,
    ) -> (Arc<Loaded>, Arc<[ObjectProblem]>) {
        let with_issued;
        let files = match issued.0.is_empty() {
            true => files,
            false => {
                with_issued = Arc::new(certificates::merge(files, issued));
                &with_issued
            }
        };
        if self.cluster.is_none() {
            return (Arc::clone(files), Arc::default());
        }
        let merged = Cluster::merge(files, state);
        (Arc::new(merged.loaded), merged.problems.into())
    }

    /// For who writes to the cluster.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The latest that was issued.
    fn issued(&mut self) -> Arc<Issued> {
        let certificates = self.certificates.as_mut();
        certificates.map_or_else(Arc::default, Certificates::issued)
    }

    fn cluster_status(&self) -> Option<ClusterStatus> {
        self.cluster.as_ref().map(|cluster| ClusterStatus {
            is_served: self.state.is_some(),
            report: cluster.report(),
            problems: Arc::clone(&self.objects),
        })
    }

    /// What the files alone declare, and what is known of the cluster.
    pub fn declared(&self) -> (&Config, Option<&State>) {
        (&self.files.config, self.state.as_deref())
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
            cluster: start.cluster_status(),
        });
        log_changes(&[], &status.problems);
        cluster::log_changes(&[], &start.objects);
        let (status, receiver) = watch::channel(status);
        let control = Self {
            fixed: Arc::new(start.loaded.config.clone()),
            start,
            compiler: Arc::new(compiler),
            gateway,
            status,
            file_errors: Vec::new(),
        };
        control.tell_cluster();
        (control, receiver)
    }

    /// For who lets them be got.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.start.certificates.as_ref()
    }

    pub async fn run(mut self) {
        let mut put_off = 0;
        loop {
            let files = self.start.source.changed();
            let cluster = changed(self.start.cluster.as_mut());
            let issued = certificates::changed(self.start.certificates.as_mut());
            let changed = async {
                tokio::select! {
                    () = files => true,
                    () = cluster => false,
                    () = issued => false,
                }
            };
            let published = self.gateway.published().load();
            let have_files_changed = if published.impairments().is_empty() {
                changed.await
            } else {
                // A refusal may have had a passing cause.
                timeout(RECHECK, changed).await.unwrap_or(true)
            };
            drop(published);
            if !have_files_changed {
                let look = self.look_at_others().await;
                self.apply(look);
                continue;
            }
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
        let state = self.start.cluster.as_mut().and_then(Cluster::state);
        let issued = self.start.issued();
        // Each round takes back at least one file, so this ends.
        while let Some(loaded) = load(&mut settling) {
            let files = Arc::new(loaded);
            let (loaded, objects) = self.start.merge(&files, state.as_deref(), &issued);
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
            match self.compile_changes(&loaded, &materials).await {
                Ok(snapshot) => {
                    warnings.clone_from(&files.warnings);
                    warnings.extend(key_warnings(&files));
                    warnings.extend(self.needs_restart(&files));
                    self.start.warnings.clone_from(&warnings);
                    let published = self.gateway.published().load();
                    let served = snapshot.as_ref().unwrap_or(&published);
                    warnings.extend(impairments(served, &loaded.origins));
                    next = Some(Next {
                        // Known when the files have settled.
                        good: Good::new(),
                        files,
                        loaded,
                        state,
                        issued,
                        objects,
                        materials,
                        snapshot,
                    });
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
        self.file_errors = problems.clone();
        problems.extend(warnings);
        Some(Look {
            problems,
            next: next.map(|next| Next { good, ..next }),
        })
    }

    /// The cluster has changed, or what was issued, and no file has.
    async fn look_at_others(&mut self) -> Look {
        let state = self.start.cluster.as_mut().and_then(Cluster::state);
        let issued = self.start.issued();
        let is_same_issued = Arc::ptr_eq(&issued, &self.start.issued);
        let is_known = is_same_issued
            && match (&state, &self.start.state) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (None, None) => true,
                _ => false,
            };
        let mut problems = self.file_errors.clone();
        problems.extend(self.start.warnings.iter().cloned());
        if is_known {
            // How it is watched has changed, not what is there.
            let published = self.gateway.published().load();
            problems.extend(impairments(&published, &self.start.loaded.origins));
            return Look {
                next: None,
                problems,
            };
        }
        let files = Arc::clone(&self.start.files);
        let (loaded, objects) =
            block_in_place(|| self.start.merge(&files, state.as_deref(), &issued));
        let materials = block_in_place(|| self.start.materials.renewed(&loaded.config));
        let wanted = Materials::remotes(&loaded.config);
        let fetched = self.start.fetcher.fetch(&wanted, CLUSTER_PATIENCE).await;
        let materials = materials.with_fetched(fetched);
        let next = match self.compile_changes(&loaded, &materials).await {
            Ok(snapshot) => {
                let published = self.gateway.published().load();
                let served = snapshot.as_ref().unwrap_or(&published);
                problems.extend(impairments(served, &loaded.origins));
                Some(Next {
                    good: self.start.good.clone(),
                    files,
                    loaded,
                    state,
                    issued,
                    objects,
                    materials,
                    snapshot,
                })
            }
            Err(found) => {
                problems.extend(found);
                None
            }
        };
        Look { next, problems }
    }

    /// What to serve from now on; `None` if that is what is served.
    async fn compile_changes(
        &self,
        loaded: &Arc<Loaded>,
        materials: &Materials,
    ) -> Result<Option<Snapshot>, Vec<Problem>> {
        let current = &self.start;
        let is_equal = loaded.config == current.loaded.config && *materials == current.materials;
        let published = self.gateway.published().load();
        if is_equal && published.impairments().is_empty() {
            return Ok(None);
        }
        let next = self.compile(loaded, materials).await?;
        // What was tried again and failed again is no change.
        let is_same = is_equal && next.impairments() == published.impairments();
        Ok((!is_same).then_some(next))
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
            self.start.files = next.files;
            self.start.loaded = next.loaded;
            self.start.state = next.state;
            self.start.issued = next.issued;
            if let Some(certificates) = &mut self.start.certificates {
                let (files, state) = (&self.start.files.config, self.start.state.as_deref());
                certificates.want(files, state);
            }
            cluster::log_changes(&self.start.objects, &next.objects);
            self.start.objects = next.objects;
            self.start.materials = next.materials;
        }
        let wanted = Materials::remotes(&self.start.loaded.config);
        self.start.fetcher.retain(&wanted);
        status.cluster = self.start.cluster_status();
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
        self.tell_cluster();
    }

    /// Authors of objects learn what became of them.
    fn tell_cluster(&self) {
        if let Some(cluster) = &self.start.cluster {
            let published = self.gateway.published().load();
            let problems = cluster::in_use(published.impairments(), &published.config);
            cluster.found_in_use(problems);
        }
    }

    /// Settings that are fixed for the life of the process and were changed all the same.
    fn needs_restart(&self, loaded: &Loaded) -> Vec<Problem> {
        let config = &loaded.config;
        let changed = [
            (config.runtime != self.fixed.runtime, "runtime"),
            (config.admin != self.fixed.admin, "admin"),
            (config.kubernetes != self.fixed.kubernetes, "kubernetes"),
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

/// Never without a cluster.
async fn changed(cluster: Option<&mut Cluster>) {
    match cluster {
        Some(cluster) => cluster.changed().await,
        None => std::future::pending().await,
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
