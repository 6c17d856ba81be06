//! What is said about manifests, and where.

use super::*;

fn checked(text: &str) -> Checked {
    let file = ConfigText {
        path: "app.yaml".into(),
        text: text.to_owned(),
    };
    check(&[file], &Settings::default())
}

#[test]
fn a_problem_stands_at_the_line_of_its_field() {
    let text = "\
# Of a chart.
replicas: 3
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
spec:
  rules:
  - host: a.test:80
    http:
      paths:
      - path: /api
        pathType: prefix
        backend:
          serviceName: web
          servicePort: 80
---
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: old}
spec: {backend: {serviceName: web, servicePort: http}}
---
apiVersion: v1
kind: Service
metadata: {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: good, annotations: {postern.dev/policys: x}}
spec: {defaultBackend: {service: {name: elsewhere, port: {number: 80}}}}
";
    let checked = checked(text);
    let got: Vec<_> = checked
        .problems
        .iter()
        .map(|problem| {
            let severity = if problem.is_error() { "E" } else { "W" };
            let line = problem.origin.line;
            (severity, line, problem.message.as_str())
        })
        .collect();
    let at = "Ingress default/web: spec.rules[0]";
    let old = "this is the form of v1beta1, which has not been served since Kubernetes 1.22";
    let want = [
        ("E", 14, format!("{at}.host: 'a.test:80' is no host name: ")),
        ("E", 18, format!("{at}.http.paths[0].pathType: 'prefix' is no path type")),
        ("E", 19, format!("{at}.http.paths[0].backend: {old}")),
        ("E", 23, "Ingress: apiVersion: 'extensions/v1beta1' is not served any more".to_owned()),
        ("E", 26, format!("Ingress default/old: spec.backend: {old}")),
        ("E", 30, "Service: metadata.name: it is missing, or is no name".to_owned()),
        ("W", 34, "Ingress default/good: metadata.annotations[postern.dev/policys]: there is no such annotation".to_owned()),
        ("W", 35, "Ingress default/good: spec.defaultBackend: there is no Service 'elsewhere' in this namespace".to_owned()),
    ];
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for (got, want) in got.iter().zip(&want) {
        assert_eq!((got.0, got.1), (want.0, want.1), "{got:?}");
        assert!(got.2.starts_with(&want.2), "{got:?}\nwanted {want:?}");
    }
    let helps: Vec<_> = checked
        .problems
        .iter()
        .filter_map(|p| p.help.as_deref())
        .collect();
    assert!(
        helps.contains(&"write backend: {service: {name: 'web', port: {number: 80}}}"),
        "{helps:#?}"
    );
}

#[test]
fn the_manifests_of_the_readme_are_good() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let checked = checked(block);
        assert!(
            !checked.problems.iter().any(Problem::is_error),
            "{:#?}",
            checked.problems
        );
        assert_eq!(checked.translation.config.policies.len(), 1, "{block}");
    }
}
