//! Where a component comes from, and how it is fetched if that is not a file.
//!
//! What is fetched is named by its digest, so that it cannot change under its name, an answer from
//! the wrong server is noticed, and a copy on disk is as good as the original.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;

use super::held::Held;

/// Longest address of a source.
pub const MAX_URL_LEN: usize = 2048;
/// Longest name of a repository (the OCI distribution specification advises 255 with the host).
const MAX_REPOSITORY_LEN: usize = 255;
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Where a component comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PluginSource {
    File(PathBuf),
    Remote(RemoteSource),
}

/// A component that is fetched.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RemoteSource {
    pub location: Location,
    pub fetch: FetchSpec,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Location {
    /// The component itself.
    Https { url: HttpUrl, digest: Digest },
    /// A manifest that names it.
    Oci(OciReference),
}

/// How it is fetched.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct FetchSpec {
    pub login: Option<LoginSpec>,
    /// PEM roots to trust; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// Clear text, where that was asked for. Loopback may be spoken to in clear text in any case.
    pub plain_http: bool,
}

/// Who the gateway says that it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LoginSpec {
    Password {
        user: String,
        file: PathBuf,
    },
    /// A file as `docker login` writes it.
    DockerConfig(PathBuf),
    /// The same, of a Secret.
    HeldDockerConfig(Held),
}

/// A SHA-256.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digest(Box<str>);

/// An address of `http` or `https`, without user information.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HttpUrl(Box<str>);

/// `oci://registry/repository@sha256:digest`. A tag before the digest is for people alone.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OciReference {
    pub name: OciName,
    pub digest: Digest,
}

/// A repository in a registry.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OciName {
    /// Host, and port if it has one.
    pub registry: Box<str>,
    pub repository: Box<str>,
}

/// Why a text is no source.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    #[error("an address has at most {MAX_URL_LEN} characters")]
    TooLong,
    #[error("it is no address")]
    Address,
    #[error("a user or password does not belong into an address; use fetch.user")]
    UserInfo,
    #[error("a SHA-256 has {SHA256_DIGITS} hexadecimal digits")]
    Digest,
    #[error("it does not say which content is meant: it has to end with @sha256: and the digest")]
    NotPinned,
    #[error("only digests of the kind sha256 are known")]
    DigestKind,
    #[error("a repository has parts of a to z, 0 to 9, '.', '_' and '-', with '/' between them")]
    Repository,
    #[error("a tag has up to 128 letters, digits, '.', '_' and '-'")]
    Tag,
}

impl Digest {
    /// Hexadecimal digits, with or without `sha256:` in front.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let digits = match text.split_once(':') {
            Some(("sha256", digits)) => digits,
            Some(_) => return Err(SourceError::DigestKind),
            None => text,
        };
        if digits.len() != SHA256_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SourceError::Digest);
        }
        Ok(Self(digits.to_ascii_lowercase().into()))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(digits.into())
    }

    /// The digits alone, in lower case.
    pub fn as_hex(&self) -> &str {
        &self.0
    }
}

/// With `sha256:` in front.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl HttpUrl {
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let uri = parse_uri(text)?;
        match uri.scheme_str() {
            Some("http" | "https") => Ok(Self(text.into())),
            _ => Err(SourceError::Address),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With its port, if it has one.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    }

    /// Without its query, which may hold a secret.
    pub fn shown(&self) -> String {
        let shown = self.0.split(['?', '#']).next().unwrap_or_default();
        shown.to_owned()
    }

    /// Whether it is of `http` and leaves this machine.
    pub fn is_in_the_clear(&self) -> bool {
        let Ok(uri) = self.0.parse::<Uri>() else {
            return true;
        };
        uri.scheme_str() != Some("https") && !uri.host().is_some_and(is_loopback)
    }
}

impl OciReference {
    /// What stands behind `oci://`.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let (name, digest) = text.split_once('@').ok_or(SourceError::NotPinned)?;
        if name.contains('@') || digest.contains('@') {
            return Err(SourceError::UserInfo);
        }
        let digest = Digest::parse(digest)?;
        let (name, _tag) = OciName::parse(name)?;
        Ok(Self { name, digest })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}@{}", self.name, self.digest)
    }
}

impl OciName {
    /// `registry/repository`, and the tag if one follows.
    pub fn parse(text: &str) -> Result<(Self, Option<&str>), SourceError> {
        if text.len() > MAX_URL_LEN {
            return Err(SourceError::TooLong);
        }
        let (registry, rest) = text.split_once('/').ok_or(SourceError::Address)?;
        let uri = parse_uri(&format!("https://{registry}/"))?;
        if uri.authority().map(http::uri::Authority::as_str) != Some(registry) {
            return Err(SourceError::Address);
        }
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let is_part = |part: &str| {
            let is_edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let mut ends = part.bytes().take(1).chain(part.bytes().last());
            let is_inner = |b: u8| is_edge(b) || matches!(b, b'.' | b'_' | b'-');
            !part.is_empty() && ends.all(is_edge) && part.bytes().all(is_inner)
        };
        if repository.len() > MAX_REPOSITORY_LEN || !repository.split('/').all(is_part) {
            return Err(SourceError::Repository);
        }
        let is_tag = |tag: &str| {
            let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            (1..=128).contains(&tag.len())
                && tag.bytes().all(is_inner)
                && !tag.starts_with(['.', '-'])
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(SourceError::Tag);
        }
        let name = Self {
            registry: registry.into(),
            repository: repository.into(),
        };
        Ok((name, tag))
    }

