//! Translation as a whole: what becomes of requests, and what is said about objects.

mod again;
mod backends;
mod isolation;
mod managed;
mod nginx;
mod order;
mod paths;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use postern_core::config::route::ActionSpec;
use postern_core::hostname::Authority;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_core::request::RequestHead;
use postern_core::route::RouteTable;
use serde_json::Value;

use super::*;
use crate::manifest::load;
use crate::test_util::yaml::service;

/// The objects of a manifest.
fn objects(yaml: &str) -> Vec<(Kind, Value)> {
    let (manifests, errors) = load(yaml);
    assert!(errors.is_empty(), "{errors:?}\n{yaml}");
    let objects = manifests.into_iter().map(|manifest| {
        let text = |key: &str| manifest.value[key].as_str().unwrap_or_default().to_owned();
        let kind = Kind::parse(&text("apiVersion"), &text("kind"));
        let kind = kind.unwrap_or_else(|| panic!("{} {}", text("apiVersion"), text("kind")));
        (kind, manifest.value)
    });
    objects.collect()
}

fn cluster(yaml: &str) -> Cluster {
    let mut cluster = Cluster::default();
    for (kind, object) in objects(yaml) {
        cluster.apply(kind, &object);
    }
    cluster
}

/// A class of ours.
const CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: postern}
spec: {controller: postern.dev/ingress-controller}
---
";

/// What answers: `namespace/service:port` of the upstream, or the reason of a refusal.
fn answer(translation: &Translation, host: &str, path: &str) -> String {
    let routes = RouteTable::new(&translation.config.routes);
    let request = RequestHead {
        method: Method::GET,
        authority: Authority::parse(&HeaderValue::from_str(host).unwrap()).unwrap(),
        path: RequestPath::from_text(path, EncodedSlash::Reject).unwrap(),
        headers: HeaderMap::new(),
        ..RequestHead::default()
    };
    let Some(id) = routes.find(&request) else {
        return "nothing".to_owned();
    };
    let rule = &translation.config.routes[id.route as usize].rules[id.rule as usize];
    match &rule.action {
        ActionSpec::Forward(backends) => backends[0].upstream.to_string(),
        ActionSpec::Refuse(why) => why.reason().to_owned(),
        other => format!("{other:?}"),
    }
}

/// Every problem, a line each: severity, object, field and message.
fn problems(translation: &Translation) -> Vec<String> {
    let problems = translation.problems.iter();
    problems
        .map(|problem| {
            let severity = if problem.is_error() { "E" } else { "W" };
            format!("{severity} {problem}")
        })
        .collect()
}
