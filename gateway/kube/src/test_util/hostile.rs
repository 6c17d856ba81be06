//! Manifests that are wrong, by mistake or on purpose.

use super::yaml::service;
use super::yaml::tls_secret;

const GOOD_PATHS: &str =
    "[{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]";

/// A sound Ingress of `evil` with one part of it replaced.
pub fn ingress(part: &str, with: &str) -> String {
    let of = |name: &str, good: &str| {
        if part == name {
            with.to_owned()
        } else {
            good.to_owned()
        }
    };
    let backend = of("backend", "{service: {name: web, port: {number: 80}}}");
    let path_type = of("pathType", "Prefix");
    let path = of("path", "/");
    let paths = of(
        "paths",
        &format!("[{{path: {path}, pathType: {path_type}, backend: {backend}}}]"),
    );
    let http = of("http", &format!("{{paths: {paths}}}"));
    let host = of("host", "evil.test");
    let rules = of("spec.rules", &format!("[{{host: {host}, http: {http}}}]"));
    let tls = of("spec.tls", "[]");
    let created = of("created", "2026-01-02T00:00:00Z");
    let spec = of(
        "spec",
        &format!("{{ingressClassName: postern, rules: {rules}, tls: {tls}}}"),
    );
    let annotations = match part.strip_prefix("metadata.annotations.") {
        Some(name) => format!("{{{name}: {with}}}"),
        None => "{}".to_owned(),
    };
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{namespace: evil, name: main, creationTimestamp: {created}, annotations: {annotations}}}, spec: {spec}}}\n---\n"
    )
}

fn policies(names: &str) -> String {
    ingress("metadata.annotations.postern.dev/policies", names)
}

fn custom(kind: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: postern.dev/v1alpha1, kind: {kind}, metadata: {{namespace: evil, name: own}}, spec: {spec}}}\n---\n"
    )
}

fn external(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: evil, name: web}}, spec: {{type: ExternalName, externalName: {name}, ports: [{{port: 80}}]}}}}\n---\n"
    )
}

fn slice(endpoints: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: evil, name: web-1, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4, ports: [{{name: http, port: 9180}}], endpoints: {endpoints}}}\n---\n"
    )
}

/// A certificate and its key in base64, for a host.
pub type Pair<'p> = &'p dyn Fn(&str) -> (String, String);

/// Manifest of the namespace `evil`, what is said about it, and what requests for `evil.test` get:
/// what a test calls an answer, the name of an upstream or the reason of a refusal. Beside it is the
/// namespace `victim`, with an older Ingress `main` for `victim.test` and the policies `guard` and
/// `shared`, of which `evil` may use the latter.
pub fn cases(pair: Pair<'_>) -> Vec<(String, String, &'static str)> {
    let mut cases = malformed();
    cases.extend(greedy(pair));
    cases.extend(guarded());
    // All of them have the Service that they may name.
    for (yaml, ..) in &mut cases {
        if !yaml.contains("kind: Service") {
            yaml.insert_str(0, &service("evil", "web", 2));
        }
    }
    cases
}

