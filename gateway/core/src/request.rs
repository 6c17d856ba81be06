//! The canonical request: made once from what a client sent, then the only thing that router,
//! policies, plugins, upstream and log look at.
//!
//! What a lenient upstream could read in two ways is refused here, so that exactly one request
//! goes out. Framing is not part of a [`RequestHead`]: it follows from the body that is sent.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;

use crate::header::FieldKind;
use crate::header::X_FORWARDED_PROTO;
use crate::header::remove_nominated;
use crate::hostname::Authority;
use crate::hostname::HostnameError;
use crate::path::EncodedSlash;
use crate::path::PathError;
use crate::path::RequestPath;

/// `http` or `https`, by how the request reached the gateway.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request in its one canonical form.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    pub authority: Authority,
    pub path: RequestPath,
    /// End-to-end fields only; `host` is in `authority`.
    pub headers: HeaderMap,
    /// The client asked for a WebSocket (HTTP/1.1 only).
    pub is_websocket: bool,
    /// The client takes trailers (`te: trailers`), which gRPC servers insist on.
    pub takes_trailers: bool,
}

/// What a listener lets through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RequestRules {
    pub encoded_slash: EncodedSlash,
    /// The peer is a proxy whose identity fields are believed.
    pub is_trusted: bool,
}

/// Why a request is refused before routing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    #[error("the method {0} is not served")]
    Method(RefusedMethod),
    #[error("the request target has a form that is not served")]
    TargetForm,
    #[error("the request names no host")]
    NoHost,
    #[error("the request names more than one host")]
    Hosts,
    #[error("the host is malformed")]
    Host(#[source] HostnameError),
    #[error("the path is malformed")]
    Path(#[source] PathError),
    #[error("the content-length field is malformed or repeated")]
    ContentLength,
    #[error("the transfer-encoding is not served")]
    TransferEncoding,
    #[error("a field imitates a framing field")]
    FramingTwin,
    #[error("the connection field names a field that may not be dropped")]
    Nomination,
    #[error("the expectation is not served")]
    Expectation,
    #[error("the request has too many fields")]
    Fields,
    #[error("the request line is too long")]
    Line,
}

/// Methods that a reverse proxy has no use for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusedMethod {
    Connect,
    Trace,
}

impl std::fmt::Display for RefusedMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
        })
    }
}

impl RequestError {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Fields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Line | Self::Path(PathError::TooLong) => StatusCode::URI_TOO_LONG,
            Self::TargetForm
            | Self::NoHost
            | Self::Hosts
            | Self::Host(_)
            | Self::Path(_)
            | Self::ContentLength
            | Self::FramingTwin
            | Self::Nomination => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable label for the access log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Method(_) => "bad-method",
            Self::TargetForm => "bad-target",
            Self::NoHost | Self::Hosts | Self::Host(_) => "bad-host",
            Self::Path(_) => "bad-path",
            Self::ContentLength | Self::TransferEncoding | Self::FramingTwin => "bad-framing",
            Self::Nomination => "bad-connection",
            Self::Expectation => "bad-expectation",
            Self::Fields => "too-many-fields",
            Self::Line => "too-long-line",
        }
    }
}

/// Bytes of the request line, without its end; in HTTP/2, of the one that it stands for.
pub fn line_bytes(method: &Method, uri: &Uri) -> usize {
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    // The absolute form, and HTTP/2, name a host.
    let origin = match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => scheme.as_str().len() + 3 + authority.as_str().len(),
        _ => 0,
    };
    method.as_str().len() + " ".len() + origin + target + " HTTP/1.1".len()
}

impl RequestHead {
    /// Makes the canonical request from the parts that an HTTP server parsed.
    pub fn parse(
        method: Method,
        uri: &Uri,
        version: Version,
        mut headers: HeaderMap,
        scheme: Scheme,
        rules: RequestRules,
    ) -> Result<Self, RequestError> {
        match method {
            Method::CONNECT => return Err(RequestError::Method(RefusedMethod::Connect)),
            Method::TRACE => return Err(RequestError::Method(RefusedMethod::Trace)),
            _ => {}
        }
        let target = uri.path_and_query().ok_or(RequestError::TargetForm)?;
        if !target.path().starts_with('/') {
            return Err(RequestError::TargetForm);
        }
        let authority = authority(uri, &headers)?;
        let path = RequestPath::parse(target, rules.encoded_slash).map_err(RequestError::Path)?;

        let found = Survey::of(&headers, rules.is_trusted)?;
        let is_websocket = found.has_upgrade && version == Version::HTTP_11 && {
            let upgrade = headers.get(header::UPGRADE);
            upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        };
        let takes_trailers = found.has_te
            && headers
                .get(header::TE)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        found.clean(&mut headers, rules.is_trusted)?;

        Ok(Self {
            method,
            scheme,
            authority,
            path,
            headers,
            is_websocket,
            takes_trailers,
        })
    }
}

