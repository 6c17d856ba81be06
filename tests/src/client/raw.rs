//! A client that sends bytes as they are, and reads responses out of what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// A gateway that has not closed by then hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// One response in a sequence of bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    pub body: Vec<u8>,
}

/// Sends the bytes and reads until the gateway closes; the tests configure it to do so soon.
pub async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = TcpStream::connect(addr).await.unwrap().into_split();
    let mut answer = Vec::new();
    let talk = async {
        let send = async {
            // A gateway may refuse, and close, before it has read everything.
            let _ = writer.write_all(bytes).await;
            writer
        };
        let (_writer, _) = tokio::join!(send, reader.read_to_end(&mut answer));
    };
    let talked = tokio::time::timeout(LIMIT, talk).await;
    if talked.is_err() {
        answer.extend_from_slice(b"... and then the connection stayed open");
    }
    answer
}

/// Sends the bytes, then ends its direction, and reads until the gateway closes.
pub async fn exchange_and_end(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(LIMIT, talk).await.unwrap();
    answer
}

/// Every response in the bytes, interim ones too. What is no response ends the sequence with
/// status 0.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let head = end.map(|end| String::from_utf8_lossy(&bytes[..end]).into_owned());
        let status = head.as_ref().and_then(|head| {
            let rest = head.strip_prefix("HTTP/1.")?;
            rest.get(2..5)?.parse().ok()
        });
        let (Some(end), Some(head), Some(status)) = (end, head, status) else {
            answers.push(Answer {
                status: 0,
                head: String::from_utf8_lossy(bytes).into_owned(),
                body: Vec::new(),
            });
            break;
        };
        bytes = &bytes[end + 4..];
        let length = field(&head, "content-length").and_then(|value| value.parse().ok());
        let has_body = status >= 200 && status != 204 && status != 304;
        let length = match length {
            _ if !has_body => 0,
            Some(length) => bytes.len().min(length),
            None => bytes.len(),
        };
        answers.push(Answer {
            status,
            head,
            body: bytes[..length].to_vec(),
        });
        bytes = &bytes[length..];
    }
    answers
}

/// The value of a field in a head.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
