//! One gateway over memory, for all inputs of a process, and an upstream that is the oracle.
//!
//! Everything runs on one thread, so that giving way often enough lets all of it happen that can:
//! [`Harness::settle`] waits for no clock. The gateway's own timeouts are seconds and play no part,
//! unless something hangs: then [`PATIENCE`] ends the run with a panic.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_proxy::Compiler;
use postern_proxy::Materials;
use postern_proxy::test_util::MemoryWorker;
use postern_wasm::PluginEngine;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::DuplexStream;
use tokio::runtime::LocalOptions;
use tokio::runtime::LocalRuntime;
use tokio::task::yield_now;

use super::oracle;
use crate::upstream::recorder;
use crate::upstream::recorder::Parsed;
use crate::upstream::recorder::Recorded;

/// Nothing that an input asks for takes a second; more is a hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often every task may run before quiet is taken for the end.
const QUIET_TURNS: usize = 64;
/// Longest output that a client keeps.
const MAX_OUTPUT: usize = 4 << 20;

/// What a well-formed request is answered with.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nrecorded";

/// Inputs see no clock, so those that wait end with the client: long enough not to fire.
const CONFIG: &str = r#"
access-log = { format = "off" }
listeners.http.bind = "127.0.0.1:1"
upstreams.app.endpoints = ["127.0.0.1:2"]
[[routes]]
hosts = ["a.test"]
rules = [{ upstream = "app" }, { path = { prefix = "/admin" }, respond = { status = 403 } }]
"#;

/// A gateway, its upstream and what that has seen.
pub(super) struct Harness {
    runtime: LocalRuntime,
    worker: MemoryWorker,
    upstream: Rc<Upstream>,
}

#[derive(Default)]
struct Upstream {
    seen: RefCell<Vec<Recorded>>,
    /// Bytes that are no request.
    violation: RefCell<Option<String>>,
    /// Sent in place of [`ANSWER`], once.
    answer: RefCell<Option<Answer>>,
    /// Rises with whatever happens.
    activity: Cell<u64>,
}

/// What an upstream says that is not to be trusted.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Then it closes.
    pub(super) closes: bool,
}

/// What one connection came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the client got.
    pub(super) output: Vec<u8>,
    /// What the upstream got, each checked by the oracle if it is complete.
    pub(super) requests: Vec<Recorded>,
    /// The gateway closed the connection by itself.
    pub(super) is_closed: bool,
}

impl Outcome {
    /// Requests that arrived whole.
    pub(super) fn complete(&self) -> impl Iterator<Item = &Recorded> {
        self.requests.iter().filter(|request| request.is_complete)
    }
}

thread_local! {
    static HARNESS: Harness = Harness::start();
}

/// Runs with the harness of this thread.
pub(super) fn with<T>(run: impl FnOnce(&Harness) -> T) -> T {
    HARNESS.with(run)
}

impl Harness {
    fn start() -> Self {
        let runtime = local_runtime();
        let upstream = Rc::<Upstream>::default();
        let shared = Rc::clone(&upstream);
        let worker = start(&runtime, CONFIG, move |stream| {
            tokio::task::spawn_local(Rc::clone(&shared).serve(stream));
        });
        Self {
            runtime,
            worker,
            upstream,
        }
    }

    /// Sends these pieces over one connection, waits for all that comes of them, then closes.
    pub(super) fn run(&self, is_h2: bool, pieces: &[&[u8]], answer: Option<Answer>) -> Outcome {
        self.upstream.seen.borrow_mut().clear();
        self.upstream.answer.replace(answer);
        let panics = self.worker.panics();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let talked = self.runtime.block_on(async {
            let talk = self.talk(is_h2, pieces);
            tokio::time::timeout(PATIENCE, talk).await
        });
        let (output, is_closed) = talked.expect("the connection ends, or comes to rest");
        assert_eq!(self.worker.panics(), panics, "a panic ended a connection");
        if let Some(violation) = self.upstream.violation.take() {
            panic!("V2, V3: no request: {violation}");
        }
        let requests = self.upstream.seen.take();
        for request in requests.iter().filter(|request| request.is_complete) {
            oracle::check(request);
        }
        Outcome {
            output,
            requests,
            is_closed,
        }
    }

