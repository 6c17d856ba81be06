//! What stands in front of HTTP and only a socket can show: handshakes.

use std::net::SocketAddr;
use std::time::Duration;

use postern_proxy::test_util::MemoryWorker;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::LocalRuntime;

use super::harness::local_runtime;
use super::harness::start;
use crate::certs::Authority;
use crate::scratch::Scratch;

/// Longest input; more than a handshake may be.
const MAX_INPUT: usize = 128 << 10;
/// After the client has ended its side, nothing is left to wait for. A busy machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Sockets {
    runtime: LocalRuntime,
    worker: MemoryWorker,
    listener: TcpListener,
    addr: SocketAddr,
    _files: Scratch,
}

thread_local! {
    static SOCKETS: Sockets = Sockets::open();
}

/// The first bytes of a TLS client: answered or refused, and the connection ends.
pub fn client_hello(input: &[u8]) {
    if input.len() > MAX_INPUT {
        return;
    }
    SOCKETS.with(|sockets| sockets.run("tls", input));
}

impl Sockets {
    fn open() -> Self {
        let files = Scratch::new();
        let leaf = Authority::new("fuzz").leaf(&["a.test", "*.b.test"]);
        let config = format!(
            r#"
            access-log = {{ format = "off" }}
            listeners.tls = {{ bind = "127.0.0.1:1", tls = {{}}, timeouts = {{ handshake = "10m", request-head = "10m" }} }}
            certificates.a = {{ cert-file = {:?}, key-file = {:?} }}
            [[routes]]
            hosts = ["a.test"]
            rules = [{{ respond = {{ status = 204 }} }}]
            "#,
            files.write("chain.pem", leaf.chain),
            files.write("key.pem", leaf.key),
        );
        let runtime = local_runtime();
        let worker = start(&runtime, &config, drop);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("there is a port");
        let addr = listener.local_addr().expect("the socket is bound");
        Self {
            runtime,
            worker,
            listener,
            addr,
            _files: files,
        }
    }

    fn run(&self, name: &str, input: &[u8]) {
        let panics = self.worker.panics();
        let talked = self.runtime.block_on(async {
            let (client, accepted) =
                tokio::join!(TcpStream::connect(self.addr), self.listener.accept());
            let (mut client, (server, _)) =
                (client.expect("it connects"), accepted.expect("it accepts"));
            self.worker
                .accept(name, server)
                .expect("the listener is there");
            tokio::time::timeout(PATIENCE, async {
                let (mut reader, mut writer) = client.split();
                let write = async {
                    // It may have been refused after the first bytes.
                    let _ = writer.write_all(input).await;
                    let _ = writer.shutdown().await;
                };
                let mut output = Vec::new();
                let (_, _) = tokio::join!(write, reader.read_to_end(&mut output));
                drop(client);
                while self.worker.connections() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await
        });
        talked.expect("the connection ends");
        assert_eq!(self.worker.panics(), panics, "a panic ended a connection");
    }
}
