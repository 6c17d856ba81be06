//! Objects as JSON, and where the API server keeps them.

use std::net::Ipv4Addr;

use serde_json::Value;
use serde_json::json;

/// A collection of a namespace.
pub fn collection(namespace: &str, plural: &str) -> String {
    let group = match plural {
        "ingresses" => "apis/networking.k8s.io/v1",
        "endpointslices" => "apis/discovery.k8s.io/v1",
        "plugins" | "policies" => "apis/postern.dev/v1alpha1",
        _ => "api/v1",
    };
    format!("/{group}/namespaces/{namespace}/{plural}")
}

/// One object of a namespace.
pub fn object(namespace: &str, plural: &str, name: &str) -> String {
    format!("{}/{name}", collection(namespace, plural))
}

pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Service with one port, `http`, of the number 80.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    })
}

/// The slice of a Service with these pods, all ready, at port 8080.
pub fn slice(service: &str, pods: &[Ipv4Addr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints(pods),
    })
}

pub fn endpoints(pods: &[Ipv4Addr]) -> Value {
    let ready =
        |pod: &Ipv4Addr| json!({ "addresses": [pod.to_string()], "conditions": { "ready": true } });
    pods.iter().map(ready).collect()
}

/// An Ingress of our class with one rule a host, each with paths of `(pathType, path, service)`.
pub fn ingress(name: &str, rules: &[(&str, &[(&str, &str, &str)])]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(host, paths)| {
            let paths: Vec<Value> = paths
                .iter()
                .map(|(kind, path, service)| {
                    json!({ "pathType": kind, "path": path, "backend": backend(service) })
                })
                .collect();
            let mut rule = json!({ "http": { "paths": paths } });
            if !host.is_empty() {
                rule["host"] = json!(host);
            }
            rule
        })
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "name": name },
        "spec": { "ingressClassName": "postern", "rules": rules },
    })
}

/// `service` by the number of its port, `service:NAME` by its name.
pub fn backend(service: &str) -> Value {
    match service.split_once(':') {
        Some((service, port)) => {
            json!({ "service": { "name": service, "port": { "name": port } } })
        }
        None => json!({ "service": { "name": service, "port": { "number": 80 } } }),
    }
}
