//! What the API server asks before it takes an object, and the answer: what `postern check` would
//! say of that one object.
//!
//! Nothing but the object is looked at. Whoever asks needs no rights in the cluster, keeps nothing of
//! it, and can leak nothing of it; what an object names and does not hold is not missed here, and
//! whose a host is turns out when the object is taken: on the object, as an Event.
//!
//! An object that was wrong already may be changed as long as it gets no worse. Otherwise nobody
//! could take a finalizer or a label off it.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use crate::cluster::Cluster;
use crate::object::Kind;
use crate::object::ObjectProblem;
use crate::object::Reason;
use crate::read::At;
use crate::record::object_name;
use crate::translate::Settings;
use crate::translate::translate;

/// Longest message, in bytes: more than anybody reads, and less than the API server cuts off.
const MAX_MESSAGE: usize = 4096;
/// Warnings that are passed on. Each is a header field of the answer to who applied the object.
const MAX_WARNINGS: usize = 10;
/// Longest of them, in bytes.
const MAX_WARNING: usize = 256;

/// Kinds that are looked at; what else comes is let through.
const KINDS: [Kind; 4] = [
    Kind::Ingress,
    Kind::ClassDefaults,
    Kind::Plugin,
    Kind::Policy,
];

/// Answers an `AdmissionReview`. `None` if it is none.
pub fn review(review: &Value, settings: &Settings) -> Option<Value> {
    let is_review = review["kind"] == "AdmissionReview"
        && review["apiVersion"] == "admission.k8s.io/v1"
        && review["request"]["uid"].is_string();
    if !is_review {
        return None;
    }
    let request = &review["request"];
    let (new, old) = (&request["object"], &request["oldObject"]);
    let mut response = json!({ "uid": request["uid"], "allowed": true });
    // What goes need not be right.
    if !new.is_null() && new["metadata"]["deletionTimestamp"].is_null() {
        judge(new, old, settings, &mut response);
    }
    Some(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": response,
    }))
}

fn judge(new: &Value, old: &Value, settings: &Settings, response: &mut Value) {
    let (errors, warnings): (Vec<_>, Vec<_>) = problems(new, settings)
        .into_iter()
        .partition(ObjectProblem::is_error);
    let before: BTreeSet<ObjectProblem> = problems(old, settings).into_iter().collect();
    let is_worse = errors.iter().any(|error| !before.contains(error));
    if is_worse {
        let lines: Vec<String> = errors.iter().map(line).collect();
        response["allowed"] = false.into();
        response["status"] = json!({
            "code": 422,
            "reason": "Invalid",
            "message": cut(&lines.join("; "), MAX_MESSAGE),
        });
    }
    let told = errors.iter().filter(|_| !is_worse).chain(&warnings);
    let told: Vec<String> = told
        .take(MAX_WARNINGS)
        .map(|problem| cut(&line(problem), MAX_WARNING).to_owned())
        .collect();
    if !told.is_empty() {
        response["warnings"] = json!(told);
    }
}

/// What is wrong with an object as far as it says itself.
fn problems(object: &Value, settings: &Settings) -> Vec<ObjectProblem> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let kind = Kind::parse(text("apiVersion"), text("kind"));
    let Some(kind) = kind.filter(|kind| KINDS.contains(kind)) else {
        return Vec::new();
    };
    if object_name(kind, &At::root(object)).is_none() {
        // It is given one when it is taken (`generateName`).
        let mut named = object.clone();
        if !named["metadata"].is_object() {
            // The API server takes none such, and has a message for it.
            return Vec::new();
        }
        named["metadata"]["name"] = "new".into();
        return match named["metadata"]["name"] == object["metadata"]["name"] {
            true => Vec::new(),
            false => problems(&named, settings),
        };
    }
    let mut cluster = Cluster::default();
    cluster.apply(kind, object);
    let settings = Settings {
        is_offline: true,
        ..settings.clone()
    };
    let is_served = kind != Kind::Ingress || is_ours(object, &settings);
    let translation = translate(&cluster, &settings);
    let mut problems = translation.problems;
    // What is not there is not known here.
    let is_absence = |problem: &ObjectProblem| {
        let reasons = [
            Reason::BackendMissing,
            Reason::SecretMissing,
            Reason::PolicyMissing,
        ];
        !problem.is_error() && reasons.contains(&problem.reason)
    };
    problems.retain(|problem| is_served && !is_absence(problem));
    problems
}

/// By its class. One that cannot be read has no record, and its author is told all the same.
fn is_ours(ingress: &Value, settings: &Settings) -> bool {
    let class = ingress["spec"]["ingressClassName"].as_str();
    let old = ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].as_str();
    match class.or(old) {
        Some(class) => settings.serves_by_name(class),
        None => settings.spec.serves_classless,
    }
}

