//! What the control loop knows, for people and programs that ask.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use postern_core::config::Origins;
use postern_core::config::Problem;
use postern_core::config::problem::Origin;
use postern_proxy::Builds;
use postern_proxy::Snapshot;

use crate::cluster::ClusterStatus;
use crate::fetch::Fetches;

/// The file of what stands in none, as [`Origins::find`] gives it.
const NOWHERE: &str = "configuration";

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
    /// What is known of the cluster, if there is one.
    pub cluster: Option<ClusterStatus>,
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
        if let Some(cluster) = &self.cluster {
            text.push_str(&cluster.metrics());
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

/// What is served otherwise than it was declared, at the places where that was.
pub(super) fn impairments(snapshot: &Snapshot, origins: &Origins) -> Vec<Problem> {
    let impairments = snapshot.impairments().iter();
    let problems = impairments.map(|impairment| {
        let mut origin = origins.find(&impairment.at);
        if *origin.file == *Path::new(NOWHERE) {
            // Of an object of the cluster, which stands in no file.
            origin = Origin::file(Path::new(&impairment.at));
        }
        Problem::error(origin, impairment.message.clone()).with_help(impairment.help)
    });
    problems.collect()
}

/// Says what has become wrong and what is right again; nothing of what was known.
pub(super) fn log_changes(before: &[Problem], now: &[Problem]) {
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
        let origin = Origin::file(Path::new("a.toml"));
        let status = Status {
            cluster: None,
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
