//! AV1: the codec configuration record (AV1-ISOBMFF 2.3.3) and the sequence header OBU (AV1 5.5).

use super::bits::{Bits, CodecError};
use super::colour::Colour;
use super::track::{Fps, Level, side};

/// What the server wants to know of a sequence header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// seq_profile.
    pub profile: u8,
    /// seq_level_idx of the first operating point; 31 means any size.
    pub level: u8,
    /// Pixels across, at most.
    pub width: u32,
    /// Pixels down, at most.
    pub height: u32,
    /// The frame rate, if stated.
    pub fps: Option<Fps>,
    /// What the samples are; `None` where the header breaks off before it.
    pub format: Option<Format>,
}

/// AV1 5.5.2, color_config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Bits of a sample.
    pub bit_depth: u8,
    /// Chroma format: 0 is none, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
    /// The colours.
    pub colour: Colour,
}

/// The parts of an AV1CodecConfigurationRecord: seq_profile, seq_level_idx and the OBUs in it.
pub fn config(data: &[u8]) -> Result<(u8, u8, &[u8]), CodecError> {
    let (head, obus) = data.split_first_chunk::<4>().ok_or(CodecError::Truncated)?;
    if head[0] != 0x81 {
        return Err(CodecError::Malformed("av1C marker"));
    }
    Ok((head[1] >> 5, head[1] & 0x1f, obus))
}

/// One OBU of the low-overhead format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obu<'a> {
    /// obu_type.
    pub kind: u8,
    /// Its payload.
    pub payload: &'a [u8],
    /// All of it, header and size included.
    pub whole: &'a [u8],
}

/// The OBUs of a temporal unit in the low-overhead format (AV1 5.2). Ends at the first that cannot
/// be read, which it reports.
pub fn obus(data: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, CodecError>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let obu = first_obu(rest);
        rest = obu.as_ref().map_or(&[][..], |obu| &rest[obu.whole.len()..]);
        Some(obu)
    })
}

fn first_obu(data: &[u8]) -> Result<Obu<'_>, CodecError> {
    let (header, rest) = data.split_first().ok_or(CodecError::Truncated)?;
    if header & 0x80 != 0 {
        return Err(CodecError::Malformed("OBU header"));
    }
    let rest = if header & 4 != 0 { rest.get(1..).ok_or(CodecError::Truncated)? } else { rest };
    let (size, rest) = if header & 2 != 0 { leb128(rest)? } else { (rest.len() as u64, rest) };
    let size = usize::try_from(size).map_err(|_| CodecError::Truncated)?;
    let (payload, behind) = rest.split_at_checked(size).ok_or(CodecError::Truncated)?;
    let whole = &data[..data.len() - behind.len()];
    Ok(Obu { kind: header >> 3 & 0xf, payload, whole })
}

/// Finds and reads the sequence header among OBUs of the low-overhead format.
pub fn sequence(data: &[u8]) -> Result<Sequence, CodecError> {
    for obu in obus(data) {
        let obu = obu?;
        if obu.kind == OBU_SEQUENCE_HEADER {
            return sequence_header(obu.payload);
        }
    }
    Err(CodecError::Truncated)
}

/// AV1 4.10.5.
fn leb128(data: &[u8]) -> Result<(u64, &[u8]), CodecError> {
    let mut value = 0;
    for (index, byte) in data.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &data[index + 1..]));
        }
    }
    Err(CodecError::Malformed("leb128"))
}

