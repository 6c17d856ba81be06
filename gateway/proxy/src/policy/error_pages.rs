//! Puts a page of the operator's in place of a failure's, whoever it came from.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use postern_core::config::policy::traffic::ErrorPagesSpec;
use postern_core::config::policy::traffic::PageSpec;
use postern_wasm::exchange::LocalResponse;
use postern_wasm::exchange::ResponseHead;

/// Fields that speak of the body that is replaced.
const OF_THE_BODY: [HeaderName; 10] = [
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONTENT_TYPE,
];

pub(super) struct ErrorPages {
    statuses: Vec<(u16, u16)>,
    content_type: HeaderValue,
    page: Bytes,
}

impl ErrorPages {
    pub(super) fn new(spec: &ErrorPagesSpec, file: &[u8]) -> Self {
        Self {
            statuses: spec.statuses.clone(),
            content_type: spec.content_type.clone(),
            page: match &spec.page {
                PageSpec::File(_) => Bytes::copy_from_slice(file),
                PageSpec::Body(body) => body.clone(),
            },
        }
    }

    /// Status and the fields that do not speak of the body stay, `retry-after` among them.
    pub(super) fn on_response(&self, response: &ResponseHead) -> Option<LocalResponse> {
        let status = response.status.as_u16();
        let mut statuses = self.statuses.iter();
        if !statuses.any(|(first, last)| (*first..=*last).contains(&status)) {
            return None;
        }
        let mut headers = response.headers.clone();
        for name in OF_THE_BODY {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        Some(LocalResponse {
            status: response.status,
            headers,
            body: self.page.clone(),
        })
    }
}
