//! A body that is compressed on its way, in bounded memory and bounded steps.
//!
//! What the source has given is compressed at once; whenever the source has nothing more for now,
//! what the coder still holds is sent, so that a slow stream stays a stream.

use std::io;
use std::io::Write as _;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body::Frame;
use postern_core::policy::compression::Coding;

use super::BodyError;
use super::PolledFrame;
use crate::policy::Compressing;

/// Bytes that are compressed before the worker's other tasks have their turn: a millisecond or two.
const STEP: usize = 64 << 10;
/// Of gzip: the usual middle between time and size.
const GZIP_LEVEL: u32 = 5;
/// Of Brotli: above, a response costs several times as much.
const BROTLI_QUALITY: u32 = 4;
/// Bytes that Brotli looks back, as a power of two. Memory is a multiple of it.
const BROTLI_WINDOW: u32 = 17;
const BROTLI_BUFFER: usize = 4 << 10;
const ZSTD_LEVEL: i32 = 3;
/// The same for Zstandard; browsers take up to 2^23.
const ZSTD_WINDOW: u32 = 17;

/// One response's coder.
pub(super) struct Encoder {
    /// `None` once everything has been written into it.
    coder: Option<Coder>,
    /// From the source, not yet compressed.
    input: Bytes,
    /// Bytes compressed since the source or the task was last asked.
    step: usize,
    /// The coder may hold something back.
    is_dirty: bool,
    trailers: Option<HeaderMap>,
    /// Counts it among those that are compressed.
    _place: Compressing,
}

enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    /// Boxed, being large.
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(super) fn new(coding: Coding, place: Compressing) -> io::Result<Self> {
        Ok(Self {
            coder: Some(Coder::new(coding)?),
            input: Bytes::new(),
            step: 0,
            is_dirty: false,
            trailers: None,
            _place: place,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.coder.is_none() && self.trailers.is_none()
    }

    pub(super) fn poll_frame<S>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        poll: impl Fn(&mut S, &mut Context<'_>) -> PolledFrame<BodyError>,
    ) -> PolledFrame<BodyError> {
        loop {
            let Some(coder) = &mut self.coder else {
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if !self.input.is_empty() {
                if self.step >= STEP {
                    self.step = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let piece = self.input.split_to(self.input.len().min(STEP - self.step));
                self.step += piece.len();
                self.is_dirty = true;
                match coder.write(&piece) {
                    Ok(out) if out.is_empty() => continue,
                    written => return Poll::Ready(Some(framed(written))),
                }
            }
            let ended = match poll(source, cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.input = data;
                        continue;
                    }
                    Err(frame) => Frame::into_trailers(frame).ok(),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => None,
                Poll::Pending => {
                    self.step = 0;
                    if !std::mem::take(&mut self.is_dirty) {
                        return Poll::Pending;
                    }
                    match coder.flush() {
                        Ok(out) if out.is_empty() => return Poll::Pending,
                        flushed => return Poll::Ready(Some(framed(flushed))),
                    }
                }
            };
            self.trailers = ended;
            let rest = self
                .coder
                .take()
                .map_or_else(|| Ok(Vec::new()), Coder::finish);
            if !matches!(&rest, Ok(rest) if rest.is_empty()) {
                return Poll::Ready(Some(framed(rest)));
            }
        }
    }
}

fn framed(written: io::Result<Vec<u8>>) -> Result<Frame<Bytes>, BodyError> {
    match written {
        Ok(bytes) => Ok(Frame::data(bytes.into())),
        Err(source) => Err(BodyError::Coding(source)),
    }
}

impl Coder {
    fn new(coding: Coding) -> io::Result<Self> {
        let out = Vec::new();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(out, Compression::new(GZIP_LEVEL))),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                out,
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => {
                let mut coder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                coder.window_log(ZSTD_WINDOW)?;
                Self::Zstd(coder)
            }
        })
    }

    /// What comes out for these bytes, perhaps nothing yet.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.write_all(bytes)?,
            Self::Brotli(coder) => coder.write_all(bytes)?,
            Self::Zstd(coder) => coder.write_all(bytes)?,
        }
        Ok(self.take())
    }

    /// Everything that was held back.
    fn flush(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.flush()?,
            Self::Brotli(coder) => coder.flush()?,
            Self::Zstd(coder) => coder.flush()?,
        }
        Ok(self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(coder) => coder.get_mut(),
            Self::Brotli(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.finish(),
            Self::Brotli(coder) => Ok(coder.into_inner()),
            Self::Zstd(coder) => coder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Read as _;
    use std::task::Waker;

    use super::*;

    type Source = VecDeque<Option<Frame<Bytes>>>;

    /// What comes out; the source has nothing for now where it says `None`.
    fn run(coding: Coding, mut source: Source) -> (Vec<Vec<u8>>, Option<HeaderMap>) {
        let mut encoder = Encoder::new(coding, Compressing::for_test()).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let (mut pieces, mut trailers) = (vec![Vec::new()], None);
        loop {
            let polled =
                encoder.poll_frame(&mut cx, &mut source, |source, _| match source.pop_front() {
                    Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
                    Some(None) => Poll::Pending,
                    None => Poll::Ready(None),
                });
            match polled {
                Poll::Ready(Some(frame)) => match frame.unwrap().into_data() {
                    Ok(data) => pieces.last_mut().unwrap().extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => break,
                Poll::Pending => pieces.push(Vec::new()),
            }
        }
        assert!(encoder.is_over());
        (pieces, trailers)
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let text: Vec<u8> = (0..100_000_u64)
            .flat_map(|n| format!("{} ", n * n % 977).into_bytes())
            .collect();
        for coding in Coding::ALL {
            for size in [1, 1000, 50_000, 1 << 20] {
                let input = if size == 1 { &text[..3000] } else { &text[..] };
                let frames = input.chunks(size);
                let frames = frames.map(|c| Some(Frame::data(Bytes::copy_from_slice(c))));
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", http::HeaderValue::from_static("1"));
                let end = Some(Frame::trailers(trailers.clone()));
                let (pieces, seen) = run(coding, frames.chain([end]).collect());
                let all = pieces.concat();
                assert_eq!(decoded(coding, &all), input, "{coding:?} {size}");
                assert!(all.len() < input.len(), "{coding:?} {size}: {}", all.len());
                assert_eq!(seen, Some(trailers));
            }
            assert_eq!(decoded(coding, &run(coding, Source::new()).0.concat()), b"");
        }
    }

    #[test]
    fn a_pause_brings_out_what_was_written_before() {
        for coding in Coding::ALL {
            let event = |text: &'static str| Some(Frame::data(Bytes::from_static(text.as_bytes())));
            let source = [event("one\n"), None, None, event("two\n"), None];
            let (pieces, _) = run(coding, source.into());
            let pieces: Vec<_> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
            assert_eq!(pieces.len(), 2, "{coding:?}: an event each");
            let mut first = vec![0; 4];
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*pieces[0]).read_exact(&mut first),
                Coding::Brotli => {
                    brotli::Decompressor::new(&*pieces[0], 4096).read_exact(&mut first)
                }
                Coding::Zstd => zstd::Decoder::new(&*pieces[0])
                    .unwrap()
                    .read_exact(&mut first),
            }
            .unwrap();
            assert_eq!(first, b"one\n", "{coding:?}");
        }
    }
}