fn line(problem: &ObjectProblem) -> String {
    let ObjectProblem {
        field,
        message,
        help,
        ..
    } = problem;
    let mut text = match field.as_str() {
        "" => message.clone(),
        field => format!("{field}: {message}"),
    };
    if let Some(help) = help {
        text.push_str(&format!(" ({help})"));
    }
    text
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(path: &str, more: Value) -> Value {
        let mut object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": { "namespace": "shop", "name": "main" },
            "spec": {
                "ingressClassName": "postern",
                "rules": [{ "host": "a.test", "http": { "paths": [{
                    "path": path,
                    "pathType": "Prefix",
                    "backend": { "service": { "name": "web", "port": { "number": 80 } } },
                }]}}],
            },
        });
        for (at, value) in more.as_object().unwrap() {
            *object.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value.clone();
        }
        object
    }

    #[test]
    fn an_object_without_metadata_is_left_to_the_api_server() {
        for metadata in [json!("x"), json!(1), json!([]), Value::Null] {
            let mut object = ingress("/", json!({}));
            object["metadata"] = metadata;
            assert_eq!(asked(&object, &Value::Null)["allowed"], true, "{object}");
        }
    }

    fn asked(new: &Value, old: &Value) -> Value {
        let request = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": { "uid": "u1", "operation": "CREATE", "object": new, "oldObject": old },
        });
        let answer = review(&request, &Settings::default()).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], "u1");
        answer["response"].clone()
    }

    #[test]
    fn an_object_is_taken_or_refused_for_what_it_says() {
        let policy = |spec: Value| {
            json!({ "apiVersion": "postern.dev/v1alpha1", "kind": "Policy",
                "metadata": { "namespace": "shop", "name": "limit" }, "spec": spec })
        };
        let annotated = |key: &str, value: &str| {
            let metadata =
                json!({ "namespace": "shop", "name": "main", "annotations": { key: value } });
            ingress("/", json!({ "/metadata": metadata }))
        };
        let class = |class: &str| ingress("/a*", json!({ "/spec/ingressClassName": class }));
        let guard = "nginx.ingress.kubernetes.io/auth-url";
        let generated = json!({ "namespace": "shop", "generateName": "main-" });
        // The object; what it is refused for, and what is warned of.
        let cases = [
            (ingress("/", json!({})), "", ""),
            (
                ingress("/api/*", json!({})),
                "write path: /api, pathType: Prefix",
                "",
            ),
            (
                ingress("/api/*", json!({ "/metadata": generated })),
                "write path: /api",
                "",
            ),
            (class("nginx"), "", ""),
            (class("postern"), "write path: /a", ""),
            (annotated("postern.dev/policies", "other/guard"), "", ""),
            (
                annotated("postern.dev/policies", "a b"),
                "is no name of a policy",
                "",
            ),
            (
                annotated("postern.dev/policie", "x"),
                "",
                "did you mean postern.dev/policies?",
            ),
            (annotated(guard, "http://x"), "keeps requests out", ""),
            (
                policy(json!({ "kind": "body-size", "limit": "1MiB" })),
                "",
                "",
            ),
            (
                policy(json!({ "kind": "body-size", "limit": "one" })),
                "spec.limit",
                "",
            ),
            (
                json!({ "apiVersion": "v1", "kind": "Service", "spec": 1 }),
                "",
                "",
            ),
            (json!("no object"), "", ""),
        ];
        for (object, refused, warned) in cases {
            let response = asked(&object, &Value::Null);
            let message = response["status"]["message"].as_str().unwrap_or_default();
            assert_eq!(
                response["allowed"],
                refused.is_empty(),
                "{object} {response}"
            );
            assert!(message.contains(refused), "{object} {response}");
            let warnings = response["warnings"].to_string();
            assert_eq!(warnings == "null", warned.is_empty(), "{object} {response}");
            assert!(warnings.contains(warned), "{object} {response}");
        }
    }

    #[test]
    fn what_was_wrong_already_may_be_changed_and_what_goes_need_not_be_right() {
        let wrong = ingress("/api/*", json!({}));
        let response = asked(&wrong, &wrong);
        assert_eq!(response["allowed"], true);
        assert!(response["warnings"][0].as_str().unwrap().contains("503"));

        let worse = ingress("/other/*", json!({}));
        assert_eq!(asked(&worse, &wrong)["allowed"], false);

        let mut going = wrong.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(asked(&going, &Value::Null)["allowed"], true);
        // A deletion.
        assert_eq!(asked(&Value::Null, &wrong)["allowed"], true);
    }

    #[test]
    fn what_is_no_review_gets_no_answer() {
        for text in ["null", "{}", r#"{"kind":"AdmissionReview"}"#, "[]"] {
            let value = serde_json::from_str(text).unwrap();
            assert_eq!(review(&value, &Settings::default()), None);
        }
    }

    #[test]
    fn long_answers_are_cut() {
        let paths: Vec<Value> = (0..200)
            .map(|number| {
                json!({ "path": format!("/ü{number}{}/*", "x".repeat(60)), "pathType": "Prefix",
                    "backend": { "service": { "name": "web", "port": { "number": 80 } } } })
            })
            .collect();
        let object = ingress("/", json!({ "/spec/rules/0/http/paths": paths }));
        let response = asked(&object, &Value::Null);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 4);
        let response = asked(&object, &object);
        assert_eq!(response["warnings"].as_array().unwrap().len(), MAX_WARNINGS);
    }
}
