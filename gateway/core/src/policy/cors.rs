//! Cross-origin resource sharing, as the Fetch standard has it.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;

use crate::config::policy::answer::CorsSpec;
use crate::config::policy::answer::OriginMatch;

/// Fields that the policy alone writes.
pub const CORS_FIELDS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// A policy with the values that it writes.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<OriginMatch>,
    credentials: bool,
    methods: Option<HeaderValue>,
    /// `None`: what the preflight asks for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    pub fn new(spec: &CorsSpec) -> Self {
        let methods: Vec<&str> = spec.methods.iter().map(Method::as_str).collect();
        let list = |names: &[HeaderName]| {
            let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        };
        Self {
            origins: spec.origins.clone(),
            credentials: spec.credentials,
            methods: HeaderValue::try_from(methods.join(", ")).ok(),
            headers: spec.headers.as_deref().and_then(list),
            expose: list(&spec.expose).filter(|_| !spec.expose.is_empty()),
            max_age: HeaderValue::from(spec.max_age.as_secs()),
        }
    }

    /// Whether responses differ by origin, which caches have to know.
    pub fn varies(&self) -> bool {
        !self.allows_any()
    }

    /// What the response to this request says of origins, if it says anything.
    pub fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        if self.allows_any() {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        let allows = |allowed: &OriginMatch| allows(allowed, text);
        self.origins.iter().any(allows).then(|| origin.clone())
    }

    /// The fields of a response besides the origin.
    pub fn response_fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let credentials = self.credentials.then(|| {
            let value = HeaderValue::from_static("true");
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, value)
        });
        let expose = self.expose.clone();
        let expose = expose.map(|value| (header::ACCESS_CONTROL_EXPOSE_HEADERS, value));
        credentials.into_iter().chain(expose)
    }

    /// The fields of the answer to a preflight besides those.
    pub fn preflight_fields(
        &self,
        request: &HeaderMap,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let headers = self.headers.as_ref().or(asked).cloned();
        let methods = self.methods.clone();
        [
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
            (header::ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    fn allows_any(&self) -> bool {
        self.origins.contains(&OriginMatch::Any)
    }
}

/// Whether a browser asks what it may do, rather than doing it.
pub fn is_preflight(method: &Method, request: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && request.contains_key(header::ORIGIN)
        && request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn allows(allowed: &OriginMatch, origin: &str) -> bool {
    match allowed {
        OriginMatch::Any => true,
        OriginMatch::Exact(exact) => origin.eq_ignore_ascii_case(exact),
        OriginMatch::Subdomain { scheme, suffix } => {
            let origin = origin.to_ascii_lowercase();
            let label = origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()));
            let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            label.is_some_and(|label| !label.is_empty() && label.bytes().all(is_label))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[OriginMatch]) -> Cors {
        Cors::new(&CorsSpec {
            origins: origins.to_vec(),
            methods: vec![Method::GET, Method::PUT],
            headers: None,
            expose: Vec::new(),
            credentials: true,
            max_age: Duration::from_secs(60),
        })
    }

    fn request(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers
    }

    #[test]
    fn an_origin_is_allowed_whole_or_by_one_label() {
        let sub = OriginMatch::Subdomain {
            scheme: "https://".into(),
            suffix: ".a.test".into(),
        };
        let exact = OriginMatch::Exact("https://b.test:8443".into());
        let cors = cors(&[sub, exact]);
        let cases = [
            ("https://x.a.test", true),
            ("https://X.a.test", true),
            ("https://a.test", false),
            ("https://x.y.a.test", false),
            ("https://.a.test", false),
            ("http://x.a.test", false),
            ("https://x.a.test:8443", false),
            ("https://evil.test/.a.test", false),
            ("https://evila.test", false),
            ("https://b.test:8443", true),
            ("https://b.test", false),
            ("null", false),
        ];
        for (origin, want) in cases {
            let allowed = cors.allowed_origin(&request(origin));
            assert_eq!(allowed.is_some(), want, "{origin}");
            assert!(allowed.is_none_or(|value| value == origin));
        }
        assert_eq!(cors.allowed_origin(&HeaderMap::new()), None);
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed() {
        let mut asked = request("https://x.test");
        assert!(!is_preflight(&Method::OPTIONS, &asked));
        let method = HeaderValue::from_static("PUT");
        asked.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        let headers = HeaderValue::from_static("x-a, x-b");
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, headers);
        assert!(is_preflight(&Method::OPTIONS, &asked));
        assert!(!is_preflight(&Method::GET, &asked));

        let cors = cors(&[OriginMatch::Any]);
        let fields: HeaderMap = cors.preflight_fields(&asked).collect();
        assert_eq!(fields[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(fields[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-a, x-b");
        assert_eq!(fields[header::ACCESS_CONTROL_MAX_AGE], "60");
        assert_eq!(cors.allowed_origin(&asked).unwrap(), "*");
    }
}
