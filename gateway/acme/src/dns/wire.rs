//! One question to one DNS server, and its answer.
//!
//! Invariants:
//! - An answer is read only if it comes from where the question went, with its number and its
//!   question; anything else is as if it had not come.
//! - What is read is bounded in bytes, records and time, whatever the server sends.

use std::io;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Edns;
use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::OpCode;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use super::name;

/// What we say that we take over UDP, and what fits everywhere without fragments (DNS flag day
/// 2020). More comes by TCP.
const UDP_PAYLOAD: u16 = 1232;
/// Largest datagram that is read: a server that sends more than we asked for is not believed.
const MAX_DATAGRAM: usize = 4096;
/// Most records in one section of an answer.
const MAX_RECORDS: u16 = 256;
/// Bytes of a message's header (RFC 1035, 4.1.1).
const HEADER_LEN: usize = 12;

/// Why a server's answer is not known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DnsError {
    #[error("{name} is no name that the DNS can hold")]
    Name { name: String },
    #[error(
        "no DNS server is known; name some in resolvers, or in {}",
        super::client::RESOLV_CONF
    )]
    NoServers,
    #[error("DNS server {server} did not answer in time")]
    Timeout { server: SocketAddr },
    #[error("DNS server {server} cannot be reached: {}", io::Error::from(*kind))]
    Unreachable {
        server: SocketAddr,
        kind: io::ErrorKind,
    },
    #[error("DNS server {server} answered {code} to the question for {name}")]
    Failed {
        server: SocketAddr,
        name: String,
        code: ResponseCode,
    },
    #[error("DNS server {server} answered what is no DNS message")]
    Malformed { server: SocketAddr },
    #[error("DNS server {server} should answer for {name}, and does not")]
    Lame { server: SocketAddr, name: String },
    #[error("{} is an alias of itself", chain.join(" -> "))]
    Loop { chain: Vec<String> },
    #[error("{} has more than {} aliases", chain.join(" -> "), super::client::MAX_ALIASES)]
    TooManyAliases { chain: Vec<String> },
    #[error("{name} is in no zone: no server names one")]
    NoZone { name: String },
    #[error("no name server of {zone} has an address")]
    NoAuthorities { zone: String },
}

/// Asks over UDP, and over TCP if the answer did not fit.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Query,
    recursion: bool,
    within: Duration,
) -> Result<Message, DnsError> {
    let mut message = Message::new(number(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = recursion;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_version(0);
    message.set_edns(edns);
    let bytes = encode(server, &message)?;
    let answer = by_udp(server, &bytes, &message, within).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let (answer, _) = by_tcp(server, &bytes, &message, within).await?;
    Ok(answer)
}

pub(super) fn question(name: &Name, kind: RecordType) -> Query {
    Query::query(name.clone(), kind)
}

pub(super) fn encode(server: SocketAddr, message: &Message) -> Result<Vec<u8>, DnsError> {
    // Our own names have passed the checks of their type: this does not fail, and may not panic.
    message.to_vec().map_err(|_| DnsError::Malformed { server })
}

/// A message's number: hard to guess, since it is half of what proves an answer over UDP.
pub(super) fn number() -> u16 {
    getrandom::u32().unwrap_or_default() as u16
}

async fn by_udp(
    server: SocketAddr,
    bytes: &[u8],
    asked: &Message,
    within: Duration,
) -> Result<Message, DnsError> {
    let failed = |error: io::Error| DnsError::Unreachable {
        server,
        kind: error.kind(),
    };
    let late = |_| DnsError::Timeout { server };
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket a question: the kernel picks a port that an attacker has to guess as well.
    let socket = UdpSocket::bind(local).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    socket.send(bytes).await.map_err(failed)?;
    let deadline = Instant::now() + within;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let receiving = timeout_at(deadline, socket.recv(&mut buffer)).await;
        let len = receiving.map_err(late)?.map_err(failed)?;
        // What does not belong to the question may be forged; the answer may still come.
        let bytes = buffer.get(..len).unwrap_or_default();
        if let Some(answer) = decode(bytes).filter(|answer| belongs(asked, answer)) {
            return Ok(answer);
        }
    }
}

/// The answer, and its bytes for who has to check a signature over them.
pub(super) async fn by_tcp(
    server: SocketAddr,
    bytes: &[u8],
    asked: &Message,
    within: Duration,
) -> Result<(Message, Vec<u8>), DnsError> {
    let exchange = timeout(within, over_stream(server, bytes));
    let answer = exchange
        .await
        .map_err(|_| DnsError::Timeout { server })?
        .map_err(|error| DnsError::Unreachable {
            server,
            kind: error.kind(),
        })?;
    let message = decode(&answer)
        .filter(|message| belongs(asked, message))
        .ok_or(DnsError::Malformed { server })?;
    Ok((message, answer))
}

async fn over_stream(server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + bytes.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(bytes);
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Reads a message whose counts are such as no honest answer exceeds.
fn decode(bytes: &[u8]) -> Option<Message> {
    let header = bytes.get(..HEADER_LEN)?;
    let mut counts = header
        .get(4..)?
        .chunks_exact(2)
        .map(|count| u16::from_be_bytes([count[0], count[1]]));
    // The decoder reserves room for what is announced.
    if counts.next()? > 1 || counts.any(|count| count > MAX_RECORDS) {
        return None;
    }
    Message::from_vec(bytes).ok()
}

/// Whether a message answers what was asked.
fn belongs(asked: &Message, answer: &Message) -> bool {
    let same_question = match (asked.queries.first(), answer.queries.first()) {
        (Some(asked), Some(answered)) => {
            asked.name == answered.name && asked.query_type == answered.query_type
        }
        // Servers may leave out the question where they failed or were told to change something.
        (_, None) => answer.answers.is_empty(),
        (None, Some(_)) => false,
    };
    answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == asked.metadata.op_code
        && same_question
}

/// An error code, of the server's that is to blame.
pub(super) fn failed(server: SocketAddr, name: &Name, code: ResponseCode) -> DnsError {
    DnsError::Failed {
        server,
        name: name::shown(name),
        code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn asked() -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = name::parse("app1.example.edu").unwrap();
        message.add_query(question(&name, RecordType::A));
        message
    }

    #[test]
    fn an_answer_has_the_number_and_the_question() {
        let asked = asked();
        let answer = asked.clone().into_response();
        assert!(belongs(&asked, &answer));
        assert!(!belongs(&asked, &asked), "a question is no answer");

        let mut other = answer.clone();
        other.metadata.id = 8;
        assert!(!belongs(&asked, &other));
        let mut other = answer.clone();
        other.queries[0].name = name::parse("app2.example.edu").unwrap();
        assert!(!belongs(&asked, &other));
        let mut other = answer;
        other.queries.clear();
        assert!(belongs(&asked, &other), "an error may come without it");
    }

    #[test]
    fn an_answer_that_announces_too_much_is_not_read() {
        let mut bytes = asked().to_vec().unwrap();
        assert!(decode(&bytes).is_some());
        for at in [4, 6, 8, 10] {
            let (high, low) = (bytes[at], bytes[at + 1]);
            bytes[at] = 0xff;
            assert!(decode(&bytes).is_none(), "count at {at}");
            (bytes[at], bytes[at + 1]) = (high, low);
        }
        assert!(decode(&bytes[..HEADER_LEN - 1]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_damage_makes_reading_panic(at in 0_usize..64, byte in any::<u8>()) {
            let mut bytes = asked().to_vec().unwrap();
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = decode(&bytes);
        }
    }
}