/// Objects that cannot be read. There is nothing before them that could stay; their hosts, if they
/// can be read, go to nobody else.
fn malformed() -> Vec<(String, String, &'static str)> {
    let long = format!("{}.test", "a".repeat(300));
    let cases = [
        ("spec", "~", "spec: it is missing"),
        ("spec", "text", "spec: it has to be an object, not 'text'"),
        ("spec", "[]", "spec: it has to be an object, not a list"),
        (
            "spec.rules",
            "{}",
            "spec.rules: it has to be a list, not an object",
        ),
        (
            "spec.rules",
            "[]",
            "an Ingress has rules or a default backend",
        ),
        ("spec.rules", "[~]", "spec.rules[0]: it is missing"),
        (
            "spec.rules",
            "[5]",
            "spec.rules[0]: it has to be an object, not 5",
        ),
        ("host", "5", "host: it has to be a text, not 5"),
        ("host", "'a b'", "'a b' is no host name"),
        ("host", "'*'", "leave the host out to mean every host"),
        ("host", "a.*.com", "is no host name"),
        ("host", "'evil.test:80'", "write the name without a port"),
        ("host", "1.2.3.4", "'1.2.3.4' is an address"),
        ("host", "'[::1]'", "is an address"),
        ("host", "-a.test", "is no host name"),
        ("host", "évil.test", "is no host name"),
        ("host", "a..test", "is no host name"),
        ("host", &long, "is no host name"),
        ("host", "\"evil.test\\n\"", "is no host name"),
        ("http", "[]", "http: it has to be an object"),
        ("paths", "[]", "paths: a rule has at least one path"),
        ("paths", "{}", "paths: it has to be a list"),
        ("paths", "[~]", "paths[0]: it is missing"),
        (
            "path",
            "x",
            "'x' is no path: the path does not begin with '/'",
        ),
        ("path", "/a//b", "it holds an empty segment, '.' or '..'"),
        ("path", "/a/./b", "it holds an empty segment, '.' or '..'"),
        ("path", "/../b", "the path climbs above the root"),
        ("path", "/a%2fb", "the path holds an encoded slash"),
        ("path", "/a%zz", "'/a%zz' is no path"),
        ("path", "/a100%", "write path: /a100%25, if that is meant"),
        ("path", "'/a\\b'", "write path: /a/b, if that is meant"),
        ("path", "\"/a\\0b\"", "is no path"),
        ("path", "\"/a\\nb\"", "'/a\\nb' is no path"),
        ("path", "'/a?x=1'", "a query is no part of it"),
        ("path", "'/a#b'", "is no path"),
        ("path", "{}", "path: it has to be a text"),
        ("pathType", "Regex", "'Regex' is no path type"),
        ("pathType", "~", "pathType: it is missing"),
        ("backend", "~", "backend: it is missing"),
        (
            "backend",
            "{serviceName: web, servicePort: 80}",
            "this is the form of v1beta1",
        ),
        (
            "backend",
            "{service: {name: '', port: {number: 80}}}",
            "name: it is empty",
        ),
        ("backend", "{service: {name: web}}", "port: it is missing"),
        (
            "backend",
            "{service: {name: web, port: 80}}",
            "write port: {number: 80}",
        ),
        (
            "backend",
            "{service: {name: web, port: http}}",
            "write port: {name: NAME}",
        ),
        (
            "backend",
            "{service: {name: web, port: {number: 0}}}",
            "from 1 to 65535, not 0",
        ),
        (
            "backend",
            "{service: {name: web, port: {number: 65536}}}",
            "not 65536",
        ),
        (
            "backend",
            "{service: {name: web, port: {number: '80'}}}",
            "not '80'",
        ),
        (
            "backend",
            "{service: {name: web, port: {number: 80, name: x}}}",
            "one of number and name",
        ),
        (
            "backend",
            "{service: {name: web, port: {}}}",
            "one of number and name",
        ),
        ("spec.tls", "{}", "spec.tls: it has to be a list"),
        (
            "spec.tls",
            "[{hosts: [x y]}]",
            "spec.tls[0].hosts[0]: 'x y' is no host name",
        ),
        ("created", "yesterday", "creationTimestamp: it is no time"),
        (
            "metadata.annotations.postern.dev/policies",
            "{}",
            "[postern.dev/policies]: it has to be a text",
        ),
    ];
    let cases = cases.into_iter();
    let answered = |part: &str, with: &str| match part {
        "spec" | "spec.rules" | "host" => "nothing",
        // Of the path that was most likely meant, and not of the whole host.
        "path" if with.starts_with("/a") || with.starts_with("'/a") => "no-route",
        _ => "rule-refused",
    };
    cases
        .map(|(part, with, said)| (ingress(part, with), said.to_owned(), answered(part, with)))
        .collect()
}

