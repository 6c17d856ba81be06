//! Whether a request is already where a redirect would send it.

use crate::config::route::RedirectSpec;
use crate::config::route::RewriteSpec;
use crate::request::RequestHead;

/// What a certificate authority asks for over clear text, and may not follow elsewhere.
const ACME_CHALLENGES: &str = "/.well-known/acme-challenge";

/// Whether the redirect changes anything. `scheme` is what the client used, perhaps with a proxy
/// before this gateway.
pub fn redirects(spec: &RedirectSpec, request: &RequestHead, scheme: &str) -> bool {
    let path = request.path.path();
    if crate::path::has_prefix(path, ACME_CHALLENGES) {
        return false;
    }
    let has_host = |host: &String| !request.authority.host().eq_ignore_ascii_case(host);
    let has_port = |port: u16| {
        let default = if scheme == "https" { 443 } else { 80 };
        request.authority.port().unwrap_or(default) != port
    };
    let has_path = |to: &RewriteSpec| match to {
        RewriteSpec::Path(to) => to != path,
        RewriteSpec::Prefix(_) => true,
    };
    spec.scheme.is_some_and(|to| to != scheme)
        || spec.host.as_ref().is_some_and(has_host)
        || spec.port.is_some_and(has_port)
        || spec.path.as_ref().is_some_and(has_path)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::StatusCode;

    use super::*;
    use crate::hostname::Authority;
    use crate::path::EncodedSlash;
    use crate::path::RequestPath;

    #[test]
    fn a_request_that_is_there_already_is_let_through() {
        let none = RedirectSpec {
            status: StatusCode::PERMANENT_REDIRECT,
            scheme: None,
            host: None,
            port: None,
            path: None,
        };
        let https = RedirectSpec {
            scheme: Some("https"),
            ..none.clone()
        };
        let www = RedirectSpec {
            host: Some("www.a.test".into()),
            ..none.clone()
        };
        let port = RedirectSpec {
            port: Some(8443),
            ..none.clone()
        };
        let path = RedirectSpec {
            path: Some(RewriteSpec::Path("/home".into())),
            ..none
        };
        let cases = [
            (&https, "a.test", "/", "http", true),
            (&https, "a.test", "/", "https", false),
            (
                &https,
                "a.test",
                "/.well-known/acme-challenge/x",
                "http",
                false,
            ),
            (
                &https,
                "a.test",
                "/.well-known/acme-challengex",
                "http",
                true,
            ),
            (&www, "a.test", "/", "https", true),
            (&www, "www.a.test", "/", "https", false),
            (&www, "www.a.test:8443", "/", "https", false),
            (&port, "a.test", "/", "https", true),
            (&port, "a.test:8443", "/", "https", false),
            (&path, "a.test", "/", "http", true),
            (&path, "a.test", "/home", "http", false),
        ];
        for (spec, host, target, scheme, want) in cases {
            let request = RequestHead {
                authority: Authority::parse(&HeaderValue::from_static(host)).unwrap(),
                path: RequestPath::from_text(target, EncodedSlash::Reject).unwrap(),
                ..RequestHead::default()
            };
            assert_eq!(
                redirects(spec, &request, scheme),
                want,
                "{spec:?} {host}{target} {scheme}"
            );
        }
    }
}
