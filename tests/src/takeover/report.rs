//! What a run came to, as a table and as a verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Plan;
use super::clients::Kind;
use super::clients::Outcome;

/// Failures that are printed, of each kind.
const SHOWN: usize = 5;

#[derive(Debug)]
pub struct Report {
    pub plan: Plan,
    pub reloads: u32,
    pub clients: BTreeMap<Kind, Outcome>,
    /// Requests that reached the upstream more than once.
    pub twice: usize,
    /// Processes that have ended.
    pub ended: u32,
    /// What those printed that had to cut something, or failed.
    pub ended_badly: Vec<String>,
    /// Of each process, when its successor was ready.
    pub resident_mib: Vec<u64>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            plan: Plan {
                length: Duration::ZERO,
                reloads: 0,
                takeovers: 0,
                seed: 0,
            },
            reloads: 0,
            clients: BTreeMap::new(),
            twice: 0,
            ended: 0,
            ended_badly: Vec::new(),
            resident_mib: Vec::new(),
        }
    }
}

impl Report {
    /// Whether every request was answered once and whole, and every process ended well.
    pub fn holds(&self) -> bool {
        let all_answered = self
            .clients
            .values()
            .all(|outcome| outcome.failures.is_empty() && outcome.answered > 0);
        all_answered
            && !self.clients.is_empty()
            && self.twice == 0
            && self.ended == self.plan.takeovers + 1
            && self.ended_badly.is_empty()
            && self.reloads == self.plan.reloads
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12}{:>10}{:>8}{:>8}",
            "requests", "answered", "resent", "failed"
        )?;
        for (kind, outcome) in &self.clients {
            let kind = format!("{kind:?}");
            let failed = outcome.failures.len();
            let Outcome {
                answered, resent, ..
            } = outcome;
            writeln!(f, "{kind:<12}{answered:>10}{resent:>8}{failed:>8}")?;
        }
        let Plan {
            length,
            takeovers,
            seed,
            ..
        } = self.plan;
        writeln!(
            f,
            "\n{} reloads and {takeovers} takeovers in {length:?}, seed {seed}",
            self.reloads
        )?;
        writeln!(f, "{} requests reached the upstream twice", self.twice)?;
        writeln!(
            f,
            "{} processes ended, {} of them badly",
            self.ended,
            self.ended_badly.len()
        )?;
        if let (Some(least), Some(most)) = (
            self.resident_mib.iter().min(),
            self.resident_mib.iter().max(),
        ) {
            writeln!(f, "resident memory {least} to {most} MiB")?;
        }
        for (kind, outcome) in &self.clients {
            for failure in outcome.failures.iter().take(SHOWN) {
                writeln!(f, "- {kind:?}: {failure}")?;
            }
        }
        for output in self.ended_badly.iter().take(SHOWN) {
            writeln!(f, "- a process ended badly:\n{output}")?;
        }
        write!(
            f,
            "{}",
            if self.holds() {
                "everything held"
            } else {
                "FAILED"
            }
        )
    }
}
