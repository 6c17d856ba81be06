//! What a run came to, as a table and as a verdict.

use std::fmt;
use std::time::Duration;

use super::MAX_DELAY;
use super::files::Change;
use super::files::Refused;
use super::streams::Ended;
use super::wrk::Load;

/// One change of the route.
#[derive(Clone, Copy, Debug)]
pub struct Reload {
    pub change: Change,
    /// Until the new route answered; `None` if it never did.
    pub delay: Option<Duration>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub reloads: Vec<Reload>,
    /// The change, whether a problem was printed with its place, whether the route stayed, and
    /// what was printed.
    pub refused: Vec<(Refused, bool, bool, String)>,
    pub streams: Vec<Ended>,
    pub load: Load,
    pub failed_probes: u32,
    pub resident_mib: Option<u64>,
    pub ended_well: bool,
}

impl Report {
    /// Everything that is not as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (index, reload) in self.reloads.iter().enumerate() {
            let number = index + 1;
            match reload.delay {
                Some(delay) if delay < MAX_DELAY => {}
                Some(delay) => {
                    failures.push(format!(
                        "reload {number} ({}) took {delay:?}",
                        reload.change
                    ));
                }
                None => {
                    failures.push(format!("reload {number} ({}) never came", reload.change));
                }
            }
        }
        for (refused, is_printed, is_unchanged, text) in &self.refused {
            if !is_printed {
                failures.push(format!(
                    "{refused}: no problem with its place; printed: {text}"
                ));
            }
            if !is_unchanged {
                failures.push(format!("{refused}: the route changed"));
            }
        }
        for stream in &self.streams {
            if let Some(failure) = &stream.failure {
                failures.push(format!("{} ended: {failure}", stream.name));
            }
            if stream.messages == 0 {
                failures.push(format!("{} carried nothing", stream.name));
            }
        }
        if self.load.failed > 0 {
            let complaints = self.load.complaints.join("; ");
            failures.push(format!(
                "{} requests failed: {complaints}",
                self.load.failed
            ));
        }
        if self.load.requests == 0 {
            failures.push("there was no load".to_owned());
        }
        if self.failed_probes > 0 {
            failures.push(format!("{} probes failed", self.failed_probes));
        }
        if !self.ended_well {
            failures.push("the gateway did not end well".to_owned());
        }
        failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32}{:>7}{:>9}{:>9}",
            "change", "count", "median", "longest"
        )?;
        for change in [Change::Rename, Change::InPlace, Change::Link] {
            let of_it = self.reloads.iter().filter(|reload| reload.change == change);
            let mut delays: Vec<Duration> = of_it.filter_map(|reload| reload.delay).collect();
            delays.sort();
            let millis = |delay: Option<&Duration>| {
                delay.map_or_else(
                    || "-".to_owned(),
                    |delay| format!("{} ms", delay.as_millis()),
                )
            };
            let median = millis(delays.get(delays.len() / 2));
            let longest = millis(delays.last());
            let (change, count) = (change.to_string(), delays.len());
            writeln!(f, "{change:<32}{count:>7}{median:>9}{longest:>9}")?;
        }
        writeln!(f)?;
        for (refused, is_printed, is_unchanged, _) in &self.refused {
            let refused = refused.to_string();
            let printed = if *is_printed {
                "problem printed"
            } else {
                "NOT PRINTED"
            };
            let stayed = if *is_unchanged {
                "route unchanged"
            } else {
                "ROUTE CHANGED"
            };
            writeln!(f, "{refused:<32}{printed}, {stayed}")?;
        }
        writeln!(f)?;
        for stream in &self.streams {
            let state = if stream.failure.is_none() {
                "open throughout"
            } else {
                "ENDED"
            };
            writeln!(
                f,
                "{:<32}{} messages, {state}",
                stream.name, stream.messages
            )?;
        }
        writeln!(
            f,
            "{:<32}{} requests, {:.0} a second, {} failed",
            "load", self.load.requests, self.load.per_second, self.load.failed
        )?;
        if let Some(mib) = self.resident_mib {
            writeln!(f, "{:<32}{mib} MiB at the end", "resident memory")?;
        }
        let failures = self.failures();
        if failures.is_empty() {
            return write!(f, "\neverything held");
        }
        writeln!(f, "\n{} failures:", failures.len())?;
        for failure in failures {
            writeln!(f, "- {failure}")?;
        }
        Ok(())
    }
}