impl RequestHead {
    /// What the client used, perhaps with a trusted proxy before this gateway. Anybody else's word
    /// is not among the fields.
    pub fn client_scheme(&self) -> Scheme {
        let said = self.headers.get(X_FORWARDED_PROTO);
        let said = said.and_then(|value| value.to_str().ok());
        // Of a chain of proxies, the first saw the client.
        let said = said.and_then(|list| list.split(',').next()).map(str::trim);
        match said {
            Some(said) if said.eq_ignore_ascii_case("https") => Scheme::Https,
            Some(said) if said.eq_ignore_ascii_case("http") => Scheme::Http,
            _ => self.scheme,
        }
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: Authority::unknown(),
            path: RequestPath::default(),
            headers: HeaderMap::new(),
            is_websocket: false,
            takes_trailers: false,
        }
    }
}

/// RFC 9112, 3.2 and RFC 9113, 8.3.1: `Host` and the authority in the target, where both are
/// there, must agree; which of two the upstream would have believed is not ours to guess.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, RequestError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::Hosts);
    }
    let from_host = host.map(Authority::parse).transpose();
    let from_host = from_host.map_err(RequestError::Host)?;
    let Some(in_target) = uri.authority() else {
        return from_host.ok_or(RequestError::NoHost);
    };
    let in_target = HeaderValue::from_str(in_target.as_str())
        .map_err(|_| RequestError::Host(HostnameError::Character))?;
    let in_target = Authority::parse(&in_target).map_err(RequestError::Host)?;
    match from_host {
        Some(from_host) if from_host != in_target => Err(RequestError::Hosts),
        _ => Ok(in_target),
    }
}

/// What one pass over the fields found, so that the common request pays for one pass alone.
#[derive(Default)]
struct Survey {
    has_connection: bool,
    has_hop_by_hop: bool,
    has_upgrade: bool,
    has_te: bool,
    has_framing: bool,
    has_expect: bool,
    has_identity: bool,
    has_underscore: bool,
    cookies: usize,
}

impl Survey {
    fn of(headers: &HeaderMap, is_trusted: bool) -> Result<Self, RequestError> {
        let mut found = Self::default();
        let mut lengths = 0;
        let mut codings = 0;
        for (name, value) in headers {
            match FieldKind::of(name.as_str()) {
                FieldKind::EndToEnd => found.cookies += usize::from(*name == header::COOKIE),
                FieldKind::Host => {}
                FieldKind::HopByHop => {
                    found.has_hop_by_hop = true;
                    found.has_connection |= *name == header::CONNECTION;
                    found.has_upgrade |= *name == header::UPGRADE;
                    found.has_te |= *name == header::TE;
                }
                FieldKind::Framing => {
                    found.has_framing = true;
                    if *name == header::CONTENT_LENGTH {
                        lengths += 1;
                        if !is_length(value.as_bytes()) {
                            return Err(RequestError::ContentLength);
                        }
                    } else {
                        codings += 1;
                        if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                            return Err(RequestError::TransferEncoding);
                        }
                    }
                }
                FieldKind::Expect => {
                    found.has_expect = true;
                    if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                        return Err(RequestError::Expectation);
                    }
                }
                FieldKind::Identity => found.has_identity |= !is_trusted,
                FieldKind::Underscore => {
                    found.has_underscore = true;
                    let twin = name.as_str().replace('_', "-");
                    if FieldKind::of(&twin) == FieldKind::Framing {
                        return Err(RequestError::FramingTwin);
                    }
                }
            }
        }
        if lengths > 1 || (lengths == 1 && codings > 0) {
            return Err(RequestError::ContentLength);
        }
        if codings > 1 {
            return Err(RequestError::TransferEncoding);
        }
        Ok(found)
    }

    fn clean(&self, headers: &mut HeaderMap, is_trusted: bool) -> Result<(), RequestError> {
        headers.remove(header::HOST);
        if self.has_connection {
            remove_nominated(headers).map_err(|_| RequestError::Nomination)?;
        }
        if self.has_hop_by_hop
            || self.has_framing
            || self.has_expect
            || self.has_identity
            || self.has_underscore
        {
            let dropped: Vec<HeaderName> = headers
                .keys()
                .filter(|name| match FieldKind::of(name.as_str()) {
                    FieldKind::EndToEnd => false,
                    FieldKind::Identity => !is_trusted,
                    _ => true,
                })
                .cloned()
                .collect();
            for name in dropped {
                headers.remove(name);
            }
        }
        if self.cookies > 1 {
            join_cookies(headers);
        }
        Ok(())
    }
}

/// Digits only: `parse::<u64>` would take a sign, and a list is a contradiction in waiting.
fn is_length(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit)
}

/// HTTP/2 clients split cookies into crumbs; an HTTP/1 upstream expects one field
/// (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    // Joining valid values with "; " is valid.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
