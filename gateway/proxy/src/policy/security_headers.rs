//! Sets fields by which browsers protect their users.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use postern_core::config::policy::answer::SecurityHeadersSpec;

use super::native::Turn;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

pub(super) struct SecurityHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
    hsts: Option<HeaderValue>,
    overwrites: bool,
}

impl SecurityHeaders {
    pub(super) fn new(spec: &SecurityHeadersSpec) -> Self {
        let nosniff = spec.is_nosniff.then(|| HeaderValue::from_static("nosniff"));
        let fields = [
            (header::X_CONTENT_TYPE_OPTIONS, nosniff),
            (header::X_FRAME_OPTIONS, spec.frame_options.clone()),
            (header::REFERRER_POLICY, spec.referrer_policy.clone()),
            (
                header::CONTENT_SECURITY_POLICY,
                spec.content_security_policy.clone(),
            ),
            (PERMISSIONS_POLICY, spec.permissions_policy.clone()),
        ];
        Self {
            fields: fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            hsts: spec
                .hsts
                .and_then(|hsts| HeaderValue::try_from(hsts.value()).ok()),
            overwrites: spec.overwrites,
        }
    }

    /// Over clear text a browser must ignore the field, so it is not sent (RFC 6797, 7.2).
    pub(super) fn on_request(&self, turn: &mut Turn<'_>) {
        if let Some(hsts) = &self.hsts
            && turn.scheme() == "https"
        {
            turn.set_on_response(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    pub(super) fn on_response(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            if self.overwrites || !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
    }
}
