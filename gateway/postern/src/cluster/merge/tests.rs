//! Who wins where files and a cluster say different things.

use std::collections::BTreeMap;

use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_kube::translate::Translation;

use super::*;

fn loaded(text: &str) -> Loaded {
    let file = ConfigText {
        path: "a.toml".into(),
        text: text.to_owned(),
    };
    parse(&[file]).unwrap()
}

fn state(text: &str) -> State {
    State {
        translation: Translation {
            config: loaded(text).config,
            ..Translation::default()
        },
        broken: BTreeMap::new(),
        accepted: BTreeMap::new(),
        left: BTreeMap::new(),
    }
}

fn hosts(merged: &Merged) -> Vec<String> {
    let routes = merged.loaded.config.routes.iter();
    routes
        .map(|route| {
            let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
            format!("{} {}", route.name, hosts.join(","))
        })
        .collect()
}

const CLUSTER: &str = r#"
[upstreams."shop/web:80"]
endpoints = ["10.0.0.1:80"]
[[routes]]
name = "shop/web"
hosts = ["shop.test", "www.test"]
rules = [{ upstream = "shop/web:80" }]
[[routes]]
name = "shop/rest"
rules = [{ upstream = "shop/web:80" }]
"#;

#[test]
fn both_are_one_configuration() {
    let files = loaded(
        "[upstreams.own]\nendpoints = ['10.0.0.2:80']\n[[routes]]\nname = 'own'\nhosts = ['own.test']\nrules = [{ upstream = 'own' }]",
    );
    let merged = merge(&files, Some(&state(CLUSTER)));
    assert_eq!(
        hosts(&merged),
        ["own own.test", "shop/web shop.test,www.test", "shop/rest "]
    );
    assert_eq!(merged.loaded.config.upstreams.len(), 2);
    assert!(merged.problems.is_empty());
}

#[test]
fn a_host_and_a_name_of_a_file_are_the_files_alone() {
    let files = loaded(
        r#"[upstreams."shop/web:80"]
endpoints = ["10.0.0.9:80"]
[[routes]]
name = "own"
hosts = ["www.test"]
rules = [{ path.prefix = "/only", upstream = "shop/web:80" }]
[[routes]]
name = "rest"
rules = [{ respond = { status = 404 } }]"#,
    );
    let merged = merge(&files, Some(&state(CLUSTER)));
    assert_eq!(
        hosts(&merged),
        ["own www.test", "rest ", "shop/web shop.test"]
    );
    let upstreams = &merged.loaded.config.upstreams;
    assert_eq!(*upstreams, files.config.upstreams);
    let told: Vec<String> = merged.problems.iter().map(ToString::to_string).collect();
    let object = |problem: &ObjectProblem| problem.object.to_string();
    let of: Vec<String> = merged.problems.iter().map(object).collect();
    assert_eq!(
        of,
        ["Ingress shop/rest", "Ingress shop/web", "Service shop/web"],
        "{told:#?}"
    );
}

#[test]
fn before_the_cluster_is_known_a_host_of_nobody_is_not_said_to_be_missing() {
    let files = loaded(
        "[[routes]]\nname = 'own'\nhosts = ['own.test']\nrules = [{ respond = { status = 200 } }]",
    );
    let merged = merge(&files, None);
    assert_eq!(hosts(&merged), ["own own.test", "kubernetes:unknown "]);
    let ActionSpec::Respond(answer) = &merged.loaded.config.routes[1].rules[0].action else {
        panic!("it answers by itself");
    };
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);

    let open = loaded("[[routes]]\nname = 'own'\nrules = [{ respond = { status = 200 } }]");
    assert_eq!(hosts(&merge(&open, None)), ["own "]);
}
