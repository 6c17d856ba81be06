//! The meaning of routes and rules.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use regex::Regex;
use regex::RegexBuilder;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawBackend;
use super::raw::RawFieldMatch;
use super::raw::RawPathMatch;
use super::raw::RawRedirect;
use super::raw::RawRespond;
use super::raw::RawRewrite;
use super::raw::RawRoute;
use super::raw::RawRule;
use super::raw::RawScheme;
use crate::config::policy::HeadersSpec;
use crate::config::route::ActionSpec;
use crate::config::route::BackendRef;
use crate::config::route::FieldMatch;
use crate::config::route::MatchSpec;
use crate::config::route::PathMatch;
use crate::config::route::RedirectSpec;
use crate::config::route::RespondSpec;
use crate::config::route::RewriteSpec;
use crate::config::route::RouteSpec;
use crate::config::route::RuleSpec;
use crate::config::route::ValueMatch;
use crate::hostname::Authority;
use crate::hostname::Hostname;
use crate::name::PolicyName;
use crate::name::RouteName;
use crate::name::UpstreamName;
use crate::path::EncodedSlash;
use crate::path::RequestPath;

/// Compiled size of one regular expression, in bytes. Matching is linear in any case; this bounds
/// what a repetition like `(a{1000}){1000}` may cost to build.
const REGEX_BYTES: usize = 1 << 20;
/// Largest body of a `respond` rule, in bytes.
const RESPOND_BODY: usize = 64 << 10;
const MAX_WEIGHT: i64 = 1_000_000;

