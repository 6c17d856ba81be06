//! Challenges of a cluster: kept in Secrets that every replica watches, and asked for at each of them
//! before the authority is told.
//!
//! A replica that does not answer in time holds up no order: the authority may ask another, and that
//! one holds the request until it has heard. Replicas are asked by the addresses of their pods, so no
//! balancer, no DNS server and no hairpin stands between.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::future::join_all;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use postern_acme::challenge::Challenge;
use postern_acme::challenge::Replicas;
use postern_kube::Client;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use super::show::OneMachine;

/// How long all replicas may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer may take: a replica that has not heard holds the request meanwhile.
const ASK: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);
/// How long the addresses of replicas are taken as they were.
const ADDRESSES_AGE: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_ANSWER: usize = 1 << 10;
/// Most replicas that a message names.
const MAX_NAMED: usize = 5;
/// "This connection is the proxy's own" (PROXY protocol 2.2, LOCAL): the listener may insist on a
/// header.
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

pub(super) struct Peers {
    here: Arc<OneMachine>,
    client: Client,
    namespace: String,
    service: String,
    /// And when they were looked up.
    known: Mutex<Option<(Arc<[SocketAddr]>, Instant)>>,
}

impl Peers {
    pub(super) fn new(
        here: Arc<OneMachine>,
        client: Client,
        namespace: String,
        service: String,
    ) -> Self {
        Self {
            here,
            client,
            namespace,
            service,
            known: Mutex::default(),
        }
    }

    async fn addresses(&self) -> Result<Arc<[SocketAddr]>, String> {
        let mut known = self.known.lock().await;
        if let Some((addresses, at)) = &*known
            && at.elapsed() < ADDRESSES_AGE
        {
            return Ok(Arc::clone(addresses));
        }
        let service = format!("{}/{}", self.namespace, self.service);
        let found = postern_kube::peers::ready(&self.client, &self.namespace, &self.service).await;
        let found = found.map_err(|error| {
            format!("the endpoints of the Service {service} cannot be read: {error}")
        })?;
        if found.is_empty() {
            return Err(format!(
                "the Service {service} has no ready endpoint, so no replica was asked"
            ));
        }
        let addresses: Arc<[SocketAddr]> = found.into();
        *known = Some((Arc::clone(&addresses), Instant::now()));
        Ok(addresses)
    }

    async fn show(&self, challenge: &Challenge) -> Result<(), String> {
        self.here.put(challenge)?;
        let addresses = self.addresses().await?;
        let asked = addresses.iter().map(|addr| async move {
            let asked = timeout(PATIENCE, until_shown(*addr, challenge)).await;
            asked.err().map(|_| addr.to_string())
        });
        let lagging: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
        if lagging.is_empty() {
            return Ok(());
        }
        let named = lagging.get(..MAX_NAMED).unwrap_or(&lagging).join(", ");
        let count = lagging.len();
        let all = addresses.len();
        Err(format!("{count} of {all} replicas do not answer: {named}"))
    }
}

impl Replicas for Peers {
    fn show<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.show(challenge))
    }

    fn show_here<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(self.here.put(challenge)))
    }

    fn hide<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        // The others hear of it when it is deleted.
        self.here.forget(token);
        Box::pin(std::future::ready(()))
    }
}

async fn until_shown(addr: SocketAddr, challenge: &Challenge) {
    let mut says_header = false;
    loop {
        let asked = timeout(ASK, ask(addr, challenge, says_header)).await;
        match asked {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) | Err(_) => {}
            // Perhaps it wants to hear from a balancer.
            Ok(Err(_)) => says_header = !says_header,
        }
        sleep(PAUSE).await;
    }
}

/// Whether this replica shows the challenge. An error: it speaks no HTTP with us.
async fn ask(addr: SocketAddr, challenge: &Challenge, says_header: bool) -> io::Result<bool> {
    let mut stream = TcpStream::connect(addr).await?;
    if says_header {
        stream.write_all(&LOCAL).await?;
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let path = format!("/.well-known/acme-challenge/{}", challenge.token);
    let request = Request::get(path)
        .header(header::HOST, &challenge.host)
        .header(
            header::USER_AGENT,
            concat!("postern/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let exchange = async {
        let reply = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let is_success = reply.status().is_success();
        let body = Limited::new(reply.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        Ok(is_success && *body == *challenge.authorization.as_bytes())
    };
    let drive = async {
        // Its end is that of the exchange, which says why.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        asked = exchange => asked,
        () = drive => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postern_core::config::issuer::ChallengeKind;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Closes connections that do not begin with a header; answers the first request that it takes
    /// as one that it knows nothing of, and says how many it took when it has shown the challenge.
    async fn replica(listener: TcpListener, challenge: Challenge) -> usize {
        let mut taken = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let is_whole = |seen: &[u8]| {
                seen.windows(4).any(|part| part == b"GET ") && seen.ends_with(b"\r\n\r\n")
            };
            while !is_whole(&seen) && stream.read_buf(&mut seen).await.unwrap() > 0 {}
            if !seen.starts_with(&LOCAL) {
                continue;
            }
            taken += 1;
            let head = String::from_utf8_lossy(&seen[LOCAL.len()..]).into_owned();
            assert!(head.starts_with("GET /.well-known/acme-challenge/t HTTP/1.1\r\n"));
            assert!(head.contains("host: a.test\r\n"), "{head}");
            let (status, body) = match taken {
                1 => ("404 Not Found", "t.key"),
                2 => ("200 OK", "of another order"),
                _ => ("200 OK", challenge.authorization.as_str()),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if taken == 3 {
                return taken;
            }
        }
    }

    #[tokio::test]
    async fn a_replica_is_asked_until_it_shows_the_challenge() {
        let challenge = Challenge {
            kind: ChallengeKind::Http01,
            host: "a.test".to_owned(),
            token: "t".to_owned(),
            authorization: "t.key".to_owned(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let replica = replica(listener, challenge.clone());
        let (taken, asked) =
            tokio::join!(replica, timeout(PATIENCE, until_shown(addr, &challenge)));
        assert_eq!(taken, 3);
        assert!(asked.is_ok());
    }
}
