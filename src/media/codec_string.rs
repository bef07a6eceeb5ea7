//! The names of codecs as browsers and playlists want them (RFC 6381 and the codecs' documents):
//! `avc1.64001f`, `mp4a.40.2`.

use super::codec::{AudioCodec, VideoCodec};
use super::unit::{AudioConfig, AudioDetail, VideoConfig};

impl VideoConfig {
    /// The codec with profile and level, for a `codecs` parameter. `None` if the record is too
    /// short to tell.
    pub fn codec_string(&self) -> Option<String> {
        let record = &self.record[..];
        match self.codec {
            VideoCodec::H264 => {
                let [_, profile, constraints, level, ..] = record else { return None };
                Some(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
            }
            VideoCodec::H265 => h265(record.first_chunk()?),
            VideoCodec::Av1 => {
                let [_, first, second, ..] = record else { return None };
                let (profile, level) = (first >> 5, first & 31);
                let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
                let bits = match (second & 0x40 != 0, second & 0x20 != 0) {
                    (false, _) => 8,
                    (true, false) => 10,
                    (true, true) => 12,
                };
                Some(format!("av01.{profile}.{level:02}{tier}.{bits:02}"))
            }
            VideoCodec::Vp9 => {
                let [profile, level, samples, ..] = record else { return None };
                // A level of 0 is not known; players ask for one all the same.
                let level = if *level == 0 { 10 } else { *level };
                Some(format!("vp09.{profile:02}.{level:02}.{:02}", samples >> 4))
            }
            VideoCodec::Vp8 => Some("vp8".into()),
        }
    }
}

/// ISO 14496-15 E.3.
fn h265(head: &[u8; 13]) -> Option<String> {
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let (profile, tier) = (head[1] & 31, if head[1] & 0x20 == 0 { 'L' } else { 'H' });
    let flags = u32::from_be_bytes([head[2], head[3], head[4], head[5]]).reverse_bits();
    let mut out = format!("hvc1.{space}{profile}.{flags:X}.{tier}{}", head[12]);
    let constraints = &head[6..12];
    let len = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..len] {
        out += &format!(".{byte:X}");
    }
    Some(out)
}

impl AudioConfig {
    /// The codec with its profile, for a `codecs` parameter. `None` for what has no such name.
    pub fn codec_string(&self) -> Option<String> {
        let name = match (&self.detail, self.codec) {
            (AudioDetail::Aac(config, _), _) => {
                let object_type = match config {
                    config if config.ps => 29,
                    config if config.sbr => 5,
                    config => config.object_type,
                };
                return Some(format!("mp4a.40.{object_type}"));
            }
            (AudioDetail::Mp3(_), _) => "mp4a.40.34",
            (AudioDetail::Opus(_), _) => "opus",
            (AudioDetail::Flac(_), _) => "flac",
            (AudioDetail::Ac3(_), AudioCodec::Eac3) => "ec-3",
            (AudioDetail::Ac3(_), _) => "ac-3",
            (AudioDetail::G711, _) => return None,
        };
        Some(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn names_of_pictures() {
        for (codec, record, expected) in [
            (
                VideoCodec::H264,
                "0164001fffe100196764001facd940a02ff9701100000303e90000ea600f18319601000668ebe3cb22\
                 c0fdf8f800",
                "avc1.64001f",
            ),
            (
                VideoCodec::H265,
                "0101600000009000000000007bf000fcfdf8f800000f00",
                "hvc1.1.6.L123.90",
            ),
            (VideoCodec::Av1, "81050c000a0b0000002d4cffb3c0", "av01.0.05M.08"),
            (VideoCodec::Vp9, "010000000015820202020000", "vp09.00.21.08"),
        ] {
            let config = VideoConfig::read(codec, &unhex(record)).unwrap();
            assert_eq!(config.codec_string().as_deref(), Some(expected));
        }
    }

    #[test]
    fn names_of_sound() {
        for (record, expected) in [
            (&[0x12, 0x10][..], "mp4a.40.2"),
            (&[0x13, 0x10, 0x56, 0xe5, 0x98], "mp4a.40.5"),
            (&[0xeb, 0x09, 0x88, 0x00], "mp4a.40.29"),
        ] {
            let config = AudioConfig::read(AudioCodec::Aac, record).unwrap();
            assert_eq!(config.codec_string().as_deref(), Some(expected));
        }
    }
}
