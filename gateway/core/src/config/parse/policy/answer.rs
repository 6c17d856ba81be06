//! The meaning of policies that answer, or add to answers.

use std::ops::Range;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;

use super::super::rule::parse_method;
use super::super::units;
use super::FileReader;
use crate::config::parse::raw::At;
use crate::config::parse::raw::RawCors;
use crate::config::parse::raw::RawHsts;
use crate::config::parse::raw::RawMaintenance;
use crate::config::parse::raw::RawRedirect;
use crate::config::parse::raw::RawRedirectPolicy;
use crate::config::parse::raw::RawRequestId;
use crate::config::parse::raw::RawSecurityHeaders;
use crate::config::policy::answer::CorsSpec;
use crate::config::policy::answer::DEFAULT_CORS_MAX_AGE;
use crate::config::policy::answer::DEFAULT_HSTS_MAX_AGE;
use crate::config::policy::answer::HstsSpec;
use crate::config::policy::answer::MaintenanceSpec;
use crate::config::policy::answer::OriginMatch;
use crate::config::policy::answer::RequestIdSpec;
use crate::config::policy::answer::SecurityHeadersSpec;
use crate::config::route::RedirectSpec;
use crate::header::X_REQUEST_ID;
use crate::header::is_editable;

/// What pages may do unless a policy says otherwise.
const DEFAULT_METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];
/// Longest that a browser is told to insist on TLS; the preload list asks for one year.
const MAX_HSTS: Duration = Duration::from_secs(2 * 366 * 24 * 60 * 60);
/// Largest body that a configuration holds, in bytes.
pub(super) const MAX_BODY: usize = 64 << 10;

