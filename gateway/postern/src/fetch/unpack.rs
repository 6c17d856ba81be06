//! A component out of a layer that is an archive, as images for Envoy and Istio have it.
//!
//! Invariants: nothing is written anywhere, and no more is unpacked than a component may have and
//! the archive around it, however small the layer is that holds it.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use postern_wasm::component::MAX_COMPONENT_BYTES;

use super::error::FetchError;

/// The unit of an archive.
const BLOCK: usize = 512;
/// What an archive may have beside the component: heads, and small files like a license.
const MAX_BESIDE: usize = 1 << 20;
/// Where a head says its size, its kind and whether it is of this format (POSIX, `ustar`).
const SIZE: std::ops::Range<usize> = 124..136;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..262;

/// The bytes of an archive that may be compressed.
pub(super) fn inflate(layer: &[u8]) -> Result<Vec<u8>, FetchError> {
    let limit = MAX_COMPONENT_BYTES + MAX_BESIDE;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX) + 1;
    let read = match layer {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(layer)
            .take(most)
            .read_to_end(&mut bytes),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(broken("zstd is not read; use gzip")),
        plain => plain.take(most).read_to_end(&mut bytes),
    };
    read.map_err(|_| broken("it is damaged"))?;
    if bytes.len() > limit {
        return Err(FetchError::TooLarge {
            what: "the layer, unpacked,".to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// The one file of the archive that ends in `.wasm`.
pub(super) fn component(archive: &[u8]) -> Result<Bytes, FetchError> {
    let mut found = None;
    let mut rest = archive;
    while let Some((head, after)) = rest.split_at_checked(BLOCK) {
        if head.iter().all(|byte| *byte == 0) {
            break;
        }
        if &head[MAGIC] != b"ustar" {
            return Err(broken("it is no tar archive"));
        }
        let size = octal(&head[SIZE]).ok_or_else(|| broken("a size in it is no number"))?;
        let padded = size.checked_next_multiple_of(BLOCK);
        let padded = padded.ok_or_else(|| broken("a size in it is no number"))?;
        if size > after.len() {
            return Err(broken("it ends in the middle of a file"));
        }
        // The other kinds are folders, links, and attributes of the file that follows.
        if matches!(head[KIND], b'0' | 0) && name(head).ends_with(b".wasm") {
            if found.is_some() {
                return Err(broken("it holds more than one .wasm file"));
            }
            found = Some(&after[..size]);
        }
        rest = after.get(padded..).unwrap_or_default();
    }
    match found {
        Some(file) => Ok(Bytes::copy_from_slice(file)),
        None => Err(broken("it holds no .wasm file")),
    }
}

fn name(head: &[u8]) -> &[u8] {
    let field = &head[..100];
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

fn octal(field: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(['\0', ' ']);
    usize::from_str_radix(text, 8).ok()
}

fn broken(what: &'static str) -> FetchError {
    FetchError::Layer { what }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[SIZE.start..SIZE.end - 1]
            .copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[KIND] = kind;
        block[MAGIC].copy_from_slice(b"ustar");
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(layer: &[u8]) -> Result<Vec<u8>, String> {
        let unpacked = inflate(layer).and_then(|archive| component(&archive));
        unpacked
            .map(|bytes| bytes.to_vec())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_component_is_found_in_the_archive() {
        let mut archive = entry("app/", b'5', b"");
        archive.extend(entry("LICENSE", b'0', b"free"));
        archive.extend(entry("./plugin.wasm", b'0', b"\0asm code"));
        archive.extend(vec![0; 2 * BLOCK]);
        assert_eq!(unpack(&archive).unwrap(), b"\0asm code");
        assert_eq!(unpack(&gzip(&archive)).unwrap(), b"\0asm code");
    }

    #[test]
    fn what_is_no_such_archive_is_refused() {
        let wasm = entry("a.wasm", b'0', b"code");
        let mut negative = wasm.clone();
        negative[SIZE.start] = b'-';
        let mut huge = wasm.clone();
        huge[SIZE].copy_from_slice(b"777777777777");
        let cases = [
            (Vec::new(), "no .wasm file"),
            (entry("a.txt", b'0', b"x"), "no .wasm file"),
            (entry("a.wasm", b'2', b""), "no .wasm file"),
            ([&wasm[..], &wasm[..]].concat(), "more than one"),
            (wasm[..BLOCK + 2].to_vec(), "ends in the middle"),
            (negative, "no number"),
            (huge, "ends in the middle"),
            (vec![b'x'; 2 * BLOCK], "no tar archive"),
            (gzip(&wasm)[..20].to_vec(), "damaged"),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0], "zstd"),
        ];
        for (layer, want) in cases {
            let got = unpack(&layer).unwrap_err();
            assert!(got.contains(want), "{want}: {got}");
        }
    }

    #[test]
    fn a_layer_that_grows_without_end_is_cut_off() {
        let bomb = gzip(&vec![0; 256 << 20]);
        assert!(bomb.len() < 2 << 20, "{}", bomb.len());
        let got = unpack(&bomb).unwrap_err();
        assert!(got.contains("larger than"), "{got}");
    }
}
