//! Hosts and paths, case by case, from the Ingress API and its conformance suite.

use postern_core::config::kubernetes::EndpointMode;

use super::*;

fn ingress(namespace: &str, name: &str, created: u32, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: {namespace}
  name: {name}
  creationTimestamp: 2026-01-01T00:00:{created:02}Z
spec:
  ingressClassName: postern
  {spec}
---
"
    )
}

/// `paths`: lines of type, path and service.
fn rule(host: &str, paths: &str) -> String {
    let mut text = match host {
        "" => "- http:\n    paths:\n".to_owned(),
        host => format!("- host: '{host}'\n  http:\n    paths:\n"),
    };
    for line in paths.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let [kind, path, service] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let path = if path == "-" { "" } else { path };
        text.push_str(&format!(
            "    - {{pathType: {kind}, path: '{path}', backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n"
        ));
    }
    text
}

fn backend(service: &str) -> String {
    format!("defaultBackend: {{service: {{name: {service}, port: {{name: http}}}}}}\n")
}

#[test]
fn a_request_goes_where_the_specification_says() {
    let mut yaml = CLASS.to_owned();
    for (octet, name) in (1..).zip(["a", "b", "c", "d", "wild", "any", "all", "own"]) {
        yaml.push_str(&service("shop", name, octet));
    }
    let rules = [
        rule("foo.bar.com", "Prefix / a"),
        rule("*.foo.com", "Prefix / wild"),
        rule("exact.test", "Exact /foo a"),
        rule(
            "prefix.test",
            "Prefix /foo a\nPrefix /aaa/bbb b\nPrefix /aaa c",
        ),
        rule("mixed.test", "Prefix /foo a\nExact /foo b"),
        rule("slash.test", "Prefix /aaa/bbb/ a\nExact /foo/ b"),
        rule("both.test", "Prefix /foo a\nPrefix /foo/ b"),
        rule(
            "long.test",
            "Prefix / a\nPrefix /a b\nPrefix /a/b c\nExact /a/b/c d",
        ),
        rule(
            "special.test",
            "ImplementationSpecific /foo a\nImplementationSpecific - b",
        ),
        rule("odd.test", "Prefix /a%20b a\nExact /%7Euser b\nPrefix /ü c"),
        rule("sub.wild.test", "Prefix /only a"),
        rule("*.wild.test", "Prefix / wild"),
        rule("", "Prefix /any any"),
    ]
    .concat();
    yaml.push_str(&ingress("shop", "main", 1, &format!("rules:\n{rules}")));
    let own = format!(
        "{}rules:\n{}",
        backend("own"),
        rule("own.test", "Prefix /x a")
    );
    yaml.push_str(&ingress("shop", "own", 2, &own));
    yaml.push_str(&ingress("shop", "all", 3, &backend("all")));
    let no_http = format!("{}rules:\n- host: bare.test\n", backend("own"));
    yaml.push_str(&ingress("shop", "bare", 4, &no_http));
    let translation = translate(&cluster(&yaml), &Settings::default());
    let twin = "this path never answers: another of this object accepts the same requests";
    assert_eq!(
        problems(&translation),
        [format!(
            "W Ingress shop/main spec.rules[6].http.paths[0]: {twin}"
        )]
    );

    let cases = [
        // Hosts: exact, then one label below a wildcard, then every host.
        ("foo.bar.com", "/", "a", "the exact host"),
        ("FOO.BAR.COM:8443", "/", "a", "without case and port"),
        ("bar.foo.com", "/", "wild", "one label below the wildcard"),
        ("baz.bar.foo.com", "/", "all", "not two labels"),
        ("foo.com", "/", "all", "not none"),
        ("subdomain.bar.com", "/", "all", "the default for all hosts"),
        ("unknown.test", "/any/x", "any", "a rule without host"),
        (
            "foo.bar.com",
            "/any",
            "a",
            "which a host of its own does not fall to",
        ),
        (
            "10.1.2.3",
            "/any",
            "any",
            "an address is a host that nobody names",
        ),
        (
            "sub.wild.test",
            "/only",
            "a",
            "the exact host below a wildcard",
        ),
        (
            "sub.wild.test",
            "/other",
            "all",
            "does not fall to the wildcard",
        ),
        ("x.wild.test", "/other", "wild", "which has its own"),
        // Exact.
        ("exact.test", "/foo", "a", "equal"),
        ("exact.test", "/foo/", "all", "not with a slash behind it"),
        ("exact.test", "/FOO", "all", "case matters"),
        ("exact.test", "/bar", "all", "another"),
        ("exact.test", "/foo?x=/", "a", "the query is no part of it"),
        (
            "exact.test",
            "/./foo",
            "a",
            "as it is read by everybody else",
        ),
        // Prefix, by elements.
        ("prefix.test", "/foo", "a", "the element itself"),
        ("prefix.test", "/foo/", "a", "with a slash"),
        ("prefix.test", "/foo/x/y", "a", "below it"),
        ("prefix.test", "/foobar", "all", "no element"),
        ("prefix.test", "/FOO", "all", "case matters"),
        ("prefix.test", "/aaa/bbb", "b", "the longer"),
        ("prefix.test", "/aaa/bbb/ccc", "b", "below the longer"),
        ("prefix.test", "/aaa/ccc", "c", "the shorter"),
        ("prefix.test", "/aaaccc", "all", "no element"),
        ("prefix.test", "/", "all", "nothing matches"),
        ("prefix.test", "/x/../foo", "a", "dots are resolved first"),
        ("prefix.test", "/%66oo", "a", "and escapes"),
        // Both.
        (
            "mixed.test",
            "/foo",
            "b",
            "exact wins, though it stands behind",
        ),
        ("mixed.test", "/foo/x", "a", "where it does not match"),
        (
            "slash.test",
            "/aaa/bbb",
            "a",
            "a slash at the end of a prefix says nothing",
        ),
        ("slash.test", "/aaa/bbb/", "a", "with it"),
        ("slash.test", "/aaa/bbbx", "all", "but elements do"),
        ("slash.test", "/foo", "all", "of an exact path it does"),
        ("slash.test", "/foo/", "b", "equal"),
        (
            "both.test",
            "/foo",
            "b",
            "of two that accept the same, the longer",
        ),
        ("both.test", "/foo/x", "b", "also below"),
        ("long.test", "/a/b/c", "d", "exact"),
        ("long.test", "/a/b/c/d", "c", "the longest prefix"),
        ("long.test", "/a/x", "b", "the next"),
        ("long.test", "/x", "a", "the shortest"),
        // What is left to the implementation is a prefix.
        ("special.test", "/foo/x", "a", "a prefix"),
        ("special.test", "/foox", "b", "by elements"),
        ("special.test", "/", "b", "an empty one is all"),
        // Spelling.
        ("odd.test", "/a%20b/c", "a", "an escape that has to be"),
        ("odd.test", "/~user", "b", "one that need not be"),
        ("odd.test", "/%C3%BC", "c", "no ASCII"),
        ("odd.test", "/%c3%bc/x", "c", "in small digits"),
        // Defaults.
        ("own.test", "/x", "a", "its path"),
        (
            "own.test",
            "/y",
            "own",
            "its own default before that of all",
        ),
        ("bare.test", "/y", "own", "a rule without paths"),
    ];
    assert!(cases.len() >= 40);
    for (host, path, want, why) in cases {
        let want = format!("shop/{want}:80");
        assert_eq!(
            answer(&translation, host, path),
            want,
            "{host} {path}: {why}"
        );
    }
}

