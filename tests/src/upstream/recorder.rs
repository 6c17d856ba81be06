//! An upstream that writes down every byte it gets and reads it as strictly as the standard allows.
//!
//! It is the oracle of the framing tests: what leaves the gateway is judged here, not by the
//! gateway's own counters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recorded {
    /// The request line.
    pub line: String,
    /// Names as they were sent.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body arrived whole.
    pub is_complete: bool,
}

impl Recorded {
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Every value of a field, in any spelling of its name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter();
        fields
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// A server that answers 200 to whatever is well formed.
pub struct Recorder {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Recorded>,
    /// Bytes that are no request, by a strict reading.
    violations: Vec<String>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { addr, seen, task }
    }

    /// What has arrived, complete or not; and what was no request.
    pub fn seen(&self) -> (Vec<Recorded>, Vec<String>) {
        let seen = self.seen.lock().unwrap();
        (seen.requests.clone(), seen.violations.clone())
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut bytes = Vec::new();
    loop {
        // One request at a a time: a gateway that pipelines would be seen as a violation.
        let mut index = None;
        loop {
            match parse(&bytes) {
                Ok(Parsed::Nothing) => {}
                Ok(Parsed::Partial(request)) => record(&seen, &mut index, request),
                Ok(Parsed::Complete(request, used)) => {
                    record(&seen, &mut index, request);
                    bytes.drain(..used);
                    break;
                }
                Err(violation) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let mut seen = seen.lock().unwrap();
                    seen.violations.push(format!("{violation}: {text:?}"));
                    return;
                }
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nrecorded";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn record(seen: &Mutex<Seen>, index: &mut Option<usize>, request: Recorded) {
    let mut seen = seen.lock().unwrap();
    match *index {
        Some(index) => seen.requests[index] = request,
        None => {
            *index = Some(seen.requests.len());
            seen.requests.push(request);
        }
    }
}

/// What the bytes of a connection begin with.
pub enum Parsed {
    /// No whole head yet.
    Nothing,
    /// The head is there.
    Partial(Recorded),
    /// A request of so many bytes.
    Complete(Recorded, usize),
}

/// Reads one request as strictly as the standard allows; an error says what is no request.
pub fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(Parsed::Nothing);
    };
    let mut lines = split_lines(&bytes[..end])?.into_iter();
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    if parts.len() != 3 || parts[2] != "HTTP/1.1" || !parts[1].starts_with('/') {
        return Err(format!("request line {line:?}"));
    }
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let mut request = Recorded {
        line,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        is_complete: true,
    };
    let lengths = request.values("content-length");
    let codings = request.values("transfer-encoding");
    let start = end + 4;
    let used = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => start,
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| format!("length {length:?}"))?;
            let rest = &bytes[start..];
            request.is_complete = rest.len() >= length;
            request.body = rest[..length.min(rest.len())].to_vec();
            start + length
        }
        ([], ["chunked"]) => match dechunk(&bytes[start..])? {
            Some((body, trailers, used)) => {
                request.body = body;
                request.trailers = trailers;
                start + used
            }
            None => {
                request.is_complete = false;
                start
            }
        },
        _ => return Err(format!("framing {lengths:?} {codings:?}")),
    };
    if request.is_complete {
        Ok(Parsed::Complete(request, used))
    } else {
        Ok(Parsed::Partial(request))
    }
}

type Chunks = (Vec<u8>, Vec<(String, String)>, usize);

fn dechunk(bytes: &[u8]) -> Result<Option<Chunks>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let size = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        // No extension, no space, no sign: the gateway has no reason to send one.
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        at += end + 2;
        if size == 0 {
            if bytes[at..].starts_with(b"\r\n") {
                return Ok(Some((body, Vec::new(), at + 2)));
            }
            let Some(end) = find(&bytes[at..], b"\r\n\r\n") else {
                return Ok(None);
            };
            let lines = split_lines(&bytes[at..at + end])?;
            let trailers = lines.into_iter().map(field).collect::<Result<_, _>>()?;
            return Ok(Some((body, trailers, at + end + 4)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if &chunk[size..] != b"\r\n" {
            return Err("a chunk without end".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}

fn split_lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines: Vec<String> = text.split("\r\n").map(ToOwned::to_owned).collect();
    for line in &lines {
        if line.bytes().any(|b| b < 0x20 && b != b'\t') {
            return Err(format!("a control character in {line:?}"));
        }
    }
    Ok(lines)
}

fn field(line: String) -> Result<(String, String), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| format!("field {line:?}"))?;
    let is_token = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token {
        return Err(format!("field name {name:?}"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
