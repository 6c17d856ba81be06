//! An [`Explanation`] for people.

use std::fmt;

use postern_core::route::explain::HostScope;
use postern_proxy::rehearsal::Answered;
use postern_proxy::rehearsal::Edit;
use postern_proxy::rehearsal::End;
use postern_proxy::rehearsal::Sent;
use postern_proxy::rehearsal::Step;

use super::Action;
use super::Answer;
use super::Asked;
use super::Candidate;
use super::Explanation;
use super::Outcome;
use super::Ran;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "request     {} {}", self.method, self.url)?;
        match &self.listener {
            Some(listener) => writeln!(f, "listener    {} on {}", listener.name, listener.bind)?,
            None => writeln!(f, "listener    none speaks this scheme; defaults assumed")?,
        }
        match &self.outcome {
            Outcome::Refused {
                status,
                reason,
                message,
            } => {
                writeln!(
                    f,
                    "refused     {status} before routing, {reason}: {message}"
                )
            }
            Outcome::Asked(asked) => asked.fmt(f),
        }?;
        match &self.run {
            Some(ran) => write_run(f, ran),
            None => Ok(()),
        }
    }
}

fn write_run(f: &mut fmt::Formatter<'_>, ran: &Ran) -> fmt::Result {
    let rehearsal = &ran.rehearsal;
    let policies = match ran.callouts {
        true => "policies may ask upstreams",
        false => "policies find no upstream to ask, but with --callouts",
    };
    writeln!(f, "\nRun, without sending the request; {policies}:")?;
    write_steps(f, "request", &rehearsal.request)?;
    if let Some(sent) = &rehearsal.sent {
        let by = match sent.is_chosen {
            true => "chosen by a policy",
            false => "by its weight",
        };
        let Sent { method, path, .. } = sent;
        writeln!(f, "upstream    {}, {by}: {method} {path}", sent.upstream)?;
        for (name, value) in &sent.headers {
            writeln!(f, "            {name}: {value}")?;
        }
    }
    write_steps(f, "response", &rehearsal.response)?;
    write_answered(f, "client      ", &rehearsal.answer)
}

fn write_steps(f: &mut fmt::Formatter<'_>, label: &str, steps: &[Step]) -> fmt::Result {
    for (index, step) in steps.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        let Step { policy, kind, .. } = step;
        writeln!(f, "{label:<11} {policy} ({kind})")?;
        for Edit {
            what,
            before,
            after,
        } in &step.edits
        {
            match (before, after) {
                (_, None) => writeln!(f, "              {what} removed")?,
                (None, Some(after)) => writeln!(f, "              {what} set: {after}")?,
                (Some(before), Some(after)) => {
                    writeln!(f, "              {what} changed: {after} (was {before})")?;
                }
            }
        }
        match &step.end {
            None if step.edits.is_empty() => writeln!(f, "              changed nothing")?,
            None => {}
            Some(End::Answered(answered, reason)) => {
                let reason = reason.map(|reason| format!(", {reason}"));
                let reason = reason.unwrap_or_default();
                let status = answered.status.as_u16();
                writeln!(f, "              answered {status}{reason}")?;
            }
            Some(End::Failed {
                status,
                reason,
                message,
            }) => {
                let status = status.as_u16();
                writeln!(f, "              failed, {status}, {reason}: {message}")?;
            }
        }
    }
    Ok(())
}

fn write_answered(f: &mut fmt::Formatter<'_>, label: &str, answered: &Answered) -> fmt::Result {
    let body = match &answered.body {
        Some(body) => format!(" with {} bytes", body.len()),
        None => " if the upstream answers so".to_owned(),
    };
    writeln!(f, "{label}{}{body}", answered.status.as_u16())?;
    for (name, value) in &answered.headers {
        writeln!(f, "            {name}: {value}")?;
    }
    Ok(())
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let canonical = &self.canonical;
        writeln!(f, "host        {}", canonical.host)?;
        writeln!(f, "path        {}", canonical.path)?;
        if let Some(query) = &canonical.query {
            writeln!(f, "query       {query}")?;
        }
        for (index, (name, value)) in canonical.headers.iter().enumerate() {
            let label = if index == 0 { "headers" } else { "" };
            writeln!(f, "{label:<11} {name}: {value}")?;
        }
        writeln!(f)?;
        if !self.is_host_known {
            writeln!(
                f,
                "No route names this host; only routes for every host are asked."
            )?;
        }
        if self.candidates.is_empty() {
            writeln!(f, "There is no rule to ask.")?;
        } else {
            writeln!(f, "Rules in the order asked:")?;
        }
        let names = self.candidates.iter().map(name_of);
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        for candidate in &self.candidates {
            let verdict = match &candidate.mismatch {
                Some(mismatch) => format!("no, {mismatch}"),
                None => "yes".to_owned(),
            };
            let name = name_of(candidate);
            let place = &candidate.rule.place;
            writeln!(f, "  {name:<width$}  {place}  {verdict}")?;
        }
        writeln!(f)?;
        match &self.answer {
            Some(answer) => answer.fmt(f),
            None => writeln!(f, "answer      404, no rule accepts the request"),
        }
    }
}

fn name_of(candidate: &Candidate) -> String {
    let hosts = match candidate.scope {
        HostScope::Exact => "",
        HostScope::Wildcard => " (wildcard host)",
        HostScope::Any => " (every host)",
    };
    let rule = &candidate.rule;
    format!("{} rule {}{hosts}", rule.route, rule.number)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = &self.rule;
        writeln!(f, "answer      {} rule {}", rule.route, rule.number)?;
        for (index, policy) in self.policies.iter().enumerate() {
            let label = if index == 0 { "policies" } else { "" };
            let number = index + 1;
            writeln!(f, "{label:<11} {number}. {} ({})", policy.name, policy.kind)?;
        }
        match &self.action {
            Action::Forward { target, backends } => {
                match target {
                    Ok(target) => writeln!(f, "target      {target}")?,
                    Err(error) => writeln!(f, "target      none: {error}")?,
                }
                let sum: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
                for (index, backend) in backends.iter().enumerate() {
                    let label = if index == 0 { "upstreams" } else { "" };
                    // The weights of a rule are never all zero.
                    let percent = u64::from(backend.weight) * 100 / sum.max(1);
                    let tls = if backend.is_tls { " over TLS" } else { "" };
                    let mut endpoints = backend.endpoints.clone();
                    for (endpoint, health) in endpoints.iter_mut().zip(&backend.health) {
                        if *health != "up" {
                            endpoint.push_str(&format!(" ({health})"));
                        }
                    }
                    writeln!(
                        f,
                        "{label:<11} {}, weight {} ({percent} %), {}{tls}: {}",
                        backend.upstream,
                        backend.weight,
                        backend.protocol,
                        endpoints.join(", ")
                    )?;
                }
                Ok(())
            }
            Action::Redirect { status, location } => match location {
                Ok(location) => writeln!(f, "redirect    {} {location}", status.as_u16()),
                Err(error) => writeln!(f, "redirect    none: {error}"),
            },
            Action::Respond { status, body_len } => {
                writeln!(f, "respond     {} with {body_len} bytes", status.as_u16())
            }
            Action::Refuse { status, reason } => {
                writeln!(f, "refuse      {}: {reason}", status.as_u16())
            }
        }
    }
}