#[test]
fn without_a_default_what_no_path_accepts_is_not_found() {
    let mut yaml = CLASS.to_owned();
    yaml.push_str(&service("shop", "a", 1));
    let rules = [rule("a.test", "Prefix /a a"), rule("", "Prefix / a")].concat();
    yaml.push_str(&ingress("shop", "main", 1, &format!("rules:\n{rules}")));
    let translation = translate(&cluster(&yaml), &Settings::default());
    assert_eq!(answer(&translation, "a.test", "/b"), "no-route");
    assert_eq!(answer(&translation, "b.test", "/b"), "shop/a:80");
}

#[test]
fn a_backend_that_is_not_there_keeps_its_requests() {
    let mut yaml = CLASS.to_owned();
    yaml.push_str(&service("shop", "a", 1));
    let paths = "Prefix / a\nPrefix /gone gone\nPrefix /api/* a";
    let mut rules = rule(
        "a.test",
        &paths.replace("Prefix /api/*", "ImplementationSpecific /api/*"),
    );
    rules.push_str(
        "    - {pathType: Prefix, path: /port, backend: {service: {name: a, port: {name: grpc}}}}
    - {pathType: Prefix, path: /bucket, backend: {resource: {apiGroup: x, kind: Bucket, name: b}}}\n",
    );
    yaml.push_str(&ingress("shop", "main", 1, &format!("rules:\n{rules}")));
    let translation = translate(&cluster(&yaml), &Settings::default());
    for (path, want) in [
        ("/x", "shop/a:80"),
        ("/gone/x", "backend-missing"),
        ("/port", "backend-missing"),
        ("/bucket", "backend-missing"),
        ("/api", "rule-refused"),
        ("/api/x", "rule-refused"),
        ("/apix", "shop/a:80"),
    ] {
        assert_eq!(answer(&translation, "a.test", path), want, "{path}");
    }
    let at = "E Ingress shop/main spec.rules[0].http.paths";
    assert_eq!(
        problems(&translation),
        [
            format!("{at}[1].backend: there is no Service 'gone' in this namespace"),
            format!(
                "{at}[2].path: '/api/*' is how paths are written for another controller; requests below it get 503 (write path: /api, pathType: Prefix)"
            ),
            format!("{at}[3].backend: the Service 'a' has no port 'grpc' (it has 80 (http))"),
            format!("{at}[4].backend: a backend is a Service; no other resource can be one"),
        ]
    );
    assert!(!translation.statuses[0].is_accepted);
}

