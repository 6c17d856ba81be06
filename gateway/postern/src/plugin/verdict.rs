//! Whether what a plugin did is what its case expects. Values in, differences out.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::case::Case;
use super::case::Expected;
use super::case::ExpectedEdits;
use super::case::ExpectedField;
use super::case::ExpectedReply;
use super::case::Headers;

/// What became of an exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The plugin's reason for refusing its configuration.
    pub refused: Option<String>,
    /// The label of the fault, and its text.
    pub fault: Option<(String, String)>,
    pub is_aborted: bool,
    pub upstream: Option<String>,
    pub reply: Option<Message>,
    /// The answer to a challenge.
    pub key_authorization: Option<String>,
    /// What a DNS provider said, through the solver.
    pub dns_error: Option<String>,
    /// The request as it would go upstream.
    pub request: Message,
    /// The response as it would go to the client.
    pub response: Message,
    pub logs: Vec<String>,
    /// What was wrong with the plugin's callouts.
    pub calls: Vec<String>,
}

/// A message with its parts as text. A request has no status, a response no method.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    pub method: String,
    pub path: String,
    pub host: String,
    pub status: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: String,
}

/// What differs, a sentence each; nothing if all is as expected.
pub fn differences(case: &Case, outcome: &Outcome) -> Vec<String> {
    let Case { expect, .. } = case;
    let mut found = Vec::new();
    match (&expect.refused, &outcome.refused) {
        (None, None) => {}
        (Some(want), Some(got)) if got.contains(want.as_str()) => return found,
        (want, got) => {
            found.push(differs(
                "configuration refused",
                want.as_ref(),
                got.as_ref(),
            ));
            return found;
        }
    }
    let fault = outcome.fault.as_ref().map(|(label, _)| label);
    if expect.fault.as_ref() != fault {
        let mut text = differs("fault", expect.fault.as_ref(), fault);
        if let Some((_, message)) = &outcome.fault {
            text = format!("{text} ({message})");
        }
        found.push(text);
    }
    if expect.abort != outcome.is_aborted {
        found.push(differs(
            "abort",
            Some(&expect.abort),
            Some(&outcome.is_aborted),
        ));
    }
    found.extend(outcome.calls.iter().cloned());
    logs(expect, outcome, &mut found);
    if fault.is_some() {
        // What it did before is taken back, or the exchange is answered.
        return found;
    }
    let (want, got) = (&expect.key_authorization, &outcome.key_authorization);
    if want != got {
        found.push(differs("key authorization", want.as_ref(), got.as_ref()));
    }
    let (want, got) = (&expect.dns_error, &outcome.dns_error);
    let is_same = match (want, got) {
        (Some(want), Some(got)) => got.contains(want.as_str()),
        (want, got) => want.is_none() && got.is_none(),
    };
    if !is_same {
        found.push(differs("DNS error", want.as_ref(), got.as_ref()));
    }
    if case.challenge.is_some() || case.dns.is_some() {
        return found;
    }
    upstream(expect, outcome, &mut found);
    reply(expect.reply.as_ref(), outcome.reply.as_ref(), &mut found);
    let request = &case.request;
    let given = Message {
        method: request.method.clone(),
        path: request.path.clone(),
        host: request.host.clone(),
        headers: values(&request.headers),
        body: request.body.clone(),
        ..Message::default()
    };
    edits(
        "request",
        &given,
        &outcome.request,
        &expect.request,
        &mut found,
    );
    if outcome.reply.is_none() && !outcome.is_aborted {
        let given = Message {
            status: case.response.status,
            headers: values(&case.response.headers),
            body: case.response.body.clone(),
            ..Message::default()
        };
        edits(
            "response",
            &given,
            &outcome.response,
            &expect.response,
            &mut found,
        );
    }
    found
}

