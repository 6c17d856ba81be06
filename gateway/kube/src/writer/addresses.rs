//! Where Ingresses are reached.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::Client;
use kube::api::ListParams;
use serde_json::Value;
use serde_json::json;

use crate::record::Address;

/// How long the addresses of nodes are taken as they were.
pub(super) const NODES_AGE: Duration = Duration::from_secs(10);
/// What the manifests call our pods.
const PODS: &str = "app.kubernetes.io/name=postern";
/// Most pods that are looked at.
const MAX_PODS: u32 = 5_000;

/// The addresses of the nodes on which our pods are ready, as the pods say them: that needs no right
/// to read nodes.
pub(super) async fn of_nodes(
    client: &Client,
    namespace: &str,
) -> Result<Vec<Address>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(PODS).limit(MAX_PODS);
    let pods = pods.list(&params).await?;
    let mut addresses: Vec<Address> = pods.into_iter().filter_map(|pod| of_pod(&pod)).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn of_pod(pod: &Pod) -> Option<Address> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let is_ready =
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let is_ending = pod.metadata.deletion_timestamp.is_some();
    let ip = status.host_ip.as_ref()?.parse().ok()?;
    (is_ready && !is_ending).then_some(Address::Ip(ip))
}

/// The status of an Ingress that is reached there.
pub(super) fn status(addresses: &[Address]) -> Value {
    let entries: Vec<Value> = addresses
        .iter()
        .map(|address| match address {
            Address::Ip(ip) => json!({ "ip": ip.to_string() }),
            Address::Hostname(name) => json!({ "hostname": &**name }),
        })
        .collect();
    match entries.is_empty() {
        // What is not applied is no longer ours, and goes.
        true => json!({ "loadBalancer": {} }),
        false => json!({ "loadBalancer": { "ingress": entries } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_while_its_pod_is_ready() {
        let pod = |ready: &str, deleted: bool| -> Pod {
            let mut metadata = json!({ "name": "a" });
            if deleted {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(json!({
                "metadata": metadata,
                "status": {
                    "hostIP": "192.0.2.7",
                    "conditions": [{ "type": "Ready", "status": ready }],
                },
            }))
            .unwrap()
        };
        let address = Some(Address::Ip("192.0.2.7".parse().unwrap()));
        assert_eq!(of_pod(&pod("True", false)), address);
        assert_eq!(of_pod(&pod("False", false)), None);
        assert_eq!(of_pod(&pod("True", true)), None);
        assert_eq!(of_pod(&Pod::default()), None);
    }

    #[test]
    fn an_ingress_without_addresses_has_an_empty_status() {
        let addresses = [
            Address::Ip("::1".parse().unwrap()),
            Address::Hostname("lb.test".into()),
        ];
        let want =
            json!({ "loadBalancer": { "ingress": [{ "ip": "::1" }, { "hostname": "lb.test" }] } });
        assert_eq!(status(&addresses), want);
        assert_eq!(status(&[]), json!({ "loadBalancer": {} }));
    }
}
