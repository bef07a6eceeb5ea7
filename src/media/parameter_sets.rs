//! What H.264 and H.265 write alike: parameter sets in a decoder configuration record, and parts of
//! the sequence parameter set.

use super::bits::{Bits, CodecError};
use super::colour::Colour;
use crate::limits::PARAMETER_SETS_MAX;

/// Bytes of the length before each NAL unit: 1, 2 or 4 (`lengthSizeMinusOne`).
pub(super) fn length_size(byte: u8) -> Result<u8, CodecError> {
    match (byte & 3) + 1 {
        3 => Err(CodecError::Malformed("NAL length size")),
        size => Ok(size),
    }
}

/// Adds `count` NAL units, each behind its 16-bit length, to `sets`; returns what is behind them.
pub(super) fn read_sets<'a>(
    mut rest: &'a [u8],
    count: u16,
    sets: &mut Vec<&'a [u8]>,
) -> Result<&'a [u8], CodecError> {
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (set, behind) = behind.split_at_checked(length).ok_or(CodecError::Truncated)?;
        if sets.len() < PARAMETER_SETS_MAX {
            sets.push(set);
        }
        rest = behind;
    }
    Ok(rest)
}

/// Takes the conformance (cropping) window, where there is one, off a picture's width and height.
/// Its units are chroma samples, and rows of one field.
pub(super) fn crop(
    bits: &mut Bits<'_>,
    (width, height): (u64, u64),
    chroma_format: u32,
    fields: u64,
) -> Result<(u64, u64), CodecError> {
    if !bits.bit()? {
        return Ok((width, height));
    }
    let (unit_x, unit_y) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let (left, right) = (bits.ue()?, bits.ue()?);
    let (top, bottom) = (bits.ue()?, bits.ue()?);
    let across = (u64::from(left) + u64::from(right)) * unit_x;
    let down = (u64::from(top) + u64::from(bottom)) * unit_y * fields;
    Ok((width.saturating_sub(across), height.saturating_sub(down)))
}

/// The first part of the VUI: aspect ratio to chroma location (H.264 E.1.1, H.265 E.2.1). Gives
/// the colours, where they are stated.
pub(super) fn vui_head(bits: &mut Bits<'_>) -> Result<Option<Colour>, CodecError> {
    const EXTENDED_SAR: u32 = 255;
    if bits.bit()? && bits.bits(8)? == EXTENDED_SAR {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.bit()?;
    }
    let mut colour = None;
    if bits.bit()? {
        bits.skip(3)?;
        let full_range = bits.bit()?;
        if bits.bit()? {
            colour = Some(Colour::read(bits, full_range)?);
        } else if full_range {
            colour = Some(Colour { full_range, ..Colour::UNSPECIFIED });
        }
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    Ok(colour)
}
