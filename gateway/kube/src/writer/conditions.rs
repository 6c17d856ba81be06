//! The condition `Accepted` of our own objects: whether an object is taken as it says, and why not.

use jiff::Timestamp;
use serde_json::json;

use super::Write;
use crate::object::Kind;
use crate::object::ObjectProblem;
use crate::source::ACCEPTED;
use crate::source::Accepted;
use crate::source::State;
use crate::translate::Status;

/// Longest message, in bytes (the API: 32,768).
const MAX_MESSAGE: usize = 4096;

/// The conditions that are not as they should be.
pub(super) fn of(state: &State, in_use: &[ObjectProblem], now: Timestamp, writes: &mut Vec<Write>) {
    let ours = state.translation.statuses.iter();
    for status in ours.filter(|status| matches!(status.object.kind, Kind::Plugin | Kind::Policy)) {
        let before = state.accepted.get(&status.object);
        let problems = state.translation.problems.iter().chain(in_use);
        let problems = problems.filter(|problem| problem.object == status.object);
        let is_refused = |problem: &ObjectProblem| problem.is_error();
        let status = Status {
            is_accepted: status.is_accepted && !problems.clone().any(is_refused),
            ..Status::clone(status)
        };
        let wanted = wanted(&status, problems, before, now);
        if before != Some(&wanted) {
            let condition = json!({
                "type": ACCEPTED,
                "status": wanted.status,
                "reason": wanted.reason,
                "message": wanted.message,
                "observedGeneration": wanted.generation,
                "lastTransitionTime": wanted.since,
            });
            let Accepted {
                status: word,
                reason,
                message,
                generation,
                ..
            } = wanted;
            writes.push(Write {
                object: status.object.clone(),
                status: json!({ "conditions": [condition] }).to_string(),
                meaning: json!([word, reason, message, generation]).to_string(),
            });
        }
    }
}

fn wanted<'p>(
    status: &Status,
    problems: impl Iterator<Item = &'p ObjectProblem>,
    before: Option<&Accepted>,
    now: Timestamp,
) -> Accepted {
    let mut first = None;
    let mut message = String::new();
    for problem in problems {
        first = first.or(Some(problem.reason));
        if !message.is_empty() {
            message.push_str("; ");
        }
        if !problem.field.is_empty() {
            message.push_str(&problem.field);
            message.push_str(": ");
        }
        message.push_str(&problem.message);
    }
    let end = message.floor_char_boundary(MAX_MESSAGE);
    message.truncate(end);
    let word = if status.is_accepted { "True" } else { "False" };
    let reason = match (first, status.is_accepted) {
        (Some(reason), _) => reason.as_str(),
        (None, true) => "Accepted",
        (None, false) => "Refused",
    };
    let is_same = before.filter(|before| before.status == word);
    Accepted {
        status: word.to_owned(),
        reason: reason.to_owned(),
        message,
        generation: status.generation,
        since: match is_same {
            Some(before) => before.since.clone(),
            // The API server keeps seconds.
            None => now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectName;
    use crate::object::ObjectRef;
    use crate::object::Reason;
    use crate::object::Severity;

    #[test]
    fn a_condition_keeps_its_time_while_it_says_the_same() {
        let object = ObjectRef {
            kind: Kind::Policy,
            name: ObjectName::new("a", "limit"),
        };
        let mut status = Status {
            object: object.clone(),
            uid: None,
            generation: Some(1),
            is_accepted: true,
            addresses: Vec::new(),
        };
        let early = Timestamp::UNIX_EPOCH;
        let late = Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(60);
        let first = wanted(&status, [].iter(), None, early);
        assert_eq!(first.since, "1970-01-01T00:00:00Z");
        assert_eq!(first.reason, "Accepted");

        status.generation = Some(2);
        let second = wanted(&status, [].iter(), Some(&first), late);
        assert_eq!(second.since, first.since);
        assert_eq!(second.generation, Some(2));

        let problem = ObjectProblem {
            object,
            field: "spec.rate".into(),
            severity: Severity::Error,
            reason: Reason::Malformed,
            message: "'x' is no rate".into(),
            help: None,
        };
        status.is_accepted = false;
        let third = wanted(&status, [&problem].into_iter(), Some(&second), late);
        assert_eq!(third.status, "False");
        assert_eq!(third.reason, "Malformed");
        assert_eq!(third.message, "spec.rate: 'x' is no rate");
        assert_eq!(third.since, "1970-01-01T00:01:00Z");
    }
}
