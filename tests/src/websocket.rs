//! WebSocket frames, as little as an echo needs: short text messages and close (RFC 6455, 5.2).
//!
//! The handshake is checked by the clients that are not ours; here the bytes after it matter.

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
/// Longest message that needs no extended length.
const MAX_SHORT: usize = 125;

/// The request that asks for a WebSocket.
pub fn handshake(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Sends a message as a client does: masked.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    assert!(text.len() <= MAX_SHORT, "only short messages");
    let mask = [1, 2, 3, 4];
    let mut frame = vec![TEXT, MASKED | text.len() as u8];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    stream.write_all(&frame).await
}

/// Sends a message as a server does.
pub async fn reply(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    assert!(text.len() <= MAX_SHORT, "only short messages");
    let mut frame = vec![TEXT, text.len() as u8];
    frame.extend(text.bytes());
    stream.write_all(&frame).await
}

/// The next message, unmasked if it has to be.
pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut start = [0; 2];
    stream.read_exact(&mut start).await?;
    let mut mask = [0; 4];
    if start[1] & MASKED != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut text = vec![0; usize::from(start[1] & !MASKED)];
    stream.read_exact(&mut text).await?;
    for (byte, mask) in text.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}
