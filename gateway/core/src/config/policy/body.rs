//! Policies that concern the bodies of messages.

use crate::policy::compression::Coding;
use crate::policy::compression::MediaType;

/// Bytes below which a response is not worth it: it fits into a packet either way.
pub const DEFAULT_MIN_SIZE: u64 = 1 << 10;
/// Responses that one policy compresses at a time, about 1 MiB each.
pub const DEFAULT_RESPONSES: u32 = 100;
/// Media types that shrink.
pub const DEFAULT_TYPES: [&str; 13] = [
    "text/css",
    "text/csv",
    "text/html",
    "text/javascript",
    "text/markdown",
    "text/plain",
    "text/xml",
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/wasm",
    "application/xml",
    "image/svg+xml",
];

/// Makes responses smaller for clients that can read that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompressionSpec {
    /// The best first.
    pub codings: Vec<Coding>,
    pub types: Vec<MediaType>,
    pub min_size: u64,
    /// At a time, all workers together.
    pub responses: u32,
}

impl Default for CompressionSpec {
    fn default() -> Self {
        let types = DEFAULT_TYPES.iter();
        Self {
            codings: Coding::ALL.to_vec(),
            types: types
                .filter_map(|text| MediaType::parse(text).ok())
                .collect(),
            min_size: DEFAULT_MIN_SIZE,
            responses: DEFAULT_RESPONSES,
        }
    }
}
