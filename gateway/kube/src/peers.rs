//! Where the gateways of a cluster are: the endpoints of a headless Service.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::Client;
use kube::api::ListParams;
use tokio::time::timeout;

/// How long looking them up may take.
const CALL: Duration = Duration::from_secs(3);
/// Most slices that are looked at; each holds a hundred endpoints.
const MAX_SLICES: u32 = 100;

/// Why they are not known.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    #[error(transparent)]
    Refused(#[from] kube::Error),
    #[error("no answer within {CALL:?}")]
    Late,
}

/// The addresses of a Service that are ready, sorted.
pub async fn ready(
    client: &Client,
    namespace: &str,
    service: &str,
) -> Result<Vec<SocketAddr>, PeersError> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default()
        .labels(&format!("kubernetes.io/service-name={service}"))
        .limit(MAX_SLICES);
    let Ok(listed) = timeout(CALL, slices.list(&params)).await else {
        return Err(PeersError::Late);
    };
    let mut addresses: Vec<SocketAddr> = listed?.into_iter().flat_map(of_slice).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn of_slice(slice: EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.unwrap_or_default();
    let port = ports.first().and_then(|port| port.port);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return Vec::new();
    };
    let ready = slice.endpoints.into_iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_none_or(|conditions| conditions.ready != Some(false))
    });
    let addresses = ready.flat_map(|endpoint| endpoint.addresses);
    let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gateway_counts_while_it_is_ready() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {},
            "addressType": "IPv4",
            "ports": [{ "port": 80 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.3"] },
                { "addresses": ["junk"], "conditions": {} },
            ],
        }))
        .unwrap();
        let found: Vec<String> = of_slice(slice).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:80", "10.0.0.3:80"]);
    }
}
