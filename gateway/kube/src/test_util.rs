//! For tests, here and elsewhere: clusters of any size, the same for the same seed, and objects that
//! are wrong.

pub mod hostile;
pub mod yaml;

use serde_json::Value;
use serde_json::json;

use crate::object::Kind;

/// How many objects of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub namespaces: usize,
    /// Each with one host and one to three paths, for a Service of its number.
    pub ingresses: usize,
    pub services: usize,
    /// Spread over the Services, three endpoints each.
    pub slices: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            namespaces: 100,
            ingresses: 10_000,
            services: 10_000,
            slices: 20_000,
        }
    }
}

/// The objects of a cluster, without certificates. The class comes first.
pub fn objects(seed: u64, size: Size) -> impl Iterator<Item = (Kind, Value)> {
    let class = json!({
        "apiVersion": Kind::IngressClass.api_version(),
        "kind": "IngressClass",
        "metadata": { "name": "postern" },
        "spec": { "controller": "postern.dev/ingress-controller" },
    });
    let services = (0..size.services).map(move |index| (Kind::Service, service(index, size)));
    let slices = (0..size.slices).map(move |index| (Kind::EndpointSlice, slice(seed, index, size)));
    let ingresses =
        (0..size.ingresses).map(move |index| (Kind::Ingress, ingress(seed, index, size)));
    std::iter::once((Kind::IngressClass, class))
        .chain(services)
        .chain(slices)
        .chain(ingresses)
}

fn namespace(index: usize, size: Size) -> String {
    format!("team-{}", index % size.namespaces.max(1))
}

fn metadata(name: String, index: usize, size: Size) -> Value {
    // One a second, from 2026 on.
    let created = jiff::Timestamp::from_second(1_767_225_600 + index as i64).unwrap_or_default();
    json!({
        "namespace": namespace(index, size),
        "name": name,
        "creationTimestamp": created.to_string(),
    })
}

/// The Service of a number.
pub fn service(index: usize, size: Size) -> Value {
    let [.., high, low] = (index as u32).to_be_bytes();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(format!("app-{index}"), index, size),
        "spec": {
            "clusterIP": format!("10.96.{high}.{low}"),
            "ports": [
                { "name": "http", "port": 80, "targetPort": 8080 },
                { "name": "metrics", "port": 9090 },
            ],
        },
    })
}

/// An EndpointSlice; others with another seed.
pub fn slice(seed: u64, index: usize, size: Size) -> Value {
    let of = index % size.services.max(1);
    let endpoints: Vec<Value> = (0..3)
        .map(|number| {
            let [.., a, b, c] = (mix(seed ^ (index * 3 + number) as u64) as u32).to_be_bytes();
            json!({
                "addresses": [format!("10.{}.{b}.{c}", 128 + a / 2)],
                "conditions": { "ready": true, "serving": true, "terminating": false },
            })
        })
        .collect();
    let mut metadata = metadata(format!("app-{of}-{index}"), of, size);
    metadata["labels"] = json!({ "kubernetes.io/service-name": format!("app-{of}") });
    json!({
        "apiVersion": Kind::EndpointSlice.api_version(),
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "metrics", "port": 9090 }],
        "endpoints": endpoints,
    })
}

/// An Ingress; with other paths with another seed.
pub fn ingress(seed: u64, index: usize, size: Size) -> Value {
    let of = index % size.services.max(1);
    let count = 1 + mix(seed ^ index as u64) % 3;
    let paths: Vec<Value> = ["/", "/api", "/static/files"]
        .into_iter()
        .take(usize::try_from(count).unwrap_or(1))
        .map(|path| {
            json!({
                "path": path,
                "pathType": "Prefix",
                "backend": { "service": { "name": format!("app-{of}"), "port": { "number": 80 } } },
            })
        })
        .collect();
    let mut metadata = metadata(format!("app-{index}"), index, size);
    metadata["namespace"] = namespace(of, size).into();
    json!({
        "apiVersion": Kind::Ingress.api_version(),
        "kind": "Ingress",
        "metadata": metadata,
        "spec": {
            "ingressClassName": "postern",
            "rules": [{
                "host": format!("app-{index}.example.test"),
                "http": { "paths": paths },
            }],
        },
    })
}

/// Numbers that look like chance (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
