//! Certificates that clients show: who may have signed them, and what upstreams are told.
//!
//! A session that was begun with one host's authorities must not be resumed with another's, so
//! each set of hosts and authorities has ticket keys of its own: a ticket of another cannot even
//! be read, and the handshake is a full one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;

use aws_lc_rs::digest;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use postern_core::config::listener::ClientAuthSpec;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ProducesTickets;
use rustls::server::VerifierBuilderError;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::FromDer as _;
use x509_parser::prelude::X509Certificate;

const VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
const FINGERPRINT: HeaderName = HeaderName::from_static("ssl-client-fingerprint");
const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");
/// Bytes of a line of PEM, before they are encoded.
const PEM_LINE: usize = 48;

/// Why authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    #[error("the file holds no PEM certificate that can be trusted")]
    NoRoots,
    #[error("the verifier cannot be made")]
    Verifier(#[source] VerifierBuilderError),
}

pub(super) fn verifier(
    provider: &Arc<CryptoProvider>,
    roots_pem: &[u8],
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, RootsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(roots_pem)
        .flatten()
        .collect();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(RootsError::NoRoots);
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if is_required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(RootsError::Verifier)
}

/// What has to be equal for a session to be resumed.
pub(super) fn domain(spec: &ClientAuthSpec, roots_pem: &[u8]) -> Vec<u8> {
    let mut domain = format!("{} {:?}\n", spec.is_required, spec.hosts).into_bytes();
    domain.extend_from_slice(roots_pem);
    domain
}

/// Ticket keys by hosts and authorities, for as long as a listener uses them: a reload that leaves
/// those equal leaves sessions resumable.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<Vec<u8>, Weak<dyn ProducesTickets>>>);

impl Tickets {
    /// `None`: clients of these hosts do a full handshake each time.
    pub(super) fn of(&self, key: Vec<u8>) -> Option<Arc<dyn ProducesTickets>> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, ticketer| ticketer.strong_count() > 0);
        if let Some(ticketer) = tickets.get(&key).and_then(Weak::upgrade) {
            return Some(ticketer);
        }
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().ok()?;
        tickets.insert(key, Arc::downgrade(&ticketer));
        Some(ticketer)
    }
}

/// What upstreams are told of a client's certificate, made once a connection.
#[derive(Debug)]
pub(crate) struct ClientFields(Vec<(HeaderName, HeaderValue)>);

impl ClientFields {
    /// `None`: the client has shown none, where it did not have to.
    pub(super) fn of(certificate: Option<&CertificateDer<'_>>) -> Self {
        let Some(der) = certificate else {
            return Self(vec![(VERIFY, HeaderValue::from_static("NONE"))]);
        };
        let mut fields = vec![(VERIFY, HeaderValue::from_static("SUCCESS"))];
        let mut add = |name: HeaderName, value: &str| {
            // A name may hold what a field cannot.
            if let Ok(value) = HeaderValue::from_str(&escaped(value, b" =,/+@:_-.~\"'()*")) {
                fields.push((name, value));
            }
        };
        if let Ok((_, certificate)) = X509Certificate::from_der(der) {
            add(SUBJECT, &certificate.subject().to_string());
            add(ISSUER, &certificate.issuer().to_string());
        }
        let digest = digest::digest(&digest::SHA256, der);
        let fingerprint = digest
            .as_ref()
            .iter()
            .fold(String::new(), |mut text, byte| {
                // Writing to a string never fails.
                let _ = write!(text, "{byte:02x}");
                text
            });
        add(FINGERPRINT, &fingerprint);
        let pem = escaped(&pem(der), b"-_.~");
        if let Ok(pem) = HeaderValue::try_from(pem) {
            fields.push((CERTIFICATE, pem));
        }
        Self(fields)
    }

    /// Nobody else says what the certificate was, not even a trusted proxy.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for name in [VERIFY, SUBJECT, ISSUER, FINGERPRINT, CERTIFICATE] {
            headers.remove(name);
        }
        for (name, value) in &self.0 {
            headers.insert(name, value.clone());
        }
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(PEM_LINE) {
        base64::engine::general_purpose::STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Percent-encoded, but for letters, digits and these.
fn escaped(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // As above.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
