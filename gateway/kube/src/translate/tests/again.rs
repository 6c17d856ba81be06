//! A translation that goes on from the one before it makes what one from nothing makes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::test_util;
use crate::test_util::Size;

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 4] = ["w", "x", "y", "z"];

/// One change of a cluster; `None` takes the object away.
type Change = (Kind, &'static str, &'static str, Option<Value>);

fn metadata(namespace: &str, name: &str) -> Value {
    json!({ "namespace": namespace, "name": name })
}

fn any_name() -> impl Strategy<Value = (&'static str, &'static str)> {
    let namespace = prop::sample::select(&NAMESPACES[..]);
    (namespace, prop::sample::select(&NAMES[..]))
}

fn any_backend() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        Just(json!({ "number": 80 })),
        Just(json!({ "name": "http" })),
        Just(json!({ "number": 81 }))
    ];
    (prop::sample::select(&NAMES[..2]), port)
        .prop_map(|(name, port)| json!({ "service": { "name": name, "port": port } }))
}

fn any_ingress() -> impl Strategy<Value = Value> {
    let path = prop::sample::select(vec!["/", "/p", "/p/q"]);
    let path = (path, any_backend()).prop_map(
        |(path, backend)| json!({ "path": path, "pathType": "Prefix", "backend": backend }),
    );
    let hosts = vec!["1.test", "2.test", "3.test", "*.test", ""];
    let host = prop::sample::select(hosts.clone());
    let rule = (host, prop::collection::vec(path, 0..3)).prop_map(|(host, paths)| {
        let mut rule = json!({ "host": host });
        if !paths.is_empty() {
            rule["http"] = json!({ "paths": paths });
        }
        rule
    });
    let tls = prop::sample::select(hosts[..3].to_vec());
    let tls = prop::option::of((tls, prop::sample::select(&NAMES[..2])));
    let class = prop_oneof![9 => Just("postern"), 1 => Just("other")];
    let policies = prop_oneof![
        4 => Just(""),
        1 => Just("w"),
        1 => Just("x"),
        1 => Just("a/w, x"),
    ];
    let default = prop::option::weighted(0.2, any_backend());
    let rules = prop::collection::vec(rule, 0..3);
    (rules, tls, class, policies, default, 0..4_u8, any::<bool>()).prop_map(
        |(rules, tls, class, policies, default, second, is_canary)| {
            let mut ingress = json!({
                "metadata": { "creationTimestamp": format!("2026-01-01T00:00:0{second}Z") },
                "spec": { "ingressClassName": class, "rules": rules },
            });
            if let Some((host, secret)) = tls {
                ingress["spec"]["tls"] = json!([{ "hosts": [host], "secretName": secret }]);
            }
            if let Some(backend) = default {
                ingress["spec"]["defaultBackend"] = backend;
            }
            let mut annotations = json!({});
            if !policies.is_empty() {
                annotations["postern.dev/policies"] = policies.into();
            }
            if is_canary && second == 0 {
                annotations["nginx.ingress.kubernetes.io/canary"] = "true".into();
            }
            if is_canary && second == 1 {
                annotations["postern.dev/endpoints"] = "service".into();
            }
            ingress["metadata"]["annotations"] = annotations;
            ingress
        },
    )
}

fn any_service() -> impl Strategy<Value = Value> {
    let spec = prop_oneof![
        Just(json!({ "clusterIP": "10.96.0.1", "ports": [{ "name": "http", "port": 80 }] })),
        Just(json!({ "clusterIP": "10.96.0.1", "ports": [
            { "name": "http", "port": 81 }, { "name": "other", "port": 80 },
        ]})),
        Just(json!({ "clusterIP": "10.96.0.1", "ports": [
            { "name": "http", "port": 80, "appProtocol": "https" },
        ]})),
        Just(json!({ "type": "ExternalName", "externalName": "localhost",
            "ports": [{ "name": "http", "port": 80 }] })),
    ];
    let annotations = prop::sample::select(vec![
        json!({}),
        json!({ "postern.dev/tls-ca": "secret/w" }),
        json!({ "postern.dev/tls-ca": "secret/x/auth" }),
        json!({ "postern.dev/endpoints": "service" }),
    ]);
    (spec, annotations).prop_map(
        |(spec, annotations)| json!({ "metadata": { "annotations": annotations }, "spec": spec }),
    )
}

fn any_slice() -> impl Strategy<Value = Value> {
    let octets = prop::collection::vec(1..5_u8, 0..3);
    let service = prop::sample::select(&NAMES[..2]);
    (service, octets, any::<bool>()).prop_map(|(service, octets, is_local)| {
        let mut addresses: Vec<String> = octets.iter().map(|o| format!("10.0.0.{o}")).collect();
        addresses.extend(is_local.then(|| "127.0.0.1".to_owned()));
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({ "addresses": [address] }))
            .collect();
        json!({
            "metadata": { "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": endpoints,
        })
    })
}

fn any_policy() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "kind": "body-size", "limit": "1MiB" })),
        Just(json!({ "kind": "body-size", "limit": "1MiB", "namespaces": ["b"] })),
        Just(json!({ "kind": "basic-auth", "users-secret": "z", "realm": "r" })),
        Just(json!({ "kind": "forward-auth", "upstream": "w:80", "path": "/" })),
        Just(json!({ "kind": "nothing" })),
    ]
    .prop_map(|spec| json!({ "spec": spec }))
}

