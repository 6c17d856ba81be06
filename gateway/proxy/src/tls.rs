//! TLS towards clients: which configuration a listener uses, and what a handshake yields.

pub(crate) mod certificates;
mod client_auth;
pub(crate) mod passthrough;
mod tickets;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use postern_core::config::listener::PassthroughSpec;
use postern_core::config::listener::TlsSpec;
use postern_core::config::listener::TlsVersion;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::UpstreamName;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::Acceptor;
use rustls::server::ProducesTickets;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::certificates::Certificate;
use self::certificates::CertificateChoice;
use self::certificates::is_challenge;
use self::client_auth::ClientFields;
use self::tickets::SharedTickets;
use crate::challenges::ACME_TLS;
use crate::challenges::Challenges;

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
    /// Those of hosts whose clients show certificates.
    tickets: client_auth::Tickets,
    challenges: Arc<Challenges>,
}

/// A listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the authorities of client certificates cannot be used")]
    ClientRoots {
        /// Position in `client_auth`.
        entry: usize,
        source: client_auth::RootsError,
    },
    #[error(
        "the file holds fewer than {} bytes; make one with: openssl rand 64",
        tickets::MIN_SECRET
    )]
    TicketKey {
        /// Position in `ticket_keys`.
        entry: usize,
    },
    #[error("the TLS versions cannot be used")]
    Versions(#[source] rustls::Error),
}

impl ServerTls {
    pub(crate) fn new() -> Self {
        Self {
            provider: provider(),
            // Without tickets, clients do a full handshake each time: slower, not wrong.
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().ok(),
            tickets: client_auth::Tickets::default(),
            challenges: Arc::default(),
        }
    }

    pub(crate) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    pub(crate) fn acceptor(
        &self,
        spec: &TlsSpec,
        certificates: &BTreeMap<CertificateName, Arc<Certificate>>,
        roots: &[Arc<[u8]>],
        ticket_keys: &[Arc<[u8]>],
    ) -> Result<ListenerTls, TlsError> {
        let short = |key: &Arc<[u8]>| key.len() < tickets::MIN_SECRET;
        if let Some(entry) = ticket_keys.iter().position(short) {
            return Err(TlsError::TicketKey { entry });
        }
        // Without keys from files, or with one that is no key, those of this process.
        let shared = |domain: &[u8]| -> Option<Arc<dyn ProducesTickets>> {
            let has_keys = !ticket_keys.is_empty();
            let shared = has_keys.then(|| SharedTickets::new(ticket_keys, domain));
            Some(shared??)
        };
        let served = certificates
            .iter()
            .filter(|(name, _)| spec.certificates.is_empty() || spec.certificates.contains(name));
        let default = spec.default_certificate.as_ref();
        let default = default.and_then(|name| certificates.get(name).cloned());
        let served = served.map(|(_, certificate)| Arc::clone(certificate));
        let choice = Arc::new(CertificateChoice::new(
            served,
            default,
            Arc::clone(&self.challenges),
        ));
        let versions: &[_] = match spec.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let config = |verifier, ticketer: Option<Arc<dyn ProducesTickets>>| {
            let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
                .with_protocol_versions(versions)
                .map_err(TlsError::Versions)?;
            let config = match verifier {
                Some(verifier) => config.with_client_cert_verifier(verifier),
                None => config.with_no_client_auth(),
            };
            let mut config = config.with_cert_resolver(Arc::clone(&choice) as Arc<_>);
            // Last: who offers something else besides gets that.
            config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec(), ACME_TLS.to_vec()];
            if let Some(ticketer) = ticketer {
                config.ticketer = ticketer;
            }
            // Tickets carry the session; a store of sessions besides would only use memory.
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            Ok(Arc::new(config))
        };
        let mut domains = Vec::with_capacity(spec.client_auth.len());
        for (entry, (auth, roots)) in spec.client_auth.iter().zip(roots).enumerate() {
            let verifier = client_auth::verifier(&self.provider, roots, auth.is_required)
                .map_err(|source| TlsError::ClientRoots { entry, source })?;
            let domain = client_auth::domain(auth, roots);
            let ticketer = shared(&domain).or_else(|| self.tickets.of(domain));
            domains.push(Domain {
                hosts: auth.hosts.clone(),
                config: config(Some(verifier), ticketer)?,
            });
        }
        Ok(ListenerTls {
            acceptor: TlsAcceptor::from(config(
                None,
                shared(b"").or_else(|| self.ticketer.clone()),
            )?),
            domains,
            passthrough: spec.passthrough.clone(),
            choice: Arc::clone(&choice),
        })
    }
}