/// Objects that ask for what is not theirs.
fn greedy(pair: Pair<'_>) -> Vec<(String, String, &'static str)> {
    let (cert, key) = pair("victim.test");
    let (own, own_key) = pair("evil.test");
    let (_, other_key) = pair("evil.test");
    let refused = "backend-missing";
    let by_service = |name: &str| {
        ingress(
            "backend",
            &format!("{{service: {{name: {name}, port: {{number: 80}}}}}}"),
        )
    };
    let leads = |name: &str| external(name) + &ingress("", "");
    let at = |endpoints: &str| service("evil", "web", 2) + &slice(endpoints) + &ingress("", "");
    let tls = |secret: &str, host: &str| {
        ingress(
            "spec.tls",
            &format!("[{{hosts: [{host}], secretName: {secret}}}]"),
        )
    };
    let owned = "belongs to namespace 'victim', whose Ingress 'main' is older";
    let cases = [
        (
            by_service("victim/web"),
            "there is no Service 'victim/web'",
            refused,
        ),
        (
            by_service("web.victim"),
            "there is no Service 'web.victim'",
            refused,
        ),
        (
            by_service("../victim/web"),
            "there is no Service '../victim/web'",
            refused,
        ),
        (
            leads("localhost"),
            "which only this machine may reach",
            refused,
        ),
        (
            leads("127.0.0.1"),
            "which only this machine may reach",
            refused,
        ),
        (
            leads("169.254.169.254"),
            "which only this machine may reach",
            refused,
        ),
        (
            leads("metadata.google.internal"),
            "which only this machine may reach",
            refused,
        ),
        (
            leads("0.0.0.0"),
            "which only this machine may reach",
            refused,
        ),
        (leads("'::1'"), "which is no name", refused),
        (
            leads("web.victim.svc.cluster.local"),
            "outside of the cluster (allow it",
            refused,
        ),
        (
            at("[{addresses: [127.0.0.1]}]"),
            "the endpoint 127.0.0.1:9180 is left out",
            "evil/web:80",
        ),
        (
            at("[{addresses: [169.254.169.254]}]"),
            "the endpoint 169.254.169.254:9180 is left out",
            "evil/web:80",
        ),
        (
            at("[{addresses: ['::ffff:127.0.0.1']}]"),
            "is left out",
            "evil/web:80",
        ),
        (
            at("[{addresses: [10.0.0.9]}]"),
            "the endpoint 10.0.0.9:9180 is left out",
            "evil/web:80",
        ),
        (
            at("[{addresses: []}]"),
            "an endpoint has an address",
            "evil/web:80",
        ),
        (at("[~]"), "an endpoint has an address", "evil/web:80"),
        (at("[{addresses: [x]}]"), "'x' is no address", "evil/web:80"),
        (ingress("host", "victim.test"), owned, "nothing"),
        (
            ingress(
                "spec.rules",
                &format!(
                    "[{{host: victim.test, http: {{paths: {}}}}}]",
                    GOOD_PATHS.replace("path: /", "path: /login")
                ),
            ),
            owned,
            "nothing",
        ),
        (
            tls_secret("evil", "tls", &cert, &key) + &tls("tls", "victim.test"),
            owned,
            "evil/web:80",
        ),
        (
            tls_secret("evil", "tls", &cert, &key) + &tls("tls", "evil.test"),
            "the certificate is not for the host 'evil.test'",
            "evil/web:80",
        ),
        (
            tls("victim/tls", "evil.test"),
            "there is no Secret 'victim/tls'",
            "evil/web:80",
        ),
        (
            tls_secret("evil", "tls", "eA==", &own_key) + &tls("tls", "evil.test"),
            "it holds no PEM certificate",
            "evil/web:80",
        ),
        (
            tls_secret("evil", "tls", &own, &other_key) + &tls("tls", "evil.test"),
            "does not belong to the certificate",
            "evil/web:80",
        ),
        (
            tls_secret("evil", "tls", &own, "'%'") + &tls("tls", "evil.test"),
            "it is not encoded in base64",
            "evil/web:80",
        ),
        (
            ingress("path", "/api/*")
                .replace("pathType: Prefix", "pathType: ImplementationSpecific"),
            "write path: /api, pathType: Prefix",
            "no-route",
        ),
    ];
    let cases = cases.into_iter();
    cases
        .map(|(yaml, said, answered)| (yaml, said.to_owned(), answered))
        .collect()
}