    pub fn is_loopback(&self) -> bool {
        let uri: Result<Uri, _> = format!("https://{}/", self.registry).parse();
        uri.is_ok_and(|uri| uri.host().is_some_and(is_loopback))
    }
}

impl fmt::Display for OciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

impl RemoteSource {
    pub fn digest(&self) -> &Digest {
        match &self.location {
            Location::Https { digest, .. } => digest,
            Location::Oci(reference) => &reference.digest,
        }
    }
}

impl fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Https { url, .. } => f.write_str(&url.shown()),
            Location::Oci(reference) => reference.fmt(f),
        }
    }
}

/// Whether a host as it stands in an address is this machine. Names are not looked up: what
/// `localhost` means is fixed (RFC 6761, 6.3), any other name may be anywhere.
pub fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || literal.parse().is_ok_and(|addr: IpAddr| addr.is_loopback())
}

fn parse_uri(text: &str) -> Result<Uri, SourceError> {
    if text.len() > MAX_URL_LEN {
        return Err(SourceError::TooLong);
    }
    let uri: Uri = text.parse().map_err(|_| SourceError::Address)?;
    let authority = uri.authority().ok_or(SourceError::Address)?;
    if authority.as_str().contains('@') {
        return Err(SourceError::UserInfo);
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(SourceError::Address);
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_names_registry_repository_and_content() {
        let cases = [
            ("ghcr.io/acme/auth", "ghcr.io", "acme/auth"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000", "a"),
            ("[::1]:5000/a/b_c/d-e.f", "[::1]:5000", "a/b_c/d-e.f"),
            ("ghcr.io/acme/auth:v1.2", "ghcr.io", "acme/auth"),
        ];
        for (name, registry, repository) in cases {
            let text = format!("{name}@sha256:{HEX}");
            let reference = OciReference::parse(&text).unwrap();
            assert_eq!(&*reference.name.registry, registry, "{text}");
            assert_eq!(&*reference.name.repository, repository, "{text}");
            assert_eq!(reference.digest.as_hex(), HEX.to_ascii_lowercase());
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_its_reason() {
        let pinned = |name: &str| format!("{name}@sha256:{HEX}");
        let cases = [
            ("ghcr.io/acme/auth".to_owned(), SourceError::NotPinned),
            ("ghcr.io/acme/auth:v1".to_owned(), SourceError::NotPinned),
            ("ghcr.io/a@sha256:12".to_owned(), SourceError::Digest),
            (format!("ghcr.io/a@sha512:{HEX}"), SourceError::DigestKind),
            (pinned("me:secret@ghcr.io/a"), SourceError::UserInfo),
            (pinned("ghcr.io"), SourceError::Address),
            (pinned("/a"), SourceError::Address),
            (pinned("ghcr.io:/a"), SourceError::Address),
            (pinned("gh cr.io/a"), SourceError::Address),
            (pinned("ghcr.io/"), SourceError::Repository),
            (pinned("ghcr.io/A"), SourceError::Repository),
            (pinned("ghcr.io/a/../b"), SourceError::Repository),
            (pinned("ghcr.io/a//b"), SourceError::Repository),
            (pinned("ghcr.io/a?x=1"), SourceError::Repository),
            (pinned("ghcr.io/a:"), SourceError::Tag),
            (pinned("ghcr.io/a:b:c"), SourceError::Tag),
        ];
        for (text, want) in cases {
            assert_eq!(OciReference::parse(&text), Err(want), "{text}");
        }
    }

    #[test]
    fn clear_text_is_for_this_machine() {
        let cases = [
            ("https://a.test/x.wasm", Ok(false)),
            ("http://127.0.0.1:8080/x", Ok(false)),
            ("http://[::1]/x", Ok(false)),
            ("http://localhost/x", Ok(false)),
            ("http://localhost.evil.test/x", Ok(true)),
            ("http://a.test/x", Ok(true)),
            ("https://me:secret@a.test/x", Err(SourceError::UserInfo)),
            ("ftp://a.test/x", Err(SourceError::Address)),
            ("https:///x", Err(SourceError::Address)),
            ("https://", Err(SourceError::Address)),
        ];
        for (text, want) in cases {
            let got = HttpUrl::parse(text).map(|url| url.is_in_the_clear());
            assert_eq!(got, want, "{text}");
        }
    }
}
