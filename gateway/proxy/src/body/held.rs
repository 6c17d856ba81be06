//! A body that was read ahead, for a plugin that wants to see it before it decides.

use std::task::Context;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http_body::Frame;

use super::BodyError;
use super::PolledFrame;

/// What was read of a body.
pub(super) struct Ahead {
    pub(super) bytes: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// There is no more.
    pub(super) is_whole: bool,
}

/// Reads until the body is over, or has more than `limit` bytes.
pub(super) async fn read_ahead(
    limit: usize,
    mut poll: impl FnMut(&mut Context<'_>) -> PolledFrame<BodyError>,
) -> Result<Ahead, BodyError> {
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    while bytes.len() <= limit {
        let Some(frame) = std::future::poll_fn(&mut poll).await else {
            return Ok(Ahead {
                bytes: bytes.freeze(),
                trailers,
                is_whole: true,
            });
        };
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = Frame::into_trailers(frame).ok(),
        }
    }
    Ok(Ahead {
        bytes: bytes.freeze(),
        trailers,
        is_whole: false,
    })
}