#[test]
fn the_class_says_whose_an_ingress_is() {
    let class = |name: &str, controller: &str, is_default: bool| {
        format!(
            "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {name}, annotations: {{ingressclass.kubernetes.io/is-default-class: '{is_default}'}}}}
spec: {{controller: {controller}}}
---
"
        )
    };
    let ingress = |class: &str, old: &str| {
        let class = match class {
            "" => String::new(),
            class => format!("ingressClassName: {class}, "),
        };
        let old = match old {
            "" => String::new(),
            old => format!(", annotations: {{kubernetes.io/ingress.class: {old}}}"),
        };
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{namespace: shop, name: main{old}}}, spec: {{{class}defaultBackend: {{service: {{name: a, port: {{number: 80}}}}}}}}}}\n---\n"
        )
    };
    let ours = "postern.dev/ingress-controller";
    let classes = [
        class("postern", ours, true),
        class("internal", ours, false),
        class("nginx", "k8s.io/ingress-nginx", false),
        class("alb", "ingress.k8s.aws/alb", false),
        class("traefik", "traefik.io/ingress-controller", false),
    ]
    .concat();
    let base = format!("{classes}{}", service("shop", "a", 1));
    let any = Settings::default();
    let mut some = Settings::default();
    some.spec.classes = vec!["internal".to_owned()];
    let mut classless = Settings::default();
    classless.spec.serves_classless = true;
    let offline = Settings {
        is_offline: true,
        ..Settings::default()
    };
    let cases = [
        ("postern", "", &any, true, "its class"),
        ("internal", "", &any, true, "another of our classes"),
        ("nginx", "", &any, false, "a neighbor's"),
        ("alb", "", &any, false, "a neighbor's"),
        ("traefik", "", &any, false, "a neighbor's"),
        ("nobody", "", &any, false, "no such class"),
        ("", "postern", &any, true, "the old annotation"),
        ("", "nginx", &any, false, "of a neighbor"),
        ("nginx", "postern", &any, false, "the field counts"),
        ("postern", "nginx", &any, true, "the field counts"),
        (
            "",
            "",
            &any,
            false,
            "none, which the API server would have filled in",
        ),
        ("", "", &classless, true, "none, if that is served"),
        (
            "",
            "",
            &offline,
            true,
            "none, where no API server has filled it in",
        ),
        ("postern", "", &some, false, "not one that is listed"),
        ("internal", "", &some, true, "one that is"),
        ("", "internal", &some, true, "by the annotation"),
    ];
    for (field, old, settings, want, why) in cases {
        let yaml = format!("{base}{}", ingress(field, old));
        let translation = translate(&cluster(&yaml), settings);
        assert_eq!(
            !translation.statuses.is_empty(),
            want,
            "{field:?} {old:?}: {why}"
        );
        assert_eq!(
            !translation.config.routes.is_empty(),
            want,
            "{field:?} {old:?}: {why}"
        );
    }
}

