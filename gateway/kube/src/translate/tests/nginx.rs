//! Annotations of ingress-nginx: those that are a policy here, those that are told, and those behind
//! which nothing is served.

use postern_core::config::PolicySpec;
use postern_core::config::route::RewriteSpec;
use postern_core::config::upstream::UpstreamProtocol;
use serde_json::json;

use super::*;

const TLS: &str = "tls: [{hosts: [a.test], secretName: tls}]";

fn translated(annotations: &[(&str, &str)], more: &str) -> Translation {
    let annotations = annotations.iter();
    let annotations: String = annotations
        .map(|(name, value)| format!("    nginx.ingress.kubernetes.io/{name}: {}\n", json!(value)))
        .collect();
    let ingress = format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: main
  annotations:
{annotations}spec:
  ingressClassName: postern
  rules:
  - host: a.test
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
      - {{path: /api, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
  {more}
"
    );
    let yaml = [CLASS, &service("shop", "web", 1), &ingress].concat();
    translate(&cluster(&yaml), &Settings::default())
}

#[test]
fn what_a_policy_can_say_becomes_that_policy() {
    let cases: [(&[(&str, &str)], &str, &[&str]); 15] = [
        (
            &[("force-ssl-redirect", "true")],
            "",
            &["redirect https 308"],
        ),
        (&[("ssl-redirect", "true")], TLS, &["redirect https 308"]),
        // No certificate, no redirect.
        (&[("ssl-redirect", "true")], "", &[]),
        (
            &[("ssl-redirect", "false"), ("force-ssl-redirect", "false")],
            TLS,
            &[],
        ),
        (&[("proxy-body-size", "8m")], "", &["body-size 8388608"]),
        (&[("proxy-body-size", "10K")], "", &["body-size 10240"]),
        (&[("proxy-body-size", "2048")], "", &["body-size 2048"]),
        (&[("proxy-body-size", "0")], "", &[]),
        (
            &[("whitelist-source-range", "10.0.0.0/8, 192.0.2.1")],
            "",
            &["ip-access 10.0.0.0/8,192.0.2.1/32 -"],
        ),
        (
            &[
                ("allowlist-source-range", "10.0.0.0/8"),
                ("denylist-source-range", "10.1.0.0/16"),
            ],
            "",
            &["ip-access 10.0.0.0/8 - 10.1.0.0/16"],
        ),
        (
            &[("denylist-source-range", "::/0")],
            "",
            &["ip-access - ::/0"],
        ),
        (&[("enable-cors", "true")], "", &["cors * false 86400"]),
        (
            &[
                ("enable-cors", "true"),
                ("cors-allow-origin", "https://x.test, https://*.y.test"),
                ("cors-max-age", "60"),
            ],
            "",
            &["cors https://x.test,https://*.y.test true 60"],
        ),
        (
            &[
                ("enable-cors", "true"),
                ("cors-allow-origin", "https://x.test"),
                ("cors-allow-credentials", "false"),
            ],
            "",
            &["cors https://x.test false 86400"],
        ),
        (
            &[("force-ssl-redirect", "true"), ("proxy-body-size", "1k")],
            "",
            &["redirect https 308", "body-size 1024"],
        ),
    ];
    for (annotations, more, want) in cases {
        let translation = translated(annotations, more);
        let problems = problems(&translation);
        let problems = problems.iter().filter(|said| !said.contains("Secret"));
        assert_eq!(problems.collect::<Vec<_>>(), [""; 0], "{annotations:?}");
        assert_eq!(answer(&translation, "a.test", "/"), "shop/web:80");
        let rule = &translation.config.routes[0].rules[0];
        let said: Vec<String> = rule
            .policies
            .iter()
            .map(|name| {
                assert!(name.as_str().starts_with("shop/main:"), "{name}");
                say(&translation.config.policies[name])
            })
            .collect();
        assert_eq!(said, want, "{annotations:?}");
    }
}

fn say(spec: &PolicySpec) -> String {
    fn list<T: ToString>(items: &[T]) -> String {
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        items.join(",")
    }
    match spec {
        PolicySpec::Redirect(spec) => {
            format!("redirect {} {}", spec.scheme.unwrap(), spec.status.as_u16())
        }
        PolicySpec::BodySize(spec) => format!("body-size {}", spec.limit),
        PolicySpec::IpAccess(spec) => {
            let text = format!("ip-access {} - {}", list(&spec.allow), list(&spec.deny));
            text.replace("  ", " ").trim_end().to_owned()
        }
        PolicySpec::Cors(spec) => format!(
            "cors {} {} {}",
            list(&spec.origins),
            spec.credentials,
            spec.max_age.as_secs()
        ),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_is_not_understood_is_told_and_where_it_guards_nothing_is_served() {
    let (told, guarded) = ("shop/web:80", "policy-missing");
    let cases: [(&[(&str, &str)], &str); 14] = [
        (&[("proxy-body-size", "8mm")], told),
        (&[("proxy-body-size", "99999999999999999999g")], told),
        (&[("rewrite-target", "/$1")], told),
        (&[("rewrite-target", "/x"), ("use-regex", "true")], told),
        (&[("rewrite-target", "/a/../b")], told),
        (&[("backend-protocol", "FCGI")], told),
        (
            &[("enable-cors", "true"), ("cors-allow-origin", "x.test")],
            told,
        ),
        (&[("permanent-redirect", "https://x.test/")], told),
        (&[("whitelist-source-range", "")], guarded),
        (&[("whitelist-source-range", "10.0.0.0/8,")], told),
        (&[("whitelist-source-range", "10.0.0.0/33")], guarded),
        (&[("whitelist-source-range", "10.0.0.0/8, $x")], guarded),
        (
            &[
                ("whitelist-source-range", "10.0.0.0/8"),
                ("allowlist-source-range", "::/0"),
            ],
            guarded,
        ),
        (
            &[
                ("whitelist-source-range", "10.0.0.0/8"),
                ("denylist-source-range", "all"),
            ],
            guarded,
        ),
    ];
    for (annotations, answered) in cases {
        let translation = translated(annotations, "");
        assert_eq!(
            answer(&translation, "a.test", "/"),
            answered,
            "{annotations:?}"
        );
        let is_fine = annotations == [("whitelist-source-range", "10.0.0.0/8,")];
        assert_eq!(
            problems(&translation).is_empty(),
            is_fine,
            "{annotations:?}"
        );
    }
}

#[test]
fn a_rewrite_without_a_pattern_makes_every_path_its_target() {
    let translation = translated(&[("rewrite-target", "/")], "");
    assert_eq!(problems(&translation), [""; 0]);
    let rules = &translation.config.routes[0].rules;
    let rewrites: Vec<_> = rules.iter().map(|rule| rule.rewrite.clone()).collect();
    // The longer path first; what is its own target stays.
    let target = Some(RewriteSpec::Path("/".to_owned()));
    assert_eq!(rewrites, [target, None]);
}

#[test]
fn the_protocol_of_a_backend_may_be_said_where_it_is_named() {
    let translation = translated(&[("backend-protocol", "GRPC")], "");
    assert_eq!(problems(&translation), [""; 0]);
    assert_eq!(answer(&translation, "a.test", "/"), "shop/web:80:h2c");
    let spec = translation.config.upstreams.values().next().unwrap();
    assert_eq!(spec.protocol, UpstreamProtocol::Http2);

    let translation = translated(&[("backend-protocol", "https")], "");
    let said = problems(&translation).concat();
    assert!(
        said.contains("does not say whose certificates to trust"),
        "{said}"
    );
    assert_eq!(answer(&translation, "a.test", "/"), "backend-missing");
}