/// Names and values as they are compared.
pub fn values(headers: &Headers) -> BTreeMap<String, Vec<String>> {
    let pairs = headers.iter().map(|(name, values)| {
        let values = values.iter().map(str::to_owned).collect();
        (name.to_ascii_lowercase(), values)
    });
    pairs.collect()
}

fn upstream(expect: &Expected, outcome: &Outcome, found: &mut Vec<String>) {
    let got = outcome.upstream.as_deref();
    let want = expect.upstream.as_ref();
    let is_good = match (want, got) {
        (None, None) => true,
        (Some(want), Some(got)) => want.iter().any(|name| name == got),
        _ => false,
    };
    if !is_good {
        found.push(differs("upstream", want, got.as_ref()));
    }
}

fn reply(want: Option<&ExpectedReply>, got: Option<&Message>, found: &mut Vec<String>) {
    let (Some(want), Some(got)) = (want, got) else {
        if want.is_some() || got.is_some() {
            let status = |status: u16| format!("status {status}");
            let want = want.map(|want| status(want.status));
            let got = got.map(|got| status(got.status));
            found.push(differs("reply", want.as_ref(), got.as_ref()));
        }
        return;
    };
    if want.status != got.status {
        found.push(differs(
            "reply: status",
            Some(&want.status),
            Some(&got.status),
        ));
    }
    for (name, want) in &want.headers {
        let got = got.headers.get(&name.to_ascii_lowercase());
        if !is_field(want, got) {
            found.push(differs(&format!("reply: {name}"), Some(want), got));
        }
    }
    if let Some(want) = &want.body
        && *want != got.body
    {
        found.push(differs("reply: body", Some(want), Some(&got.body)));
    }
}

fn edits(
    message: &str,
    given: &Message,
    got: &Message,
    expect: &ExpectedEdits,
    found: &mut Vec<String>,
) {
    let parts = [
        ("method", &given.method, &got.method, &expect.method),
        ("path", &given.path, &got.path, &expect.path),
        ("host", &given.host, &got.host, &expect.host),
        ("body", &given.body, &got.body, &expect.body),
    ];
    for (part, given, got, expect) in parts {
        let want = expect.as_ref().unwrap_or(given);
        if want != got {
            found.push(differs(
                &format!("{message}: {part}"),
                Some(want),
                Some(got),
            ));
        }
    }
    let status = expect.status.unwrap_or(given.status);
    if status != got.status {
        found.push(differs(
            &format!("{message}: status"),
            Some(&status),
            Some(&got.status),
        ));
    }
    let names = given.headers.keys().chain(got.headers.keys());
    let expected = expect.headers.keys().chain(&expect.removed);
    let names: BTreeSet<String> = names
        .cloned()
        .chain(expected.map(|name| name.to_ascii_lowercase()))
        .collect();
    for name in names {
        let is_it = |other: &&String| other.eq_ignore_ascii_case(&name);
        let got = got.headers.get(&name);
        let want = expect.headers.iter().find(|(other, _)| is_it(other));
        if let Some((_, want)) = want {
            if !is_field(want, got) {
                found.push(differs(&format!("{message}: {name}"), Some(want), got));
            }
            continue;
        }
        let is_removed = expect.removed.iter().any(|other| is_it(&other));
        let want = given.headers.get(&name).filter(|_| !is_removed);
        if is_removed && !given.headers.contains_key(&name) {
            found.push(format!(
                "{message}: {name} cannot be removed: it was not given"
            ));
        } else if want != got {
            found.push(differs(&format!("{message}: {name}"), want, got));
        }
    }
}

fn is_field(want: &ExpectedField, got: Option<&Vec<String>>) -> bool {
    let Some(got) = got else {
        return false;
    };
    match want {
        ExpectedField::Values(values) => values.iter().eq(got.iter().map(String::as_str)),
        ExpectedField::Part(part) => {
            matches!(got.as_slice(), [only] if only.contains(&part.contains))
        }
    }
}

