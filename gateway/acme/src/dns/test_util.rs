//! A DNS server in this process: every zone of a test, as resolver and as authority of all of them.
//!
//! It answers over UDP and TCP, expands wildcards as servers do (not where anything exists below a
//! name), and takes updates that a key of its own has signed.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::SystemTime;

use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::TSigResponseContext;
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata;
use hickory_proto::rr::rdata::tsig::TsigError;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::client::DnsClient;
use super::client::DnsSpec;
use super::name;

/// Where the servers of all zones are; ends them when dropped.
pub(crate) struct TestDns {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: [AbortHandle; 2],
}

#[derive(Default)]
struct State {
    records: Vec<(Name, RData)>,
    failing: HashMap<Name, ResponseCode>,
    /// Answers over UDP are cut.
    truncates: bool,
    /// Of the records of a name, one at a time in turn.
    rotates: bool,
    turn: usize,
    asked: Vec<(Name, RecordType)>,
    keys: Vec<TSigner>,
    /// Added to the clock by which signatures are judged.
    skew: i64,
    refuses_updates: bool,
}

impl TestDns {
    /// Lines of `name type value`; `name SOA` makes a zone whose server this is.
    pub(crate) async fn start(zones: &str) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            // The port may be in use for the other kind.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let addr = tcp.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let by_udp = tokio::spawn(serve_udp(udp, Arc::clone(&state))).abort_handle();
        let by_tcp = tokio::spawn(serve_tcp(tcp, Arc::clone(&state))).abort_handle();
        let dns = Self {
            addr,
            state,
            tasks: [by_udp, by_tcp],
        };
        dns.add(zones);
        dns
    }

    pub(crate) fn client(&self) -> DnsClient {
        DnsClient::new(DnsSpec {
            resolvers: vec![self.addr],
            authority_port: self.addr.port(),
        })
    }

    pub(crate) fn add(&self, lines: &str) {
        let mut state = self.state.lock().unwrap();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            state.records.extend(parse(line));
        }
    }

    pub(crate) fn remove(&self, host: &str) {
        let host = name::parse(host).unwrap();
        let mut state = self.state.lock().unwrap();
        state.records.retain(|(owner, _)| *owner != host);
    }

    pub(crate) fn fail(&self, host: &str, code: ResponseCode) {
        let host = name::parse(host).unwrap();
        self.state.lock().unwrap().failing.insert(host, code);
    }

    pub(crate) fn truncate(&self) {
        self.state.lock().unwrap().truncates = true;
    }

    pub(crate) fn rotate(&self) {
        self.state.lock().unwrap().rotates = true;
    }

    pub(crate) fn trust(&self, key: TSigner) {
        self.state.lock().unwrap().keys.push(key);
    }

    pub(crate) fn skew(&self, seconds: i64) {
        self.state.lock().unwrap().skew = seconds;
    }

    pub(crate) fn refuse_updates(&self) {
        self.state.lock().unwrap().refuses_updates = true;
    }

    pub(crate) fn texts(&self, host: &str) -> Vec<String> {
        let host = name::parse(host).unwrap();
        let state = self.state.lock().unwrap();
        let own = state.records.iter().filter(|(owner, _)| *owner == host);
        own.filter_map(|(_, data)| match data {
            RData::TXT(text) => Some(String::from_utf8(text.txt_data.concat()).unwrap()),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn was_asked(&self, host: &str) -> usize {
        let host = name::parse(host).unwrap();
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|(name, _)| *name == host).count()
    }
}

impl Drop for TestDns {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn parse(line: &str) -> Vec<(Name, RData)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let owner = name::parse(words[0]).unwrap();
    let target = || name::parse(words[2]).unwrap();
    let data = match words[1] {
        "A" => RData::A(rdata::A(words[2].parse().unwrap())),
        "AAAA" => RData::AAAA(rdata::AAAA(words[2].parse().unwrap())),
        "CNAME" => RData::CNAME(rdata::CNAME(target())),
        "TXT" => RData::TXT(rdata::TXT::new(vec![words[2..].join(" ")])),
        "CAA" => {
            let mut caa = rdata::CAA::new_issue(words[2] == "128", None, Vec::new());
            caa.tag = words[3].to_owned();
            caa.value = words[4..].join(" ").into_bytes();
            RData::CAA(caa)
        }
        "SOA" => {
            let server = name::parse("ns.test").unwrap();
            let soa = rdata::SOA::new(server.clone(), server.clone(), 1, 1, 1, 1, 1);
            return vec![
                (owner.clone(), RData::SOA(soa)),
                (owner, RData::NS(rdata::NS(server.clone()))),
                (server, RData::A(rdata::A(Ipv4Addr::LOCALHOST))),
            ];
        }
        kind => panic!("no record type: {kind}"),
    };
    vec![(owner, data)]
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let answer = state.lock().unwrap().answer(&buffer[..len], true);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = serve_one(stream, &state).await;
    }
}

