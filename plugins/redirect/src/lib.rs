//! Redirect: sends clients to another scheme, host, port or path.
//!
//! Invariant: what a client is sent to is not where it came from, and a path that is already below
//! `prefix.to` is not put below it again. So a client that follows comes to rest.

use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;

/// A permanent one that keeps the method; browsers keep it, too.
const DEFAULT_STATUS: u16 = 308;

/// The policy, configured.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<&'static str>,
    host: Option<String>,
    port: Option<u16>,
    path: NewPath,
    keeps_query: bool,
    status: u16,
}

#[derive(Debug)]
enum NewPath {
    Same,
    Fixed(String),
    /// Neither ends with `/`.
    Prefix {
        from: String,
        to: String,
    },
}

impl Plugin for Redirect {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view([":scheme", ":authority", ":path"]);
        config::read(config, |config| {
            let scheme = config.get("scheme");
            let scheme = scheme.one_of(&[("https", "https"), ("http", "http")]);
            let host = config.get("host").parsed(host);
            let port = config.get("port").number(1..=65535);
            let fixed = config.get("path").path();
            let prefix = config.get("prefix").section(|prefix| {
                let (from, to) = (prefix.need("from").path(), prefix.need("to").path());
                let trimmed = |path: String| path.trim_end_matches('/').to_owned();
                Some((trimmed(from?), trimmed(to?)))
            });
            let query = config.get("query");
            let query = query.one_of(&[("keep", true), ("drop", false)]);
            let status = config.get("status").number(301..=308);
            if matches!(status, Some(304..=306)) {
                config.wrong::<()>("status: must be one of 301, 302, 303, 307, 308");
            }
            let path = match (fixed, prefix) {
                (Some(_), Some(_)) => {
                    return config.wrong("`path` and `prefix` exclude each other");
                }
                (Some(path), None) => NewPath::Fixed(path),
                (None, Some((from, to))) => NewPath::Prefix { from, to },
                (None, None) => NewPath::Same,
            };
            let is_empty = scheme.is_none() && host.is_none() && port.is_none();
            if is_empty && matches!(path, NewPath::Same) {
                return config.wrong("give at least one of scheme, host, port, path, prefix");
            }
            Some(Self {
                scheme,
                host,
                port: port.and_then(|port| u16::try_from(port).ok()),
                path,
                keeps_query: query.unwrap_or(true),
                status: status
                    .and_then(|s| s.try_into().ok())
                    .unwrap_or(DEFAULT_STATUS),
            })
        })
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let location = self.location(&request.scheme(), &request.authority(), &request.path());
        Ok(match location {
            Some(location) => Reply::new(self.status).header("location", location).into(),
            None => Action::Next,
        })
    }
}

impl Redirect {
    /// Where the client is to go; none if it is there.
    fn location(&self, scheme: &str, authority: &str, target: &str) -> Option<String> {
        let (host, port) = split(authority);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let new_scheme = self.scheme.unwrap_or(scheme);
        let new_host = self.host.as_deref().unwrap_or(host);
        // The port of one scheme is not that of another.
        let port = port.unwrap_or_else(|| default_port(scheme));
        let new_port = match self.port {
            Some(port) => port,
            None if new_scheme == scheme => port,
            None => default_port(new_scheme),
        };
        let new_path = match &self.path {
            NewPath::Same => None,
            NewPath::Fixed(fixed) => Some(fixed.clone()),
            NewPath::Prefix { from, to } => {
                let is_there = !to.is_empty() && below(path, to).is_some();
                // From a longer prefix to a shorter one, what is below the first still has to go.
                let is_nested = below(from, to).is_some();
                match below(path, from) {
                    Some(rest) if !is_there || is_nested => Some(format!("{to}{rest}")),
                    _ => None,
                }
            }
        };
        let new_path = match new_path {
            Some(path) if path.is_empty() => "/".to_owned(),
            Some(path) => path,
            None => path.to_owned(),
        };
        // A query that is dropped is no reason to go where one is.
        if new_scheme == scheme
            && new_host.eq_ignore_ascii_case(host)
            && new_port == port
            && new_path == path
        {
            return None;
        }
        let mut location = format!("{new_scheme}://{new_host}");
        if new_port != default_port(new_scheme) {
            location.push(':');
            location.push_str(&new_port.to_string());
        }
        location.push_str(&new_path);
        if let Some(query) = query.filter(|_| self.keeps_query) {
            location.push('?');
            location.push_str(query);
        }
        Some(location)
    }
}

/// What follows `prefix`, where a segment ends with it.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn split(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        // Not within the brackets of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// A host without port.
fn host(text: &str) -> Result<String, String> {
    let name = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_address = name.is_some_and(|addr| addr.parse::<std::net::Ipv6Addr>().is_ok());
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if is_address || (!text.is_empty() && text.bytes().all(is_char)) {
        Ok(text.to_owned())
    } else {
        Err("must be a host name without port; `port` has a key of its own".to_owned())
    }
}

postern_plugin::export!(Redirect: request);

#[cfg(test)]
mod tests {
    use postern_plugin::mock;
    use postern_plugin::mock::Exchange;

    use super::*;

