//! Where requests of a Service go, and whom they are told to.

use postern_core::config::UpstreamSpec;

use super::*;

fn ingress(annotations: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{namespace: shop, name: main, annotations: {{{annotations}}}}}
spec:
  ingressClassName: postern
  rules: [{{host: a.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]
---
"
    )
}

/// The Service `shop/web` with a pod, of which it says what is given.
fn web(annotations: &str, protocol: &str) -> String {
    service("shop", "web", 1)
        .replace(
            "name: web}",
            &format!("name: web, annotations: {{{annotations}}}}}"),
        )
        .replace("port: 80,", &format!("port: 80, {protocol}"))
}

fn spec<'t>(translation: &'t Translation, name: &str) -> Option<&'t UpstreamSpec> {
    let mut upstreams = translation.config.upstreams.iter();
    let found = upstreams.find(|(known, _)| known.as_str() == name);
    found.map(|(_, spec)| &**spec)
}

#[test]
fn the_service_the_ingress_and_the_class_say_where_requests_go_in_that_order() {
    let class = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: postern}
spec:
  controller: postern.dev/ingress-controller
  parameters: {apiGroup: postern.dev, kind: ClassDefaults, scope: Namespace, namespace: ops, name: all}
---
apiVersion: postern.dev/v1alpha1
kind: ClassDefaults
metadata: {namespace: ops, name: all}
spec: {endpoints: MODE}
---
";
    let (pods, cluster_ip) = ("10.244.0.1", "10.96.0.1");
    let cases = [
        // Class, Ingress, Service; the upstream, and its endpoint.
        ("pods", "", "", "shop/web:80", pods),
        ("service", "", "", "shop/web:80:service", cluster_ip),
        ("service", "pods", "", "shop/web:80", pods),
        ("pods", "service", "", "shop/web:80:service", cluster_ip),
        ("pods", "service", "pods", "shop/web:80", pods),
        ("pods", "", "service", "shop/web:80", cluster_ip),
        ("service", "pods", "service", "shop/web:80", cluster_ip),
    ];
    for (of_class, of_ingress, of_service, name, endpoint) in cases {
        let said = |mode: &str| match mode {
            "" => String::new(),
            mode => format!("postern.dev/endpoints: {mode}"),
        };
        let yaml = [
            class.replace("MODE", of_class),
            web(&said(of_service), ""),
            ingress(&said(of_ingress)),
        ];
        let translation = translate(&cluster(&yaml.concat()), &Settings::default());
        assert_eq!(problems(&translation), [""; 0]);
        let case = format!("{of_class} {of_ingress} {of_service}");
        assert_eq!(answer(&translation, "a.test", "/"), name, "{case}");
        let spec = spec(&translation, name).unwrap();
        assert_eq!(spec.endpoints[0].host, endpoint, "{case}");
    }
}

#[test]
fn two_ingresses_may_want_the_pods_and_the_cluster_ip_of_one_service() {
    let other = ingress("postern.dev/endpoints: service")
        .replace("name: main", "name: other")
        .replace("a.test", "b.test");
    let yaml = [CLASS, &web("", ""), &ingress(""), &other].concat();
    let translation = translate(&cluster(&yaml), &Settings::default());
    assert_eq!(answer(&translation, "a.test", "/"), "shop/web:80");
    assert_eq!(answer(&translation, "b.test", "/"), "shop/web:80:service");
}

#[test]
fn a_mode_that_is_none_is_told_and_has_no_effect() {
    let yaml = [
        CLASS,
        &web("", ""),
        &ingress("postern.dev/endpoints: nodes"),
    ]
    .concat();
    let translation = translate(&cluster(&yaml), &Settings::default());
    let said = "W Ingress shop/main metadata.annotations[postern.dev/endpoints]: 'nodes' is \
                neither pods nor service";
    assert_eq!(problems(&translation), [said]);
    assert_eq!(answer(&translation, "a.test", "/"), "shop/web:80");
}