impl FileReader<'_> {
    pub(super) fn route(&mut self, span: Range<usize>, raw: &RawRoute) {
        // By position, since several routes may have one name.
        let at = format!("routes.{}", self.reading.config.routes.len());
        let mut hosts: Vec<Hostname> = Vec::with_capacity(raw.hosts.len());
        for text in &raw.hosts {
            let Some(host) = self.text(text, "host name", Hostname::parse) else {
                continue;
            };
            if hosts.contains(&host) {
                self.error(text.span(), format!("the host '{host}' is listed twice"));
                continue;
            }
            self.place(format!("{at}.hosts.{host}"), text.span());
            hosts.push(host);
        }
        let name = match &raw.name {
            Some(text) => self.text(text, "name", RouteName::parse),
            None => {
                let first = raw.hosts.first();
                let name = first.map_or("default", |host| host.trim_start_matches("*."));
                // A host that is no name was reported above.
                RouteName::parse(name).ok()
            }
        };
        if raw.rules.is_empty() {
            let message = "a route has at least one rule".to_owned();
            self.error(raw.rules.span(), message);
        }
        self.place(at.clone(), span);
        let rules: Vec<Option<RuleSpec>> = raw
            .rules
            .iter()
            .enumerate()
            .map(|(index, raw)| {
                self.place(format!("{at}.rules.{index}"), raw.span());
                self.rule(raw)
            })
            .collect();
        if let (Some(name), Some(rules)) = (name, rules.into_iter().collect()) {
            self.reading
                .config
                .routes
                .push(Arc::new(RouteSpec { name, hosts, rules }));
        }
    }

    fn rule(&mut self, raw: &At<RawRule>) -> Option<RuleSpec> {
        let path = match &raw.path {
            Some(path) => self.path_match(path),
            None => Some(PathMatch::Prefix(String::new())),
        };
        let methods = raw
            .methods
            .iter()
            .filter_map(|text| self.text(text, "method", parse_method))
            .collect();
        let headers = raw.headers.iter().filter_map(|field| {
            self.field_match(field, |text| {
                HeaderName::from_bytes(text.as_bytes()).map_err(|_| "it is no token")
            })
        });
        let headers = headers.collect();
        let query = raw
            .query
            .iter()
            .filter_map(|field| self.field_match(field, |text| Ok(text.to_owned())))
            .collect();
        let policies = raw
            .policies
            .iter()
            .filter_map(|text| self.reference(Kind::Policy, text, PolicyName::parse))
            .collect();
        let headers_spec = HeadersSpec {
            request: self.header_edits(raw.request_headers.as_ref()),
            response: self.header_edits(raw.response_headers.as_ref()),
        };
        let action = self.action(raw);
        let rewrite = match &raw.rewrite {
            Some(raw) => Some(self.rewrite(raw)?),
            None => None,
        };
        let mut first_byte = None;
        if let Some(text) = raw.timeouts.as_ref().and_then(|t| t.first_byte.as_ref()) {
            let mut value = std::time::Duration::ZERO;
            self.duration(Some(text), &mut value);
            first_byte = Some(value);
        }
        let path = path?;
        if matches!(&rewrite, Some(RewriteSpec::Prefix(_))) {
            self.needs_prefix(&path, raw.rewrite.as_ref()?.span());
        }
        Some(RuleSpec {
            matches: Arc::new(MatchSpec {
                path,
                methods,
                headers,
                query,
            }),
            action: action?,
            policies,
            headers: headers_spec,
            rewrite,
            first_byte,
        })
    }

    fn needs_prefix(&mut self, path: &PathMatch, span: Range<usize>) {
        if !matches!(path, PathMatch::Prefix(_)) {
            self.error_with_help(
                span,
                "a prefix can only be replaced where one is matched".to_owned(),
                "match the path by prefix, or replace the whole path with path = \"...\"",
            );
        }
    }

    fn path_match(&mut self, raw: &At<RawPathMatch>) -> Option<PathMatch> {
        match (&raw.exact, &raw.prefix, &raw.regex) {
            (Some(text), None, None) => self.plain_path(text).map(PathMatch::Exact),
            (None, Some(text), None) => self
                .plain_path(text)
                .map(|path| PathMatch::Prefix(path.trim_end_matches('/').to_owned())),
            (None, None, Some(text)) => self
                .text(text, "regular expression", parse_regex)
                .map(PathMatch::Regex),
            _ => {
                let message = "a path match has one of exact, prefix and regex".to_owned();
                self.error(raw.span(), message);
                None
            }
        }
    }

    /// A path as it is compared: in canonical form, since no other ever arrives.
    fn plain_path(&mut self, text: &At<String>) -> Option<String> {
        let path = self.text(text, "path", |text| {
            if text.contains('?') {
                return Err("it has a query; match that with query = [...]".to_owned());
            }
            RequestPath::from_text(text, EncodedSlash::Keep).map_err(|error| error.to_string())
        })?;
        if path.path() != text.as_str() {
            self.error_with_help(
                text.span(),
                format!("'{}' is never requested: paths are normalised", **text),
                &format!("write \"{}\"", path.path()),
            );
            return None;
        }
        Some((**text).clone())
    }

    fn field_match<N>(
        &mut self,
        raw: &At<RawFieldMatch>,
        parse: impl FnOnce(&str) -> Result<N, &'static str>,
    ) -> Option<FieldMatch<N>> {
        let name = self.text(&raw.name, "name", parse);
        let value = match (&raw.exact, &raw.regex, raw.present) {
            (Some(text), None, None) => ValueMatch::Exact(text.clone()),
            (None, Some(text), None) => {
                ValueMatch::Regex(self.text(text, "regular expression", parse_regex)?)
            }
            (None, None, Some(true)) => ValueMatch::Present,
            (None, None, Some(false)) => ValueMatch::Absent,
            _ => {
                let message = "a match has one of exact, regex and present".to_owned();
                self.error(raw.span(), message);
                return None;
            }
        };
        Some(FieldMatch { name: name?, value })
    }

    fn action(&mut self, raw: &At<RawRule>) -> Option<ActionSpec> {
        let given = [
            raw.upstream.is_some(),
            raw.upstreams.is_some(),
            raw.redirect.is_some(),
            raw.respond.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            let message = "a rule has one of upstream, upstreams, redirect and respond".to_owned();
            self.error(raw.span(), message);
        }
        if let Some(text) = &raw.upstream {
            let upstream = self.reference(Kind::Upstream, text, UpstreamName::parse)?;
            return Some(ActionSpec::Forward(vec![BackendRef {
                upstream,
                weight: 1,
            }]));
        }
        if let Some(backends) = &raw.upstreams {
            return self.backends(backends);
        }
        if let Some(redirect) = &raw.redirect {
            return self.redirect(raw, redirect);
        }
        raw.respond.as_ref().and_then(|raw| self.respond(raw))
    }

    fn backends(&mut self, raw: &At<Vec<RawBackend>>) -> Option<ActionSpec> {
        let mut backends = Vec::with_capacity(raw.len());
        for backend in raw.iter() {
            let upstream = self.reference(Kind::Upstream, &backend.name, UpstreamName::parse);
            let weight = match &backend.weight {
                Some(weight) => self.number(weight, "a weight", 0..=MAX_WEIGHT),
                None => 1,
            };
            if let Some(upstream) = upstream {
                backends.push(BackendRef {
                    upstream,
                    weight: u32::try_from(weight).unwrap_or_default(),
                });
            }
        }
        if backends.iter().all(|backend| backend.weight == 0) {
            let message = "at least one upstream has a weight above 0".to_owned();
            self.error(raw.span(), message);
            return None;
        }
        Some(ActionSpec::Forward(backends))
    }

    fn redirect(&mut self, rule: &RawRule, raw: &At<RawRedirect>) -> Option<ActionSpec> {
        let path = self.replacement(raw.path.as_ref(), raw.prefix.as_ref(), raw.span());
        if let Some(RewriteSpec::Prefix(_)) = path {
            let matched = rule.path.as_ref();
            if matched.is_some_and(|path| path.prefix.is_none()) {
                self.needs_prefix(&PathMatch::Exact(String::new()), raw.span());
            }
        }
        let spec = self.redirect_spec(raw, path, raw.span());
        Some(ActionSpec::Redirect(spec))
    }

    pub(super) fn redirect_spec(
        &mut self,
        raw: &RawRedirect,
        path: Option<RewriteSpec>,
        span: Range<usize>,
    ) -> RedirectSpec {
        let status = match &raw.status {
            Some(status) => {
                let known = u16::try_from(**status).unwrap_or_default();
                if ![301, 302, 303, 307, 308].contains(&known) {
                    let message = format!("{} is no redirect", **status);
                    let help = "write 301, 302, 303, 307 or 308";
                    self.error_with_help(status.span(), message, help);
                }
                StatusCode::from_u16(known).unwrap_or(StatusCode::PERMANENT_REDIRECT)
            }
            None => StatusCode::PERMANENT_REDIRECT,
        };
        let host = raw.host.as_ref().and_then(|text| {
            self.text(text, "host name", |text| {
                let value = http::HeaderValue::from_str(text)
                    .map_err(|_| crate::hostname::HostnameError::Character)?;
                Authority::parse(&value)
            })
        });
        let host = host.map(|authority| authority.as_str().to_owned());
        let port = raw.port.as_ref().map(|port| {
            let port = self.number(port, "a port", 1..=65535);
            u16::try_from(port).unwrap_or_default()
        });
        let spec = RedirectSpec {
            status,
            scheme: raw.scheme.map(|scheme| match scheme {
                RawScheme::Http => "http",
                RawScheme::Https => "https",
            }),
            host,
            port,
            path,
        };
        let is_loop = spec.scheme.is_none()
            && spec.host.is_none()
            && spec.port.is_none()
            && spec.path.is_none();
        if is_loop {
            let message = "a redirect changes scheme, host, port or path".to_owned();
            self.error(span, message);
        }
        spec
    }

    fn respond(&mut self, raw: &At<RawRespond>) -> Option<ActionSpec> {
        let status = self.number(&raw.status, "a status", 200..=599);
        let body = raw.body.clone().unwrap_or_default();
        if body.len() > RESPOND_BODY {
            let limit = RESPOND_BODY >> 10;
            self.error(raw.span(), format!("the body is larger than {limit}KiB"));
        }
        let status = u16::try_from(status).ok()?;
        Some(ActionSpec::Respond(RespondSpec {
            status: StatusCode::from_u16(status).ok()?,
            body: Bytes::from(body),
        }))
    }

    fn rewrite(&mut self, raw: &At<RawRewrite>) -> Option<RewriteSpec> {
        if raw.path.is_some() == raw.prefix.is_some() {
            let message = "a rewrite has one of path and prefix".to_owned();
            self.error(raw.span(), message);
            return None;
        }
        self.replacement(raw.path.as_ref(), raw.prefix.as_ref(), raw.span())
    }

    pub(super) fn replacement(
        &mut self,
        path: Option<&At<String>>,
        prefix: Option<&At<String>>,
        span: Range<usize>,
    ) -> Option<RewriteSpec> {
        match (path, prefix) {
            (Some(path), None) => self.plain_path(path).map(RewriteSpec::Path),
            (None, Some(prefix)) if prefix.is_empty() => Some(RewriteSpec::Prefix(String::new())),
            (None, Some(prefix)) => self
                .plain_path(prefix)
                .map(|path| RewriteSpec::Prefix(path.trim_end_matches('/').to_owned())),
            (None, None) => None,
            (Some(_), Some(_)) => {
                let message = "either the path or its prefix is replaced, not both".to_owned();
                self.error(span, message);
                None
            }
        }
    }
}

pub(super) fn parse_method(text: &str) -> Result<Method, &'static str> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| "it is no token")?;
    if text.chars().any(|c| c.is_ascii_lowercase()) {
        return Err("methods are written in upper case");
    }
    match method {
        Method::CONNECT | Method::TRACE => Err("the gateway never serves it"),
        method => Ok(method),
    }
}

/// Anchored, so that a rule says what it accepts and not what it contains.
fn parse_regex(text: &str) -> Result<Regex, String> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    // Compiled alone first: `a)(b` would become valid between our own parentheses.
    build(text)
        .and_then(|_| build(&format!("^(?:{text})$")))
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
            // The message of several lines draws the pattern again; its last line says what it is.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })
}
