//! The target that goes upstream, and the location that a redirect names: values in, values out.

use crate::config::route::PathMatch;
use crate::config::route::RedirectSpec;
use crate::config::route::RewriteSpec;
use crate::path::EncodedSlash;
use crate::path::PathError;
use crate::path::RequestPath;
use crate::path::after_prefix;
use crate::request::RequestHead;

/// The rewritten path would not be one that may be requested.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the rewritten path is malformed")]
pub struct RewriteError(#[source] pub PathError);

/// Path and query after the rewrite. The query stays.
///
/// What comes out is normalised again: a prefix that was cut must not leave a path that an
/// upstream reads as climbing.
pub fn rewrite(
    path: &RequestPath,
    matched: &PathMatch,
    spec: &RewriteSpec,
) -> Result<RequestPath, RewriteError> {
    let text = match spec {
        RewriteSpec::Path(whole) => whole.clone(),
        RewriteSpec::Prefix(new) => {
            let old = match matched {
                PathMatch::Prefix(old) => old.as_str(),
                PathMatch::Exact(_) | PathMatch::Regex(_) => "",
            };
            let path = path.path();
            let rest = after_prefix(path, old).unwrap_or(path);
            let mut text = String::with_capacity(new.len() + rest.len() + 1);
            text.push_str(new);
            text.push_str(rest);
            if text.is_empty() {
                text.push('/');
            }
            text
        }
    };
    path.with_path(&text, EncodedSlash::Keep)
        .map_err(RewriteError)
}

/// The `location` of a redirect (RFC 9110, 10.2.2), always absolute.
pub fn redirect_location(
    request: &RequestHead,
    matched: &PathMatch,
    spec: &RedirectSpec,
) -> Result<String, RewriteError> {
    let scheme = match spec.scheme {
        Some(scheme) => scheme,
        None => request.client_scheme().as_str(),
    };
    let path = match &spec.path {
        Some(replacement) => rewrite(&request.path, matched, replacement)?,
        None => request.path.clone(),
    };
    let host = match &spec.host {
        Some(host) => host.as_str(),
        None => request.authority.host(),
    };
    // A port that was asked for belongs to the scheme that was asked with: a redirect from
    // http://a:8080 to https must not name port 8080.
    let port = match (spec.port, &spec.host, spec.scheme) {
        (Some(port), _, _) => Some(port),
        (None, None, None) => request.authority.port(),
        _ => None,
    };
    let default_port = if scheme == "https" { 443 } else { 80 };
    Ok(match port.filter(|port| *port != default_port) {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::StatusCode;

    use super::*;
    use crate::hostname::Authority;

    fn path(text: &str) -> RequestPath {
        RequestPath::from_text(text, EncodedSlash::Reject).unwrap()
    }

    #[test]
    fn a_rewrite_keeps_the_query_and_never_climbs() {
        let prefix = |old: &str| PathMatch::Prefix(old.to_owned());
        let to = |new: &str| RewriteSpec::Prefix(new.to_owned());
        let cases = [
            ("/api/v1?x=1", prefix("/api"), to(""), "/v1?x=1"),
            ("/api", prefix("/api"), to(""), "/"),
            ("/api/", prefix("/api"), to(""), "/"),
            ("/api/v1", prefix("/api"), to("/v2/x"), "/v2/x/v1"),
            ("/x", prefix(""), to("/sub"), "/sub/x"),
            ("/api/v1;a=1", prefix("/api"), to(""), "/v1;a=1"),
            ("/api;a=1/v1", prefix("/api"), to(""), "/v1"),
            ("/api;a=1", prefix("/api"), to("/v2"), "/v2"),
            ("/;a/api/v1;b", prefix("/api"), to(""), "/v1;b"),
            ("/%40api/;a/%40v1", prefix("/@api"), to(""), "/;a/%40v1"),
            (
                "/a/b?q",
                prefix("/a"),
                RewriteSpec::Path("/c".into()),
                "/c?q",
            ),
        ];
        for (from, matched, spec, want) in cases {
            let got = rewrite(&path(from), &matched, &spec).unwrap();
            assert_eq!(got.as_str(), want, "{from}");
        }
    }

    #[test]
    fn a_redirect_names_what_changes_and_keeps_the_rest() {
        let spec = |scheme, host: Option<&str>, port| RedirectSpec {
            status: StatusCode::FOUND,
            scheme,
            host: host.map(str::to_owned),
            port,
            path: None,
        };
        let cases = [
            (
                "a.test:8080",
                spec(Some("https"), None, None),
                "https://a.test/x?y",
            ),
            (
                "a.test:8080",
                spec(Some("https"), None, Some(8443)),
                "https://a.test:8443/x?y",
            ),
            (
                "a.test",
                spec(Some("https"), None, Some(443)),
                "https://a.test/x?y",
            ),
            (
                "a.test:8080",
                spec(None, Some("b.test"), None),
                "http://b.test/x?y",
            ),
            (
                "a.test:8080",
                spec(None, None, Some(80)),
                "http://a.test/x?y",
            ),
        ];
        for (host, spec, want) in cases {
            let request = RequestHead {
                authority: Authority::parse(&HeaderValue::from_static(host)).unwrap(),
                path: path("/x?y"),
                ..RequestHead::default()
            };
            let matched = PathMatch::Prefix(String::new());
            assert_eq!(redirect_location(&request, &matched, &spec).unwrap(), want);
        }
    }

    #[test]
    fn a_redirect_stays_with_the_scheme_that_the_client_used() {
        let spec = RedirectSpec {
            status: StatusCode::FOUND,
            scheme: None,
            host: Some("b.test".to_owned()),
            port: None,
            path: None,
        };
        let cases = [
            ("", "http://b.test/x"),
            ("https", "https://b.test/x"),
            ("HTTPS, http", "https://b.test/x"),
            ("javascript", "http://b.test/x"),
        ];
        for (said, want) in cases {
            let mut request = RequestHead {
                path: path("/x"),
                ..RequestHead::default()
            };
            let said = HeaderValue::from_static(said);
            request.headers.insert("x-forwarded-proto", said);
            let matched = PathMatch::Prefix(String::new());
            assert_eq!(redirect_location(&request, &matched, &spec).unwrap(), want);
        }
    }
}
