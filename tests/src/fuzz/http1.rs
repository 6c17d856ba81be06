//! A reader of HTTP/1 messages of our own, written from RFC 9112 and not from any parser.
//!
//! It is as lenient as the RFC lets a recipient be, and no further: where the gateway is stricter,
//! it takes fewer requests, which is its right. It may never take one that is not one here, nor
//! find another end of it.

/// One message, and how many bytes it took.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    /// Request line or status line.
    pub(super) line: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) used: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Read {
    Whole(Message),
    /// The head is there, the end is not.
    Cut,
    /// Not even the head.
    Partial,
    Invalid,
}

impl Message {
    pub(super) fn values<'m>(&'m self, name: &str) -> impl Iterator<Item = &'m [u8]> {
        self.fields
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    pub(super) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    pub(super) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub(super) fn status(&self) -> u16 {
        let code = self.line.split(' ').nth(1).unwrap_or_default();
        code.parse().unwrap_or_default()
    }
}

/// Every request at the start of these bytes, up to the first that is none.
pub(super) fn requests(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Read::Whole(message) = request(bytes) {
        bytes = &bytes[message.used..];
        found.push(message);
    }
    found
}

pub(super) fn request(bytes: &[u8]) -> Read {
    // RFC 9112, 2.2: empty lines in front of a request may be ignored.
    let mut skipped = 0;
    loop {
        match &bytes[skipped..] {
            [b'\r', b'\n', ..] => skipped += 2,
            [b'\n', ..] => skipped += 1,
            _ => break,
        }
    }
    let (mut message, body) = match head(&bytes[skipped..]) {
        Ok(Some(head)) => head,
        Ok(None) => return Read::Partial,
        Err(()) => return Read::Invalid,
    };
    let parts: Vec<&str> = message.line.split(' ').collect();
    let is_request = matches!(parts.as_slice(), [method, target, "HTTP/1.1" | "HTTP/1.0"]
        if is_token(method.as_bytes()) && !target.is_empty());
    if !is_request {
        return Read::Invalid;
    }
    let Some(framing) = Framing::of(&message) else {
        return Read::Invalid;
    };
    // A request without either has no body (RFC 9112, 6.3).
    let framing = framing.unwrap_or(Framing::Length(0));
    if framing == Framing::Chunked && parts[2] == "HTTP/1.0" {
        return Read::Invalid;
    }
    message.used = skipped + body;
    framing.read(message, &bytes[skipped + body..])
}

/// The response to a GET, after any interim ones. `is_over`: nothing follows these bytes.
pub(super) fn response(bytes: &[u8], is_over: bool) -> Read {
    let mut start = 0;
    loop {
        let (mut message, body) = match head(&bytes[start..]) {
            Ok(Some(head)) => head,
            Ok(None) => return Read::Partial,
            Err(()) => return Read::Invalid,
        };
        let status = message.status();
        let is_http =
            message.line.starts_with("HTTP/1.1 ") || message.line.starts_with("HTTP/1.0 ");
        if !is_http || !(100..1000).contains(&status) {
            return Read::Invalid;
        }
        start += body;
        if status < 200 && status != 101 {
            continue;
        }
        let Some(framing) = Framing::of(&message) else {
            return Read::Invalid;
        };
        message.used = start;
        let rest = &bytes[start..];
        return match framing {
            _ if matches!(status, 101 | 204 | 304) => Framing::Length(0).read(message, rest),
            Some(framing) => framing.read(message, rest),
            None if is_over => Framing::Length(rest.len()).read(message, rest),
            None => Read::Cut,
        };
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Framing {
    /// `None`: contradictory or malformed. `Some(None)`: the message does not say.
    fn of(message: &Message) -> Option<Option<Self>> {
        let mut codings = message.values("transfer-encoding").peekable();
        if codings.peek().is_some() {
            // RFC 9112, 6.3: the coding overrides a length that stands beside it. Of codings, the
            // gateway serves one.
            let mut is_chunked = 0;
            for value in codings {
                for coding in value.split(|&b| b == b',') {
                    match coding.trim_ascii() {
                        b"" => {}
                        coding if coding.eq_ignore_ascii_case(b"chunked") => is_chunked += 1,
                        _ => return None,
                    }
                }
            }
            return (is_chunked == 1).then_some(Some(Self::Chunked));
        }
        let mut lengths = Vec::new();
        for value in message.values("content-length") {
            let is_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| is_digits)?;
            lengths.push(text.parse::<usize>().ok()?);
        }
        // The same length twice is one length (RFC 9110, 8.6).
        lengths.dedup();
        match lengths.as_slice() {
            [] => Some(None),
            [length] => Some(Some(Self::Length(*length))),
            _ => None,
        }
    }

    fn read(self, mut message: Message, rest: &[u8]) -> Read {
        match self {
            Self::Length(length) => match rest.get(..length) {
                Some(body) => {
                    message.body = body.to_vec();
                    message.used += length;
                    Read::Whole(message)
                }
                None => Read::Cut,
            },
            Self::Chunked => match chunks(rest) {
                Ok(Some((body, used))) => {
                    message.body = body;
                    message.used += used;
                    Read::Whole(message)
                }
                Ok(None) => Read::Cut,
                Err(()) => Read::Invalid,
            },
        }
    }
}

type Head = (Message, usize);

fn head(bytes: &[u8]) -> Result<Option<Head>, ()> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let Some(len) = bytes[at..].iter().position(|&b| b == b'\n') else {
            return Ok(None);
        };
        // RFC 9112, 2.2: a single LF may end a line; a single CR may not.
        let line = &bytes[at..at + len];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += len + 1;
        if line.is_empty() {
            break;
        }
        if line.contains(&b'\r') || line.contains(&0) {
            return Err(());
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let line = lines.next().ok_or(())?;
    let fields = lines.map(field).collect::<Result<_, _>>()?;
    let message = Message {
        line: String::from_utf8_lossy(line).into_owned(),
        fields,
        body: Vec::new(),
        used: 0,
    };
    Ok(Some((message, at)))
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), ()> {
    let colon = line.iter().position(|&b| b == b':').ok_or(())?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let is_value = value.iter().all(|&b| b >= 0x20 && b != 0x7f || b == b'\t');
    if !is_token(name) || !is_value {
        return Err(());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

pub(super) fn is_token(name: &[u8]) -> bool {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(is_tchar)
}

/// Body and bytes used; `None`: there is more to come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(len) = line_len(&bytes[at..]) else {
            return Ok(None);
        };
        let line = &bytes[at..at + len];
        at += len + 2;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        // Behind the size: white space, and extensions, which have no end of line in them.
        let rest = line[digits..].trim_ascii_start();
        if digits == 0
            || digits > 16
            || !(rest.is_empty() || rest[0] == b';')
            || line.contains(&b'\n')
        {
            return Err(());
        }
        let size = String::from_utf8_lossy(&line[..digits]).into_owned();
        let size = usize::from_str_radix(&size, 16).map_err(drop)?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size).ok_or(())?;
        let Some(chunk) = bytes.get(at..end) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => at = end + 2,
            Some(_) => return Err(()),
            None => return Ok(None),
        }
    }
    // Trailers, to the first empty line.
    loop {
        let Some(len) = line_len(&bytes[at..]) else {
            return Ok(None);
        };
        at += len + 2;
        if len == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn line_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|window| window == b"\r\n")
}