    async fn talk(&self, is_h2: bool, pieces: Vec<Vec<u8>>) -> (Vec<u8>, bool) {
        let client = self.worker.connect(is_h2).expect("the listener is there");
        let (mut reader, mut writer) = tokio::io::split(client);
        let output = Rc::new(RefCell::new(Vec::new()));
        let upstream = Rc::clone(&self.upstream);
        let read = Rc::clone(&output);
        let reading = tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(len @ 1..) = reader.read(&mut buffer).await {
                upstream.touch();
                let mut output = read.borrow_mut();
                if output.len() < MAX_OUTPUT {
                    output.extend_from_slice(&buffer[..len]);
                }
            }
        });
        let upstream = Rc::clone(&self.upstream);
        let writing = tokio::task::spawn_local(async move {
            for piece in pieces {
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
                upstream.touch();
                // So that the gateway sees each piece on its own.
                for _ in 0..4 {
                    yield_now().await;
                }
            }
            writer
        });
        self.settle().await;
        let is_closed = reading.is_finished();
        if writing.is_finished() {
            if let Ok(mut writer) = writing.await {
                // The gateway may be gone already.
                let _ = writer.shutdown().await;
                self.settle().await;
            }
        } else {
            // It neither reads nor closes, as it may while an upstream is silent.
            writing.abort();
        }
        reading.abort();
        let _ = reading.await;
        // With both halves gone, the connection has nobody to talk to and must end.
        while self.worker.connections() > 0 {
            yield_now().await;
        }
        (output.take(), is_closed)
    }

    /// Until nothing happens any more without a clock.
    async fn settle(&self) {
        loop {
            let before = self.upstream.activity.get();
            for _ in 0..QUIET_TURNS {
                yield_now().await;
            }
            if self.upstream.activity.get() == before {
                return;
            }
        }
    }
}

pub(super) fn local_runtime() -> LocalRuntime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("the runtime starts")
}

/// A worker with this configuration, whose endpoints are streams that `upstream` gets.
pub(super) fn start(
    runtime: &LocalRuntime,
    config: &str,
    upstream: impl Fn(DuplexStream) + 'static,
) -> MemoryWorker {
    runtime.block_on(async {
        let loaded = parse(&[ConfigText {
            path: "fuzz.toml".into(),
            text: config.into(),
        }]);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
        let materials = Materials::read(&loaded.config);
        let engine = PluginEngine::new(None).expect("the plugin engine starts");
        let compiler = Compiler::new(engine, 1, false);
        let compiled = compiler.compile(&loaded, &materials, None).await;
        let snapshot = compiled.unwrap_or_else(|problems| panic!("{problems:?}"));
        MemoryWorker::start(snapshot, move |_, stream| upstream(stream)).expect("the worker starts")
    })
}

impl Upstream {
    fn touch(&self) {
        self.activity.set(self.activity.get() + 1);
    }

    /// Like the recorder of the integration tests, over memory.
    async fn serve(self: Rc<Self>, mut stream: DuplexStream) {
        let mut bytes = Vec::new();
        loop {
            let mut index = None;
            loop {
                match recorder::parse(&bytes) {
                    Ok(Parsed::Nothing) => {}
                    Ok(Parsed::Partial(request)) => self.record(&mut index, request),
                    Ok(Parsed::Complete(request, used)) => {
                        self.record(&mut index, request);
                        bytes.drain(..used);
                        break;
                    }
                    Err(violation) => {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        self.violation
                            .replace(Some(format!("{violation}: {text:?}")));
                        return;
                    }
                }
                match stream.read_buf(&mut bytes).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => self.touch(),
                }
            }
            if self.answer(&mut stream).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, stream: &mut DuplexStream) -> io::Result<()> {
        self.touch();
        let Some(answer) = self.answer.take() else {
            return stream.write_all(ANSWER).await;
        };
        stream.write_all(&answer.bytes).await?;
        self.touch();
        if answer.closes {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn record(&self, index: &mut Option<usize>, request: Recorded) {
        let mut seen = self.seen.borrow_mut();
        match *index {
            // The input may have ended since, and another begun.
            Some(index) if index < seen.len() => seen[index] = request,
            _ => {
                *index = Some(seen.len());
                seen.push(request);
            }
        }
    }
}
