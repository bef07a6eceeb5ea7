//! VP9 and VP8: the codec configuration record, and the picture size that only keyframes state.

use super::bits::{Bits, CodecError};
use super::track::{Level, side};

/// The profile and level (ten times) of a VPCodecConfigurationRecord. Some muxers put the version
/// and flags of the MP4 box before it, which no record could begin with.
pub fn config(data: &[u8]) -> Result<(u8, u8), CodecError> {
    let record = data.strip_prefix(&[1, 0, 0, 0]).unwrap_or(data);
    match record {
        [profile, level, _, _, _, _, _, _, ..] if *profile <= 3 => Ok((*profile, *level)),
        [_, _, _, _, _, _, _, _, ..] => Err(CodecError::Malformed("vpcC profile")),
        _ => Err(CodecError::Truncated),
    }
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
        assert_eq!(config(&unhex("010000000115870202000000")), Ok((1, 21)));
        assert_eq!(config(&unhex("0115870202000000")), Ok((1, 21)));
        assert_eq!(config(&unhex("0015820202000000")), Ok((0, 21)));
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
