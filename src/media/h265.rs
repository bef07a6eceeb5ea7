//! H.265: the decoder configuration record (ISO 14496-15 8.3.3.1) and the SPS (H.265 7.3.2.2).

use super::bits::{Bits, CodecError};
use super::colour::Colour;
use super::nal::rbsp;
use super::parameter_sets::{self, crop, read_sets, vui_head};
use super::track::{Fps, Level, side};

/// An HEVCDecoderConfigurationRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<'a> {
    /// general_profile_idc.
    pub profile: u8,
    /// The high tier.
    pub high_tier: bool,
    /// general_level_idc: thirty times the level.
    pub level: u8,
    /// The average frame rate, if stated.
    pub fps: Option<Fps>,
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// The parameter sets (and SEI) in the record, as NAL units.
    pub sets: Vec<&'a [u8]>,
}

impl Config<'_> {
    /// The first sequence parameter set.
    pub fn sps(&self) -> Option<&[u8]> {
        self.sets.iter().copied().find(|nal| nal_type(nal) == Some(NAL_SPS))
    }
}

/// Reads an HEVCDecoderConfigurationRecord.
pub fn config(data: &[u8]) -> Result<Config<'_>, CodecError> {
    let (head, mut rest) = data.split_first_chunk::<23>().ok_or(CodecError::Truncated)?;
    // Version 0 was written by early muxers, with the same layout.
    if head[0] > 1 {
        return Err(CodecError::Malformed("hvcC version"));
    }
    let length_size = parameter_sets::length_size(head[21])?;
    let mut sets = Vec::new();
    for _ in 0..head[22] {
        let (array, behind) = rest.split_first_chunk::<3>().ok_or(CodecError::Truncated)?;
        rest = read_sets(behind, u16::from_be_bytes([array[1], array[2]]), &mut sets)?;
    }
    // In frames per 256 seconds.
    let fps = Fps::from_ticks(u64::from(u16::from_be_bytes([head[19], head[20]])), 256);
    Ok(Config {
        profile: head[1] & 0x1f,
        high_tier: head[1] & 0x20 != 0,
        level: head[12],
        fps,
        length_size,
        sets,
    })
}

/// What the server wants to know of a sequence parameter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// general_profile_idc.
    pub profile: u8,
    /// general_level_idc: thirty times the level.
    pub level: u8,
    /// Pixels across, after cropping.
    pub width: u32,
    /// Pixels down, after cropping.
    pub height: u32,
    /// Chroma format: 0 is none, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
    /// What stands behind the size, as far as it could be read.
    pub more: More,
}

/// The parts of a sequence parameter set that lie behind many others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// The frame rate, if the VUI states one.
    pub fps: Option<Fps>,
    /// Bits of a luma sample.
    pub bit_depth: Option<u8>,
    /// How many pictures may come before one that is shown earlier.
    pub reorder: Option<u8>,
    /// The colours, if the VUI states them.
    pub colour: Option<Colour>,
}

/// Reads a sequence parameter set: a NAL unit with its two header bytes.
pub fn sps(nal: &[u8]) -> Result<Sps, CodecError> {
    if nal_type(nal).ok_or(CodecError::Truncated)? != NAL_SPS {
        return Err(CodecError::Malformed("SPS type"));
    }
    let payload = rbsp(nal.get(2..).ok_or(CodecError::Truncated)?);
    let mut bits = Bits::new(&payload);
    bits.skip(4)?;
    let sub_layers = bits.bits(3)?;
    if sub_layers > 6 {
        return Err(CodecError::Malformed("sub-layers"));
    }
    bits.bit()?;
    let (profile, level) = profile_tier_level(&mut bits, sub_layers)?;
    bits.ue_max(15, "SPS id")?;
    let mut chroma_format = bits.ue_max(3, "chroma format")?;
    let chroma = chroma_format as u8;
    if chroma_format == 3 && bits.bit()? {
        chroma_format = 0;
    }
    let coded = (u64::from(bits.ue()?), u64::from(bits.ue()?));
    let (width, height) = crop(&mut bits, coded, chroma_format, 1)?;
    // The way to the VUI is long; whatever goes wrong on it costs what lies behind only.
    let mut more = More::default();
    let _ = read_more(&mut bits, sub_layers, &mut more);
    Ok(Sps {
        profile,
        level,
        width: side(width, "picture width")?,
        height: side(height, "picture height")?,
        chroma,
        more,
    })
}

/// H.265 7.3.3, as far as the general profile and level.
fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(u8, u8), CodecError> {
    bits.skip(3)?;
    let profile = bits.bits(5)? as u8;
    bits.skip(32 + 48)?;
    let level = bits.bits(8)? as u8;
    let mut present = [(false, false); 6];
    for flags in present.iter_mut().take(sub_layers as usize) {
        *flags = (bits.bit()?, bits.bit()?);
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers as usize))?;
    }
    for (has_profile, has_level) in present {
        bits.skip(if has_profile { 88 } else { 0 })?;
        bits.skip(if has_level { 8 } else { 0 })?;
    }
    Ok((profile, level))
}

