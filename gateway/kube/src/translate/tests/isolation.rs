//! What one namespace does costs no other, and takes nothing from it.
//!
//! Each case is a manifest of the namespace `evil`, what is said about it, and what becomes of
//! requests for `evil.test`. The namespace `victim` is the same beside each of them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::CertifiedKey;
use rcgen::generate_simple_self_signed;

use super::*;
use crate::test_util::hostile;
use crate::test_util::yaml::tls_secret;

/// A certificate and its key, in base64.
pub(super) fn pair(host: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let encode = |text: String| STANDARD.encode(text);
    (encode(cert.pem()), encode(signing_key.serialize_pem()))
}

/// Everything that a namespace can have.
fn victim() -> String {
    let (cert, key) = pair("victim.test");
    let mut yaml = CLASS.to_owned();
    yaml.push_str(&service("victim", "web", 1));
    yaml.push_str(&tls_secret("victim", "tls", &cert, &key));
    let _ = write!(
        yaml,
        "apiVersion: v1
kind: Secret
metadata: {{namespace: victim, name: users}}
data: {{auth: {}}}
---
apiVersion: postern.dev/v1alpha1
kind: Policy
metadata: {{namespace: victim, name: guard}}
spec: {{kind: basic-auth, users-secret: users, realm: victim}}
---
apiVersion: postern.dev/v1alpha1
kind: Policy
metadata: {{namespace: victim, name: shared}}
spec: {{kind: body-size, limit: 1MiB, namespaces: [evil]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: victim
  name: main
  creationTimestamp: 2026-01-01T00:00:00Z
  annotations: {{postern.dev/policies: guard}}
spec:
  ingressClassName: postern
  rules:
  - host: victim.test
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
  tls: [{{hosts: [victim.test], secretName: tls}}]
---
",
        STANDARD.encode("user:$2y$05$abcdefghijklmnopqrstuv")
    );
    yaml
}

/// All that a namespace has of a configuration, as text.
fn share(translation: &Translation, namespace: &str) -> String {
    let prefix = format!("{namespace}/");
    let config = &translation.config;
    let mut text = String::new();
    for route in &config.routes {
        if route.name.as_str().starts_with(&prefix) {
            let _ = writeln!(text, "{route:?}");
        }
    }
    for (name, spec) in &config.upstreams {
        if name.as_str().starts_with(&prefix) {
            let _ = writeln!(text, "{name} {spec:?}");
        }
    }
    for (name, spec) in &config.policies {
        // What is shared is there as soon as another asks for it.
        if name.as_str().starts_with(&prefix) && name.as_str() != "victim/shared" {
            let _ = writeln!(text, "{name} {spec:?}");
        }
    }
    for (name, spec) in &config.certificates {
        if name.as_str().starts_with(&prefix) {
            let _ = writeln!(text, "{name} {spec:?}");
        }
    }
    for problem in &translation.problems {
        if *problem.object.name.namespace == *namespace {
            let _ = writeln!(text, "{problem}");
        }
    }
    text
}

fn settings() -> Settings {
    Settings {
        own: vec!["10.0.0.9:9180".parse().unwrap()],
        ..Settings::default()
    }
}

#[test]
fn what_is_hostile_is_refused_and_costs_nobody_else() {
    let victim = victim();
    let base = translate(&cluster(&victim), &settings());
    assert_eq!(problems(&base), Vec::<String>::new());
    let untouched = share(&base, "victim");
    assert!(untouched.contains("victim.test"), "{untouched}");
    let cases = hostile::cases(&pair);
    assert!(cases.len() >= 60, "{}", cases.len());
    for (yaml, said, answered) in cases {
        let mut cluster = cluster(&victim);
        for (kind, object) in objects(&yaml) {
            cluster.apply(kind, &object);
        }
        let translation = translate(&cluster, &settings());
        let all = problems(&translation).join("\n");
        assert!(all.contains(&said), "{yaml}\nwanted: {said}\ngot: {all}");
        assert_eq!(
            answer(&translation, "evil.test", "/"),
            answered,
            "{yaml}\n{all}"
        );
        assert_eq!(share(&translation, "victim"), untouched, "{yaml}");
        assert_eq!(
            answer(&translation, "victim.test", "/x"),
            "victim/web:80",
            "{yaml}"
        );
        // Nothing of the other namespace is used, but for what it shares.
        let taken = share(&translation, "evil");
        let taken = taken.lines().filter(|line| line.starts_with("RouteSpec"));
        for route in taken {
            let used = route.replace("\"victim/shared\"", "");
            assert!(!used.contains("victim"), "{yaml}\n{route}");
        }
    }
}

#[test]
fn what_is_refused_does_not_go_to_others() {
    // Of another namespace: an older wildcard, and a younger Ingress for the same host.
    let of = |name: &str, host: &str, year: &str| {
        let main = hostile::ingress("host", host).replace("2026-", year);
        main.replace(
            "namespace: evil, name: main",
            &format!("namespace: other, name: {name}"),
        )
    };
    let others = service("other", "web", 2)
        + &of("wild", "'*.test'", "2020-")
        + &of("same", "evil.test", "2030-");
    let cases = hostile::cases(&pair);
    for (yaml, _, answered) in cases {
        let mut cluster = cluster(&(victim() + &others));
        for (kind, object) in objects(&yaml) {
            cluster.apply(kind, &object);
        }
        let translation = translate(&cluster, &settings());
        let want = match answered {
            // Of unknown age, it is younger than any.
            _ if yaml.contains("yesterday") => "other/web:80",
            "nothing" => "other/web:80",
            answered => answered,
        };
        assert_eq!(answer(&translation, "evil.test", "/"), want, "{yaml}");
    }
}

#[test]
fn a_path_that_no_request_can_have_refuses_what_was_meant() {
    let cases = [
        ("/a100%", "/a100%25/x"),
        ("'/a\\b'", "/a/b"),
        ("/a//b", "/a/b/c"),
        ("/a%2fb", "/a/b"),
        ("'/a?x=1'", "/a"),
    ];
    for (path, asked) in cases {
        let good = hostile::ingress("path", "/");
        let two = hostile::ingress("path", path);
        let rest =
            ", {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}";
        let yaml = victim() + &service("evil", "web", 2) + &two.replacen("]}", rest, 1);
        let mut cluster = cluster(&yaml);
        let translation = translate(&cluster, &settings());
        let said = problems(&translation);
        assert_eq!(
            answer(&translation, "evil.test", asked),
            "rule-refused",
            "{said:#?}"
        );
        assert_eq!(
            answer(&translation, "evil.test", "/b"),
            "evil/web:80",
            "{said:#?}"
        );
        for (kind, object) in objects(&good) {
            cluster.apply(kind, &object);
        }
        let translation = translate(&cluster, &settings());
        assert_eq!(answer(&translation, "evil.test", asked), "evil/web:80");
    }
}

#[test]
fn an_object_with_many_problems_does_not_drown_the_others() {
    let path = "{path: /a, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}";
    let paths = format!("[{}]", [path; 1000].join(", "));
    let yaml = victim() + &service("evil", "web", 2) + &hostile::ingress("paths", &paths);
    let said = problems(&translate(&cluster(&yaml), &settings()));
    assert_eq!(said.len(), 21, "{said:#?}");
    assert!(
        said.iter().any(|line| line.ends_with("and 979 more")),
        "{said:#?}"
    );
}

#[test]
fn a_canary_that_serves_nothing_is_ours_all_the_same() {
    let canary = "metadata.annotations.nginx.ingress.kubernetes.io/canary";
    let yaml = victim() + &service("evil", "web", 2) + &hostile::ingress(canary, "'true'");
    let translation = translate(&cluster(&yaml), &settings());
    let of_evil = |object: &ObjectRef| *object.name.namespace == *"evil";
    let mut statuses = translation.statuses.iter();
    let status = statuses.find(|status| of_evil(&status.object)).unwrap();
    assert!(!status.is_accepted);
}

#[test]
fn what_is_granted_may_be_used_and_what_is_taken_back_not() {
    let good = hostile::ingress("metadata.annotations.postern.dev/policies", "victim/shared");
    let mut cluster = cluster(&(victim() + &service("evil", "web", 2)));
    for (kind, object) in objects(&good) {
        cluster.apply(kind, &object);
    }
    let translation = translate(&cluster, &settings());
    assert_eq!(problems(&translation), Vec::<String>::new());
    assert_eq!(answer(&translation, "evil.test", "/"), "evil/web:80");
    let back = "apiVersion: postern.dev/v1alpha1
kind: Policy
metadata: {namespace: victim, name: shared}
spec: {kind: body-size, limit: 1MiB}
";
    for (kind, object) in objects(back) {
        cluster.apply(kind, &object);
    }
    let translation = translate(&cluster, &settings());
    assert_eq!(answer(&translation, "evil.test", "/"), "policy-missing");
}

#[test]
fn a_broken_object_keeps_its_last_good_record() {
    let (cert, key) = pair("evil.test");
    let (_, other_key) = pair("evil.test");
    let good = hostile::ingress("spec.tls", "[{hosts: [evil.test], secretName: tls}]");
    let yaml =
        victim() + &service("evil", "web", 2) + &tls_secret("evil", "tls", &cert, &key) + &good;
    let mut cluster = cluster(&yaml);
    let before = translate(&cluster, &settings());
    assert_eq!(problems(&before), Vec::<String>::new());
    let broken = [
        hostile::ingress("spec.rules", "[{host: 'a b'}]"),
        tls_secret("evil", "tls", &cert, &other_key),
    ]
    .concat();
    for (kind, object) in objects(&broken) {
        assert!(cluster.apply(kind, &object));
    }
    let after = translate(&cluster, &settings());
    assert_eq!(after.config, before.config);
    let said = problems(&after);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said[1].contains("the certificate before it is shown"),
        "{said:#?}"
    );
    assert!(said[0].contains("'a b' is no host name"), "{said:#?}");
    assert!(
        said[2].contains("does not belong to the certificate"),
        "{said:#?}"
    );
    // As good as before, and nothing is said any more.
    for (kind, object) in objects(&yaml) {
        cluster.apply(kind, &object);
    }
    assert_eq!(translate(&cluster, &settings()), before);
}
