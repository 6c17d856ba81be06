//! The meaning of policies that decide who may pass.

use std::ops::Range;

use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::FileReader;
use super::Kind;
use super::limit::is_token;
use crate::config::parse::raw::RawBasicAuth;
use crate::config::parse::raw::RawForwardAuth;
use crate::config::parse::raw::RawIpAccess;
use crate::config::policy::access::BasicAuthSpec;
use crate::config::policy::access::DEFAULT_FORWARD_AUTH_TIMEOUT;
use crate::config::policy::access::DEFAULT_REALM;
use crate::config::policy::access::DEFAULT_SIGNIN_PARAMETER;
use crate::config::policy::access::ForwardAuthSpec;
use crate::config::policy::access::IpAccessSpec;
use crate::hostname::Authority;
use crate::hostname::HostnameError;
use crate::name::UpstreamName;
use crate::path::EncodedSlash;
use crate::path::RequestPath;

// What could not be read was reported, and the file with it is refused: a default stands in for it
// so that the rest is looked at too.
impl FileReader<'_> {
    pub(super) fn basic_auth(&mut self, raw: &RawBasicAuth, at: &str) -> BasicAuthSpec {
        self.place(format!("{at}.users-file"), raw.users_file.span());
        let realm = match &raw.realm {
            Some(text) => self.text(text, "realm", |text| {
                HeaderValue::from_str(text)
                    .map(|_| text.to_owned())
                    .map_err(|_| "it holds a control character")
            }),
            None => None,
        };
        let user_header = match &raw.user_header {
            Some(text) => self.field_name(text),
            None => None,
        };
        BasicAuthSpec {
            users_file: self.file(&raw.users_file),
            realm: realm.unwrap_or_else(|| DEFAULT_REALM.to_owned()),
            user_header,
            keeps_credentials: raw.keep_credentials.unwrap_or(false),
        }
    }

    pub(super) fn forward_auth(&mut self, raw: &RawForwardAuth) -> Option<ForwardAuthSpec> {
        let upstream = self.reference(Kind::Upstream, &raw.upstream, UpstreamName::parse);
        let path = match &raw.path {
            Some(text) => self.text(text, "path", |text| {
                RequestPath::from_text(text, EncodedSlash::Reject)
            }),
            None => None,
        };
        let host = match &raw.host {
            Some(text) => self.text(text, "host", |text| {
                let value = HeaderValue::from_str(text).map_err(|_| HostnameError::Character)?;
                Authority::parse(&value)
            }),
            None => None,
        };
        let signin = match &raw.signin {
            Some(text) => self.text(text, "address of a sign-in page", |text| {
                let is_address = text.starts_with("https://")
                    || text.starts_with("http://")
                    || text.starts_with('/');
                match HeaderValue::from_str(text) {
                    Ok(_) if is_address && !text.contains([' ', '#']) => Ok(text.to_owned()),
                    _ => Err("write a URL or a path, without a fragment"),
                }
            }),
            None => None,
        };
        let signin_parameter = match &raw.signin_parameter {
            Some(text) => self.text(text, "query parameter", |text| {
                let is_name = is_token(text);
                is_name.then(|| text.to_owned()).ok_or("it is no token")
            }),
            None => None,
        };
        let request_headers = raw.request_headers.as_ref();
        let request_headers = request_headers.map(|texts| self.tokens(texts));
        let mut editable = |texts: &[crate::config::parse::raw::At<String>]| {
            let names = texts.iter().filter_map(|text| self.field_name(text));
            names.collect::<Vec<HeaderName>>()
        };
        let upstream_headers = editable(&raw.upstream_headers);
        let client_headers = match &raw.client_headers {
            Some(texts) => editable(texts),
            None => vec![header::SET_COOKIE],
        };
        let mut timeout = DEFAULT_FORWARD_AUTH_TIMEOUT;
        self.duration(raw.timeout.as_ref(), &mut timeout);
        let on_unavailable = raw.on_unavailable.as_ref();
        let on_unavailable = on_unavailable.and_then(|raw| self.on_error(raw));
        let mut cache = None;
        if raw.cache.is_some() {
            let mut time = std::time::Duration::ZERO;
            self.duration(raw.cache.as_ref(), &mut time);
            cache = Some(time);
        }
        let cache_key = raw.cache_key.as_ref();
        let cache_key = cache_key.map(|texts| self.tokens(texts));
        Some(ForwardAuthSpec {
            upstream: upstream?,
            path: path.unwrap_or_default(),
            host,
            request_headers,
            upstream_headers,
            client_headers,
            signin,
            signin_parameter: signin_parameter
                .unwrap_or_else(|| DEFAULT_SIGNIN_PARAMETER.to_owned()),
            timeout,
            on_unavailable: on_unavailable.unwrap_or_default(),
            cache,
            cache_key,
        })
    }

    pub(super) fn ip_access(&mut self, raw: &RawIpAccess, span: Range<usize>) -> IpAccessSpec {
        if raw.allow.is_empty() && raw.deny.is_empty() {
            let message = "an ip-access policy allows or denies networks".to_owned();
            let help = "write allow = [...] or deny = [...]";
            self.error_with_help(span, message, help);
        }
        IpAccessSpec {
            allow: self.networks(&raw.allow),
            deny: self.networks(&raw.deny),
        }
    }
}