fn logs(expect: &Expected, outcome: &Outcome, found: &mut Vec<String>) {
    let Some(want) = &expect.logs else {
        return;
    };
    let got = &outcome.logs;
    let mut pairs = want.iter().zip(got);
    if want.len() != got.len() || pairs.any(|(want, got)| !got.contains(want.as_str())) {
        found.push(differs("logs", Some(want), Some(got)));
    }
}

fn differs<W: std::fmt::Debug, G: std::fmt::Debug>(
    what: &str,
    want: Option<&W>,
    got: Option<&G>,
) -> String {
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let want = text(want.map(|want| format!("{want:?}")));
    let got = text(got.map(|got| format!("{got:?}")));
    format!("{what}: expected {want}, got {got}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::case::CaseFile;

    fn case(text: &str) -> Case {
        let text = format!("[[case]]\nname = 'x'\n{text}");
        CaseFile::parse(&text).unwrap().cases.remove(0)
    }

    /// What became of a case that was left alone.
    fn untouched(case: &Case) -> Outcome {
        Outcome {
            request: Message {
                method: case.request.method.clone(),
                path: case.request.path.clone(),
                host: case.request.host.clone(),
                headers: values(&case.request.headers),
                ..Message::default()
            },
            response: Message {
                status: 200,
                headers: values(&case.response.headers),
                ..Message::default()
            },
            ..Outcome::default()
        }
    }

    #[test]
    fn an_edit_that_is_not_expected_is_a_difference_and_so_is_one_that_is_missing() {
        let plain = case("request.headers = { a = '1' }");
        let mut outcome = untouched(&plain);
        assert_eq!(differences(&plain, &outcome), [""; 0]);
        outcome.request.headers.insert("b".into(), vec!["2".into()]);
        let found = differences(&plain, &outcome);
        assert_eq!(found, ["request: b: expected none, got [\"2\"]"]);

        let edited = case(
            "request.headers = { a = '1' }\n\
             expect.request = { headers = { B = '2' }, removed = ['A'] }",
        );
        let found = differences(&edited, &outcome);
        assert_eq!(found, ["request: a: expected none, got [\"1\"]"]);
        outcome.request.headers.remove("a");
        assert_eq!(differences(&edited, &outcome), [""; 0]);
        outcome.request.headers.remove("b");
        assert_eq!(differences(&edited, &outcome).len(), 1);
    }

    #[test]
    fn every_part_of_an_outcome_is_compared() {
        let plain = case("");
        let changes: [(&str, fn(&mut Outcome)); 8] = [
            ("configuration refused", |o| o.refused = Some("no".into())),
            ("fault", |o| {
                o.fault = Some(("plugin-trap".into(), "x".into()))
            }),
            ("abort", |o| o.is_aborted = true),
            ("upstream", |o| o.upstream = Some("a".into())),
            ("reply", |o| o.reply = Some(Message::default())),
            ("request: path", |o| o.request.path = "/x".into()),
            ("response: status", |o| o.response.status = 404),
            ("a call", |o| {
                o.calls.push("a call that was not expected".into())
            }),
        ];
        for (want, change) in changes {
            let mut outcome = untouched(&plain);
            change(&mut outcome);
            let found = differences(&plain, &outcome);
            assert!(
                found.len() == 1 && found[0].starts_with(want),
                "{want}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_expected_and_does_not_happen_is_a_difference() {
        let cases = [
            "expect.refused = 'x'",
            "expect.fault = 'plugin-trap'",
            "expect.abort = true",
            "expect.upstream = ['a', 'b']",
            "expect.reply.status = 401",
            "expect.request.path = '/x'",
            "expect.request.removed = ['x']",
            "expect.response.headers.a = { contains = 'b' }",
            "expect.logs = ['x']",
        ];
        for text in cases {
            let case = case(text);
            let found = differences(&case, &untouched(&case));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
    }
}
