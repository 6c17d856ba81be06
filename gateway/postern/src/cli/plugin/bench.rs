//! `bench`: every case often, and the distribution of its calls.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::super::Format;
use super::super::print;
use super::Subject;
use super::kib;
use super::time;
use crate::plugin::verdict;

pub(super) fn run(subject: &Subject, calls: usize, format: Format) -> anyhow::Result<()> {
    let file = subject.file()?;
    let runner = subject.open(&file)?;
    let mut rows = Vec::new();
    for (path, cases) in subject.cases()? {
        for case in &cases.cases {
            let place = || format!("{}: {}", path.display(), case.name);
            let outcome = runner.run(&cases, case).with_context(place)?;
            // A call that fails costs an instance, which is not what is asked for here.
            let is_good = verdict::differences(case, &outcome).is_empty();
            if is_good && outcome.fault.is_none() && outcome.refused.is_none() {
                let cost = runner.measure(&cases, case, calls).with_context(place)?;
                rows.push((case.name.clone(), cost));
            }
        }
    }
    let component = runner.component();
    let bytes = component.size();
    // Of one that was compiled before, only the time to load is known.
    let compile = (!component.was_cached()).then(|| component.compile_time());
    if format == Format::Json {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let cases = rows.iter().map(|(name, cost)| {
            let phases = cost.phases.iter().map(|(phase, times)| {
                json!({
                    "phase": phase,
                    "p50-ns": ns(times.p50),
                    "p90-ns": ns(times.p90),
                    "p99-ns": ns(times.p99),
                    "max-ns": ns(times.max),
                })
            });
            json!({
                "name": name,
                "phases": phases.collect::<Vec<_>>(),
                "fresh-ns": ns(cost.fresh),
                "memory-bytes": cost.memory,
            })
        });
        let value = json!({
            "file": file.to_string_lossy(),
            "bytes": bytes,
            "compile-ns": compile.map(ns),
            "calls": calls,
            "cases": cases.collect::<Vec<_>>(),
        });
        print(format_args!("{value:#}"));
        return Ok(());
    }
    let compiled = match compile {
        Some(compile) => format!("compiled in {}", time(compile)),
        None => "compiled before".to_owned(),
    };
    print(format_args!(
        "{}: {bytes} bytes, {compiled}, {calls} calls a case",
        file.display()
    ));
    for (name, cost) in rows {
        print(format_args!("\n{name}"));
        for (phase, times) in &cost.phases {
            print(format_args!(
                "  {phase:<15} p50 {:>9}  p90 {:>9}  p99 {:>9}  max {:>9}",
                time(times.p50),
                time(times.p90),
                time(times.p99),
                time(times.max)
            ));
        }
        let memory = kib(cost.memory);
        print(format_args!(
            "  {:<15} {:>13}  memory {memory}",
            "new instance",
            time(cost.fresh)
        ));
    }
    Ok(())
}