async fn serve_one(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let len = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).await?;
    let answer = state.lock().unwrap().answer(&bytes, false);
    if let Some(answer) = answer {
        let len = u16::try_from(answer.len()).unwrap();
        stream.write_all(&len.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

impl State {
    fn answer(&mut self, bytes: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let message = Message::from_vec(bytes).ok()?;
        if message.metadata.op_code == OpCode::Update {
            return Some(self.update(bytes, &message));
        }
        let query = message.queries.first()?.clone();
        self.asked.push((query.name.clone(), query.query_type));
        let mut answer = Message::new(message.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.add_query(query.clone());
        if let Some(code) = self.failing.get(&query.name) {
            answer.metadata.response_code = *code;
        } else if is_udp && self.truncates {
            answer.metadata.truncation = true;
        } else {
            let (code, records) = self.find(&query.name, query.query_type);
            answer.metadata.response_code = code;
            answer.add_answers(records);
        }
        Some(answer.to_vec().unwrap())
    }

    fn find(&mut self, host: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        let exists = |name: &Name| self.records.iter().any(|(owner, _)| name.zone_of(owner));
        let mut owner = host.clone();
        if !exists(host) {
            let mut above = host.base_name();
            while !exists(&above) && !above.is_root() {
                above = above.base_name();
            }
            owner = above.prepend_label("*").unwrap();
            if !self.records.iter().any(|(name, _)| *name == owner) {
                return (ResponseCode::NXDomain, Vec::new());
            }
        }
        let own = self.records.iter().filter(|(name, _)| *name == owner);
        let mut records: Vec<Record> = own
            .filter(|(_, data)| {
                data.record_type() == kind || data.record_type() == RecordType::CNAME
            })
            .map(|(_, data)| Record::from_rdata(host.clone(), 60, data.clone()))
            .collect();
        if self.rotates && records.len() > 1 {
            self.turn += 1;
            let turn = self.turn % records.len();
            records = vec![records.swap_remove(turn)];
        }
        (ResponseCode::NoError, records)
    }

    fn update(&mut self, bytes: &[u8], message: &Message) -> Vec<u8> {
        let id = message.metadata.id;
        let mut answer = Message::new(id, MessageType::Response, OpCode::Update);
        answer.metadata.response_code = ResponseCode::NotAuth;
        let Some(tsig) = message.signature.as_deref().cloned() else {
            answer.metadata.response_code = ResponseCode::Refused;
            return answer.to_vec().unwrap();
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs().saturating_add_signed(self.skew);
        let key = self.keys.iter().find(|key| *key.signer_name() == tsig.name);
        let context = match key.cloned() {
            None => TSigResponseContext::unknown_key(id, now, tsig.name.clone()),
            Some(key) => match key.verify_message_byte(bytes, None, true) {
                Err(_) => TSigResponseContext::bad_signature(id, now, key),
                Ok((mac, _, range)) if !range.contains(&now) => {
                    TSigResponseContext::new(id, now, key, mac, Some(TsigError::BadTime))
                }
                Ok((mac, ..)) => {
                    answer.metadata.response_code = self.apply(message);
                    TSigResponseContext::new(id, now, key, mac, None)
                }
            },
        };
        let unsigned = answer.to_vec().unwrap();
        answer.set_signature(context.sign(&unsigned).unwrap());
        answer.to_vec().unwrap()
    }

    fn apply(&mut self, message: &Message) -> ResponseCode {
        if self.refuses_updates {
            return ResponseCode::Refused;
        }
        let zone = &message.queries[0].name;
        let is_zone =
            |(owner, data): &(Name, RData)| owner == zone && data.record_type() == RecordType::SOA;
        if !self.records.iter().any(is_zone) {
            return ResponseCode::NotAuth;
        }
        for record in &message.authorities {
            let own = (record.name.clone(), record.data.clone());
            match record.dns_class {
                DNSClass::IN if !self.records.contains(&own) => self.records.push(own),
                DNSClass::NONE => self.records.retain(|other| *other != own),
                _ => {}
            }
        }
        ResponseCode::NoError
    }
}
