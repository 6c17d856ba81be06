//! The order in which objects come makes no difference, and nothing that comes panics.

use proptest::prelude::*;

use super::*;
use crate::object::KINDS;

const CONTENDED: &str = "
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {namespace: b, name: x, creationTimestamp: 2026-01-01T00:00:05Z}, spec: {ingressClassName: postern, rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {namespace: a, name: y, creationTimestamp: 2026-01-01T00:00:05Z}, spec: {ingressClassName: postern, rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {namespace: c, name: z, creationTimestamp: 2026-01-01T00:00:01Z}, spec: {ingressClassName: postern, rules: [{host: b.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {namespace: a, name: w, creationTimestamp: 2026-01-01T00:00:09Z}, spec: {ingressClassName: postern, rules: [{host: b.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {namespace: a, name: v, creationTimestamp: 2026-01-01T00:00:02Z}, spec: {ingressClassName: postern, defaultBackend: {service: {name: gone, port: {number: 80}}}}}
---
";

fn contended() -> Vec<(Kind, Value)> {
    let services = ["a", "b", "c"].map(|namespace| service(namespace, "web", 1));
    objects(&format!("{CLASS}{CONTENDED}{}", services.concat()))
}

fn translated(objects: &[(Kind, Value)]) -> Translation {
    let mut cluster = Cluster::default();
    for (kind, object) in objects {
        cluster.apply(*kind, object);
    }
    translate(&cluster, &Settings::default())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop_oneof![
            Just("postern"),
            Just("/"),
            Just("a.test"),
            Just("Prefix"),
            Just("TLS"),
            Just("10.0.0.1")
        ]
        .prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("metadata"),
        Just("namespace"),
        Just("name"),
        Just("spec"),
        Just("rules"),
        Just("host"),
        Just("http"),
        Just("paths"),
        Just("path"),
        Just("pathType"),
        Just("backend"),
        Just("service"),
        Just("port"),
        Just("number"),
        Just("ports"),
        Just("endpoints"),
        Just("addresses"),
        Just("conditions"),
        Just("addressType"),
        Just("tls"),
        Just("hosts"),
        Just("secretName"),
        Just("data"),
        Just("tls.crt"),
        Just("kind"),
        Just("annotations"),
        Just("source"),
        Just("config"),
        Just("grants"),
        Just("limits"),
        Just("upstream"),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| {
                let pairs = pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(pairs.collect())
            }),
        ]
    })
}

/// Replaces one value in a sound object.
fn bend(at: &mut Value, path: &[usize], new: Value) {
    let Some((step, rest)) = path.split_first() else {
        *at = new;
        return;
    };
    match at {
        Value::Object(table) if !table.is_empty() => {
            let index = step % table.len();
            if let Some(next) = table.values_mut().nth(index) {
                bend(next, rest, new);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = step % items.len();
            bend(&mut items[index], rest, new);
        }
        leaf => *leaf = new,
    }
}

#[test]
fn what_is_contended_for_goes_to_the_oldest_and_then_by_name() {
    let translation = translated(&contended());
    assert_eq!(
        answer(&translation, "a.test", "/"),
        "a/web:80",
        "equally old: by namespace"
    );
    assert_eq!(
        answer(&translation, "b.test", "/"),
        "c/web:80",
        "the oldest"
    );
    let lost: Vec<_> = translation
        .problems
        .iter()
        .filter(|problem| problem.reason == Reason::Conflict)
        .map(|problem| problem.object.to_string())
        .collect();
    assert_eq!(lost, ["Ingress a/w", "Ingress b/x"]);
}

proptest! {
    #[test]
    fn the_order_of_events_makes_no_difference(
        objects in Just(contended()).prop_shuffle(),
        again in any::<prop::sample::Index>(),
    ) {
        let want = translated(&contended());
        prop_assert_eq!(&translated(&objects), &want);
        // Sent twice, and one taken away and brought back.
        let mut cluster = Cluster::default();
        for (kind, object) in &objects {
            cluster.apply(*kind, object);
            prop_assert!(!cluster.apply(*kind, object));
        }
        let (kind, object) = again.get(&objects);
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        let name = ObjectName::new(text("namespace"), text("name"));
        prop_assert!(cluster.delete(*kind, &name));
        cluster.apply(*kind, object);
        prop_assert_eq!(&translate(&cluster, &Settings::default()), &want);
        for kind in KINDS {
            let of_kind = objects.iter().filter(|(of, _)| *of == kind);
            prop_assert!(!cluster.replace(kind, of_kind.map(|(_, object)| object)));
        }
        prop_assert_eq!(&translate(&cluster, &Settings::default()), &want);
    }

    #[test]
    fn nothing_that_comes_panics(kind in prop::sample::select(&KINDS[..]), object in any_json()) {
        let mut object = object;
        if let Value::Object(object) = &mut object {
            object.insert("metadata".to_owned(), serde_json::json!({"name": "x", "namespace": "a"}));
        }
        let mut cluster = cluster(CLASS);
        cluster.apply(kind, &object);
        let _ = translate(&cluster, &Settings { is_offline: true, ..Settings::default() });
    }

    #[test]
    fn a_bent_object_costs_nobody_else(
        index in any::<prop::sample::Index>(),
        path in prop::collection::vec(any::<usize>(), 1..8),
        new in any_json(),
    ) {
        let objects = contended();
        let index = index.index(objects.len());
        let mut cluster = Cluster::default();
        for (kind, object) in &objects {
            cluster.apply(*kind, object);
        }
        let (kind, object) = &objects[index];
        let mut bent = object.clone();
        bend(&mut bent, &path, new);
        // Another name would be another object.
        prop_assume!(bent.get("metadata") == object.get("metadata"));
        cluster.apply(*kind, &bent);
        let translation = translate(&cluster, &Settings::default());
        // c/z is older than all, and only its own objects and the class are beyond its namespace.
        let namespace = object["metadata"]["namespace"].as_str();
        if !matches!(namespace, None | Some("c")) {
            prop_assert_eq!(answer(&translation, "b.test", "/"), "c/web:80");
        }
    }
}
