//! EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use super::Meta;
use crate::read::At;
use crate::read::Findings;
use crate::read::quote;

/// Names the Service that a slice belongs to.
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndpointSlice {
    pub meta: Meta,
    /// Of the same namespace. Slices of no Service are nobody's.
    pub service: Option<Arc<str>>,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlicePort {
    /// The name of the Service's port.
    pub name: Arc<str>,
    /// `None`: any, which is no place to connect to.
    pub number: Option<u16>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SliceEndpoint {
    pub addr: IpAddr,
    pub is_ready: bool,
    pub is_serving: bool,
    pub is_terminating: bool,
    /// Zones whose traffic it is for; empty: no hint.
    pub zones: Box<[Arc<str>]>,
    /// Nodes whose traffic it is for; empty: no hint.
    pub nodes: Box<[Arc<str>]>,
}

pub(super) fn read(object: &At<'_>, meta: Meta, findings: &mut Findings) -> Option<EndpointSlice> {
    let metadata = object.key("metadata");
    let labels = metadata.key("labels");
    let service = labels.key(SERVICE).arc(findings);
    // FQDN slices have no meaning (the API says so itself), and may hold anything.
    let kind = object.key("addressType");
    if kind.required_text(findings)? == "FQDN" {
        return Some(EndpointSlice {
            meta,
            service,
            ..EndpointSlice::default()
        });
    }
    let list = object.key("ports");
    let mut ports = Vec::new();
    for port in list.items(findings) {
        if !matches!(port.key("protocol").text(findings), None | Some("TCP")) {
            continue;
        }
        ports.push(SlicePort {
            name: port.key("name").arc(findings).unwrap_or_default(),
            number: port.key("port").port(findings),
        });
    }
    let list = object.key("endpoints");
    let mut endpoints = Vec::new();
    for endpoint in list.items(findings) {
        let addresses = endpoint.key("addresses");
        // Only the first counts: the API keeps others for a use that never came.
        let Some(first) = addresses.items(findings).next() else {
            addresses.malformed(findings, "an endpoint has an address".to_owned());
            continue;
        };
        let Some(text) = first.required_text(findings) else {
            continue;
        };
        let Ok(addr) = text.parse() else {
            first.malformed(findings, format!("{} is no address", quote(text)));
            continue;
        };
        let conditions = endpoint.key("conditions");
        let hints = endpoint.key("hints");
        endpoints.push(SliceEndpoint {
            addr,
            // What is not said is meant well.
            is_ready: conditions.key("ready").flag(findings).unwrap_or(true),
            is_serving: conditions.key("serving").flag(findings).unwrap_or(true),
            is_terminating: conditions
                .key("terminating")
                .flag(findings)
                .unwrap_or(false),
            zones: names(&hints.key("forZones"), findings),
            nodes: names(&hints.key("forNodes"), findings),
        });
    }
    Some(EndpointSlice {
        meta,
        service,
        ports,
        endpoints,
    })
}

fn names(list: &At<'_>, findings: &mut Findings) -> Box<[Arc<str>]> {
    let items = list.items(findings);
    items
        .filter_map(|item| item.key("name").arc(findings))
        .collect()
}
