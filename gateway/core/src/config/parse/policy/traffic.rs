//! The meaning of policies that decide where a request goes, and what a failure looks like.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use super::FileReader;
use super::Kind;
use super::answer::MAX_BODY;
use super::limit::is_token;
use super::limit::parse_key;
use crate::config::parse::raw::RawCanary;
use crate::config::parse::raw::RawErrorPages;
use crate::config::parse::raw::RawMirror;
use crate::config::policy::limit::LimitKey;
use crate::config::policy::traffic::CanarySpec;
use crate::config::policy::traffic::DEFAULT_MIRROR_BODY;
use crate::config::policy::traffic::DEFAULT_MIRROR_PERCENT;
use crate::config::policy::traffic::DEFAULT_MIRROR_REQUESTS;
use crate::config::policy::traffic::DEFAULT_MIRROR_TIMEOUT;
use crate::config::policy::traffic::ErrorPagesSpec;
use crate::config::policy::traffic::MirrorSpec;
use crate::config::policy::traffic::PageSpec;
use crate::name::UpstreamName;

/// Largest body that may be copied: each copy is in memory.
const MAX_MIRROR_BODY: u64 = 16 << 20;
const MAX_MIRROR_REQUESTS: i64 = 10_000;

impl FileReader<'_> {
    pub(super) fn canary(&mut self, raw: &RawCanary) -> Option<CanarySpec> {
        let upstream = self.reference(Kind::Upstream, &raw.upstream, UpstreamName::parse);
        let weight = raw.weight.as_ref();
        let weight = weight.map_or(0, |weight| self.number(weight, "weight", 0..=100));
        let value = self.value(raw.header_value.as_ref());
        let header = match &raw.header {
            Some(text) => {
                let name = self.text(text, "field name", |text| {
                    HeaderName::from_bytes(text.as_bytes()).map_err(|_| "it is no token")
                });
                name.map(|name| (name, value))
            }
            None => None,
        };
        if let Some(text) = raw.header_value.as_ref().filter(|_| raw.header.is_none()) {
            let message = "header-value says nothing without header".to_owned();
            self.error_with_help(
                text.span(),
                message,
                "name the field: header = \"x-canary\"",
            );
        }
        let cookie = match &raw.cookie {
            Some(text) => self.text(text, "cookie name", |text| {
                let is_name = is_token(text);
                is_name.then(|| text.to_owned()).ok_or("it is no token")
            }),
            None => None,
        };
        let by = match &raw.by {
            Some(text) => self.text(text, "key", |text| match text {
                "request" => Ok(LimitKey::All),
                "all" => Err("write \"request\", \"address\", \"header:NAME\" or \"cookie:NAME\""),
                text => parse_key(text),
            }),
            None => None,
        };
        Some(CanarySpec {
            upstream: upstream?,
            // The range ends at 100.
            weight: u8::try_from(weight).unwrap_or(100),
            header,
            cookie,
            by: by.unwrap_or(LimitKey::Address),
        })
    }

    pub(super) fn mirror(&mut self, raw: &RawMirror) -> Option<MirrorSpec> {
        let upstream = self.reference(Kind::Upstream, &raw.upstream, UpstreamName::parse);
        let percent = raw.percent.as_ref();
        let percent = percent.map(|percent| self.number(percent, "percent", 1..=100));
        let mut body = DEFAULT_MIRROR_BODY;
        if let Some(text) = &raw.body
            && let Some(size) = self.size(text, 0..=MAX_MIRROR_BODY)
        {
            body = size;
        }
        let mut requests = DEFAULT_MIRROR_REQUESTS;
        self.count(
            raw.requests.as_ref(),
            "requests",
            MAX_MIRROR_REQUESTS,
            &mut requests,
        );
        let mut timeout = DEFAULT_MIRROR_TIMEOUT;
        self.duration(raw.timeout.as_ref(), &mut timeout);
        Some(MirrorSpec {
            upstream: upstream?,
            // The range ends at 100.
            percent: percent.map_or(DEFAULT_MIRROR_PERCENT, |p| u8::try_from(p).unwrap_or(100)),
            body,
            requests,
            timeout,
        })
    }

    pub(super) fn error_pages(
        &mut self,
        raw: &RawErrorPages,
        at: &str,
        span: Range<usize>,
    ) -> Option<ErrorPagesSpec> {
        if raw.statuses.is_empty() {
            let message = "an error-pages policy is for at least one status".to_owned();
            self.error(raw.statuses.span(), message);
        }
        let statuses = raw.statuses.iter();
        let statuses = statuses
            .filter_map(|text| self.text(text, "status", parse_statuses))
            .collect();
        let page = match (&raw.file, &raw.body) {
            (Some(file), None) => {
                self.place(format!("{at}.file"), file.span());
                Some(PageSpec::File(self.file(file)))
            }
            (None, Some(body)) => {
                if body.len() > MAX_BODY {
                    let limit = MAX_BODY >> 10;
                    self.error(body.span(), format!("the body is larger than {limit}KiB"));
                }
                Some(PageSpec::Body(Bytes::from((**body).clone())))
            }
            _ => {
                let message = "a page is either a file or a body".to_owned();
                self.error_with_help(
                    span,
                    message,
                    "write one of file = \"...\" and body = \"...\"",
                );
                None
            }
        };
        let content_type = self.value(raw.content_type.as_ref());
        Some(ErrorPagesSpec {
            statuses,
            page: page?,
            content_type: content_type
                .unwrap_or_else(|| HeaderValue::from_static("text/html; charset=utf-8")),
        })
    }
}

fn parse_statuses(text: &str) -> Result<(u16, u16), &'static str> {
    const FORM: &str =
        "write a status from 400 to 599, as in \"404\", or a range, as in \"500-599\"";
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |text: &str| {
        let status = text.trim().parse().map_err(|_| FORM)?;
        (400..=599).contains(&status).then_some(status).ok_or(FORM)
    };
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last {
        return Err("the range ends before it begins");
    }
    Ok((first, last))
}
