//! The meaning of policies that concern bodies.

use super::FileReader;
use crate::config::parse::raw::RawCompression;
use crate::config::parse::units;
use crate::config::policy::body::CompressionSpec;
use crate::policy::compression::Coding;
use crate::policy::compression::MediaType;

/// Most responses that a policy may compress at a time: 10 GiB of them.
const MAX_RESPONSES: i64 = 10_000;

impl FileReader<'_> {
    pub(super) fn compression(&mut self, raw: &RawCompression) -> CompressionSpec {
        let mut spec = CompressionSpec::default();
        if let Some(codings) = &raw.codings {
            if codings.is_empty() {
                let message = "a compression policy has at least one coding".to_owned();
                self.error(codings.span(), message);
            }
            let texts = codings.iter();
            spec.codings = texts
                .filter_map(|text| self.text(text, "coding", parse_coding))
                .collect();
        }
        if let Some(types) = &raw.types {
            let texts = types.iter();
            spec.types = texts
                .filter_map(|text| self.text(text, "media type", MediaType::parse))
                .collect();
        }
        if let Some(text) = &raw.min_size
            && let Some(size) = self.text(text, "size", units::size)
        {
            spec.min_size = size;
        }
        let responses = raw.responses.as_ref();
        self.count(responses, "responses", MAX_RESPONSES, &mut spec.responses);
        spec
    }
}

fn parse_coding(text: &str) -> Result<Coding, &'static str> {
    let found = Coding::ALL.into_iter().find(|c| c.as_str() == text);
    found.ok_or("write \"zstd\", \"br\" or \"gzip\"")
}
