//! Dynamic updates (RFC 2136), signed by a shared key (RFC 8945).
//!
//! One value is added or deleted at a time, which servers do without looking at the others: two
//! orders through one name do not harm each other.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::OpCode;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::TSigVerifier;
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TSIG;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::rdata::tsig::TsigError;

use super::Access;
use super::DnsWriter;
use super::Progress;
use super::SolverError;
use super::client::DNS_PORT;
use super::client::DnsClient;
use super::name;
use super::place::Place;
use super::secret::Secret;
use super::secret::SecretError;
use super::wire;
use super::wire::DnsError;

/// How long a record may be remembered: no longer than CAs do.
const TTL: u32 = 60;
/// Seconds by which the clocks of both sides may differ: what RFC 8945, 10 recommends.
const FUDGE: u16 = 300;
/// How long a server may take for one update.
const UPDATE_TIME: Duration = Duration::from_secs(10);
/// Times that an update is sent if no answer comes. Adding and deleting twice is harmless.
const ATTEMPTS: usize = 2;
/// Shortest secret: the strength of what guards a zone is that of its key.
const MIN_SECRET_LEN: usize = 16;
/// Longest value, which is one string of a TXT record.
const MAX_VALUE_LEN: usize = 255;
/// A value that nobody has: deleting it changes nothing, and shows whether it would be allowed.
const NOBODYS_VALUE: &str = "postern asks whether it may write here";

/// How a message is signed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpdateAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// Where updates go, and by which right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpdateSpec {
    /// The primary server: an address or a name, with a port if it is not 53.
    pub server: String,
    pub key_name: String,
    pub algorithm: UpdateAlgorithm,
    /// Base64, as `tsig-keygen` prints it.
    pub secret: Secret,
}

/// Why updates could not be set up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UpdateSpecError {
    #[error("{server:?} is neither an address nor a name, with or without a port")]
    Server { server: String },
    #[error("{name:?} is no name of a TSIG key")]
    KeyName { name: String },
    #[error("the secret of TSIG key {key} is no base64")]
    Base64 { key: String },
    #[error("the secret of TSIG key {key} has {len} bytes, and not {MIN_SECRET_LEN} or more")]
    Short { key: String, len: usize },
    #[error("the secret of TSIG key {key}: {error}")]
    Secret { key: String, error: SecretError },
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Server {
    Addr(SocketAddr),
    Host(Name, u16),
}

/// Sends updates to one server.
pub struct UpdateWriter {
    client: DnsClient,
    server: Server,
    key_name: Name,
    algorithm: UpdateAlgorithm,
    secret: Secret,
}

impl fmt::Debug for UpdateWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateWriter")
            .field("server", &self.server)
            .field("key", &name::shown(&self.key_name))
            .finish_non_exhaustive()
    }
}

impl fmt::Display for UpdateAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Host(host, port) => write!(f, "{}:{port}", name::shown(host)),
        }
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, UpdateSpecError> {
        let bad = || UpdateSpecError::Server {
            server: text.to_owned(),
        };
        if let Ok(addr) = text.parse() {
            return Ok(Self::Addr(addr));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Addr(SocketAddr::new(ip, DNS_PORT)));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (text, DNS_PORT),
        };
        let host = name::parse(host).map_err(|_| bad())?;
        let is_host = |label: &[u8]| {
            label
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
        };
        if port == 0 || host.is_root() || !host.iter().all(is_host) {
            return Err(bad());
        }
        Ok(Self::Host(host, port))
    }
}

impl UpdateWriter {
    pub fn new(spec: &UpdateSpec, client: DnsClient) -> Result<Self, UpdateSpecError> {
        let server = Server::parse(&spec.server)?;
        let bad_name = || UpdateSpecError::KeyName {
            name: spec.key_name.clone(),
        };
        let key_name = name::parse(&spec.key_name).map_err(|_| bad_name())?;
        let writer = Self {
            client,
            server,
            key_name,
            algorithm: spec.algorithm,
            secret: spec.secret.clone(),
        };
        // One in a file may come later.
        if matches!(writer.secret, Secret::Text(_)) {
            writer.key()?;
        }
        Ok(writer)
    }

