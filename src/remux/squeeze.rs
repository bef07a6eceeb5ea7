//! Playlists and manifests in gzip, compressed once for all viewers.
//!
//! What differs by viewer is its id, whose length does not. A text is compressed with a placeholder
//! for the id; the part up to the first id is then exchanged for a stored block, which a viewer's
//! own id can be written into: every later id is a reference back to that one. That this is so is
//! tried out with another id before anybody gets the result. So a viewer costs a copy and a
//! checksum, some microseconds, and the compressor runs once per text.

use std::io::Read as _;

use flate2::read::GzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress};

use crate::hub::segments::Squeezed;

/// Ids that no viewer has; they share no character with each other or with addresses.
pub const PLACEHOLDERS: [&str; 2] =
    ["\x01\x02\x03\x04\x05\x06\x07\x0e", "\x0f\x10\x11\x12\x13\x14\x15\x16"];
/// A shorter text is sent as it is.
const BYTES_MIN: usize = 600;
/// What a stored block can hold.
const STORED_MAX: usize = 0xffff;

/// A viewer's word with the placeholder for its id; `id` may be empty.
pub fn shape(id: &str, word: &str) -> String {
    if id.is_empty() { word.to_owned() } else { word.replacen(id, PLACEHOLDERS[0], 1) }
}

/// The word of the viewer `id`.
pub fn filled(shape: &str, id: &str) -> String {
    shape.replacen(PLACEHOLDERS[0], id, 1)
}

/// Compresses a text. `written` gives it with an id in its places, and the end of the first one
/// that follows no other text that depends on the viewer. `None` where that does not pay or cannot
/// be done.
pub fn squeeze(shape: String, written: &dyn Fn(&str) -> (Vec<u8>, usize)) -> Option<Squeezed> {
    let (text, prefix) = written(PLACEHOLDERS[0]);
    if text.len() < BYTES_MIN || prefix > STORED_MAX.min(text.len()) {
        return None;
    }
    let mut compress = Compress::new(Compression::new(6), false);
    let mut out = Vec::with_capacity(text.len() + 1_024);
    // What becomes of the prefix is not used, but later references point into it.
    if prefix > 0 {
        compress.compress_vec(&text[..prefix], &mut out, FlushCompress::Sync).ok()?;
    }
    let (read, start) = (compress.total_in(), out.len());
    compress.compress_vec(&text[prefix..], &mut out, FlushCompress::Sync).ok()?;
    if read != prefix as u64 || compress.total_in() != text.len() as u64 {
        return None;
    }
    let squeezed = Squeezed { shape, prefix, len: text.len(), tail: out.split_off(start) };
    let (other, _) = written(PLACEHOLDERS[1]);
    let packed = gzip(&squeezed, &other)?;
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).ok()?;
    (unpacked == other && packed.len() < text.len()).then_some(squeezed)
}

/// The text in gzip. It may have more behind it than what was compressed. `None` if it is another
/// one.
pub fn gzip(squeezed: &Squeezed, text: &[u8]) -> Option<Vec<u8>> {
    let more = text.get(squeezed.len..).filter(|more| more.len() <= STORED_MAX)?;
    let mut out = Vec::with_capacity(squeezed.prefix + squeezed.tail.len() + more.len() + 40);
    // RFC 1952 2.3: deflate, no flags, no time, system unknown.
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    stored(&mut out, false, &text[..squeezed.prefix]);
    out.extend_from_slice(&squeezed.tail);
    stored(&mut out, true, more);
    let mut crc = Crc::new();
    crc.update(text);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    Some(out)
}

/// A stored block (RFC 1951 3.2.4), at the begin of a byte.
fn stored(out: &mut Vec<u8>, is_last: bool, bytes: &[u8]) {
    // Callers have looked at the length.
    let len = bytes.len() as u16;
    out.push(u8::from(is_last));
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(!len).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: &str, lines: usize) -> (Vec<u8>, usize) {
        let mut out = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4?hls_ctx={id}");
        let first = out.len();
        for line in 0..lines {
            let number = 1_000 + line;
            out += &format!("#EXTINF:1.000\none-{number}.m4s?hls_ctx={id}&vhost=a.com\n");
            out += &format!("#EXT-X-PART:URI=\"one-{number}.{}.m4s?hls_ctx={id}\"\n", line % 5);
        }
        (out.into_bytes(), first)
    }

    #[test]
    fn each_viewer_gets_its_own_id() {
        for lines in [20, 100, 700] {
            let squeezed = squeeze(String::new(), &|id| text(id, lines)).unwrap();
            for id in ["abcdefgh", "aaaaaaaa", "m4s?hls_", "00000000"] {
                let (mut own, _) = text(id, lines);
                own.extend_from_slice(b"and something more");
                let packed = gzip(&squeezed, &own).unwrap();
                assert!(packed.len() * 3 < own.len(), "{} of {}", packed.len(), own.len());
                let mut unpacked = Vec::new();
                GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == own, "{id}");
            }
        }
        assert!(squeeze(String::new(), &|id| text(id, 2)).is_none());
    }

    /// How long it takes: `cargo test --release -- --ignored --nocapture squeezing`.
    #[test]
    #[ignore = "a measurement"]
    fn squeezing_takes() {
        let written = |id: &str| text(id, 100);
        let start = std::time::Instant::now();
        let times = (0..100).map(|_| squeeze(String::new(), &written));
        let squeezed = times.fold(None, |_, squeezed| squeezed).unwrap();
        let once = start.elapsed() / 100;
        let (own, _) = text("abcdefgh", 100);
        let start = std::time::Instant::now();
        let times = (0..10_000).map(|_| gzip(&squeezed, &own));
        let packed = times.fold(None, |_, packed| packed).unwrap();
        println!(
            "{} bytes to {}: once {once:?}, per viewer {:?}",
            own.len(),
            packed.len(),
            start.elapsed() / 10_000
        );
    }
}