#[test]
fn requests_go_to_pods_or_to_the_service() {
    let mut yaml = CLASS.to_owned();
    for (octet, name) in (1..).zip(["a", "b", "c", "d"]) {
        yaml.push_str(&service("shop", name, octet));
    }
    let annotate = |yaml: &str, name: &str, mode: &str| {
        let bare = format!("kind: Service\nmetadata: {{namespace: shop, name: {name}}}");
        let with = format!(
            "kind: Service\nmetadata: {{namespace: shop, name: {name}, annotations: {{postern.dev/endpoints: {mode}}}}}"
        );
        assert!(yaml.contains(&bare), "{yaml}");
        yaml.replace(&bare, &with)
    };
    let yaml = annotate(&yaml, "b", "service");
    let yaml = annotate(&yaml, "c", "pods");
    let mut yaml = annotate(&yaml, "d", "nodes");
    let rules = rule(
        "a.test",
        "Prefix /a a\nPrefix /b b\nPrefix /c c\nPrefix /d d",
    );
    yaml.push_str(&ingress("shop", "main", 1, &format!("rules:\n{rules}")));
    let cluster = cluster(&yaml);
    let mut settings = Settings::default();
    let mut ends = |mode| {
        settings.spec.endpoints = mode;
        let translation = translate(&cluster, &settings);
        let said = "W Service shop/d metadata.annotations[postern.dev/endpoints]: 'nodes' is neither pods nor service";
        assert_eq!(problems(&translation), [said]);
        let upstreams = translation.config.upstreams.values();
        upstreams
            .map(|upstream| upstream.endpoints[0].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ends(EndpointMode::Pods),
        [
            "10.244.0.1:8080",
            "10.96.0.2:80",
            "10.244.0.3:8080",
            "10.244.0.4:8080"
        ]
    );
    assert_eq!(
        ends(EndpointMode::Service),
        [
            "10.96.0.1:80",
            "10.96.0.2:80",
            "10.244.0.3:8080",
            "10.96.0.4:80"
        ]
    );
}

#[test]
fn endpoints_are_those_that_are_ready() {
    let slice = |name: &str, port: &str, endpoints: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: a}}}}, addressType: IPv4, ports: [{{name: {port}, port: 8080}}], endpoints: [{endpoints}]}}\n---\n"
        )
    };
    let endpoint = |octet: u8, conditions: &str, zone: &str| {
        let hints = match zone {
            "" => String::new(),
            zone => format!(", hints: {{forZones: [{{name: {zone}}}]}}"),
        };
        format!(
            "{{addresses: [10.244.0.{octet}, 10.244.9.9], conditions: {{{conditions}}}{hints}}}"
        )
    };
    let ready = |octet| endpoint(octet, "ready: true", "");
    let ending = "ready: false, serving: true, terminating: true";
    let in_zone = |octet, zone| endpoint(octet, "", zone);
    let join = |endpoints: &[String]| endpoints.join(", ");
    let cases = [
        (slice("s", "http", &ready(1)), "1", "ready"),
        (
            slice("s", "http", &endpoint(1, "", "")),
            "1",
            "not said is ready",
        ),
        (
            slice(
                "s",
                "http",
                &join(&[ready(1), endpoint(2, "ready: false", "")]),
            ),
            "1",
            "the others not",
        ),
        (
            slice("s", "http", &join(&[ready(1), endpoint(2, ending, "")])),
            "1",
            "nor those that end",
        ),
        (
            slice("s", "http", &endpoint(2, ending, "")),
            "2",
            "unless there is nothing else",
        ),
        (
            slice(
                "s",
                "http",
                &endpoint(2, "ready: false, serving: false, terminating: true", ""),
            ),
            "",
            "that serves",
        ),
        (slice("s", "http", ""), "", "none"),
        (slice("s", "other", &ready(1)), "", "another port"),
        (
            slice("s", "http", &ready(1)) + &slice("t", "http", &join(&[ready(1), ready(2)])),
            "1 2",
            "each once",
        ),
        (
            slice(
                "s",
                "http",
                &join(&[in_zone(1, "here"), in_zone(2, "there")]),
            ),
            "1",
            "the near ones",
        ),
        (
            slice(
                "s",
                "http",
                &join(&[in_zone(1, "far"), in_zone(2, "there")]),
            ),
            "1 2",
            "if there are any",
        ),
        (
            slice("s", "http", &join(&[in_zone(1, "here"), ready(2)])),
            "1 2",
            "and all say where they belong",
        ),
    ];
    let base = format!(
        "{CLASS}{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: a}}, spec: {{clusterIP: None, ports: [{{name: http, port: 80}}]}}}}\n---\n{}",
        ingress("shop", "main", 1, &backend("a"))
    );
    let settings = Settings {
        zone: Some("here".into()),
        ..Settings::default()
    };
    for (slices, want, why) in cases {
        let translation = translate(&cluster(&format!("{base}{slices}")), &settings);
        let upstream = translation.config.upstreams.values().next().unwrap();
        let got: Vec<_> = upstream
            .endpoints
            .iter()
            .map(|endpoint| endpoint.to_string())
            .collect();
        let want: Vec<_> = want
            .split_whitespace()
            .map(|octet| format!("10.244.0.{octet}:8080"))
            .collect();
        assert_eq!(got, want, "{why}");
        assert_eq!(problems(&translation), Vec::<String>::new(), "{why}");
    }
}
