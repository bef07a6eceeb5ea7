//! VP9 and VP8: the codec configuration record, and the picture size that only keyframes state.

use super::bits::{Bits, CodecError};
use super::colour::Colour;
use super::track::{Level, side};

/// A VPCodecConfigurationRecord (VP codec ISO media file format binding, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The profile, 0 to 3.
    pub profile: u8,
    /// Ten times the level; 0 is unknown.
    pub level: u8,
    /// Bits of a sample.
    pub bit_depth: u8,
    /// Chroma format: 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
    /// The colours.
    pub colour: Colour,
    /// The record itself, as the MP4 box has it behind version and flags.
    pub record: [u8; 8],
}

/// Reads a VPCodecConfigurationRecord. Some muxers put the version and flags of the MP4 box before
/// it, which no record could begin with.
pub fn config(data: &[u8]) -> Result<Config, CodecError> {
    let record = data.strip_prefix(&[1, 0, 0, 0]).unwrap_or(data);
    let record = *record.first_chunk::<8>().ok_or(CodecError::Truncated)?;
    let [profile, level, samples, primaries, transfer, matrix, _, _] = record;
    if profile > 3 {
        return Err(CodecError::Malformed("vpcC profile"));
    }
    Ok(Config {
        profile,
        level,
        bit_depth: samples >> 4,
        // 0 and 1 are both 4:2:0, with the chroma samples at other places.
        chroma: (samples >> 1 & 7).max(1),
        colour: Colour { primaries, transfer, matrix, full_range: samples & 1 == 1 },
        record,
    })
}

/// The width and height of a VP9 keyframe (VP9 6.2); `None` for any other frame.
pub fn vp9_size(frame: &[u8]) -> Result<Option<(u32, u32)>, CodecError> {
    let mut bits = Bits::new(frame);
    if bits.bits(2)? != 2 {
        return Err(CodecError::Malformed("VP9 frame marker"));
    }
    let profile = bits.bits(1)? | bits.bits(1)? << 1;
    if profile == 3 {
        bits.bit()?;
    }
    let show_existing = bits.bit()?;
    if show_existing || bits.bit()? {
        return Ok(None);
    }
    bits.skip(2)?;
    if bits.bits(24)? != 0x49_83_42 {
        return Err(CodecError::Malformed("VP9 sync code"));
    }
    if profile >= 2 {
        bits.bit()?;
    }
    const COLOUR_RGB: u32 = 7;
    if bits.bits(3)? != COLOUR_RGB {
        bits.bit()?;
        if profile & 1 == 1 {
            bits.skip(3)?;
        }
    } else if profile & 1 == 1 {
        bits.bit()?;
    }
    let (width, height) = (bits.bits(16)? + 1, bits.bits(16)? + 1);
    Ok(Some((side(u64::from(width), "picture width")?, side(u64::from(height), "picture height")?)))
}

/// The width and height of a VP8 keyframe (RFC 6386 9.1); `None` for any other frame.
pub fn vp8_size(frame: &[u8]) -> Result<Option<(u32, u32)>, CodecError> {
    let first = frame.first().ok_or(CodecError::Truncated)?;
    if first & 1 != 0 {
        return Ok(None);
    }
    let &[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = frame else {
        return Err(CodecError::Malformed("VP8 keyframe"));
    };
    // The top two bits of each are an upscaling hint.
    let width = u16::from_le_bytes([w0, w1]) & 0x3fff;
    let height = u16::from_le_bytes([h0, h1]) & 0x3fff;
    Ok(Some((side(u64::from(width), "picture width")?, side(u64::from(height), "picture height")?)))
}

/// The name of a VP9 profile.
pub fn profile_name(profile: u8) -> &'static str {
    match profile {
        0 => "Profile 0",
        1 => "Profile 1",
        2 => "Profile 2",
        3 => "Profile 3",
        _ => "",
    }
}

/// A VP9 level, ten times, as a level; 0 has none.
pub fn level(level: u8) -> Option<Level> {
    (level > 0).then_some(Level { major: level / 10, minor: level % 10 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn record_with_and_without_box_header() {
        let one = config(&unhex("010000000115870202000000")).unwrap();
        assert_eq!((one.profile, one.level, one.bit_depth, one.chroma), (1, 21, 8, 3));
        assert!(one.colour.full_range);
        assert_eq!(config(&unhex("0115870202000000")), Ok(one));
        let zero = config(&unhex("0015820202020000")).unwrap();
        assert_eq!((zero.profile, zero.level, zero.chroma), (0, 21, 1));
        assert_eq!(zero.colour, Colour::UNSPECIFIED);
        assert_eq!(config(&[0, 21]), Err(CodecError::Truncated));
        assert_eq!(config(&[9; 8]), Err(CodecError::Malformed("vpcC profile")));
    }

    #[test]
    fn keyframe_sizes() {
        assert_eq!(vp9_size(&unhex("a2498342e027f016760638241c184a10")), Ok(Some((640, 360))));
        assert_eq!(vp8_size(&unhex("909c009d012a8002680100470885")), Ok(Some((640, 360))));
        assert_eq!(vp8_size(&[0x91]), Ok(None));
        assert_eq!(vp9_size(&[0x86]), Ok(None));
        assert!(vp9_size(&[0]).is_err() && vp8_size(&[]).is_err() && vp8_size(&[0x90]).is_err());
    }
}