/// How one listener does handshakes.
pub(crate) struct ListenerTls {
    acceptor: TlsAcceptor,
    domains: Vec<Domain>,
    passthrough: Vec<PassthroughSpec>,
    choice: Arc<CertificateChoice>,
}

/// Hosts whose clients show certificates of the same authorities.
struct Domain {
    /// Empty: those that no other names.
    hosts: Vec<Hostname>,
    config: Arc<ServerConfig>,
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
    /// Which hosts the client has shown its certificate for, as `ListenerTls::domain_of` counts.
    domain: usize,
    /// Of a domain, what the client has shown.
    pub(crate) client: Option<Arc<ClientFields>>,
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
    /// The domain of a host, from 1; 0 for hosts whose clients show no certificates.
    fn domain_of(&self, host: Option<&str>) -> usize {
        let find = |is_it: &dyn Fn(&Domain) -> bool| self.domains.iter().position(is_it);
        let named = host.and_then(|host| {
            let exact = find(&|domain| {
                let mut hosts = domain.hosts.iter();
                hosts.any(|name| matches!(name, Hostname::Exact(_)) && name.matches(host))
            });
            exact.or_else(|| find(&|domain| domain.hosts.iter().any(|name| name.matches(host))))
        });
        let others = || find(&|domain| domain.hosts.is_empty());
        named.or_else(others).map_or(0, |position| position + 1)
    }

    /// Whether a request for this host may come over the connection: it is covered by what the
    /// client was shown, and what the client has shown is what the host asks for.
    pub(crate) fn admits(&self, session: &TlsSession, host: &str) -> bool {
        session.covers(host)
            && (self.domains.is_empty() || self.domain_of(Some(host)) == session.domain)
    }

    /// Where the connection is passed on to without a handshake, if it is; the caller bounds the
    /// time.
    pub(crate) async fn passes_on(&self, stream: &TcpStream) -> io::Result<Option<&UpstreamName>> {
        if self.passthrough.is_empty() {
            return Ok(None);
        }
        passthrough::upstream_of(stream, &self.passthrough).await
    }

    /// Does the handshake; the caller bounds the time. `None`: it was all that was wanted, as the
    /// answer to a challenge.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Option<Handshaken>> {
        let (mut stream, domain) = if self.domains.is_empty() {
            (self.acceptor.accept(stream).await?, 0)
        } else {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let hello = start.client_hello();
            let name = hello.server_name().map(canonical);
            // An authority shows no certificate of its own.
            let domain = match is_challenge(&hello) {
                true => 0,
                false => self.domain_of(name.as_deref()),
            };
            let config = match domain.checked_sub(1).and_then(|at| self.domains.get(at)) {
                Some(domain) => &domain.config,
                None => self.acceptor.config(),
            };
            let config = Arc::clone(config);
            (start.into_stream(config).await?, domain)
        };
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() == Some(ACME_TLS) {
            // The authority has seen what it wanted; that it hears of the end is a courtesy.
            let _ = stream.shutdown().await;
            return Ok(None);
        }
        let is_h2 = connection.alpn_protocol() == Some(H2);
        let sni = connection.server_name().map(canonical);
        // The handshake showed it.
        let certificate = self.choice.choose(sni.as_deref());
        let certificate = certificate.ok_or(io::ErrorKind::InvalidData)?;
        let client = (domain > 0).then(|| {
            let shown = connection.peer_certificates().and_then(<[_]>::first);
            Arc::new(ClientFields::of(shown))
        });
        let session = TlsSession {
            sni,
            certificate,
            domain,
            client,
        };
        Ok(Some(Handshaken {
            stream: Box::new(stream),
            is_h2,
            session,
        }))
    }
}

fn canonical(name: &str) -> Arc<str> {
    Arc::from(name.trim_end_matches('.').to_ascii_lowercase())
}