    fn location(config: &str, scheme: &str, authority: &str, path: &str) -> Option<String> {
        let redirect = mock::configure::<Redirect>(config).unwrap();
        let mut exchange = Exchange::new("GET", path);
        exchange.scheme = scheme.to_owned();
        exchange.authority = authority.to_owned();
        match redirect.on_request(&mut exchange).unwrap() {
            Action::Respond(reply) => Some(reply.headers[0].1.clone()),
            _ => None,
        }
    }

    #[test]
    fn a_client_is_sent_where_the_configuration_says() {
        let https = r#"{ "scheme": "https" }"#;
        let port = r#"{ "scheme": "https", "port": 8443 }"#;
        let www = r#"{ "host": "www.a.test" }"#;
        let moved = r#"{ "prefix": { "from": "/old/", "to": "/new" } }"#;
        let up = r#"{ "prefix": { "from": "/old", "to": "/" } }"#;
        let page = r#"{ "path": "/here", "query": "drop" }"#;
        let cases = [
            (https, "http", "a.test", "/x?y=1", "https://a.test/x?y=1"),
            (https, "http", "a.test:8080", "/", "https://a.test/"),
            (https, "http", "[::1]:8080", "/", "https://[::1]/"),
            (https, "http", "[::1]", "/", "https://[::1]/"),
            (
                https,
                "http",
                "a.test",
                "//evil.test/",
                "https://a.test//evil.test/",
            ),
            (port, "http", "a.test", "/", "https://a.test:8443/"),
            (www, "http", "a.test:8080", "/", "http://www.a.test:8080/"),
            (moved, "https", "a.test", "/old", "https://a.test/new"),
            (
                moved,
                "https",
                "a.test",
                "/old/x?y",
                "https://a.test/new/x?y",
            ),
            (up, "https", "a.test", "/old", "https://a.test/"),
            (up, "https", "a.test", "/old/old/x", "https://a.test/old/x"),
            (page, "http", "a.test", "/there?x", "http://a.test/here"),
        ];
        for (config, scheme, authority, path, want) in cases {
            let got = location(config, scheme, authority, path);
            assert_eq!(got.as_deref(), Some(want), "{config} {authority}{path}");
        }
    }

    #[test]
    fn who_is_there_is_not_sent_again() {
        let cases = [
            (r#"{ "scheme": "https" }"#, "https", "a.test:8443", "/"),
            (
                r#"{ "scheme": "https", "port": 443 }"#,
                "https",
                "a.test",
                "/",
            ),
            (r#"{ "host": "WWW.a.test" }"#, "http", "www.A.test:80", "/"),
            (r#"{ "path": "/here" }"#, "http", "a.test", "/here?x=1"),
            (
                r#"{ "prefix": { "from": "/", "to": "/app" } }"#,
                "http",
                "a.test",
                "/app/x",
            ),
            (
                r#"{ "prefix": { "from": "/a", "to": "/a/b" } }"#,
                "http",
                "a.test",
                "/a/b",
            ),
            (
                r#"{ "prefix": { "from": "/old", "to": "/new" } }"#,
                "http",
                "a.test",
                "/older",
            ),
        ];
        for (config, scheme, authority, path) in cases {
            assert_eq!(
                location(config, scheme, authority, path),
                None,
                "{config} {path}"
            );
        }
    }

    /// Whatever a client is sent to, following it comes to an end.
    #[test]
    fn following_ends() {
        let configs = [
            r#"{ "scheme": "https", "prefix": { "from": "/", "to": "/app" } }"#,
            r#"{ "prefix": { "from": "/a", "to": "/a/a" } }"#,
            r#"{ "prefix": { "from": "/a/b", "to": "/a" } }"#,
            r#"{ "host": "b.test", "port": 8443, "path": "/x" }"#,
        ];
        for config in configs {
            for path in ["/", "/a", "/a/a", "/a/b/b/b", "/app", "/x"] {
                let (mut scheme, mut authority, mut path) =
                    ("http".to_owned(), "a.test".to_owned(), path.to_owned());
                let mut hops = 0;
                while let Some(location) = location(config, &scheme, &authority, &path) {
                    let (s, rest) = location.split_once("://").unwrap();
                    let at = rest.find('/').unwrap();
                    (scheme, authority) = (s.to_owned(), rest[..at].to_owned());
                    path = rest[at..].to_owned();
                    hops += 1;
                    assert!(hops < 5, "{config}: {location}");
                }
            }
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let cases = [
            ("{}", "at least one of"),
            (r#"{ "scheme": "ftp" }"#, "scheme: must be one of"),
            (
                r#"{ "host": "a.test:80" }"#,
                "host: must be a host name without port",
            ),
            (r#"{ "port": 0 }"#, "port: must be"),
            (r#"{ "path": "x" }"#, "path: must be a path"),
            (
                r#"{ "path": "/x", "prefix": { "from": "/", "to": "/y" } }"#,
                "exclude",
            ),
            (
                r#"{ "scheme": "https", "status": 304 }"#,
                "status: must be one of",
            ),
            (r#"{ "scheme": "https", "status": 200 }"#, "status: must be"),
            (r#"{ "schema": "https" }"#, "schema: is not known"),
        ];
        for (config, want) in cases {
            let refusal = mock::configure::<Redirect>(config).err().unwrap();
            assert!(refusal.contains(want), "{config}: {refusal}");
        }
    }
}
