//! The meaning of built-in policies.

mod access;
mod answer;
mod body;
mod limit;
mod traffic;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;
use toml::de::ValueDeserializer;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawHeaders;
use crate::config::policy::HeadersSpec;
use crate::config::policy::PolicySpec;
use crate::config::shape::take_kind;
use crate::name::PolicyName;

impl FileReader<'_> {
    pub(super) fn policies(&mut self, table: &mut DeTable<'_>, schema: &Value) {
        for (name, mut value) in self.tables(table, "policies", Kind::Policy) {
            let at = format!("policies.{name}");
            let pointer = "/properties/policies/additionalProperties";
            if let Some(schema) = schema.pointer(pointer).zip(Some(schema))
                && !self.shape(schema.1).check(&mut value, schema.0, &at)
            {
                continue;
            }
            // The schema has it, and one of the words below.
            let Some(kind) = take_kind(&mut value) else {
                continue;
            };
            if let Some(spec) = self.policy(&at, &kind, value)
                && let Some(name) = self.item_name(&at, &name, PolicyName::parse)
            {
                self.reading.config.policies.insert(name, spec);
            }
        }
    }

    fn policy(&mut self, at: &str, kind: &str, value: Spanned<DeValue<'_>>) -> Option<PolicySpec> {
        match kind {
            "basic-auth" => {
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::BasicAuth(self.basic_auth(&raw, at)))
            }
            "body-size" => {
                let raw = self.read_value(value, at)?;
                self.body_size(&raw).map(PolicySpec::BodySize)
            }
            "canary" => {
                let raw = self.read_value(value, at)?;
                self.canary(&raw).map(PolicySpec::Canary)
            }
            "compression" => {
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::Compression(self.compression(&raw)))
            }
            "concurrency" => {
                let raw = self.read_value(value, at)?;
                self.concurrency(&raw).map(PolicySpec::Concurrency)
            }
            "cors" => {
                let raw = self.read_value(value, at)?;
                self.cors(&raw).map(PolicySpec::Cors)
            }
            "error-pages" => {
                let span = value.span();
                let raw = self.read_value(value, at)?;
                let spec = self.error_pages(&raw, at, span);
                spec.map(PolicySpec::ErrorPages)
            }
            "forward-auth" => {
                let raw = self.read_value(value, at)?;
                let spec = self.forward_auth(&raw)?;
                Some(PolicySpec::ForwardAuth(Box::new(spec)))
            }
            "headers" => {
                let raw: RawHeaders = self.read_value(value, at)?;
                Some(PolicySpec::Headers(HeadersSpec {
                    request: self.header_edits(raw.request_headers.as_ref()),
                    response: self.header_edits(raw.response_headers.as_ref()),
                }))
            }
            "ip-access" => {
                let span = value.span();
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::IpAccess(self.ip_access(&raw, span)))
            }
            "maintenance" => {
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::Maintenance(self.maintenance(&raw)))
            }
            "mirror" => {
                let raw = self.read_value(value, at)?;
                self.mirror(&raw).map(PolicySpec::Mirror)
            }
            "rate-limit" => {
                let raw = self.read_value(value, at)?;
                self.rate_limit(&raw).map(PolicySpec::RateLimit)
            }
            "redirect" => {
                let span = value.span();
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::Redirect(self.redirect_policy(raw, span)))
            }
            "request-id" => {
                let raw = self.read_value(value, at)?;
                self.request_id(&raw).map(PolicySpec::RequestId)
            }
            "security-headers" => {
                let raw = self.read_value(value, at)?;
                Some(PolicySpec::SecurityHeaders(self.security_headers(&raw)))
            }
            _ => None,
        }
    }

    pub(super) fn read_value<T: for<'de> Deserialize<'de>>(
        &mut self,
        mut value: Spanned<DeValue<'_>>,
        at: &str,
    ) -> Option<T> {
        let span = value.span();
        value.get_mut().make_owned();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(raw) => Some(raw),
            Err(error) => {
                let span = error.span().unwrap_or(span);
                self.error(span, format!("{at}: {}", error.message()));
                None
            }
        }
    }

    fn error_status(&mut self, raw: Option<&At<i64>>, default: StatusCode) -> StatusCode {
        let Some(raw) = raw else { return default };
        let status = self.number(raw, "status", 400..=599);
        let status = u16::try_from(status).ok();
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(default)
    }
}
