//! Upstreams: an endpoint is chosen, a connection found or made, the request sent.
//!
//! [`Upstream`] is what all workers share: how its endpoints do, what is under way to them.
//! [`Pool`] is one worker's connections to it. Both live as long as the declaration stays equal; an
//! endpoint's state outlives changes that do not concern it.

mod choose;
mod connect;
pub(crate) mod endpoint;
mod http1;
mod http2;
mod interim;
mod io;
mod pool;
pub(crate) mod probe;
mod proxy_header;
mod sticky;
mod tls;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

pub(crate) use choose::Ask;
pub(crate) use http1::Http1;
pub(crate) use pool::Lease;
pub(crate) use pool::Pool;
pub(crate) use pool::Sender;
use postern_core::balance;
use postern_core::balance::HashTable;
use postern_core::config::UpstreamSpec;
use postern_core::config::upstream::Balance;
use postern_core::name::UpstreamName;
pub(crate) use proxy_header::Addresses;
use rustls::ClientConfig;
pub(crate) use tls::Materials;
pub(crate) use tls::UpstreamError;

use endpoint::Endpoint;
use sticky::Sticky;

/// A named group of endpoints.
pub(crate) struct Upstream {
    pub(crate) name: UpstreamName,
    pub(crate) spec: Arc<UpstreamSpec>,
    tls: Option<Arc<ClientConfig>>,
    materials: Materials,
    /// As in `spec.endpoints`.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// The endpoints of the lowest priority number.
    first_priority: Vec<u32>,
    /// The order in which those have their turns; empty if it would be too long.
    turns: Vec<u32>,
    /// For a consistent hash: their table.
    table: Option<HashTable>,
    sticky: Option<Sticky>,
    /// Requests in flight, where they are limited.
    requests: AtomicU32,
    /// Requests that wait for a connection.
    pub(crate) pending: AtomicU32,
    pub(crate) retries_total: AtomicU64,
    /// Held while an endpoint is ejected, so that no two workers eject the last two at once.
    ejecting: Mutex<()>,
}

impl Upstream {
    /// `previous` had the same name; its endpoints are taken over where they are the same.
    pub(crate) fn new(
        name: UpstreamName,
        spec: Arc<UpstreamSpec>,
        materials: Materials,
        previous: Option<&Self>,
    ) -> Result<Self, UpstreamError> {
        let tls = tls::client_config(&spec, &materials)?;
        let first = spec.shares.iter().map(|share| share.priority).min();
        let first_priority: Vec<u32> = (0..)
            .zip(&spec.shares)
            .filter(|(_, share)| Some(share.priority) == first)
            .map(|(index, _)| index)
            .collect();
        let weight = |index: u32| spec.shares[index as usize].weight;
        let weights: Vec<u32> = first_priority.iter().map(|index| weight(*index)).collect();
        let turns = balance::turns(&weights).into_iter();
        let names: Vec<String> = spec.endpoints.iter().map(ToString::to_string).collect();
        let table = matches!(spec.balance, Balance::Hash(_)).then(|| {
            let members = first_priority.iter();
            HashTable::new(members.map(|&i| (i, names[i as usize].as_str(), weight(i))))
        });
        Ok(Self {
            endpoints: endpoints(&spec, previous),
            turns: turns.map(|turn| first_priority[turn as usize]).collect(),
            table: table.flatten(),
            sticky: Sticky::new(&name, &spec),
            first_priority,
            name,
            spec,
            tls,
            materials,
            requests: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries_total: AtomicU64::new(0),
            ejecting: Mutex::new(()),
        })
    }

    pub(crate) fn is_from(&self, spec: &Arc<UpstreamSpec>, materials: &Materials) -> bool {
        self.spec == *spec && self.materials == *materials
    }

    /// An endpoint answered.
    #[inline]
    pub(crate) fn succeeded(&self, endpoint: usize) {
        let endpoint = &self.endpoints[endpoint];
        if endpoint.succeeded(self.spec.slow_start) {
            let name = endpoint.spec.to_string();
            tracing::info!(upstream = %self.name, endpoint = name, "endpoint answers again");
        }
    }

    /// An endpoint failed a request. Ejects it if that was once too often, and if not too many are
    /// out already.
    pub(crate) fn failed(&self, endpoint: usize) {
        let ejection = &self.spec.ejection;
        let endpoint = &self.endpoints[endpoint];
        if !endpoint.failed(ejection) {
            return;
        }
        let _ejecting = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.endpoints.len() * ejection.max_percent as usize / 100;
        let others = self
            .endpoints
            .iter()
            .filter(|other| !Arc::ptr_eq(other, endpoint));
        if others.filter(|other| other.is_ejected()).count() >= most {
            return;
        }
        if endpoint.eject(endpoint::now(), ejection) {
            let name = endpoint.spec.to_string();
            tracing::warn!(upstream = %self.name, endpoint = name, "endpoint ejected");
        }
    }
}

/// What is known of an endpoint holds as long as it is asked in the same way.
fn endpoints(spec: &UpstreamSpec, previous: Option<&Upstream>) -> Vec<Arc<Endpoint>> {
    let previous = previous.filter(|previous| {
        previous.spec.health_check == spec.health_check
            && previous.spec.tls == spec.tls
            && previous.spec.protocol == spec.protocol
    });
    let known: std::collections::HashMap<_, _> = previous
        .iter()
        .flat_map(|previous| &previous.endpoints)
        .map(|endpoint| (&endpoint.spec, endpoint))
        .collect();
    let endpoints = spec.endpoints.iter();
    endpoints
        .map(|endpoint| match known.get(endpoint) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Endpoint::new(endpoint.clone());
                // One that joins others that are warm.
                if previous.is_some() {
                    new.warm(spec.slow_start);
                }
                Arc::new(new)
            }
        })
        .collect()
}

/// What kept a connection from being made.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Failed(std::io::Error),
    /// The connection was there; TLS was not.
    Tls(std::io::Error),
    TimedOut,
}