/// Objects behind which something is no longer, or not yet, guarded.
fn guarded() -> Vec<(String, String, &'static str)> {
    let refused = "policy-missing";
    let nginx = |name: &str, value: &str| {
        ingress(
            &format!("metadata.annotations.nginx.ingress.kubernetes.io/{name}"),
            value,
        )
    };
    let own = |kind: &str, spec: &str| custom(kind, spec) + &policies("own");
    let digest = "a".repeat(64);
    let plugin = |rest: &str| {
        own(
            "Plugin",
            &format!("{{source: 'oci://r.test/p@sha256:{digest}', {rest}}}"),
        )
    };
    let cases = [
        (
            policies("victim/guard"),
            "there is no policy 'victim/guard' that this namespace may use",
            refused,
        ),
        (
            policies("victim/nothing"),
            "there is no policy 'victim/nothing' that this namespace may use",
            refused,
        ),
        (
            policies("gone"),
            "there is no Policy and no Plugin 'evil/gone'",
            refused,
        ),
        (
            policies("'victim/shared, gone'"),
            "there is no Policy and no Plugin 'evil/gone'",
            refused,
        ),
        (policies("'own,,own'"), "'' is no name of a policy", refused),
        (
            policies("\"own\\n} location / {\""),
            "is no name of a policy",
            refused,
        ),
        (
            policies("../victim/guard"),
            "is no name of a policy",
            refused,
        ),
        (own("Policy", "{kind: magic}"), "magic", refused),
        (
            own("Policy", "{kind: body-size, limit: 1MiB, size: 2}"),
            "Policy evil/own spec.size: unknown key 'size'",
            refused,
        ),
        (
            own("Policy", "{kind: body-size, limit: much}"),
            "Policy evil/own spec.limit: 'much' is no size",
            refused,
        ),
        (own("Policy", "{kind: body-size}"), "limit", refused),
        (
            own("Policy", "{kind: basic-auth, users-file: /etc/passwd}"),
            "an object cannot name files of the gateway",
            refused,
        ),
        (
            own("Policy", "{kind: basic-auth, users-secret: victim/users}"),
            "it has to name a Secret of this namespace",
            refused,
        ),
        (
            own("Policy", "{kind: basic-auth, users-secret: [users]}"),
            "it has to be the name of a Secret, not a list",
            refused,
        ),
        (
            own("Policy", "{kind: basic-auth, users-secret: users}"),
            "there is no Secret 'users'",
            refused,
        ),
        (
            own("Policy", "{kind: forward-auth, upstream: 'web.victim:80'}"),
            "is no Service with a port",
            refused,
        ),
        (
            own(
                "Policy",
                "{kind: forward-auth, upstream: 'gone:80', path: /}",
            ),
            "there is no Service 'gone'",
            refused,
        ),
        (
            own(
                "Policy",
                "{kind: headers, request-headers: {set: {a: \"x\\r\\nhost: victim.test\"}}}",
            ),
            "control character",
            refused,
        ),
        (
            own("Plugin", "{source: 'oci://r.test/p:latest'}"),
            "@sha256:",
            refused,
        ),
        (
            own("Plugin", "{source: /etc/passwd}"),
            "is no source",
            refused,
        ),
        (
            own("Plugin", "{source: 'file:///etc/passwd'}"),
            "plugins may not take this file",
            refused,
        ),
        (
            own("Plugin", "{config-map: {name: victim/map, key: a}}"),
            "it has to name a ConfigMap of this namespace",
            refused,
        ),
        (
            own("Plugin", "{config-map: {name: map, key: a}}"),
            "there is no ConfigMap 'map'",
            refused,
        ),
        (
            plugin("grants: {dns: true}"),
            "concern the whole gateway",
            refused,
        ),
        (
            plugin("grants: {upstreams: ['victim/web:80']}"),
            "is no Service with a port",
            refused,
        ),
        (
            plugin("grants: {secrets: {a: {env: HOME}}}"),
            "it has to name a Secret",
            refused,
        ),
        (plugin("limits: {memory: 1PiB}"), "memory", refused),
        (
            plugin("limits: {memory: 65MiB}"),
            "64 MiB is the most that a plugin of this namespace may have",
            refused,
        ),
        (plugin("limits: {body: 9MiB}"), "8 MiB is the most", refused),
        (
            plugin("limits: {instances: 33}"),
            "32 instances is the most",
            refused,
        ),
        (
            plugin("grants: {shared-state: 17MiB}"),
            "spec.grants.shared-state: 16 MiB is the most",
            refused,
        ),
        (
            plugin("fetch: {ca-file: /etc/passwd}"),
            "an object cannot name files",
            refused,
        ),
        (
            nginx("auth-url", "http://auth.test/"),
            "keeps requests out and is not understood",
            refused,
        ),
        (
            nginx("whitelist-source-range", "10.0.0.0/8 everybody"),
            "keeps requests out",
            refused,
        ),
        (
            nginx("denylist-source-range", "\"1.2.3.4\\n} allow all\""),
            "keeps requests out",
            refused,
        ),
        (
            nginx("auth-tls-secret", "evil/ca"),
            "keeps requests out",
            refused,
        ),
        (nginx("satisfy", "any"), "keeps requests out", refused),
        (
            nginx(
                "configuration-snippet",
                "\"}} location / { proxy_pass http://victim; }\"",
            ),
            "keeps requests out",
            refused,
        ),
        (nginx("canary", "'true'"), "serves nothing", "nothing"),
        (
            nginx("proxy-body-size", "8mm"),
            "has no effect",
            "evil/web:80",
        ),
        (
            nginx("x", &"y".repeat(1 << 20)),
            "has no effect",
            "evil/web:80",
        ),
        (
            ingress("metadata.annotations.postern.dev/policys", "own"),
            "did you mean postern.dev/policies?",
            "evil/web:80",
        ),
    ];
    let cases = cases.into_iter();
    cases
        .map(|(yaml, said, answered)| (yaml, said.to_owned(), answered))
        .collect()
}
