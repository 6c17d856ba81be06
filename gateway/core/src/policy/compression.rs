//! Which responses may be compressed, and how.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;

use crate::config::policy::body::CompressionSpec;

/// A content coding (RFC 9110, 8.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in `content-encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// A media type, or all of one kind: `text/html`, `text/*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MediaType {
    /// In lower case.
    kind: String,
    /// `None`: any.
    subtype: Option<String>,
}

impl MediaType {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "write a media type without parameters, as in \"text/html\" or \"text/*\"";
        let (kind, subtype) = text.split_once('/').ok_or(FORM)?;
        let is_plain = |text: &str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b);
            !text.is_empty() && text.bytes().all(is_plain)
        };
        if !is_plain(kind) || !(subtype == "*" || is_plain(subtype)) {
            return Err(FORM);
        }
        Ok(Self {
            kind: kind.to_ascii_lowercase(),
            subtype: (subtype != "*").then(|| subtype.to_ascii_lowercase()),
        })
    }

    fn covers(&self, value: &str) -> bool {
        let value = value.split(';').next().unwrap_or_default().trim();
        let Some((kind, subtype)) = value.split_once('/') else {
            return false;
        };
        let wanted = self.subtype.as_deref();
        kind.eq_ignore_ascii_case(&self.kind)
            && wanted.is_none_or(|wanted| subtype.eq_ignore_ascii_case(wanted))
    }
}

impl std::fmt::Display for MediaType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}",
            self.kind,
            self.subtype.as_deref().unwrap_or("*")
        )
    }
}

/// The coding that the client likes best; of those that it likes equally, the first offered.
pub fn negotiate(headers: &HeaderMap, offered: &[Coding]) -> Option<Coding> {
    let mut best: Option<(u16, Coding)> = None;
    for &coding in offered {
        let weight = weight_of(headers, coding.as_str());
        if weight > 0 && best.is_none_or(|(other, _)| weight > other) {
            best = Some((weight, coding));
        }
    }
    // As it is would be liked better (RFC 9110, 12.5.3): only if that is said.
    let plain = exact_weight(headers, "identity").unwrap_or(0);
    best.filter(|(weight, _)| *weight >= plain)
        .map(|(_, coding)| coding)
}

/// In thousandths; `*` speaks for those that are not named.
fn weight_of(headers: &HeaderMap, coding: &str) -> u16 {
    let named = exact_weight(headers, coding);
    // An old name for the same (RFC 9110, 8.4.1.3).
    let named = named.or_else(|| match coding {
        "gzip" => exact_weight(headers, "x-gzip"),
        _ => None,
    });
    named.or_else(|| exact_weight(headers, "*")).unwrap_or(0)
}

fn exact_weight(headers: &HeaderMap, coding: &str) -> Option<u16> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let items = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    for item in items {
        let mut parts = item.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(coding) {
            continue;
        }
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("q")
                .then(|| thousandths(value.trim()))
        });
        return Some(weight.unwrap_or(1000));
    }
    None
}

/// A weight that cannot be read is none: the client gets what everybody can read.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    match (whole, is_number) {
        ("1", true) => 1000,
        ("0", true) => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

/// What is to become of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is none that would be compressed for anybody.
    Leave,
    /// It goes as it is, but other clients get it otherwise.
    Vary,
    Compress,
}

impl CompressionSpec {
    /// `length` is that of the body, if it is known.
    pub fn fate(
        &self,
        method: &Method,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        coding: Option<Coding>,
    ) -> Fate {
        // Of a part, of nothing, and of what is not the body that its fields speak of.
        let is_whole = status.as_u16() >= 200
            && !matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        // A digest of the content would no longer be its own (RFC 9530), nor may a body be
        // changed whose sender forbids it (RFC 9111, 5.2.2.6).
        let others = [
            header::CONTENT_ENCODING.as_str(),
            header::CONTENT_RANGE.as_str(),
            "content-digest",
            "repr-digest",
            "digest",
            "content-md5",
        ];
        let is_plain = !others.iter().any(|name| headers.contains_key(*name));
        let controls = headers.get_all(header::CACHE_CONTROL).iter();
        let mut controls = controls
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','));
        let may_be_changed = !controls.any(|word| word.trim().eq_ignore_ascii_case("no-transform"));
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok());
        let is_listed = kind.is_some_and(|kind| self.types.iter().any(|t| t.covers(kind)));
        if !(is_whole && is_plain && may_be_changed && is_listed) {
            return Fate::Leave;
        }
        if length.is_some_and(|length| length < self.min_size) {
            return Fate::Leave;
        }
        match coding {
            Some(_) if *method != Method::HEAD => Fate::Compress,
            _ => Fate::Vary,
        }
    }
}

