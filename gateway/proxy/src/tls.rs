//! TLS towards clients: which configuration a listener uses, and what a handshake yields.

pub(crate) mod certificates;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use postern_core::config::listener::TlsSpec;
use postern_core::config::listener::TlsVersion;
use postern_core::name::CertificateName;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::certificates::Certificate;
use self::certificates::CertificateChoice;

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The one cryptography provider of the program.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What every TLS listener shares for the life of the process.
pub(crate) struct ServerTls {
    provider: Arc<CryptoProvider>,
    /// Made once: with new keys at each reload, no client could resume across it.
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

/// A listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("no certificate can be served")]
    NoCertificate,
    #[error("the TLS versions cannot be used")]
    Versions(#[source] rustls::Error),
}

impl ServerTls {
    pub(crate) fn new() -> Self {
        Self {
            provider: provider(),
            // Without tickets, clients do a full handshake each time: slower, not wrong.
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().ok(),
        }
    }

    pub(crate) fn acceptor(
        &self,
        spec: &TlsSpec,
        certificates: &BTreeMap<CertificateName, Arc<Certificate>>,
    ) -> Result<ListenerTls, TlsError> {
        let served = certificates
            .iter()
            .filter(|(name, _)| spec.certificates.is_empty() || spec.certificates.contains(name));
        let default = spec.default_certificate.as_ref();
        let default = default.and_then(|name| certificates.get(name).cloned());
        let served = served.map(|(_, certificate)| Arc::clone(certificate));
        let choice = CertificateChoice::new(served, default).ok_or(TlsError::NoCertificate)?;
        let choice = Arc::new(choice);
        let versions: &[_] = match spec.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::Versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&choice) as Arc<_>);
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        if let Some(ticketer) = &self.ticketer {
            config.ticketer = Arc::clone(ticketer);
        }
        // Tickets carry the session; a store of sessions besides would only use memory.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(ListenerTls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            choice,
        })
    }
}

/// How one listener does handshakes.
pub(crate) struct ListenerTls {
    acceptor: TlsAcceptor,
    choice: Arc<CertificateChoice>,
}

/// A connection after its handshake.
pub(crate) struct Handshaken {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    pub(crate) is_h2: bool,
    pub(crate) session: TlsSession,
}

/// What was agreed on, for as long as the connection lives.
#[derive(Clone, Debug)]
pub(crate) struct TlsSession {
    /// The server name, in lower case, if the client sent one.
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) certificate: Arc<Certificate>,
}

impl TlsSession {
    /// Whether a request for this host may come over the connection (RFC 9110, 15.5.20): it is the
    /// name that the client connected to, or the certificate that it was shown covers it.
    ///
    /// A client without a server name has not said which host it wanted, so nothing contradicts it.
    pub(crate) fn covers(&self, host: &str) -> bool {
        match &self.sni {
            Some(sni) => **sni == *host || self.certificate.covers(host),
            None => true,
        }
    }
}

impl ListenerTls {
    /// Does the handshake; the caller bounds the time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Handshaken> {
        let stream = self.acceptor.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let is_h2 = connection.alpn_protocol() == Some(H2);
        let sni = connection
            .server_name()
            .map(|name| Arc::from(name.trim_end_matches('.').to_ascii_lowercase()));
        let certificate = self.choice.choose(sni.as_deref());
        let session = TlsSession { sni, certificate };
        Ok(Handshaken {
            stream: Box::new(stream),
            is_h2,
            session,
        })
    }
}
