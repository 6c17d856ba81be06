//! An [`Explanation`] for programs. Keys are stable: scripts read them.

use postern_core::route::explain::HostScope;
use postern_proxy::rehearsal::Answered;
use postern_proxy::rehearsal::End;
use postern_proxy::rehearsal::Step;
use serde_json::Value;
use serde_json::json;

use super::Action;
use super::Answer;
use super::Asked;
use super::Explanation;
use super::Outcome;
use super::Ran;
use super::RuleView;

pub fn render(explanation: &Explanation) -> Value {
    let listener = explanation.listener.as_ref();
    let mut value = json!({
        "method": explanation.method,
        "url": explanation.url,
        "listener": listener.map(|l| json!({ "name": l.name, "bind": l.bind })),
    });
    let rest = match &explanation.outcome {
        Outcome::Refused {
            status,
            reason,
            message,
        } => json!({
            "refused": { "status": status.as_u16(), "reason": reason, "message": message },
        }),
        Outcome::Asked(asked) => asked_value(asked),
    };
    if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
        value.extend(rest);
    }
    if let Some(ran) = &explanation.run {
        value["run"] = run_value(ran);
    }
    value
}

fn run_value(ran: &Ran) -> Value {
    let rehearsal = &ran.rehearsal;
    let steps = |steps: &[Step]| steps.iter().map(step_value).collect::<Vec<_>>();
    let sent = rehearsal.sent.as_ref().map(|sent| {
        json!({
            "upstream": sent.upstream,
            "chosen": sent.is_chosen,
            "method": sent.method,
            "path": sent.path,
            "headers": sent.headers,
        })
    });
    json!({
        "callouts": ran.callouts,
        "request": steps(&rehearsal.request),
        "sent": sent,
        "response": steps(&rehearsal.response),
        "answer": answered_value(&rehearsal.answer),
    })
}

fn step_value(step: &Step) -> Value {
    let edits = step.edits.iter();
    let edits = edits.map(|e| json!({ "what": e.what, "before": e.before, "after": e.after }));
    let mut value = json!({
        "policy": step.policy,
        "kind": step.kind,
        "edits": edits.collect::<Vec<_>>(),
    });
    match &step.end {
        None => {}
        Some(End::Answered(answered, reason)) => {
            value["answered"] = answered_value(answered);
            value["reason"] = json!(reason);
        }
        Some(End::Failed {
            status,
            reason,
            message,
        }) => {
            value["failed"] =
                json!({ "status": status.as_u16(), "reason": reason, "message": message });
        }
    }
    value
}

fn answered_value(answered: &Answered) -> Value {
    json!({
        "status": answered.status.as_u16(),
        "headers": answered.headers,
        "body-bytes": answered.body.as_ref().map(|body| body.len()),
    })
}

fn asked_value(asked: &Asked) -> Value {
    let canonical = &asked.canonical;
    let headers = canonical.headers.iter();
    let candidates = asked.candidates.iter().map(|candidate| {
        let scope = match candidate.scope {
            HostScope::Exact => "exact",
            HostScope::Wildcard => "wildcard",
            HostScope::Any => "any",
        };
        let mut value = rule_value(&candidate.rule);
        value["host"] = json!(scope);
        value["mismatch"] = json!(candidate.mismatch);
        value
    });
    json!({
        "canonical": {
            "scheme": canonical.scheme,
            "host": canonical.host,
            "path": canonical.path,
            "query": canonical.query,
            "headers": headers.map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
        },
        "host-is-known": asked.is_host_known,
        "candidates": candidates.collect::<Vec<_>>(),
        "answer": asked.answer.as_ref().map(answer_value),
    })
}

fn rule_value(rule: &RuleView) -> Value {
    json!({ "route": rule.route, "rule": rule.number, "place": rule.place })
}

fn answer_value(answer: &Answer) -> Value {
    let mut value = rule_value(&answer.rule);
    let policies = answer.policies.iter();
    value["policies"] = policies
        .map(|policy| json!({ "name": policy.name, "kind": policy.kind }))
        .collect();
    match &answer.action {
        Action::Forward { target, backends } => {
            let backends = backends.iter().map(|backend| {
                let mut value = json!({
                    "upstream": backend.upstream,
                    "weight": backend.weight,
                    "endpoints": backend.endpoints,
                    "protocol": backend.protocol,
                    "tls": backend.is_tls,
                });
                if !backend.health.is_empty() {
                    value["health"] = json!(backend.health);
                }
                value
            });
            value["forward"] = json!({
                "target": target.as_ref().ok(),
                "error": target.as_ref().err(),
                "upstreams": backends.collect::<Vec<_>>(),
            });
        }
        Action::Redirect { status, location } => {
            value["redirect"] = json!({
                "status": status.as_u16(),
                "location": location.as_ref().ok(),
                "error": location.as_ref().err(),
            });
        }
        Action::Respond { status, body_len } => {
            value["respond"] = json!({ "status": status.as_u16(), "body-bytes": body_len });
        }
        Action::Refuse { status, reason } => {
            value["refuse"] = json!({ "status": status.as_u16(), "reason": reason });
        }
    }
    value
}
