//! A steady load on gateways that may come and go: whoever is not answered with 200 is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(10);
/// Failures that are told.
const MAX_TOLD: usize = 10;

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    told: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// Clients of some gateways.
pub struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    pub requests: u64,
    pub failed: u64,
    pub told: Vec<String>,
}

impl Load {
    /// Asks each gateway for this, over two connections that last and one a request.
    pub fn start(gateways: &[SocketAddr], host: &'static str, path: &'static str) -> Self {
        let counts = Arc::new(Counts::default());
        let mut clients = Vec::new();
        for gateway in gateways {
            for lasts in [true, true, false] {
                clients.push(tokio::spawn(client(
                    *gateway,
                    host,
                    path,
                    lasts,
                    Arc::clone(&counts),
                )));
            }
        }
        Self { counts, clients }
    }

    pub async fn end(self) -> Outcome {
        self.counts.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            // One that panicked has asked less, which shows.
            let _ = client.await;
        }
        let told = self.counts.told.lock().unwrap().clone();
        Outcome {
            requests: self.counts.requests.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            told,
        }
    }
}

impl Outcome {
    /// `Err` if anything failed, or nothing was asked.
    pub fn check(&self, what: &str) -> Result<(), String> {
        if self.requests > 0 && self.failed == 0 {
            return Ok(());
        }
        Err(format!(
            "{what}: {} of {} requests failed: {:#?}",
            self.failed, self.requests, self.told
        ))
    }
}

async fn client(gateway: SocketAddr, host: &str, path: &str, lasts: bool, counts: Arc<Counts>) {
    let mut connection: Option<Client> = None;
    while !counts.is_over.load(Ordering::Relaxed) {
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = ask(gateway, host, path, &mut connection).await {
            connection = None;
            counts.failed.fetch_add(1, Ordering::Relaxed);
            let mut told = counts.told.lock().unwrap();
            if told.len() < MAX_TOLD {
                told.push(format!("{gateway}: {error}"));
            }
        }
        if !lasts {
            connection = None;
        }
        sleep(PACE).await;
    }
}

async fn ask(
    gateway: SocketAddr,
    host: &str,
    path: &str,
    connection: &mut Option<Client>,
) -> Result<(), String> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => {
            let stream = tokio::net::TcpStream::connect(gateway).await;
            let stream = stream.map_err(|error| error.to_string())?;
            Client::over_http1(stream)
                .await
                .map_err(|error| error.to_string())?
        }
    };
    let request = client.request("GET", host, path);
    let reply = client
        .send(request)
        .await
        .map_err(|error| error.to_string())?;
    if reply.status != 200 {
        return Err(format!("{} {}", reply.status, reply.text()));
    }
    // A gateway may bound what one connection asks.
    if reply.header("connection") != "close" {
        *connection = Some(client);
    }
    Ok(())
}
