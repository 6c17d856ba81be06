//! An [`Explanation`] for people.

use std::fmt;

use postern_core::route::explain::HostScope;

use super::Action;
use super::Answer;
use super::Asked;
use super::Candidate;
use super::Explanation;
use super::Outcome;

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
        }
    }
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