    fn key(&self) -> Result<TSigner, UpdateSpecError> {
        let key = name::shown(&self.key_name);
        let text = self.secret.load().map_err(|error| {
            let key = key.clone();
            UpdateSpecError::Secret { key, error }
        })?;
        // Tools break long lines.
        let text: String = text.split_ascii_whitespace().collect();
        let Ok(secret) = STANDARD.decode(text) else {
            return Err(UpdateSpecError::Base64 { key });
        };
        if secret.len() < MIN_SECRET_LEN {
            let len = secret.len();
            return Err(UpdateSpecError::Short { key, len });
        }
        let algorithm = match self.algorithm {
            UpdateAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            UpdateAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            UpdateAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(secret, algorithm, self.key_name.clone(), FUDGE);
        signer.map_err(|_| UpdateSpecError::KeyName { name: key })
    }

    async fn change(
        &self,
        place: &Place,
        value: &str,
        class: DNSClass,
    ) -> Result<Access, SolverError> {
        if value.len() > MAX_VALUE_LEN {
            let message = format!("a value of {} bytes fits into no string", value.len());
            return Err(SolverError::failed(message));
        }
        let key = self.key();
        let key = key.map_err(|error| SolverError::failed(error.to_string()))?;
        let server = self.addr().await?;
        let mut last = DnsError::Timeout { server };
        for _ in 0..ATTEMPTS {
            // Signed anew: a server may refuse one that it has seen.
            let (message, verifier) = signed(&key, place, value, class)?;
            let bytes = wire::encode(server, &message)?;
            match wire::by_tcp(server, &bytes, &message, UPDATE_TIME).await {
                Ok((answer, bytes)) => {
                    return self.judge(place, &answer, &bytes, verifier);
                }
                Err(error) => last = error,
            }
        }
        Err(SolverError::failed(format!(
            "updating {}: {last}",
            place.zone()
        )))
    }

    async fn addr(&self) -> Result<SocketAddr, SolverError> {
        match &self.server {
            Server::Addr(addr) => Ok(*addr),
            Server::Host(host, port) => {
                let found = self.client.addresses(host).await?.found;
                let Some(ip) = found.first() else {
                    let message = format!("the update server {} has no address", self.server);
                    return Err(SolverError::failed(message));
                };
                Ok(SocketAddr::new(*ip, *port))
            }
        }
    }

    fn judge(
        &self,
        place: &Place,
        answer: &Message,
        bytes: &[u8],
        mut verifier: TSigVerifier,
    ) -> Result<Access, SolverError> {
        let (server, key) = (&self.server, name::shown(&self.key_name));
        let code = answer.metadata.response_code;
        let tsig = answer.signature.as_deref().map(|record| &record.data);
        if let Some(error) = tsig.and_then(|tsig| tsig.error.as_ref()) {
            return Err(self.refused_key(error, tsig));
        }
        let is_signed = tsig
            // What verifying subtracts without looking.
            .filter(|tsig| tsig.time >= u64::from(tsig.fudge))
            .is_some_and(|_| verifier.verify(bytes).is_ok());
        match code {
            ResponseCode::NoError if is_signed => Ok(Access::Granted),
            ResponseCode::NoError => Err(SolverError::failed(format!(
                "{server} answered an update without proof that it knows the TSIG key {key}"
            ))),
            ResponseCode::Refused => Ok(Access::Denied(format!(
                "{server} does not let TSIG key {key} change TXT records at {} (REFUSED)",
                place.name()
            ))),
            ResponseCode::NotAuth => Ok(Access::Denied(format!(
                "{server} takes no updates for the zone {} (NOTAUTH)",
                place.zone()
            ))),
            code => Err(SolverError::failed(format!(
                "{server} answered {code} to an update of {}",
                place.name()
            ))),
        }
    }

    /// Says what RFC 8945, 5.3.2 tells by a number.
    fn refused_key(&self, error: &TsigError, tsig: Option<&TSIG>) -> SolverError {
        let (server, key) = (&self.server, name::shown(&self.key_name));
        let what = match error {
            TsigError::BadSig => "the secret is not the server's (BADSIG)".to_owned(),
            TsigError::BadKey => format!(
                "the server has no such key for {} (BADKEY); check name and algorithm",
                self.algorithm
            ),
            TsigError::BadTime => {
                let by = tsig.and_then(clock_difference);
                let by = by.map_or_else(String::new, |by| format!(" by {by} s"));
                format!("the clocks of both sides differ{by} (BADTIME)")
            }
            TsigError::BadTrunc => "the server wants longer signatures (BADTRUNC)".to_owned(),
            TsigError::Unknown(code) => format!("TSIG error {code}"),
        };
        SolverError::failed(format!("TSIG key {key} refused by {server}: {what}"))
    }
}

/// An update that adds a value (class IN) or deletes it (NONE), and what its answer has to prove.
fn signed(
    key: &TSigner,
    place: &Place,
    value: &str,
    class: DNSClass,
) -> Result<(Message, TSigVerifier), SolverError> {
    let mut message = Message::new(wire::number(), MessageType::Query, OpCode::Update);
    // An update has its zone where a query has its question (RFC 2136, 2.3).
    message.add_query(Query::query(place.apex().clone(), RecordType::SOA));
    let data = RData::TXT(TXT::new(vec![value.to_owned()]));
    let mut record = Record::from_rdata(place.target().clone(), TTL, data);
    record.dns_class = class;
    if class == DNSClass::NONE {
        record.ttl = 0;
    }
    message.add_authority(record);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let verifier = message.finalize(key, now).ok().flatten();
    let verifier = verifier.ok_or_else(|| SolverError::failed("an update could not be signed"))?;
    Ok((message, verifier))
}

/// Our time and the server's, which an answer to a message out of time bears (RFC 8945, 5.2.3).
fn clock_difference(tsig: &TSIG) -> Option<u64> {
    let [a, b, c, d, e, f] = *tsig.other.as_slice() else {
        return None;
    };
    Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]).abs_diff(tsig.time))
}

impl DnsWriter for UpdateWriter {
    fn accepts<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Access, SolverError>> {
        Box::pin(self.change(place, NOBODYS_VALUE, DNSClass::NONE))
    }

    fn add<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(async move {
            done(self.change(place, value, DNSClass::IN).await?)?;
            Ok(Progress::Done)
        })
    }

    fn poll<'a>(
        &'a self,
        _place: &'a Place,
        _value: &'a str,
        _ticket: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(async { Ok(Progress::Done) })
    }

    fn remove<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move { done(self.change(place, value, DNSClass::NONE).await?) })
    }
}

fn done(access: Access) -> Result<(), SolverError> {
    match access {
        Access::Granted => Ok(()),
        Access::Denied(why) => Err(SolverError::failed(why)),
    }
}

#[cfg(test)]
mod tests;