fn any_class() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just("postern.dev/ingress-controller"),
        1 => Just("other.test/controller"),
    ]
    .prop_map(|controller| json!({ "spec": { "controller": controller } }))
}

fn any_secret() -> impl Strategy<Value = Value> {
    let good = |host: &str| {
        let (cert, key) = isolation::pair(host);
        json!({ "type": "kubernetes.io/tls",
            "data": { "tls.crt": cert, "tls.key": key, "ca.crt": cert } })
    };
    let secrets = vec![
        good("1.test"),
        good("*.test"),
        json!({ "type": "kubernetes.io/tls", "data": { "tls.crt": "AA==", "tls.key": "AA==" } }),
        json!({ "type": "Opaque", "data": { "auth": "dTpw" } }),
    ];
    prop::sample::select(secrets)
}

fn any_change() -> impl Strategy<Value = Change> {
    let object = prop_oneof![
        8 => any_ingress().prop_map(|v| (Kind::Ingress, v)),
        4 => any_service().prop_map(|v| (Kind::Service, v)),
        4 => any_slice().prop_map(|v| (Kind::EndpointSlice, v)),
        2 => any_secret().prop_map(|v| (Kind::Secret, v)),
        2 => any_policy().prop_map(|v| (Kind::Policy, v)),
        1 => any_class().prop_map(|v| (Kind::IngressClass, v)),
    ];
    (object, any_name(), 0..5_u8).prop_map(|((kind, mut value), (namespace, name), gone)| {
        // Services are few, so that they are named.
        let name = match kind {
            Kind::Service if name == "y" => "w",
            Kind::Service if name == "z" => "x",
            Kind::IngressClass => "postern",
            _ => name,
        };
        let mut all = metadata(namespace, name);
        if let (Some(all), Value::Object(own)) = (all.as_object_mut(), value["metadata"].take()) {
            all.extend(own);
        }
        value["metadata"] = all;
        (kind, namespace, name, (gone > 0).then_some(value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_came_before_makes_no_difference(
        changes in prop::collection::vec((any_change(), any::<bool>()), 1..60),
        shares_hosts in any::<bool>(),
    ) {
        let mut settings = Settings::default();
        settings.spec.shares_hosts = shares_hosts;
        let mut cluster = cluster(CLASS);
        for namespace in NAMESPACES {
            for name in ["w", "x"] {
                for (kind, object) in objects(&service(namespace, name, 9)) {
                    cluster.apply(kind, &object);
                }
            }
        }
        let mut translator = Translator::default();
        for ((kind, namespace, name, object), is_translated) in changes {
            match object {
                Some(object) => cluster.apply(kind, &object),
                None => {
                    let namespace = if kind.is_namespaced() { namespace } else { "" };
                    cluster.delete(kind, &ObjectName::new(namespace, name))
                }
            };
            if is_translated {
                let want = translate(&cluster, &settings);
                prop_assert_eq!(translator.translate(&cluster, &settings), want);
            }
        }
        let want = translate(&cluster, &settings);
        prop_assert_eq!(translator.translate(&cluster, &settings), want);
        // Nothing is kept of what is no more.
        cluster = Cluster::default();
        prop_assert_eq!(translator.translate(&cluster, &settings), translate(&cluster, &settings));
        prop_assert!(translator.is_empty());
    }
}

#[test]
fn a_change_of_one_object_leaves_all_else_the_very_thing_it_was() {
    let size = Size {
        namespaces: 3,
        ingresses: 50,
        services: 50,
        slices: 100,
    };
    let mut cluster = Cluster::default();
    for (kind, object) in test_util::objects(1, size) {
        cluster.apply(kind, &object);
    }
    let mut translator = Translator::default();
    let settings = Settings::default();
    let mut before = translator.translate(&cluster, &settings);
    let policy = json!({
        "metadata": { "namespace": "team-0", "name": "limit" },
        "spec": { "kind": "body-size", "limit": "1MiB" },
    });
    let other = (2..).map(|seed| test_util::ingress(seed, 7, size));
    let other = other
        .into_iter()
        .find(|other| *other != test_util::ingress(1, 7, size));
    let changes = [
        ("an Ingress", Kind::Ingress, other.unwrap(), 1, 0),
        (
            "its pods",
            Kind::EndpointSlice,
            test_util::slice(2, 9, size),
            0,
            1,
        ),
        // Everything is looked at, and found to be as it was.
        ("a policy", Kind::Policy, policy, 0, 0),
    ];
    for (what, kind, object, routes, upstreams) in changes {
        assert!(cluster.apply(kind, &object), "{what}");
        let now = translator.translate(&cluster, &settings);
        let new = |same: usize| 50 - same;
        let pairs = now.config.routes.iter().zip(&before.config.routes);
        let same = pairs.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(new(same), routes, "routes of {what}");
        let pairs = now
            .config
            .upstreams
            .values()
            .zip(before.config.upstreams.values());
        let same = pairs.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(new(same), upstreams, "upstreams of {what}");
        before = now;
    }
}
