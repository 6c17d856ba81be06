//! `test`: every case once, and what was different; then what the calls cost.

use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::bail;

use super::super::complain;
use super::super::print;
use super::Subject;
use super::kib;
use super::time;
use crate::plugin::verdict;

/// Calls for the figures: enough for a median, few enough not to be waited for.
const CALLS: usize = 200;

pub(super) fn run(subject: &Subject, only: Option<&str>) -> anyhow::Result<ExitCode> {
    let runner = subject.open(&subject.file()?)?;
    let (mut passed, mut failed) = (0, 0);
    for (path, cases) in subject.cases()? {
        for case in &cases.cases {
            if only.is_some_and(|text| !case.name.contains(text)) {
                continue;
            }
            let place = || format!("{}: {}", path.display(), case.name);
            let outcome = runner.run(&cases, case).with_context(place)?;
            let found = verdict::differences(case, &outcome);
            if !found.is_empty() {
                failed += 1;
                complain(format_args!("FAIL {}", place()));
                for line in &found {
                    complain(format_args!("     {line}"));
                }
                for line in &outcome.logs {
                    complain(format_args!("     log: {line}"));
                }
                continue;
            }
            passed += 1;
            let is_whole = outcome.fault.is_none() && outcome.refused.is_none();
            let mut costs = String::new();
            if is_whole {
                let cost = runner.measure(&cases, case, CALLS).with_context(place)?;
                for (phase, times) in &cost.phases {
                    costs.push_str(&format!("  {phase} {}", time(times.p50)));
                }
                costs.push_str(&format!("  memory {}", kib(cost.memory)));
            }
            print(format_args!("ok   {}{costs}", case.name));
        }
    }
    if passed + failed == 0 {
        bail!("no case has {:?} in its name", only.unwrap_or_default());
    }
    print(format_args!("{passed} passed, {failed} failed"));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
