//! The last that a client hears which has spent its budget.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::Abuse;
use super::GOAWAY;
use super::Left;
use crate::clock::Clock;

/// How long bytes of the client are thrown away after the last frame. Closing a socket that holds
/// unread bytes resets the connection, and a reset can overtake the GOAWAY.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes, at most.
const LINGER_BYTES: usize = 1 << 20;

/// Says GOAWAY, and gives the client the time to read it.
pub(crate) async fn goodbye(clock: &Clock, left: Left, abuse: Abuse) {
    // Whoever does not listen is not waited for.
    let _ = clock.timeout(LINGER, last_words(left, abuse)).await;
}

async fn last_words(left: Left, abuse: Abuse) -> std::io::Result<()> {
    let Left {
        mut stream,
        last_stream,
    } = left;
    if let Some(last_stream) = last_stream {
        stream.write_all(&goaway(last_stream, abuse.code())).await?;
    }
    stream.flush().await?;
    stream.shutdown().await?;
    let mut thrown_away = 0;
    let mut bytes = [0; 4096];
    while thrown_away < LINGER_BYTES {
        match stream.read(&mut bytes).await? {
            0 => break,
            count => thrown_away += count,
        }
    }
    Ok(())
}

fn goaway(last_stream: u32, code: u32) -> [u8; 17] {
    let mut frame = [0; 17];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[13..].copy_from_slice(&code.to_be_bytes());
    frame
}
