//! What is to be got from issuers, and what is left to others.

use super::isolation::pair;
use super::*;

const SETTINGS: &str = "house";

fn ingress(namespace: &str, name: &str, age: u8, annotation: &str, tls: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: {namespace}
  name: {name}
  creationTimestamp: 2026-01-0{age}T00:00:00Z
  annotations: {{{annotation}}}
spec:
  ingressClassName: postern
  rules:
  - host: {name}.{namespace}.test
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
  tls: {tls}
---
"
    )
}

/// As in a manifest of a cluster.
fn secret(namespace: &str, name: &str, labels: &str, host: &str) -> String {
    let (cert, key) = pair(host);
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}
type: kubernetes.io/tls
data: {{tls.crt: {cert}, tls.key: {key}}}
---
"
    )
}

fn translated(yaml: &str, default: Option<&str>) -> Translation {
    let mut settings = Settings::default();
    settings.spec.issuer = default.map(|name| IssuerName::parse(name).unwrap());
    let mut text = CLASS.to_owned();
    for namespace in ["a", "b"] {
        text.push_str(&service(namespace, "web", 1));
    }
    translate(&cluster(&(text + yaml)), &settings)
}

/// `secret: issuer hosts`, one each.
fn wanted(translation: &Translation) -> Vec<String> {
    let managed = translation.managed.iter();
    managed
        .map(|(secret, wanted)| {
            let hosts: Vec<String> = wanted.hosts.iter().map(ToString::to_string).collect();
            format!("{secret}: {} {}", wanted.issuer, hosts.join(" "))
        })
        .collect()
}

#[test]
fn an_ingress_gets_what_its_issuer_or_that_of_the_gateway_gives() {
    let named = "postern.dev/issuer: named";
    let none = "postern.dev/issuer: ''";
    let tls = "[{hosts: [x.test, w.x.test], secretName: x}]";
    let cases = [
        (named, None, vec!["a/x: named w.x.test x.test"]),
        (named, Some(SETTINGS), vec!["a/x: named w.x.test x.test"]),
        ("", Some(SETTINGS), vec!["a/x: house w.x.test x.test"]),
        ("", None, vec![]),
        (none, Some(SETTINGS), vec![]),
    ];
    for (annotation, default, want) in cases {
        let translation = translated(&ingress("a", "i", 1, annotation, tls), default);
        assert_eq!(wanted(&translation), want, "{annotation} {default:?}");
        // Without an issuer, somebody has forgotten the Secret.
        let problems = problems(&translation);
        assert_eq!(problems.is_empty(), !want.is_empty(), "{problems:?}");
    }
}

#[test]
fn what_somebody_else_provides_is_left_alone() {
    let object = ingress("a", "i", 1, "", "[{hosts: [x.test], secretName: x}]");
    let ours = "app.kubernetes.io/managed-by: postern";
    let cert_manager = "controller.cert-manager.io/fao: 'true'";
    let cases = [
        (secret("a", "x", "", "x.test"), false, true),
        (secret("a", "x", cert_manager, "x.test"), false, true),
        // Also one that is not good for the host: it is not ours to mend.
        (secret("a", "x", "", "other.test"), false, false),
        (secret("a", "x", ours, "x.test"), true, true),
        (secret("a", "x", ours, "other.test"), true, false),
        (secret("b", "x", "", "x.test"), true, false),
    ];
    for (secret, is_wanted, is_shown) in cases {
        let translation = translated(&(object.clone() + &secret), Some(SETTINGS));
        let want = if is_wanted {
            vec!["a/x: house x.test"]
        } else {
            vec![]
        };
        assert_eq!(wanted(&translation), want, "{secret}");
        let mut shown = translation.config.certificates.keys();
        let shown = shown.any(|name| name.as_str() == "a/x");
        assert_eq!(shown, is_shown, "{secret}");
    }
}

#[test]
fn nobody_gets_a_certificate_for_the_host_of_another_namespace() {
    let yaml = ingress("a", "first", 1, "", "[{hosts: [x.test], secretName: x}]")
        + &ingress(
            "b",
            "second",
            2,
            "",
            "[{hosts: [x.test, y.test], secretName: y}]",
        )
        + &ingress("b", "third", 3, "", "[{hosts: [x.test], secretName: z}]");
    let translation = translated(&yaml, Some(SETTINGS));
    assert_eq!(
        wanted(&translation),
        ["a/x: house x.test", "b/y: house y.test"]
    );
}

#[test]
fn a_secret_that_several_name_is_for_the_hosts_of_all_of_them() {
    let yaml = ingress("a", "first", 1, "", "[{hosts: [x.test], secretName: x}]")
        + &ingress(
            "a",
            "second",
            2,
            "",
            "[{hosts: [y.test, x.test], secretName: x}]",
        )
        + &ingress(
            "a",
            "third",
            3,
            "postern.dev/issuer: other",
            "[{hosts: [z.test], secretName: x}]",
        );
    let translation = translated(&yaml, Some(SETTINGS));
    assert_eq!(wanted(&translation), ["a/x: house x.test y.test"]);
    let conflict = "E Ingress a/third spec.tls: Ingress 'a/first' wants the Secret 'x' from the issuer 'house' (name another Secret)";
    assert_eq!(problems(&translation), [conflict]);
}

#[test]
fn what_no_authority_certifies_is_said_and_not_ordered() {
    let many: Vec<String> = (0..101).map(|host| format!("h{host}.test")).collect();
    let many = format!("[{{hosts: [{}], secretName: x}}]", many.join(", "));
    let cases = [
        ("", "[{hosts: [single], secretName: x}]", "two labels"),
        ("", many.as_str(), "100 hosts at most"),
        (
            "postern.dev/issuer: 'no name'",
            "[{hosts: [x.test], secretName: x}]",
            "is no issuer",
        ),
    ];
    for (annotation, tls, said) in cases {
        let translation = translated(&ingress("a", "i", 1, annotation, tls), Some(SETTINGS));
        assert_eq!(wanted(&translation), [""; 0]);
        let problems = problems(&translation);
        assert!(
            problems.iter().any(|text| text.contains(said)),
            "{problems:?}"
        );
    }
}