/// AV1 5.5.1, up to the picture size.
fn sequence_header(obu: &[u8]) -> Result<Sequence, CodecError> {
    let mut bits = Bits::new(obu);
    let profile = bits.bits(3)? as u8;
    bits.bit()?;
    let mut fps = None;
    let level;
    let reduced = bits.bit()?;
    if reduced {
        // reduced_still_picture_header
        level = bits.bits(5)? as u8;
    } else {
        let mut delay_bits = None;
        if bits.bit()? {
            fps = timing(&mut bits)?;
            if bits.bit()? {
                delay_bits = Some(bits.bits(5)? as usize + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delay = bits.bit()?;
        let mut first = 0;
        for point in 0..=bits.bits(5)? {
            bits.skip(12)?;
            let point_level = bits.bits(5)? as u8;
            if point == 0 {
                first = point_level;
            }
            if point_level > 7 {
                bits.bit()?;
            }
            if let Some(delay_bits) = delay_bits
                && bits.bit()?
            {
                bits.skip(2 * delay_bits + 1)?;
            }
            if display_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
        level = first;
    }
    let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    let (width, height) = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
    Ok(Sequence {
        profile,
        level,
        width: side(u64::from(width), "picture width")?,
        height: side(u64::from(height), "picture height")?,
        fps,
        format: format(&mut bits, profile, reduced).ok(),
    })
}

/// The rest of a sequence header up to and with color_config.
fn format(bits: &mut Bits<'_>, profile: u8, reduced: bool) -> Result<Format, CodecError> {
    if !reduced && bits.bit()? {
        bits.skip(4 + 3)?;
    }
    bits.skip(3)?;
    if !reduced {
        bits.skip(4)?;
        let order_hint = bits.bit()?;
        if order_hint {
            bits.skip(2)?;
        }
        // Chosen per frame, or else the value for all of them.
        let screen_content = bits.bit()? || bits.bit()?;
        if screen_content && !bits.bit()? {
            bits.bit()?;
        }
        if order_hint {
            bits.skip(3)?;
        }
    }
    bits.skip(3)?;
    let high = bits.bit()?;
    let bit_depth = match (profile, high) {
        (2, true) if bits.bit()? => 12,
        (_, true) => 10,
        (_, false) => 8,
    };
    let mono = profile != 1 && bits.bit()?;
    let described = bits.bit()?;
    let mut colour = if described { Colour::read(bits, false)? } else { Colour::UNSPECIFIED };
    const SRGB: (u8, u8, u8) = (1, 13, 0);
    if mono {
        colour.full_range = bits.bit()?;
        return Ok(Format { bit_depth, chroma: 0, colour });
    }
    if (colour.primaries, colour.transfer, colour.matrix) == SRGB {
        colour.full_range = true;
        return Ok(Format { bit_depth, chroma: 3, colour });
    }
    colour.full_range = bits.bit()?;
    let chroma = match (profile, bit_depth) {
        (0, _) => 1,
        (1, _) => 3,
        (_, 12) => match (bits.bit()?, bits.bit()?) {
            (true, true) => 1,
            (true, false) => 2,
            _ => 3,
        },
        _ => 2,
    };
    Ok(Format { bit_depth, chroma, colour })
}

/// AV1 5.5.3.
fn timing(bits: &mut Bits<'_>) -> Result<Option<Fps>, CodecError> {
    let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
    let ticks = if bits.bit()? { u64::from(bits.ue()?) + 1 } else { 1 };
    Ok(Fps::from_ticks(u64::from(scale), u64::from(units).saturating_mul(ticks)))
}

/// The name of a profile.
pub fn profile_name(profile: u8) -> &'static str {
    match profile {
        0 => "Main",
        1 => "High",
        2 => "Professional",
        _ => "",
    }
}

/// A seq_level_idx as a level; 31 has none.
pub fn level(level: u8) -> Option<Level> {
    (level < 24).then_some(Level { major: 2 + (level >> 2), minor: level & 3 })
}

/// obu_type of a sequence header (AV1 6.2.2).
pub const OBU_SEQUENCE_HEADER: u8 = 1;
/// obu_type of a temporal delimiter.
pub const OBU_TEMPORAL_DELIMITER: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn configuration_record() {
        let record = unhex("81010c000a0b0000000cc4ff6700be0010");
        let (profile, level, obus) = config(&record).unwrap();
        assert_eq!(
            (profile_name(profile), super::level(level).unwrap().to_string().as_str()),
            ("Main", "2.1")
        );
        let sequence = sequence(obus).unwrap();
        assert_eq!((sequence.width, sequence.height, sequence.fps), (640, 360, None));
        let format = sequence.format.unwrap();
        assert_eq!((format.bit_depth, format.chroma), (8, 1));
        assert_eq!(format.colour, Colour::UNSPECIFIED);
        for end in 0..10 {
            let obus = &record[4..4 + end];
            assert!(super::sequence(obus).is_err(), "{end}");
        }
        assert_eq!(config(&record[..3]), Err(CodecError::Truncated));
        assert_eq!(config(&[0x01, 0, 0, 0]), Err(CodecError::Malformed("av1C marker")));
    }

    #[test]
    fn sizes_that_lie() {
        assert_eq!(sequence(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(CodecError::Truncated));
        let endless = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(sequence(&endless), Err(CodecError::Malformed("leb128")));
        assert_eq!(sequence(&[]), Err(CodecError::Truncated));
    }
}