/// Tells caches that the response depends on what the client takes.
pub fn vary(headers: &mut HeaderMap) {
    let values = headers.get_all(header::VARY).iter();
    let mut names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim);
    let is_said = |name: &str| name == "*" || name.eq_ignore_ascii_case("accept-encoding");
    if !names.any(is_said) {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The fields of a response that is compressed from now on.
pub fn announce(headers: &mut HeaderMap, coding: Coding) {
    headers.remove(header::CONTENT_LENGTH);
    // Ranges are those of the body as the upstream has it.
    headers.remove(header::ACCEPT_RANGES);
    let name = HeaderValue::from_static(coding.as_str());
    headers.insert(header::CONTENT_ENCODING, name);
    // Not byte for byte what the upstream named (RFC 9110, 8.8.1): it may be compared, but a range
    // of one may not be added to the other.
    if let Some(tag) = headers.get(header::ETAG)
        && tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_client_says_which_coding_it_gets() {
        use Coding::*;
        for (said, want) in [
            ("gzip", Some(Gzip)),
            ("gzip, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("GZIP", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.5, zstd;q=0.2", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip ; q = 0.5 , zstd;q=0", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=0.001", Some(Gzip)),
            ("deflate", None),
            ("", None),
        ] {
            let headers = fields(&[("accept-encoding", said)]);
            assert_eq!(negotiate(&headers, &Coding::ALL), want, "{said}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), &Coding::ALL), None);
        let two = fields(&[("accept-encoding", "gzip"), ("accept-encoding", "br")]);
        assert_eq!(negotiate(&two, &Coding::ALL), Some(Brotli));
        assert_eq!(negotiate(&two, &[Gzip]), Some(Gzip));
    }

    #[test]
    fn what_may_not_be_changed_is_left() {
        let spec = CompressionSpec::default();
        let html = ("content-type", "text/html; charset=utf-8");
        let fate = |status: u16, more: &[(&'static str, &'static str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            let all = [&[html], more].concat();
            spec.fate(
                &Method::GET,
                status,
                &fields(&all),
                Some(5000),
                Some(Coding::Gzip),
            )
        };
        for (status, more, want) in [
            (200, vec![], Fate::Compress),
            (404, vec![], Fate::Compress),
            (101, vec![], Fate::Leave),
            (204, vec![], Fate::Leave),
            (206, vec![("content-range", "bytes 0-1/2")], Fate::Leave),
            (304, vec![], Fate::Leave),
            (200, vec![("content-encoding", "br")], Fate::Leave),
            (
                200,
                vec![("cache-control", "public, No-Transform")],
                Fate::Leave,
            ),
            (200, vec![("content-digest", "sha-256=:x:")], Fate::Leave),
            (200, vec![("cache-control", "no-store")], Fate::Compress),
        ] {
            assert_eq!(fate(status, &more), want, "{status} {more:?}");
        }
        let of = |kind: &'static str, length, method: &Method, coding| {
            let headers = fields(&[("content-type", kind)]);
            spec.fate(method, StatusCode::OK, &headers, length, coding)
        };
        let gzip = Some(Coding::Gzip);
        assert_eq!(
            of("text/plain", Some(1023), &Method::GET, gzip),
            Fate::Leave
        );
        assert_eq!(
            of("text/plain", Some(1024), &Method::GET, gzip),
            Fate::Compress
        );
        assert_eq!(of("text/plain", None, &Method::GET, gzip), Fate::Compress);
        assert_eq!(of("TEXT/plain", None, &Method::GET, None), Fate::Vary);
        assert_eq!(of("text/plain", None, &Method::HEAD, gzip), Fate::Vary);
        assert_eq!(of("image/png", None, &Method::GET, gzip), Fate::Leave);
        assert_eq!(
            of("image/svg+xml", None, &Method::GET, gzip),
            Fate::Compress
        );
        assert_eq!(of("nonsense", None, &Method::GET, gzip), Fate::Leave);
    }

    #[test]
    fn what_was_said_of_the_body_is_said_of_the_other_one() {
        let mut headers = fields(&[
            ("etag", "\"a\""),
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("vary", "cookie"),
        ]);
        announce(&mut headers, Coding::Brotli);
        vary(&mut headers);
        vary(&mut headers);
        let want = fields(&[
            ("etag", "W/\"a\""),
            ("vary", "cookie"),
            ("vary", "accept-encoding"),
            ("content-encoding", "br"),
        ]);
        assert_eq!(headers, want);
        let mut weak = fields(&[("etag", "W/\"a\""), ("vary", "*")]);
        announce(&mut weak, Coding::Gzip);
        vary(&mut weak);
        assert_eq!(weak["etag"], "W/\"a\"");
        assert_eq!(weak.get_all("vary").iter().count(), 1);
    }
}