/// The rest of an SPS from the bit depths to the timing information of the VUI.
fn read_more(bits: &mut Bits<'_>, sub_layers: u32, more: &mut More) -> Result<(), CodecError> {
    more.bit_depth = Some(bits.ue_max(8, "bit depth")? as u8 + 8);
    bits.ue_max(8, "bit depth")?;
    let order_bits = bits.ue_max(12, "picture order size")? + 4;
    let ordering_infos = if bits.bit()? { sub_layers + 1 } else { 1 };
    for _ in 0..ordering_infos {
        bits.ue()?;
        // The last is that of all sub-layers together.
        more.reorder = Some(bits.ue_max(16, "reorder depth")? as u8);
        bits.ue()?;
    }
    for _ in 0..6 {
        bits.ue()?;
    }
    if bits.bit()? && bits.bit()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?;
    if bits.bit()? {
        bits.skip(8)?;
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
    }
    skip_short_term_sets(bits)?;
    if bits.bit()? {
        for _ in 0..bits.ue_max(32, "long-term pictures")? {
            bits.skip(order_bits as usize + 1)?;
        }
    }
    bits.skip(2)?;
    if !bits.bit()? {
        return Ok(());
    }
    more.colour = vui_head(bits)?;
    bits.skip(3)?;
    if bits.bit()? {
        for _ in 0..4 {
            bits.ue()?;
        }
    }
    if bits.bit()? {
        let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
        more.fps = Fps::from_ticks(u64::from(scale), u64::from(units));
    }
    Ok(())
}

/// H.265 7.3.4.
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Result<(), CodecError> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.bit()? {
                bits.ue()?;
                continue;
            }
            if size > 1 {
                bits.se()?;
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                bits.se()?;
            }
        }
    }
    Ok(())
}

/// H.265 7.3.7 for all sets. Each may be written as a difference to the one before it, so the
/// number of pictures in that one is kept.
fn skip_short_term_sets(bits: &mut Bits<'_>) -> Result<(), CodecError> {
    let mut before = 0;
    for set in 0..bits.ue_max(64, "short-term sets")? {
        let mut pictures = 0;
        if set > 0 && bits.bit()? {
            bits.bit()?;
            bits.ue()?;
            for _ in 0..=before {
                // Not used by the current picture, then perhaps by a later one.
                if bits.bit()? || bits.bit()? {
                    pictures += 1;
                }
            }
        } else {
            pictures = bits.ue_max(16, "short-term pictures")?;
            pictures += bits.ue_max(16, "short-term pictures")?;
            for _ in 0..pictures {
                bits.ue()?;
                bits.bit()?;
            }
        }
        before = pictures;
    }
    Ok(())
}

/// The name of a profile.
pub fn profile_name(profile: u8) -> &'static str {
    match profile {
        1 => "Main",
        2 => "Main 10",
        3 => "Main Still Picture",
        4 => "Range Extensions",
        5 => "High Throughput",
        9 => "Screen Content",
        _ => "",
    }
}

/// A general_level_idc as a level; 0 has none.
pub fn level(level: u8) -> Option<Level> {
    (level > 0).then_some(Level { major: level / 30, minor: level % 30 / 3 })
}

/// Whether a NAL unit of this first header byte is a slice of a picture that decoding can start at:
/// BLA, IDR or CRA (H.265 table 7-1).
pub fn is_keyframe_unit(header: u8) -> bool {
    (16..=21).contains(&(header >> 1 & 0x3f))
}

fn nal_type(nal: &[u8]) -> Option<u8> {
    nal.first().map(|header| header >> 1 & 0x3f)
}

const NAL_SPS: u8 = 33;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    const MAIN_1918X1078: &str = "
        0101600000009000000000007bf000fcfdf8f800000f03200001001840010c01ffff01600000030090000003
        000003007b959809210001002b42010101600000030090000003000003007ba003c08010e75596566924caf0
        16808000000300800000190422000100074401c172b46240";

    #[test]
    fn main_with_conformance_window() {
        let record = unhex(MAIN_1918X1078);
        let config = config(&record).unwrap();
        assert_eq!((config.profile, config.length_size, config.sets.len()), (1, 4, 3));
        assert_eq!(level(config.level), Some(Level { major: 4, minor: 1 }));
        assert!(!config.high_tier);
        let sps = sps(config.sps().unwrap()).unwrap();
        assert_eq!((sps.width, sps.height, sps.more.fps), (1918, 1078, Some(Fps(50_000))));
        assert_eq!(profile_name(sps.profile), "Main");
        for end in 0..record.len() {
            assert!(super::config(&record[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn main_10() {
        let record = unhex(
            "0102200000009000000000003ff000fcfdfafa00001301210001002d42010202200000030090000003
             000003003f0000a0050201693659594acb249caf01680800001f480002ee0040",
        );
        let config = config(&record).unwrap();
        let sps = sps(config.sps().unwrap()).unwrap();
        assert_eq!((sps.width, sps.height, sps.more.fps), (640, 360, Some(Fps(23_976))));
        assert_eq!((sps.chroma, sps.more.bit_depth, sps.more.reorder), (1, Some(10), Some(2)));
        assert_eq!(profile_name(sps.profile), "Main 10");
    }

    #[test]
    fn a_cut_tail_costs_the_frame_rate_only() {
        let record = unhex(MAIN_1918X1078);
        let whole = config(&record).unwrap().sps().unwrap().to_vec();
        let cut = sps(&whole[..30]).unwrap();
        assert_eq!((cut.width, cut.height, cut.more.fps), (1918, 1078, None));
        assert_eq!(sps(&whole[..12]), Err(CodecError::Truncated));
        assert_eq!(sps(&[]), Err(CodecError::Truncated));
        assert_eq!(sps(&[0x40, 1, 2]), Err(CodecError::Malformed("SPS type")));
    }

    #[test]
    fn keyframe_units() {
        assert!(is_keyframe_unit(19 << 1) && is_keyframe_unit(21 << 1));
        assert!(!is_keyframe_unit(1 << 1) && !is_keyframe_unit(32 << 1));
    }
}
