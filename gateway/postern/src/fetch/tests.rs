//! What a server may do to whoever fetches from it.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::blobs::digest_of;
use super::*;
use crate::source::test_dir::TestDir;

/// Answers each connection with the next of these bytes, the last one for ever, and then closes;
/// with nothing at all, it never answers.
async fn server(answers: Vec<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let turn = AtomicUsize::new(0);
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let index = turn.fetch_add(1, Ordering::Relaxed);
            let Some(answer) = answers.get(index).or_else(|| answers.last()) else {
                silent.push(stream);
                continue;
            };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    addr
}

fn source(addr: SocketAddr, content: &[u8]) -> RemoteSource {
    let url = format!("http://{addr}/guest.wasm");
    RemoteSource {
        location: Location::Https {
            url: HttpUrl::parse(&url).unwrap(),
            digest: digest_of(content),
        },
        fetch: FetchSpec {
            // So that no roots of the system are needed.
            plain_http: true,
            ..FetchSpec::default()
        },
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ncode";

#[tokio::test]
async fn a_bad_answer_is_an_error_and_nothing_is_kept() {
    let dir = TestDir::new();
    let blobs = Arc::new(Blobs::new(dir.path("")));
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ncode", "failed"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ncode\r\n",
            "failed",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nc0de", "digest"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "digest"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "larger",
        ),
        (
            "HTTP/1.1 206 Partial\r\ncontent-length: 4\r\n\r\ncode",
            "206",
        ),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "302"),
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "500"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "failed"),
        ("", "failed"),
    ];
    for (answer, want) in cases {
        let source = source(server(vec![answer]).await, b"code");
        let error = pull(&source, Some(&blobs)).await.unwrap_err();
        assert!(error.to_string().contains(want), "{answer}: {error}");
        assert_eq!(blobs.load(&digest_of(b"code"), 100), None, "{answer}");
    }
    let source = source(server(vec![GOOD]).await, b"code");
    let (bytes, was_asked) = pull(&source, Some(&blobs)).await.unwrap();
    assert_eq!((&bytes[..], was_asked), (&b"code"[..], true));
    let (bytes, was_asked) = pull(&source, Some(&blobs)).await.unwrap();
    assert_eq!((&bytes[..], was_asked), (&b"code"[..], false));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let source = source(server(Vec::new()).await, b"code");
    let error = pull(&source, None).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    assert!(!error.is_lasting());
}

#[tokio::test]
async fn nobody_waits_longer_than_they_want_to() {
    let silent = source(server(Vec::new()).await, b"code");
    let good = source(server(vec![GOOD]).await, b"code");
    let wanted = BTreeSet::from([silent.clone(), good.clone()]);
    let fetcher = Fetcher::new(None, None);
    let fetched = fetcher.fetch(&wanted, Duration::from_millis(500)).await;
    assert_eq!(fetched[&good].as_deref(), Ok(&b"code"[..]));
    let absence = fetched[&silent].as_ref().unwrap_err();
    assert!(
        absence.message.contains("still being fetched"),
        "{absence:?}"
    );
}

#[tokio::test]
async fn a_failure_is_told_once_and_tried_again_until_it_is_none() {
    struct Pokes(AtomicUsize);
    impl Poke for Pokes {
        fn poke(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let pokes = Arc::new(Pokes(AtomicUsize::new(0)));
    let no = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    let addr = server(vec![no, no, GOOD]).await;
    let source = source(addr, b"code");
    let wanted = BTreeSet::from([source.clone()]);
    let fetcher = Fetcher::new(None, Some(Arc::clone(&pokes) as Arc<dyn Poke>));
    let fetched = fetcher.fetch(&wanted, PATIENCE).await;
    let absence = fetched[&source].as_ref().unwrap_err();
    assert!(absence.message.contains("answered 503"), "{absence:?}");
    assert!(!absence.is_lasting);
    let mut changed = fetcher.shared.changed.subscribe();
    while fetcher.fetch(&wanted, PATIENCE).await[&source].is_err() {
        // Asked for at once, not after the pause.
        fetcher.hurry();
        changed.changed().await.unwrap();
    }
    let want = Fetches {
        succeeded: 1,
        failed: 2,
    };
    assert_eq!(fetcher.fetches(), want);
    assert_eq!(pokes.0.load(Ordering::Relaxed), 2, "failed, and then not");

    fetcher.retain(&BTreeSet::new());
    assert!(fetcher.shared.entries().is_empty());
}

#[test]
fn pauses_are_spread_and_never_longer() {
    for _ in 0..100 {
        let pause = jittered(LAST_RETRY);
        assert!(
            pause <= LAST_RETRY && pause >= LAST_RETRY * 3 / 4,
            "{pause:?}"
        );
    }
}
