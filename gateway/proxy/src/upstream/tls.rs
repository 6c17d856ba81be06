//! TLS towards endpoints: whom to trust, and what to show.
//!
//! One configuration an upstream, never shared: connections and session tickets of one upstream are
//! of no use to another that trusts somebody else.

use std::sync::Arc;

use postern_core::config::UpstreamSpec;
use postern_core::config::upstream::UpstreamProtocol;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;

/// What the files of an upstream's TLS settings held.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Materials {
    pub(crate) roots: Option<Arc<[u8]>>,
    /// Certificate and key.
    pub(crate) client: Option<(Arc<[u8]>, Arc<[u8]>)>,
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
    #[error("the file holds no PEM certificate")]
    NoCertificate,
    #[error("the file holds no PEM private key")]
    NoKey,
    #[error("certificate and key cannot be used")]
    Pair(#[source] rustls::Error),
}

impl UpstreamError {
    /// The key of the upstream that it is about.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::NoRoots | Self::NoSystemRoots | Self::Versions(_) => "tls.ca-file",
            Self::NoCertificate => "tls.cert-file",
            Self::NoKey | Self::Pair(_) => "tls.key-file",
        }
    }
}

pub(super) fn client_config(
    spec: &UpstreamSpec,
    materials: &Materials,
) -> Result<Option<Arc<ClientConfig>>, UpstreamError> {
    let Some(tls) = &spec.tls else {
        return Ok(None);
    };
    let provider = crate::tls::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Versions)?;
    let builder = if tls.is_insecure {
        let anyone = Arc::new(Anyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone)
    } else {
        builder.with_root_certificates(roots(materials.roots.as_deref())?)
    };
    let mut config = match &materials.client {
        Some((chain, key)) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).flatten().collect();
            if chain.is_empty() {
                return Err(UpstreamError::NoCertificate);
            }
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| UpstreamError::NoKey)?;
            let builder = builder.with_client_auth_cert(chain, key);
            builder.map_err(UpstreamError::Pair)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match spec.protocol {
        UpstreamProtocol::Http1 => b"http/1.1".to_vec(),
        UpstreamProtocol::Http2 => b"h2".to_vec(),
    }];
    Ok(Some(Arc::new(config)))
}

fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, UpstreamError> {
    let mut roots = RootCertStore::empty();
    let (certificates, error): (Vec<_>, _) = match pem {
        Some(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem).flatten().collect();
            (certificates, UpstreamError::NoRoots)
        }
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            (system, UpstreamError::NoSystemRoots)
        }
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(error) } else { Ok(roots) }
}

/// Believes every certificate. Signatures are checked all the same: what is not verified is who
/// the endpoint is, not that it holds the key it shows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
