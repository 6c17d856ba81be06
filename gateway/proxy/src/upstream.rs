//! Upstreams: an endpoint is chosen, a connection found or made, the request sent.
//!
//! [`Upstream`] is shared and immutable but for counters; [`Pool`] is one worker's connections to
//! it. Both live as long as the declaration stays equal.

mod connect;
mod http1;
mod interim;
mod pool;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

pub(crate) use http1::Http1;
pub(crate) use pool::Lease;
pub(crate) use pool::Pool;
pub(crate) use pool::Sender;
use postern_core::config::UpstreamSpec;
use postern_core::config::upstream::UpstreamProtocol;
use postern_core::name::UpstreamName;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A named group of endpoints.
pub(crate) struct Upstream {
    pub(crate) name: UpstreamName,
    pub(crate) spec: UpstreamSpec,
    tls: Option<Arc<ClientConfig>>,
    /// What `tls.ca-file` held.
    roots_pem: Option<Arc<[u8]>>,
    /// Requests in flight for each endpoint, all workers together: what least-requests compares.
    pub(crate) in_flight: Vec<AtomicU32>,
}

/// TLS towards the endpoints cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the file holds no PEM certificate that can be trusted")]
    NoRoots,
    #[error("this system has no root certificates; set tls.ca-file")]
    NoSystemRoots,
    #[error("the TLS versions cannot be used")]
    Versions(#[source] rustls::Error),
}

impl Upstream {
    pub(crate) fn new(
        name: UpstreamName,
        spec: UpstreamSpec,
        roots_pem: Option<Arc<[u8]>>,
    ) -> Result<Self, UpstreamError> {
        let tls = match &spec.tls {
            Some(_) => Some(client_config(roots_pem.as_deref(), spec.protocol)?),
            None => None,
        };
        let in_flight = spec.endpoints.iter().map(|_| AtomicU32::new(0)).collect();
        Ok(Self {
            name,
            spec,
            tls,
            roots_pem,
            in_flight,
        })
    }

    pub(crate) fn is_from(&self, spec: &UpstreamSpec, roots_pem: Option<&[u8]>) -> bool {
        self.spec == *spec && self.roots_pem.as_deref() == roots_pem
    }
}

fn client_config(
    roots_pem: Option<&[u8]>,
    protocol: UpstreamProtocol,
) -> Result<Arc<ClientConfig>, UpstreamError> {
    let mut roots = RootCertStore::empty();
    match roots_pem {
        Some(pem) => {
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).flatten().collect();
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(UpstreamError::NoRoots);
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            let (added, _) = roots.add_parsable_certificates(system);
            if added == 0 {
                return Err(UpstreamError::NoSystemRoots);
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match protocol {
        UpstreamProtocol::Http1 => b"http/1.1".to_vec(),
        UpstreamProtocol::Http2 => b"h2".to_vec(),
    }];
    Ok(Arc::new(config))
}

/// What kept a connection from being made.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Failed(io::Error),
    TimedOut,
}
