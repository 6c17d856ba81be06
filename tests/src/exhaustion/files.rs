//! No file descriptor is left.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use super::Report;
use super::Trial;
use super::get;
use crate::process::Program;

/// Far fewer than the connections that are made.
const FILES: u32 = 64;
const CONNECTIONS: usize = 200;
/// How long the gateway's use of the processor is watched.
const WATCHED: Duration = Duration::from_secs(3);
/// Most that it may be, in percent of one processor.
const BUSY_PERCENT: u64 = 5;

pub(super) async fn run(report: &mut Report) -> Result<(), String> {
    // Once with the count of connections that the gateway chooses, once with one that lets the
    // kernel's limit be reached.
    for settings in ["", "[limits]\nconnections = 10000"] {
        let what = if settings.is_empty() {
            "files, counted"
        } else {
            "files, at the limit"
        };
        let trial = Trial::new(&format!("{settings}\n[runtime]\nworkers = 2"), 2).await;
        let shell = format!("ulimit -n {FILES} && exec \"$@\"");
        let program = trial.start(&shell).await?;
        one(report, what, &trial, &program).await?;
    }
    Ok(())
}

async fn one(
    report: &mut Report,
    what: &str,
    trial: &Trial,
    program: &Program,
) -> Result<(), String> {
    let mut kept = connect(trial, 5).await;
    let others = connect(trial, CONNECTIONS).await;
    let before = program.processor_ticks().ok_or("no /proc")?;
    sleep(WATCHED).await;
    let ticks = program.processor_ticks().ok_or("no /proc")? - before;
    // A tick is a hundredth of a second.
    let percent = ticks / WATCHED.as_secs();
    report.check(
        percent <= BUSY_PERCENT,
        &format!("{what}: the processor is left alone"),
        format!("{percent} %"),
    );
    let mut answered = 0;
    for stream in &mut kept {
        answered += usize::from(is_answered(stream).await);
    }
    report.check(
        answered == kept.len(),
        &format!("{what}: connections that are there are answered"),
        format!("{answered} of {}", kept.len()),
    );
    if what == "files, counted" {
        let ready = get(trial.admin, "/ready").await.map(|(status, _)| status);
        report.check(
            ready == Ok(200),
            &format!("{what}: the admin listener is reached"),
            format!("{ready:?}"),
        );
    }
    drop((kept, others));
    let released = Instant::now();
    while trial.get().await != Ok(200) && released.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(20)).await;
    }
    let took = released.elapsed();
    report.check(
        took < Duration::from_secs(1),
        &format!("{what}: back once they are released"),
        format!("{} ms", took.as_millis()),
    );
    let panics = trial.metric("postern_panics_total").await?;
    report.check(panics == 0, &format!("{what}: no panic"), panics);
    Ok(())
}

async fn connect(trial: &Trial, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        if let Ok(Ok(stream)) =
            timeout(Duration::from_secs(1), TcpStream::connect(trial.http)).await
        {
            streams.push(stream);
        }
    }
    streams
}

/// 503 is an answer: there may be no file for the connection to the upstream.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut status = [0; 12];
    let talk = async {
        stream.write_all(request).await?;
        stream.read_exact(&mut status).await
    };
    let talked = timeout(Duration::from_secs(2), talk).await;
    matches!(talked, Ok(Ok(_))) && matches!(&status[9..], b"200" | b"503")
}