impl FileReader<'_> {
    pub(super) fn cors(&mut self, raw: &RawCors) -> Option<CorsSpec> {
        if raw.origins.is_empty() {
            let message = "a cors policy names at least one origin".to_owned();
            self.error(raw.origins.span(), message);
        }
        let origins: Vec<OriginMatch> = raw
            .origins
            .iter()
            .filter_map(|text| self.text(text, "origin", parse_origin))
            .collect();
        let credentials = raw.credentials.as_ref().is_some_and(|value| **value);
        if credentials && origins.contains(&OriginMatch::Any) {
            let span = raw.credentials.as_ref().map_or(0..0, At::span);
            let message = "browsers send no credentials where every origin is allowed".to_owned();
            self.error_with_help(span, message, "name the origins, or leave credentials out");
        }
        let methods = match &raw.methods {
            Some(texts) => texts
                .iter()
                .filter_map(|text| self.text(text, "method", parse_method))
                .collect(),
            None => DEFAULT_METHODS.to_vec(),
        };
        let headers = raw.headers.as_ref().map(|texts| self.tokens(texts));
        let expose = self.tokens(&raw.expose);
        let mut max_age = DEFAULT_CORS_MAX_AGE;
        self.duration(raw.max_age.as_ref(), &mut max_age);
        Some(CorsSpec {
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age,
        })
    }

    pub(super) fn tokens(&mut self, texts: &[At<String>]) -> Vec<HeaderName> {
        let texts = texts.iter();
        texts
            .filter_map(|text| {
                self.text(text, "field name", |text| {
                    HeaderName::from_bytes(text.as_bytes()).map_err(|_| "it is no token")
                })
            })
            .collect()
    }

    pub(super) fn maintenance(&mut self, raw: &RawMaintenance) -> MaintenanceSpec {
        let status = self.error_status(raw.status.as_ref(), StatusCode::SERVICE_UNAVAILABLE);
        let mut retry_after = None;
        if raw.retry_after.is_some() {
            let mut time = Duration::ZERO;
            self.duration(raw.retry_after.as_ref(), &mut time);
            retry_after = Some(time);
        }
        if let Some(body) = raw.body.as_ref().filter(|body| body.len() > MAX_BODY) {
            let limit = MAX_BODY >> 10;
            self.error(body.span(), format!("the body is larger than {limit}KiB"));
        }
        let content_type = self.value(raw.content_type.as_ref());
        MaintenanceSpec {
            is_on: raw.on.unwrap_or(true),
            status,
            retry_after,
            content_type: content_type.unwrap_or_else(|| {
                HeaderValue::from_static(match raw.body {
                    Some(_) => "text/html; charset=utf-8",
                    None => "text/plain; charset=utf-8",
                })
            }),
            body: raw.body.as_ref().map(|body| (**body).clone()),
            allow: self.networks(&raw.allow),
        }
    }

    pub(super) fn value(&mut self, text: Option<&At<String>>) -> Option<HeaderValue> {
        self.text(text?, "field value", |text| {
            HeaderValue::from_str(text).map_err(|_| "it holds a control character")
        })
    }

    pub(super) fn redirect_policy(
        &mut self,
        raw: RawRedirectPolicy,
        span: Range<usize>,
    ) -> RedirectSpec {
        let path = self.replacement(raw.path.as_ref(), None, span.clone());
        let raw = RawRedirect {
            status: raw.status,
            scheme: raw.scheme,
            host: raw.host,
            port: raw.port,
            path: raw.path,
            prefix: None,
        };
        self.redirect_spec(&raw, path, span)
    }

    pub(super) fn request_id(&mut self, raw: &RawRequestId) -> Option<RequestIdSpec> {
        let header = match &raw.header {
            Some(text) => {
                let name = self.field_name(text)?;
                if !is_editable(&name) {
                    return None;
                }
                name
            }
            None => X_REQUEST_ID,
        };
        Some(RequestIdSpec {
            header,
            keeps: raw.keep.unwrap_or(false),
        })
    }

    pub(super) fn security_headers(&mut self, raw: &RawSecurityHeaders) -> SecurityHeadersSpec {
        SecurityHeadersSpec {
            hsts: raw.hsts.as_ref().map(|hsts| self.hsts(hsts)),
            is_nosniff: raw.nosniff.unwrap_or(true),
            frame_options: self.value(raw.frame_options.as_ref()),
            referrer_policy: self.value(raw.referrer_policy.as_ref()),
            content_security_policy: self.value(raw.content_security_policy.as_ref()),
            permissions_policy: self.value(raw.permissions_policy.as_ref()),
            overwrites: raw.overwrite.unwrap_or(false),
        }
    }

    fn hsts(&mut self, raw: &RawHsts) -> HstsSpec {
        let mut max_age = DEFAULT_HSTS_MAX_AGE;
        if let Some(text) = &raw.max_age
            && let Some(time) = self.text(text, "duration", units::duration)
        {
            if time > MAX_HSTS {
                let message = format!("'{}' is longer than two years", **text);
                self.error(text.span(), message);
            }
            max_age = time;
        }
        HstsSpec {
            max_age,
            subdomains: raw.include_subdomains.unwrap_or(false),
            preload: raw.preload.unwrap_or(false),
        }
    }
}

fn parse_origin(text: &str) -> Result<OriginMatch, &'static str> {
    const FORM: &str = "write \"https://app.example.com\", \"https://*.example.com\" or \"*\"";
    if text == "*" {
        return Ok(OriginMatch::Any);
    }
    if HeaderValue::from_str(text).is_err() {
        return Err(FORM);
    }
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://").ok_or(FORM)?;
    if host.is_empty() || scheme.is_empty() {
        return Err(FORM);
    }
    if host.contains('/') {
        return Err("an origin has no path, nor a slash at its end");
    }
    match host.strip_prefix('*') {
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains('*') => {
            Ok(OriginMatch::Subdomain {
                scheme: format!("{scheme}://"),
                suffix: suffix.to_owned(),
            })
        }
        None if !host.contains('*') => Ok(OriginMatch::Exact(text)),
        _ => Err(FORM),
    }
}