#[test]
fn a_backend_that_speaks_tls_is_verified_or_said_not_to_be() {
    let (cert, _) = isolation::pair("ca.test");
    let held = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{namespace: shop, name: ca}}\ndata: {{ca.crt: {cert}, other: {cert}, none: AAAA}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{namespace: evil, name: ca}}\ndata: {{ca.crt: {cert}}}\n---\n"
    );
    let ca = |text: &str| format!("postern.dev/tls-ca: {text}");
    // What the Service says; the file of the authority and the name that is asked for, or what is
    // wrong.
    let cases = [
        (
            ca("secret/ca"),
            Ok((Some("secret:shop/ca/ca.crt"), "web.shop.svc")),
        ),
        (
            ca("secret/ca/other"),
            Ok((Some("secret:shop/ca/other"), "web.shop.svc")),
        ),
        (ca("system"), Ok((None, "web.shop.svc"))),
        (
            ca("system, postern.dev/tls-server-name: API.test"),
            Ok((None, "api.test")),
        ),
        (
            String::new(),
            Err("does not say whose certificates to trust"),
        ),
        (ca("secret/ca/none"), Err("that can be trusted")),
        (ca("secret/ca/gone"), Err("has no key 'gone'")),
        (ca("configmap/ca"), Err("there is no ConfigMap 'ca'")),
        (ca("secret/evil/ca/ca.crt"), Err("names no certificates")),
        (ca("file/etc/ca.pem"), Err("names no certificates")),
        (ca("'secret/../ca'"), Err("names no certificates")),
        (
            ca("secret/ca, postern.dev/tls-verify: \"off\""),
            Err("needs nobody to trust"),
        ),
        (
            "postern.dev/tls-verify: \"no\"".to_owned(),
            Err("'no' is neither on nor off"),
        ),
        (
            "postern.dev/tls-server-name: '*.test'".to_owned(),
            Err("'*.test' is no host name"),
        ),
    ];
    for (annotations, want) in cases {
        let web = web(&annotations, "appProtocol: https,");
        let yaml = [CLASS, &held, &web, &ingress("")].concat();
        let translation = translate(&cluster(&yaml), &Settings::default());
        let problems = problems(&translation);
        match want {
            Ok((file, name)) => {
                assert_eq!(problems, [""; 0], "{annotations}");
                let tls = spec(&translation, "shop/web:80").unwrap().tls.as_ref();
                let tls = tls.unwrap();
                assert!(!tls.is_insecure);
                assert_eq!(tls.server_name.as_deref(), Some(name), "{annotations}");
                assert_eq!(tls.ca_file.as_deref(), file.map(AsRef::as_ref));
                let held = file.map(|file| {
                    translation
                        .config
                        .held
                        .contains_key(std::path::Path::new(file))
                });
                assert_ne!(held, Some(false), "{annotations}");
            }
            Err(message) => {
                assert!(
                    problems.concat().contains(message),
                    "{annotations} {problems:?}"
                );
                assert_eq!(answer(&translation, "a.test", "/"), "backend-missing");
            }
        }
    }
}

#[test]
fn who_gives_up_verification_says_so() {
    let web = web("postern.dev/tls-verify: \"off\"", "appProtocol: https,");
    let yaml = [CLASS, &web, &ingress("")].concat();
    let translation = translate(&cluster(&yaml), &Settings::default());
    assert_eq!(problems(&translation), [""; 0]);
    let spec = spec(&translation, "shop/web:80").unwrap();
    assert!(spec.tls.as_ref().unwrap().is_insecure);
}

#[test]
fn a_name_outside_is_verified_as_that_name() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {type: ExternalName, externalName: api.example.com, ports: [{port: 80, appProtocol: https}]}
---
";
    let mut settings = Settings::default();
    let allowed = postern_core::hostname::Hostname::parse("*.example.com").unwrap();
    settings.spec.external_names = vec![allowed];
    let yaml = [CLASS, yaml, &ingress("")].concat();
    let translation = translate(&cluster(&yaml), &settings);
    assert_eq!(problems(&translation), [""; 0]);
    let tls = spec(&translation, "shop/web:80").unwrap().tls.as_ref();
    let tls = tls.unwrap();
    // The endpoint's own name, signed for by whom this machine trusts.
    assert_eq!((&tls.server_name, &tls.ca_file), (&None, &None));
    assert!(!tls.is_insecure);
}
